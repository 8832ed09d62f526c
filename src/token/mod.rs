//! The engine: tokens, their lifetimes, and the one flight that fetches them; knows neither HTTP clients nor bodies.

mod engine;
mod error;
mod flight;
mod lifetime;
mod partition;
mod pulse;
mod schedule;
mod slot;
mod slots;
mod source;
mod static_token;
mod storm;
mod value;

pub use error::{ErrorCode, TokenError, TokenErrorKind};
pub use lifetime::{ExpirySource, UnknownExpiry};
pub use source::{TokenRequest, TokenSource};
pub use static_token::StaticToken;
pub use value::{Extra, RefreshToken, Token};

pub(crate) use engine::{Engine, EnginePolicy};
pub(crate) use flight::{Landing, Ticket};
pub(crate) use lifetime::useful_for;
pub(crate) use partition::Partition;
pub(crate) use slot::{Current, Read, Rejection, Slot};
pub(crate) use source::{DynTokenSource, Terms, erase};
pub(crate) use value::Custody;
