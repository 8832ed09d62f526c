//! The TLS of the built-in client: one of three by feature. rustls, if it is there at all, so that another crate that turns
//! `native-tls` on changes nothing.

#[cfg(feature = "rustls-no-provider")]
mod by_rustls;
#[cfg(all(feature = "native-tls", not(feature = "rustls-no-provider")))]
mod native;
#[cfg(not(any(feature = "native-tls", feature = "rustls-no-provider")))]
mod none;

#[cfg(feature = "rustls-no-provider")]
pub(super) use by_rustls::{ExtraRoots, configure};
#[cfg(all(feature = "native-tls", not(feature = "rustls-no-provider")))]
pub(super) use native::{ExtraRoots, configure};
#[cfg(not(any(feature = "native-tls", feature = "rustls-no-provider")))]
pub(super) use none::{ExtraRoots, configure};

/// Whether one of them is compiled in.
pub(super) const IS_THERE: bool = cfg!(any(feature = "native-tls", feature = "rustls-no-provider"));

#[cfg(any(feature = "native-tls", feature = "rustls-no-provider"))]
fn wrong_pem() -> crate::types::ConfigError {
    crate::types::ConfigError::new(
        "a certificate authority is not a certificate in PEM",
        "it begins with `-----BEGIN CERTIFICATE-----`",
    )
}
