//! Retries, timeouts and limits: what goes outside the layer and what inside. Runs offline, on a clock of its own:
//! `cargo run --example retry_timeout`.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower::retry::{Policy, RetryLayer};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Body, Fault, TestClock};
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, Error};

/// Retries what may pass by itself, as often as it is told to. (Feature `retry` has one with a budget: `RetryTokenErrors`.)
///
/// A 401 is no business of it: the layer has done what can be done. A failed *token request* is: it says whether trying
/// again may help, and when. Before that, another attempt would only get the same error once more.
#[derive(Clone)]
struct WhenToldTo {
    left: u32,
}

impl Policy<Request<String>, Response<Body>, Error> for WhenToldTo {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(&mut self, _: &mut Request<String>, result: &mut Result<Response<Body>, Error>) -> Option<Self::Future> {
        let error = result.as_ref().err().filter(|error| error.is_retryable())?;
        self.left = self.left.checked_sub(1)?;
        let pause = error.retry_after().unwrap_or(Duration::from_millis(100));
        println!("  retry in {pause:.1?}: {}", error.token().map(ToString::to_string).unwrap_or_default());
        Some(Box::pin(tokio::time::sleep(pause)))
    }

    fn clone_request(&mut self, request: &Request<String>) -> Option<Request<String>> {
        Some(request.clone())
    }
}

// The clock is paused: it jumps to the next timer as soon as all wait, so that the example takes no time.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    tokio::time::pause();
    let clock = TestClock::new();
    let auth_server = AuthServer::new(clock.clone()).client("my-client", "my-secret");
    let api = Api::new(&auth_server);

    let cfg =
        AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("my-client", "my-secret"))
            .origin("https://api.example.com")
            .clock(clock)
            .build()?;
    // The servers are in this process, so that token requests go straight to one of them.
    let auth = AuthLayer::builder(cfg).http_client(auth_server.clone()).build()?;
    let tokens = auth.handle();

    let client = ServiceBuilder::new()
        // Outside: it holds for everything, waiting for tokens, resends and retries included.
        .timeout(Duration::from_secs(30))
        .layer(RetryLayer::new(WhenToldTo { left: 3 }))
        .layer(auth)
        // Inside: each sending has a timeout of its own. Waiting for a token is none of its business.
        .timeout(Duration::from_secs(5))
        // Inside: a request that waits for a token holds no permit.
        .concurrency_limit(1)
        .service(api.clone());
    let send = async || {
        let start = Instant::now();
        let order = Request::post("https://api.example.com/orders").body(String::from("an order"))?;
        match client.clone().oneshot(order).await {
            Ok(response) => println!("  {} after {:.1?}", response.status(), start.elapsed()),
            Err(error) => println!("  error after {:.1?}: {}", start.elapsed(), chain(&*error)),
        }
        Ok::<_, http::Error>(())
    };

    println!("the authorization server asks for 20 s of patience, then works:");
    auth_server.script([Fault::RetryAfter(503, 20)]);
    send().await?;

    println!("the token is revoked; the retry layer sees nothing of it:");
    auth_server.revoke_all();
    send().await?;

    println!("the API hangs, longer than one sending may take:");
    api.script([Fault::Hang]);
    send().await?;

    println!("there is no token, and the authorization server hangs until the total timeout ends it:");
    tokens.invalidate();
    auth_server.always(Fault::Hang);
    send().await?;
    Ok(())
}

/// An error with what is behind it.
fn chain(error: &dyn StdError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}
