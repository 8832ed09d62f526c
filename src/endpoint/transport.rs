//! Reads the error of an HTTP client, and keeps nothing of it but what kind of error it is.

use std::error::Error as StdError;
use std::io;

use crate::token::Failed;
use crate::types::{BoxError, CertificateTrouble, Phase, TokenError, TokenErrorKind, TransportError, Trouble};

/// An error of the HTTP service. `sent`: it had the request.
pub(super) fn failed(error: BoxError, sent: bool) -> Failed {
    // Ours: there is no client to send with, or no runtime.
    if let Some(own) = error.downcast_ref::<TokenError>() {
        return own.clone().into();
    }
    let error = describe(&*error);
    let answer_lost = sent && !error.is_connect();
    let kind = if error.is_timeout() { TokenErrorKind::Timeout } else { TokenErrorKind::Unreachable };
    let error = TokenError::new(kind).caused_by(error.into());
    if answer_lost { Failed::maybe_spent(error) } else { error.into() }
}

fn describe(error: &(dyn StdError + 'static)) -> TransportError {
    let phase = if is_connect(error) { Phase::Connect } else { Phase::Exchange };
    TransportError::new(phase, trouble(error, phase))
}

fn trouble(error: &(dyn StdError + 'static), phase: Phase) -> Trouble {
    if chain(error).any(|error| error.is::<tokio::time::error::Elapsed>() || is_reqwests_timeout(error)) {
        return Trouble::Timeout;
    }
    if let Some(certificate) = chain(error).find_map(certificate) {
        return Trouble::Certificate(certificate);
    }
    if let Some(code) = chain(error).find_map(http2_code) {
        return Trouble::Http2(code);
    }
    // What wraps another error has a kind that says nothing.
    let kinds = || chain(error).filter_map(|error| error.downcast_ref()).map(io::Error::kind);
    if kinds().any(|kind| kind == io::ErrorKind::TimedOut) {
        return Trouble::Timeout;
    }
    // Neither error has a public type; its text is compared, and not kept.
    if is_told(error, "dns error") {
        return Trouble::Resolve;
    }
    let telling = |kind: &io::ErrorKind| !matches!(kind, io::ErrorKind::Other | io::ErrorKind::InvalidData);
    match kinds().find(telling) {
        Some(kind) => Trouble::Io(kind),
        None if phase == Phase::Connect && kinds().any(|kind| kind == io::ErrorKind::InvalidData) => Trouble::Tls,
        None if is_told(error, "connection closed before message completed") => Trouble::Closed,
        None => kinds().next().map_or(Trouble::Other, Trouble::Io),
    }
}

/// Whether the connection was never made, so that nothing was sent. When in doubt it was.
fn is_connect(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    if chain(error).filter_map(|error| error.downcast_ref::<reqwest::Error>()).any(reqwest::Error::is_connect) {
        return true;
    }
    chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable))
}

/// Of its connect timeout nothing else tells.
#[cfg(feature = "reqwest")]
fn is_reqwests_timeout(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
}

#[cfg(not(feature = "reqwest"))]
fn is_reqwests_timeout(_: &(dyn StdError + 'static)) -> bool {
    false
}

/// What rustls does not accept, by its `Debug`: which TLS an HTTP client has, and which version of it, is not ours to know.
fn certificate(error: &(dyn StdError + 'static)) -> Option<CertificateTrouble> {
    let told = format!("{error:?}");
    let Some(what) = told.strip_prefix("InvalidCertificate(") else { return openssl(&error.to_string()) };
    Some(match what {
        _ if what.starts_with("UnknownIssuer") => CertificateTrouble::UnknownAuthority,
        _ if what.starts_with("Expired") => CertificateTrouble::Expired,
        _ if what.starts_with("NotValidForName") => CertificateTrouble::OtherHost,
        _ => CertificateTrouble::Other,
    })
}

/// The same of OpenSSL, which is what native-tls speaks through on Linux, by its text.
fn openssl(told: &str) -> Option<CertificateTrouble> {
    let says = |texts: &[&str]| texts.iter().any(|text| told.contains(text));
    says(&["certificate verify failed"]).then(|| match () {
        () if says(&["unable to get", "self-signed certificate", "self signed certificate"]) => {
            CertificateTrouble::UnknownAuthority
        }
        () if says(&["has expired"]) => CertificateTrouble::Expired,
        () if says(&["mismatch"]) => CertificateTrouble::OtherHost,
        () => CertificateTrouble::Other,
    })
}

#[cfg(feature = "reqwest")]
fn http2_code(error: &(dyn StdError + 'static)) -> Option<u32> {
    error.downcast_ref::<h2::Error>()?.reason().map(u32::from)
}

#[cfg(not(feature = "reqwest"))]
fn http2_code(_: &(dyn StdError + 'static)) -> Option<u32> {
    None
}

fn is_told(error: &(dyn StdError + 'static), text: &str) -> bool {
    chain(error).any(|error| error.to_string() == text)
}

/// The error and its causes, those that `io::Error` wraps included: its `source` is *their* source.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => (*error).source(),
        }
    })
}

#[cfg(test)]
mod tests;
