//! A tower middleware for HTTP clients: OAuth2 tokens on every request.

mod clock;
mod endpoint;
mod error;
mod extensions;
mod request;
mod response;
mod secret;
#[cfg(feature = "test-util")]
pub mod test_util;
mod token;

pub use clock::{Clock, Now, SystemClock};
pub use error::{BoxError, ConfigError, Error};
pub use extensions::{AuthOutcome, RefreshFailed, Replay, Scopes, SkipAuth, TenantId};
pub use secret::Secret;
pub use token::{
    ErrorCode, ExpirySource, Extra, RefreshToken, Token, TokenError, TokenErrorKind, TokenRequest, TokenSource,
    UnknownExpiry,
};
