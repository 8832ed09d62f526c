//! The words of the engine: token, token request, token source, token error.

mod error;
mod lifetime;
mod source;
mod storm;
mod value;

pub use error::{ErrorCode, TokenError, TokenErrorKind};

pub use source::{TokenRequest, TokenSource};
pub use value::{Extra, RefreshToken, Token};

pub(crate) use source::{DynTokenSource, erase};
