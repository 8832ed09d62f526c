//! What is kept of the errors of HTTP clients.

use std::fmt;
use std::time::Duration;

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
        (io::Error::new(ConnectionReset, "canary").into(), Trouble::Io(ConnectionReset), TokenErrorKind::Unreachable),
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
        (
            Told("canary:certificate verify failed:canary (unable to get local issuer certificate)", None).into(),
            Trouble::Certificate(CertificateTrouble::UnknownAuthority),
            TokenErrorKind::Unreachable,
        ),
        (
            Told("certificate verify failed (certificate has expired) canary", None).into(),
            Trouble::Certificate(CertificateTrouble::Expired),
            TokenErrorKind::Unreachable,
        ),
        (
            Told("certificate verify failed (IP address mismatch) canary", None).into(),
            Trouble::Certificate(CertificateTrouble::OtherHost),
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

/// Behaviour 149 (a timeout that somebody's own client sets by tokio).
#[tokio::test(start_paused = true)]
async fn a_timeout_of_tokio_is_one() {
    let elapsed = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await.unwrap_err();
    let Failed { error, .. } = failed(wrapped(elapsed.into()), true);
    let transport = error.source().unwrap().downcast_ref::<TransportError>().unwrap();
    assert_eq!((transport.trouble(), error.kind()), (Trouble::Timeout, TokenErrorKind::Timeout));
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
