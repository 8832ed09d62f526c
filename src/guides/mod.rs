//! Guides: what the reference of single items does not tell.
//!
//! New here: [`tutorial`], then [`choosing`]. In production: [`operations`], [`observability`] and [`troubleshooting`].
//! Not decided yet: [`comparison`].

#[doc = include_str!("../../docs/guides/choosing.md")]
pub mod choosing {}

#[doc = include_str!("../../docs/guides/comparison.md")]
pub mod comparison {}

#[doc = include_str!("../../docs/guides/cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("../../docs/guides/migration.md")]
pub mod migration {}

#[doc = include_str!("../../docs/observability.md")]
pub mod observability {}

#[doc = include_str!("../../docs/guides/operations.md")]
pub mod operations {}

#[doc = include_str!("../../docs/guides/placement.md")]
pub mod placement {}

#[doc = include_str!("../../docs/guides/troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("../../docs/guides/tutorial.md")]
pub mod tutorial {}
