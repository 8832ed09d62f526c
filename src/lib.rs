//! A tower middleware for HTTP clients: OAuth2 tokens on every request.

mod clock;
mod config;
mod endpoint;
mod error;
mod extensions;
mod future;
mod layer;
mod message;
mod observe;
pub mod providers;
mod request;
mod response;
mod secret;
mod secret_source;
mod service;
#[cfg(feature = "test-util")]
pub mod test_util;
mod token;

pub use clock::{Clock, Now, SystemClock};
pub use config::{AuthConfig, AuthConfigBuilder};
pub use endpoint::{BodyEncoding, ClientAuth, TokenEndpoint, TokenExchange};
#[cfg(feature = "jwt")]
pub use endpoint::{Signer, SigningAlgorithm, SigningKey};
pub use error::{BoxError, ConfigError, Error};
pub use extensions::{AuthOutcome, RefreshFailed, Replay, Scopes, SkipAuth, TenantId};
pub use future::ResponseFuture;
pub use layer::{AuthHandle, AuthLayer, Stats};
pub use request::{ExistingAuthorization, Foreign, Recorded, Tenant};
pub use response::Forbidden;
pub use secret::Secret;
pub use secret_source::SecretSource;
pub use service::Auth;
pub use token::{
    ErrorCode, ExpirySource, Extra, RefreshToken, StaticToken, Token, TokenError, TokenErrorKind, TokenRequest,
    TokenSource, UnknownExpiry,
};
