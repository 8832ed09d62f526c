//! middle: an authorizer that has the header ready, and renews it by a task of its own.

use std::future::{Ready, ready};
use std::sync::Arc;

use http::HeaderValue;
use middle::{Authorizer, BasicClientCredentialAuthorizer};
use url::Url;

/// The header of each request.
pub(crate) async fn value(url: Url) -> impl Fn() -> Ready<HeaderValue> + Clone + Send + 'static {
    let authorizer = BasicClientCredentialAuthorizer::basic_builder("id", "secret", url).build().await.unwrap();
    let authorizer = Arc::new(authorizer);
    move || ready(HeaderValue::clone(&authorizer.authorization_header().unwrap()))
}
