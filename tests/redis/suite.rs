//! Tokens in a real Redis: what each operation does there, and what a fleet of processes makes of it.

mod conformance;
mod failover;
mod fleet;
mod holders;
mod naive;
mod rounds;
mod server;
mod store;
mod trouble;
mod way;
mod worker;
