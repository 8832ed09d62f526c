//! Spry's whole path over real connections, as the example of that name goes it.

#[path = "../examples/spry_authorization_code/flow.rs"]
mod flow;

/// Behaviour 79.
#[tokio::test]
async fn a_person_signs_in_and_the_token_is_renewed_at_the_other_path() {
    let seen = flow::run(false).await.unwrap();
    assert_eq!(
        seen,
        [
            "GET /apis/v2/oauth/authorize (a person signs in)",
            "POST /apis/v2/oauth/token (authorization_code)",
            "POST /apis/v1/oauth/token (refresh_token)",
        ]
    );
}
