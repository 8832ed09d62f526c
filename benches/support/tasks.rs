//! Many tasks on a runtime, with requests one after the other.

use std::time::Instant;

use http::Request;
use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};

use super::requests::{Body, Kind};

/// Nanoseconds a request, of so many requests in so many tasks with a clone of the service each.
pub(crate) fn run<S>(runtime: &Runtime, service: S, kind: Kind, tasks: usize, requests: usize, oneshot: bool) -> f64
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug,
    S::Response: Send,
{
    runtime.block_on(async move {
        let start = Instant::now();
        let running: Vec<_> = (0..tasks)
            .map(|_| {
                let mut service = service.clone();
                tokio::spawn(async move {
                    for _ in 0..requests.div_ceil(tasks) {
                        if oneshot {
                            service.clone().oneshot(kind.request()).await.unwrap();
                        } else {
                            service.ready().await.unwrap().call(kind.request()).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in running {
            task.await.unwrap();
        }
        start.elapsed().as_nanos() as f64 / (requests.div_ceil(tasks) * tasks) as f64
    })
}
