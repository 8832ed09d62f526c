//! `TransportError`: what went wrong on the way to an authorization server, in words of ours alone.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// Why an exchange with an authorization server had no complete answer: the [`source`](std::error::Error::source) of a
/// [`TokenError`](crate::TokenError) of the kinds `Unreachable` and `Timeout`.
///
/// It is a closed description. The error of the HTTP client is looked at and dropped, since it may quote what the server
/// sent: an HTTP/2 GOAWAY with its debug data, a header that cannot be parsed, a URL with a key in it.
///
/// ```
/// use std::error::Error;
/// use std::io::ErrorKind;
/// use tower_oauth2_client::{TokenError, TransportError};
///
/// /// Whether somebody forgot to start the authorization server.
/// fn is_down(error: &TokenError) -> bool {
///     let transport = error.source().and_then(|cause| cause.downcast_ref::<TransportError>());
///     transport.is_some_and(|transport| transport.io_kind() == Some(ErrorKind::ConnectionRefused))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportError {
    phase: Phase,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection was made, and nothing was sent.
    Connect,
    /// Something may have been sent.
    Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The host name.
    Resolve,
    Certificate(CertificateTrouble),
    /// TLS in another way, most likely.
    Tls,
    Timeout,
    Io(io::ErrorKind),
    /// RFC 9113 §7.
    Http2(u32),
    /// The connection ended before the answer did.
    Closed,
    /// The HTTP client says no more.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateTrouble {
    UnknownAuthority,
    Expired,
    OtherHost,
    Other,
}

impl TransportError {
    pub(crate) fn new(phase: Phase, trouble: Trouble) -> Self {
        Self { phase, trouble }
    }

    #[cfg(test)]
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// Whether no connection was made, so that nothing was sent. `false` also where the HTTP client does not tell.
    pub fn is_connect(&self) -> bool {
        self.phase == Phase::Connect
    }

    /// Whether it took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(self.trouble, Trouble::Timeout | Trouble::Io(io::ErrorKind::TimedOut))
    }

    /// The kind of the I/O error, if it was one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self.trouble {
            Trouble::Io(kind) => Some(kind),
            _ => None,
        }
    }

    /// The code with which HTTP/2 ended the stream or the connection (RFC 9113 §7), if it was that. Known with the feature
    /// `reqwest` only.
    pub fn http2_code(&self) -> Option<u32> {
        match self.trouble {
            Trouble::Http2(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.phase {
            Phase::Connect => "no connection was made",
            Phase::Exchange => "the exchange was not completed",
        })?;
        match self.trouble {
            Trouble::Resolve => f.write_str(": the host name cannot be resolved"),
            Trouble::Certificate(trouble) => f.write_str(match trouble {
                CertificateTrouble::UnknownAuthority => ": the server's certificate is of an unknown authority",
                CertificateTrouble::Expired => ": the server's certificate has expired",
                CertificateTrouble::OtherHost => ": the server's certificate is for another host",
                CertificateTrouble::Other => ": the server's certificate is not accepted",
            }),
            Trouble::Tls => f.write_str(": what answers speaks no TLS, or none that both understand"),
            Trouble::Timeout => f.write_str(": it took too long"),
            // A fixed text of the standard library for each kind.
            Trouble::Io(kind) => write!(f, ": {kind}"),
            Trouble::Http2(code) => match usize::try_from(code).ok().and_then(|code| HTTP2_CODES.get(code)) {
                Some(name) => write!(f, ": HTTP/2 ended it with {name}"),
                None => write!(f, ": HTTP/2 ended it with code {code:#x}"),
            },
            Trouble::Closed => f.write_str(": the connection was closed before the answer was complete"),
            Trouble::Other => Ok(()),
        }
    }
}

impl StdError for TransportError {}

/// RFC 9113 §7, by number.
const HTTP2_CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];
