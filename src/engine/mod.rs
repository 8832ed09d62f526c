//! The engine: one partition's token and the one refresh that renews it; knows neither HTTP clients nor bodies.
//!
//! A file may use those before it in this list: `key`, `rejection_limiter`, `decision`, `current`, `os_clock`, `coarse_clock`,
//! `env`, `endpoint_limits`, `refresh_token`, `refresh`, `cell`, `shards`, `table`. What a request does with its cell is three
//! calls: *read*, *reject*, *accepted*.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod cell;
mod coarse_clock;
mod current;
mod decision;
mod endpoint_limits;
mod env;
mod key;
#[cfg(all(test, model))]
mod model;
mod os_clock;
#[cfg(test)]
mod reference_model;
mod refresh;
mod refresh_token;
mod rejection_limiter;
mod rt;
mod shards;
mod sync;
mod table;

pub(crate) use cell::{Cell, Read, Rejection, Revocable};
pub(crate) use current::Current;
pub(crate) use endpoint_limits::{EndpointLimits, Limited, LimitsSlot};
pub(crate) use env::{EnginePolicy, Env};
pub(crate) use key::Partition;
pub(crate) use refresh::{RefreshResult, RefreshWaiter};
pub(crate) use table::Table;
