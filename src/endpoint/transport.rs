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
    if chain(error).any(|error| error.is::<tokio::time::error::Elapsed>()) {
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

/// What rustls does not accept, by its `Debug`: which version of it an HTTP client has is not ours to know.
fn certificate(error: &(dyn StdError + 'static)) -> Option<CertificateTrouble> {
    let told = format!("{error:?}");
    let what = told.strip_prefix("InvalidCertificate(")?;
    Some(match what {
        _ if what.starts_with("UnknownIssuer") => CertificateTrouble::UnknownAuthority,
        _ if what.starts_with("Expired") => CertificateTrouble::Expired,
        _ if what.starts_with("NotValidForName") => CertificateTrouble::OtherHost,
        _ => CertificateTrouble::Other,
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
mod tests {
    use std::fmt;

    use super::*;
    use crate::token::RefreshFate;

    /// A foreign error that tells a secret, with a cause.
    #[derive(Debug)]
    struct Told(&'static str, Option<BoxError>);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Told {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn StdError + 'static))
        }
    }

    /// As rustls' errors look.
    #[derive(Debug)]
    #[expect(dead_code, reason = "read through `Debug`")]
    enum Rustls {
        InvalidCertificate(Certificate),
    }

    #[derive(Debug)]
    enum Certificate {
        UnknownIssuer,
        Revoked,
    }

    impl fmt::Display for Rustls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("canary")
        }
    }

    impl StdError for Rustls {}

    fn wrapped(cause: BoxError) -> BoxError {
        Told("error sending request for url (https://a.example/?key=canary)", Some(cause)).into()
    }

    /// Behaviour 149.
    #[test]
    fn of_a_foreign_error_stays_what_kind_it_is() {
        use io::ErrorKind::*;
        let certificate = |which| io::Error::other(io::Error::new(InvalidData, Rustls::InvalidCertificate(which)));
        let table = [
            (
                io::Error::new(ConnectionReset, "canary").into(),
                Trouble::Io(ConnectionReset),
                TokenErrorKind::Unreachable,
            ),
            (
                io::Error::new(ConnectionRefused, "canary").into(),
                Trouble::Io(ConnectionRefused),
                TokenErrorKind::Unreachable,
            ),
            (io::Error::new(TimedOut, "canary").into(), Trouble::Timeout, TokenErrorKind::Timeout),
            (
                io::Error::other(Told("canary", Some(io::Error::from(BrokenPipe).into()))).into(),
                Trouble::Io(BrokenPipe),
                TokenErrorKind::Unreachable,
            ),
            (
                certificate(Certificate::UnknownIssuer).into(),
                Trouble::Certificate(CertificateTrouble::UnknownAuthority),
                TokenErrorKind::Unreachable,
            ),
            (
                certificate(Certificate::Revoked).into(),
                Trouble::Certificate(CertificateTrouble::Other),
                TokenErrorKind::Unreachable,
            ),
            (Told("dns error", Some("canary".into())).into(), Trouble::Resolve, TokenErrorKind::Unreachable),
            (Told("canary", None).into(), Trouble::Other, TokenErrorKind::Unreachable),
        ];
        for (foreign, trouble, kind) in table {
            let Failed { error, refresh, .. } = failed(wrapped(foreign), true);
            let transport = error.source().unwrap().downcast_ref::<TransportError>().unwrap();
            assert_eq!((transport.trouble(), error.kind()), (trouble, kind));
            let refused = trouble == Trouble::Io(ConnectionRefused);
            assert_eq!((transport.is_connect(), refresh == RefreshFate::MaybeSpent), (refused, !refused));
            let said = format!("{error} {error:?} {transport} {transport:?}");
            assert!(!said.contains("canary") && !said.contains("a.example"), "{said}");
        }
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn http2_codes_have_their_names() {
        let code = |code: u32| failed(wrapped(h2::Error::from(h2::Reason::from(code)).into()), true).error;
        assert_eq!(
            code(11).source().unwrap().to_string(),
            "the exchange was not completed: HTTP/2 ended it with ENHANCE_YOUR_CALM"
        );
        assert_eq!(code(999).source().unwrap().downcast_ref::<TransportError>().unwrap().http2_code(), Some(999));
    }
}
