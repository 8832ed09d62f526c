//! A trace that shows a request which waited for a token, and links to the token request.
//!
//! `cargo run --manifest-path examples/observability/Cargo.toml --bin opentelemetry`
//!
//! The spans are kept in memory and printed. In your own program an exporter (`opentelemetry-otlp`) takes its place.

use std::error::Error;
use std::time::Duration;

use http::Request;
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::{Layer, ServiceExt};
use tower_oauth2_client::test_util::{Api, AuthServer, TestClock};
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let spans = traced().await?;
    for root in spans.iter().filter(|span| span.parent_span_id == SpanId::INVALID) {
        println!("trace {}", root.span_context.trace_id());
        tell(root, &spans, 1);
    }
    Ok(())
}

/// A span, what it links to, and its children.
fn tell(span: &SpanData, spans: &[SpanData], depth: usize) {
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    println!("{}{} {took:.0?}", "  ".repeat(depth), span.name);
    for link in &span.links.links {
        let linked = spans.iter().find(|other| other.span_context.span_id() == link.span_context.span_id());
        let name = linked.map_or("?", |linked| &linked.name);
        println!("{}-> {name} in trace {}", "  ".repeat(depth + 1), link.span_context.trace_id());
    }
    for child in spans.iter().filter(|child| child.parent_span_id == span.span_context.span_id()) {
        tell(child, spans, depth + 1);
    }
}

/// The spans of two requests that wait for one token.
async fn traced() -> Result<Vec<SpanData>, Failed> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let telemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("example"));
    tracing_subscriber::registry().with(telemetry).try_init()?;

    let server = AuthServer::new(TestClock::new()).latency(Duration::from_millis(200));
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
        .name("orders")
        .origin("https://api.example.com")
        .build()?;
    let layer = AuthLayer::builder(cfg).http_client(server.clone()).build()?;
    let client = layer.layer(Api::new(&server));
    let send = async |span: tracing::Span| {
        let request = Request::get("https://api.example.com/items").body(String::new())?;
        client.clone().oneshot(request).instrument(span).await?;
        Ok::<_, Failed>(())
    };
    tokio::try_join!(send(tracing::info_span!("GET /items")), send(tracing::info_span!("GET /items")))?;
    // The token request's span ends just after those who wait for it have been told.
    while exporter.get_finished_spans()?.iter().all(|span| span.name != "token_request") {
        tokio::task::yield_now().await;
    }
    provider.force_flush()?;
    Ok(exporter.get_finished_spans()?)
}

#[cfg(test)]
mod tests {
    use opentelemetry::Value;

    use super::*;

    #[tokio::test]
    async fn the_trace_of_a_request_shows_its_wait_and_leads_to_the_token_request() {
        let spans = traced().await.unwrap();
        let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
        let (requests, waits, tokens) = (of("GET /items"), of("token_wait"), of("token_request"));
        assert_eq!((requests.len(), waits.len(), tokens.len()), (2, 2, 1));
        let token = tokens[0];
        let attribute = |span: &SpanData, name: &str| {
            span.attributes.iter().find(|found| found.key.as_str() == name).map(|found| found.value.clone())
        };
        assert_eq!(attribute(token, "layer"), Some(Value::from("orders")));
        assert_eq!(attribute(token, "outcome"), Some(Value::from("new_token")));
        for request in &requests {
            let wait = waits.iter().find(|wait| wait.parent_span_id == request.span_context.span_id()).unwrap();
            assert_eq!(wait.span_context.trace_id(), request.span_context.trace_id());
            let took = |span: &SpanData| span.end_time.duration_since(span.start_time).unwrap();
            assert!(took(wait) <= took(request), "it is a part of it");
            // Both ways.
            let leads_to = |span: &SpanData, to: &SpanData| {
                let to = to.span_context.span_id();
                span.links.links.iter().any(|link| link.span_context.span_id() == to)
            };
            assert!(leads_to(wait, token) && leads_to(token, wait));
            assert_ne!(token.span_context.trace_id(), request.span_context.trace_id(), "it is nobody's child");
        }
    }
}
