//! Metrics as Prometheus scrapes them: `http://127.0.0.1:9000/metrics`.
//!
//! `cargo run --manifest-path examples/observability/Cargo.toml --bin prometheus`

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::Request;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, Fault, TestClock};
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    // Before the layers are made.
    let metrics = recorder()?;
    traffic().await?;
    println!("{}", metrics.render());
    let listener = TcpListener::bind("127.0.0.1:9000").await?;
    println!("serving http://{}/metrics", listener.local_addr()?);
    serve(listener, metrics).await
}

/// Records whatever is counted from now on in this process.
fn recorder() -> Result<PrometheusHandle, Failed> {
    // Seconds. What is asked of a histogram is asked of buckets: without any, Prometheus gets a summary.
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
    let lifetimes = [0.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration".into()), &buckets)?
        .set_buckets_for_metric(Matcher::Suffix("lifetime".into()), &lifetimes)?;
    Ok(builder.install_recorder()?)
}

async fn serve(listener: TcpListener, metrics: PrometheusHandle) -> Result<(), Failed> {
    let app = Router::new().route("/metrics", get(move || async move { metrics.render() }));
    Ok(axum::serve(listener, app).await?)
}

/// Two layers: one whose token is revoked once, and one whose secret is wrong.
async fn traffic() -> Result<(), Failed> {
    let server = AuthServer::new(TestClock::new()).client("id", "secret").latency(Duration::from_millis(20));
    let layer = |name: &str, secret: &str| {
        let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", secret))
            .name(name)
            .origin("https://api.example.com")
            .build()?;
        Ok::<_, Failed>(AuthLayer::builder(cfg).http_client(server.clone()).build()?)
    };
    let api = Api::new(&server);
    let (orders, billing) =
        (layer("orders", "secret")?.layer(api.clone()), layer("billing", "an old secret")?.layer(api.clone()));
    let request = || Request::get("https://api.example.com/items").body(String::new());
    // They wait for one token.
    let (one, other) = tokio::join!(orders.clone().oneshot(request()?), orders.clone().oneshot(request()?));
    let _ = (one?, other?);
    // Counted by nobody here: the token is there and the API takes it.
    for _ in 0..100 {
        orders.clone().oneshot(request()?).await?;
    }
    api.script([Fault::error("invalid_token")]);
    orders.clone().oneshot(request()?).await?;
    if let Err(error) = billing.oneshot(request()?).await {
        println!("{error}: {}", error.token().map(ToString::to_string).unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scrape_tells_which_layer_fails_and_what_waiting_cost() {
        let metrics = recorder().unwrap();
        traffic().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, metrics));
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let value = |name: &str, labels: &[&str]| {
            let has = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
            let line = text.lines().find(has).unwrap_or_else(|| panic!("no {name} {labels:?} in:\n{text}"));
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let orders = "layer=\"orders\"";
        let asked = "oauth2_client_token_request_duration_count{";
        assert_eq!(value(asked, &[orders, "trigger=\"first\"", "outcome=\"new_token\""]), 1.0);
        assert_eq!(value(asked, &[orders, "trigger=\"rejection\"", "outcome=\"new_token\""]), 1.0);
        assert_eq!(value(asked, &["layer=\"billing\"", "error_type=\"bad_credentials\""]), 1.0);
        assert_eq!(value("oauth2_client_token_wait_duration_count{", &[orders]), 3.0);
        assert_eq!(value("oauth2_client_token_waiters{", &[orders]), 0.0);
        assert_eq!(value("oauth2_client_rejected_requests{", &[orders, "outcome=\"resent\""]), 1.0);
        assert!(text.contains("# TYPE oauth2_client_token_request_duration histogram"), "{text}");
        assert!(text.contains("# HELP oauth2_client_token_wait_duration Time that requests waited"), "{text}");
    }
}
