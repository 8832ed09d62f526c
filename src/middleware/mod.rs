//! The tower layer: puts a token on each request of the service it wraps, and sends a rejected request once more.

mod builder;
mod future;
mod header_cache;
mod layer;
mod prove;
mod service;
mod shared;

pub use builder::AuthLayerBuilder;
pub use future::ResponseFuture;
pub use layer::AuthLayer;
pub use service::Auth;
