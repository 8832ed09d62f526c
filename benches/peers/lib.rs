//! Nothing: the bench is in `peers.rs`.
