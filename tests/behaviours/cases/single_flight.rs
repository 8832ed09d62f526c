//! Single flight: however many wait, one token request.

use std::sync::Arc;

use crate::cases;
use crate::subject::{Offered, Subject, World, get, send_all};

cases! {
    /// Behaviour 1.
    1, "cold herd: 1000 requests without a token make one token request", cold_herd;
}

async fn cold_herd(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let client = world.client(&subject)?;
    for response in send_all(&client, (0..1000).map(|_| get("/"))).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(world.auth.token_requests(), 1);
    Ok(())
}
