//! Fuzz targets for `tower-oauth2-client`: each makes an input of bytes, plays it through the public API, and checks more
//! than that nothing panics.
//!
//! The same functions are replayed over the committed corpus by `tests/fuzz_corpus.rs` of the package above, on stable.

pub mod targets;

pub(crate) use url::Url;
