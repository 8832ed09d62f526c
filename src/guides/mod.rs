//! Guides: what the reference of single items does not tell.

#[doc = include_str!("../../docs/observability.md")]
pub mod observability {}
