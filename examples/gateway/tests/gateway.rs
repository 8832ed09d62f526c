//! The gateway of the example of that name.

#[path = "../src/gateway.rs"]
mod gateway;

/// Behaviour 181.
#[tokio::test]
async fn a_gateway_calls_two_apis_on_behalf_of_its_callers() {
    assert_eq!(
        gateway::run().await.unwrap(),
        [
            "anna: 200 orders: 200, stock: 200",
            "berta: 200 orders: 200, stock: 200",
            "anna: 200 orders: 200, stock: 200",
            "nobody: 401",
            "exchanged token-of-anna for orders",
            "exchanged token-of-anna for stock",
            "exchanged token-of-berta for orders",
            "exchanged token-of-berta for stock",
        ]
    );
}
