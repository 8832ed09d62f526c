//! When a token is fresh, stale, late and expired, by both clocks.
