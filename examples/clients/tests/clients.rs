//! Each client of the examples, offline.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use clients_example::{generated, kubernetes, stack};

/// Behaviours 61, 62.
#[tokio::test]
async fn kube_gets_a_token_and_sends_an_object_twice() {
    assert_eq!(
        kubernetes::run().await.unwrap(),
        [
            "GET /api/v1/namespaces/default/configmaps/settings: 200",
            "PUT /api/v1/namespaces/default/configmaps/settings: 401",
            "PUT /api/v1/namespaces/default/configmaps/settings: 200",
            r#"stored: {"colour": "blue"}"#,
            "token requests: 2",
        ]
    );
}

/// Behaviours 15, 61, 95.
#[tokio::test]
async fn a_generated_client_shares_a_token_and_keeps_its_tenant() {
    assert_eq!(
        generated::run().await.unwrap(),
        [
            "created 7: a lamp for north",
            "got 7: of north",
            "created 7: a lamp for south",
            "got 7: of south",
            "POST /orders: 200",
            "GET /orders/7: 401",
            "GET /orders/7: 200",
            "POST /orders: 200",
            "GET /orders/7: 401",
            "GET /orders/7: 200",
            "token requests: 3",
        ]
    );
}

/// Behaviours 60, 99.
#[tokio::test]
async fn layers_outside_see_one_request_and_those_inside_each_sending() {
    assert_eq!(
        stack::run().await.unwrap(),
        [
            "200: stock: 7 bolts",
            "200: two bolts",
            "refused: https://elsewhere.example",
            "GET /stock: 200",
            "POST /moved: 401",
            "POST /moved: 307",
            "POST /orders: 200",
            "GET /elsewhere: 302",
            "requests outside: 3",
            "sendings inside: 5",
            "token requests: 2",
        ]
    );
}
