//! What a token is: its value, its lifetime, what is asked of a source, and tokens that never change.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod backoff;
mod granted;
mod lifetime;
mod refresh_report;
mod source;
mod static_token;
mod value;

pub use lifetime::{ExpirySource, Renew, UnknownExpiry};
pub use source::{BoxTokenSource, TokenRequest, TokenSource};
pub use static_token::StaticToken;
pub use value::{Extra, RefreshToken, Token};

pub(crate) use backoff::{Backoff, Jitter};
pub(crate) use granted::{Failed, Granted, HeldRefreshToken, RefreshChange, RefreshDigest, RefreshFate, RefreshOwner};
pub(crate) use lifetime::{
    Freshness, Lifetime, LifetimePolicy, MIN_INTERVAL, NoLifetime, Spread, YEAR, elapsed, jwt_exp, lifetime_of,
    useful_for,
};
pub(crate) use refresh_report::{Asked, RefreshReport};
pub(crate) use source::{Asker, BoxFetch, DynTokenSource, EndpointName, RefreshContext, erase, fetch};
