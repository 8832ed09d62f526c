//! The challenge of a response that is handed out, and what can be done about it above the layer.

#[path = "../examples/step_up/step_up.rs"]
mod step_up;

/// Behaviour 180.
#[tokio::test]
async fn a_challenge_can_be_answered_above_the_layer_and_rounds_are_capped() {
    assert_eq!(
        step_up::run().await.unwrap(),
        [
            "/read: 200 after 1, Bearer token",
            "/write: 200 after 2, Bearer token.write",
            "/secret: 200 after 2, Bearer token.c1",
            "/admin: 403 after 1, Bearer token",
            "/greedy: 403 after 3, Bearer token",
            "/sign-in: 401 after 1, Bearer token",
        ]
    );
}
