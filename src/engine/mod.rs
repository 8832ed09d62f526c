//! The engine: one partition's token and the one refresh that renews it; knows neither HTTP clients nor bodies.

mod cell;
mod coarse_clock;
mod decision;
mod endpoint_limits;
mod env;
mod key;
mod refresh;
mod rejection_limiter;
mod table;

pub(crate) use cell::{Cell, Current, Read, Rejection};
pub(crate) use endpoint_limits::{EndpointLimits, Limited};
pub(crate) use env::{Engine, EnginePolicy};
pub(crate) use key::Partition;
pub(crate) use refresh::{RefreshResult, RefreshWaiter};
