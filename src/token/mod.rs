//! The words of the engine: token, token request, token source, token error.

mod error;
mod lifetime;
mod source;
mod storm;
mod value;

pub use error::{ErrorCode, TokenError, TokenErrorKind};
pub use lifetime::{ExpirySource, UnknownExpiry};
pub use source::{TokenRequest, TokenSource};
pub use value::{Extra, RefreshToken, Token};

pub(crate) use lifetime::{Freshness, Lifetime, LifetimePolicy, MIN_INTERVAL, NoLifetime, lifetime_of};
pub(crate) use source::{DynTokenSource, erase};
pub(crate) use storm::Storm;
