//! Tokens in a store: several layers with one store stand for the processes of a fleet.

#![allow(clippy::unwrap_used, clippy::panic, reason = "here a panic is the report")]

mod accounts;
mod conformance;
mod failures;
mod files;
mod fleet;
mod holders;
mod order;
mod secrets;
mod sick;
mod world;
