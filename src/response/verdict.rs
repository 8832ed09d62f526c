//! The decision table: what status and headers of a response say about the token that was sent.

use http::{HeaderMap, StatusCode};

use super::challenge::{Challenge, ErrorKind};
use super::grpc;
use crate::types::ConfigError;

/// What a response says about the token that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server went on to the request itself, so that it took the token.
    Accepted,
    /// The server refused the token: another one may help.
    Rejected {
        /// It named the token as the reason (`invalid_token`), rather than leaving a missing scope possible.
        says_invalid: bool,
    },
    /// Nothing: the server is overloaded or broken, a proxy spoke, or another token would not help.
    Unknown,
}

/// What a response of status 403 means for the token that was sent.
///
/// RFC 9110 §15.5.4 speaks of a refusal that other credentials may or may not change; most servers mean a missing
/// permission, where a new token changes nothing. A challenge with `insufficient_scope` is never a rejected token.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, ClientAuth, Forbidden};
///
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::basic("id", "secret"))
///     .origin("https://api.example.com")
///     .on_forbidden(Forbidden::IfExpired) // this API says 403 to an expired token
///     .build()?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Forbidden {
    /// Nothing. The default: a missing permission would otherwise cost a token request each time.
    #[default]
    Never,
    /// The token was rejected if it has expired by our own clocks, or is about to (within the
    /// [`expiry_margin`](crate::AuthConfigBuilder::expiry_margin)). For servers that answer 403 to an expired token.
    IfExpired,
    /// The token was rejected if `WWW-Authenticate` says `invalid_token` (RFC 6750 §3.1).
    IfInvalidToken,
}

/// Which responses reject the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RejectionPolicy {
    /// Whether 401, and gRPC's 16, do.
    pub(crate) on_unauthorized: bool,
    /// Whether 403 does.
    pub(crate) forbidden: Forbidden,
    /// Further statuses that do, whatever their challenges say. Successes and 407 never do, listed or not.
    pub(crate) also: Vec<StatusCode>,
    /// Whether `grpc-status` is looked at; where it is found it overrules the HTTP status.
    pub(crate) grpc: bool,
}

impl Default for RejectionPolicy {
    fn default() -> Self {
        Self { on_unauthorized: true, forbidden: Forbidden::default(), also: Vec::new(), grpc: true }
    }
}

impl RejectionPolicy {
    /// # Errors
    /// A status is listed that never says anything about a token.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let never = |status: &&StatusCode| {
            status.is_informational() || status.is_success() || **status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        };
        match self.also.iter().find(never) {
            Some(status) => Err(ConfigError::new(
                format!("{} is to mean that the token was rejected, which it never does", status.as_u16()),
                "name a status that the API gives to a dead token, such as 419 or 440",
            )),
            None => Ok(()),
        }
    }
}

/// Whether a response is a success that accepts the token, as nearly all do. No proof of the contrary.
#[inline]
pub(crate) fn is_success(status: StatusCode, headers: &HeaderMap, policy: &RejectionPolicy) -> bool {
    status.is_success() && !(policy.grpc && grpc::has_status(headers))
}

/// Judges a response by its head.
///
/// `scheme` is what was sent before the token; `is_expired` (by our own clocks) is asked only after a 403.
pub(crate) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    scheme: &[u8],
    policy: &RejectionPolicy,
    is_expired: impl FnOnce() -> bool,
) -> Verdict {
    let grpc_status = if policy.grpc { grpc::trailers_only_status(headers) } else { None };
    match grpc_status {
        None if status.is_success() => Verdict::Accepted,
        None => judge_http(status, headers, scheme, policy, is_expired),
        Some(_) if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => Verdict::Unknown,
        Some(code) => judge_grpc(code, headers, scheme, policy),
    }
}

fn judge_http(
    status: StatusCode,
    headers: &HeaderMap,
    scheme: &[u8],
    policy: &RejectionPolicy,
    is_expired: impl FnOnce() -> bool,
) -> Verdict {
    match status {
        // A proxy's, about credentials that are not ours.
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Verdict::Unknown,
        StatusCode::UNAUTHORIZED if policy.on_unauthorized => unauthorized(headers, scheme),
        _ if policy.also.contains(&status) => Verdict::Rejected { says_invalid: false },
        StatusCode::FORBIDDEN => match policy.forbidden {
            Forbidden::IfExpired if is_expired() => unauthorized(headers, scheme),
            Forbidden::IfInvalidToken if says_invalid(headers, scheme) => Verdict::Rejected { says_invalid: true },
            _ => Verdict::Unknown,
        },
        StatusCode::UNAUTHORIZED
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Verdict::Unknown,
        _ if status.as_u16() < 500 => Verdict::Accepted,
        _ => Verdict::Unknown,
    }
}

fn judge_grpc(code: u32, headers: &HeaderMap, scheme: &[u8], policy: &RejectionPolicy) -> Verdict {
    match code {
        grpc::UNAUTHENTICATED if policy.on_unauthorized => unauthorized(headers, scheme),
        // As with 403, 429 and 5xx: CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED,
        // INTERNAL, UNAVAILABLE, DATA_LOSS.
        1 | grpc::UNKNOWN | 4 | 7 | 8 | 13 | 14 | 15 | grpc::UNAUTHENTICATED => Verdict::Unknown,
        _ => Verdict::Accepted,
    }
}

/// A 401 rejects the token unless its challenge names a reason that another token would not change.
fn unauthorized(headers: &HeaderMap, scheme: &[u8]) -> Verdict {
    match Challenge::read(headers, scheme) {
        Challenge::Ours { error: Some(error) } => match error {
            ErrorKind::InvalidToken => Verdict::Rejected { says_invalid: true },
            ErrorKind::Other => Verdict::Rejected { says_invalid: false },
            ErrorKind::UseDpopNonce
            | ErrorKind::InsufficientScope
            | ErrorKind::InsufficientUserAuthentication
            | ErrorKind::InvalidRequest
            | ErrorKind::InvalidDpopProof => Verdict::Unknown,
        },
        Challenge::Ours { error: None } | Challenge::Foreign | Challenge::None => {
            Verdict::Rejected { says_invalid: false }
        }
    }
}

/// Whether a response asks for the same request with the server's nonce in its proof (RFC 9449 §9).
#[cfg(feature = "dpop")]
pub(crate) fn wants_nonce(status: StatusCode, headers: &HeaderMap) -> bool {
    proof_error(status, headers) == Some(ErrorKind::UseDpopNonce)
}

/// Whether a response refuses the proof, for its nonce or for anything else, and says nothing of the token (RFC 9449 §7.1).
#[cfg(feature = "dpop")]
pub(crate) fn rejects_proof(status: StatusCode, headers: &HeaderMap) -> bool {
    matches!(proof_error(status, headers), Some(ErrorKind::UseDpopNonce | ErrorKind::InvalidDpopProof))
}

#[cfg(feature = "dpop")]
fn proof_error(status: StatusCode, headers: &HeaderMap) -> Option<ErrorKind> {
    let is_refusal = status == StatusCode::UNAUTHORIZED
        || status.is_success() && grpc::trailers_only_status(headers) == Some(grpc::UNAUTHENTICATED);
    match Challenge::read(headers, b"DPoP") {
        Challenge::Ours { error } if is_refusal => error,
        _ => None,
    }
}

fn says_invalid(headers: &HeaderMap, scheme: &[u8]) -> bool {
    Challenge::read(headers, scheme) == Challenge::Ours { error: Some(ErrorKind::InvalidToken) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::Verdict::*;
    use super::*;

    const REJECTED: Verdict = Rejected { says_invalid: false };
    const INVALID: Verdict = Rejected { says_invalid: true };

    /// Judges `(status, headers)` where nothing may ask for the expiry.
    fn verdict(policy: &RejectionPolicy, status: u16, headers: &[(&'static str, &'static str)]) -> Verdict {
        verdict_of(policy, status, headers, || panic!("the expiry is no matter here"))
    }

    fn verdict_of(
        policy: &RejectionPolicy,
        status: u16,
        headers: &[(&'static str, &'static str)],
        is_expired: impl FnOnce() -> bool,
    ) -> Verdict {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(pair) {
            map.append(name, value);
        }
        judge(StatusCode::from_u16(status).unwrap(), &map, b"Bearer", policy, is_expired)
    }

    fn by_default(status: u16, headers: &[(&'static str, &'static str)]) -> Verdict {
        verdict(&RejectionPolicy::default(), status, headers)
    }

    fn challenged(status: u16, challenge: &'static str) -> Verdict {
        by_default(status, &[("www-authenticate", challenge)])
    }

    #[test]
    fn a_401_rejects_the_token() {
        assert_eq!(by_default(401, &[]), REJECTED);
        assert_eq!(by_default(401, &[("content-type", "text/html")]), REJECTED);
        assert_eq!(challenged(401, "Bearer"), REJECTED);
        assert_eq!(challenged(401, "Basic realm=\"x\", Negotiate, Digest realm=\"y\""), REJECTED);
        assert_eq!(challenged(401, "Basic error=\"insufficient_scope\""), REJECTED, "not ours");
        assert_eq!(challenged(401, "Bearer error=\"something_new\""), REJECTED);
        assert_eq!(challenged(401, "Bearer error=\"insufficient_scope"), REJECTED, "malformed");
        assert_eq!(challenged(401, "bearer error=\"invalid_token\""), INVALID);
        assert_eq!(challenged(401, "Basic error=\"invalid_token\", Bearer"), REJECTED, "said of another scheme");
        let mixed = "Bearer error=\"insufficient_scope\", Basic, Bearer error=\"invalid_token\"";
        assert_eq!(challenged(401, mixed), INVALID);
    }

    /// Behaviour 51.
    #[test]
    fn where_another_token_would_not_help_nothing_is_rejected() {
        for challenge in [
            "Bearer error=\"insufficient_scope\", scope=\"a b\"",
            "Bearer error=\"invalid_request\"",
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"2\"",
            "Bearer error=\"invalid_dpop_proof\"",
        ] {
            assert_eq!(challenged(401, challenge), Unknown, "{challenge}");
            assert_eq!(challenged(403, challenge), Unknown, "{challenge}");
        }
        assert_eq!(by_default(403, &[]), Unknown);
        assert_eq!(challenged(403, "Bearer error=\"invalid_token\""), Unknown);
        assert_eq!(challenged(401, "Bearer error=\"use_dpop_nonce\""), Unknown);
        assert_eq!(challenged(401, "DPoP error=\"use_dpop_nonce\""), REJECTED, "not ours");
        assert_eq!(challenged(403, "Bearer error=\"use_dpop_nonce\""), Unknown);
    }

    /// Behaviour 54.
    #[test]
    fn a_407_is_not_a_401() {
        assert_eq!(by_default(407, &[]), Unknown);
        assert_eq!(challenged(407, "Bearer error=\"invalid_token\""), Unknown);
        assert_eq!(by_default(407, &[("proxy-authenticate", "Bearer error=\"invalid_token\"")]), Unknown);
        assert_eq!(by_default(407, &[("grpc-status", "16")]), Unknown);
        let listed = RejectionPolicy { also: vec![StatusCode::PROXY_AUTHENTICATION_REQUIRED], ..Default::default() };
        assert_eq!(verdict(&listed, 407, &[]), Unknown);
    }

    #[test]
    fn what_is_about_the_request_accepts_the_token_and_what_is_about_the_server_says_nothing() {
        for status in [200, 201, 204, 206, 299, 301, 304, 400, 402, 404, 405, 409, 410, 412, 413, 415, 422, 428, 451] {
            assert_eq!(by_default(status, &[]), Accepted, "{status}");
            assert_eq!(by_default(status, &[("content-type", "application/json")]), Accepted, "{status}");
        }
        for status in [407, 408, 421, 425, 429, 500, 501, 502, 503, 504, 511, 599, 999] {
            assert_eq!(by_default(status, &[]), Unknown, "{status}");
            assert_eq!(by_default(status, &[("retry-after", "1")]), Unknown, "{status}");
        }
        assert_eq!(challenged(200, "Bearer error=\"invalid_token\""), Accepted, "RFC 9110 §11.6.1 allows it");
    }

    /// Behaviour 118.
    #[test]
    fn grpc_unauthenticated_in_the_headers_rejects_the_token() {
        assert_eq!(by_default(200, &[("content-type", "application/grpc"), ("grpc-status", "16")]), REJECTED);
        let with = |challenge| by_default(200, &[("grpc-status", "16"), ("www-authenticate", challenge)]);
        assert_eq!(with("Bearer error=\"invalid_token\""), INVALID);
        assert_eq!(with("Bearer error=\"insufficient_scope\""), Unknown);
        // Status 16 in real trailers: the headers do not tell, and the call is committed.
        assert_eq!(by_default(200, &[("content-type", "application/grpc")]), Accepted);
        // A page of a proxy in front of a gRPC server has no grpc-status; where there is one, it overrules.
        assert_eq!(by_default(401, &[("content-type", "text/html")]), REJECTED);
        assert_eq!(by_default(503, &[("grpc-status", "16")]), REJECTED);
        assert_eq!(by_default(401, &[("grpc-status", "14")]), Unknown);
        assert_eq!(by_default(401, &[("grpc-status", "5")]), Accepted);
    }

    /// Behaviour 119.
    #[test]
    fn grpc_permission_denied_rejects_nothing() {
        let lenient = RejectionPolicy { forbidden: Forbidden::IfExpired, ..Default::default() };
        for status in [200, 401, 403] {
            assert_eq!(by_default(status, &[("grpc-status", "7")]), Unknown, "{status}");
            assert_eq!(verdict(&lenient, status, &[("grpc-status", "7")]), Unknown, "{status}");
        }
    }

    #[test]
    fn grpc_codes_are_judged_like_their_http_statuses() {
        for code in ["0", "3", "5", "6", "9", "10", "11", "12", "17"] {
            assert_eq!(by_default(200, &[("grpc-status", code)]), Accepted, "{code}");
        }
        for code in ["1", "2", "4", "7", "8", "13", "14", "15", "x", ""] {
            assert_eq!(by_default(200, &[("grpc-status", code)]), Unknown, "{code}");
        }
    }

    #[test]
    fn the_policy_says_what_a_403_means() {
        let invalid: &[_] = &[("www-authenticate", "Bearer error=\"invalid_token\"")];
        let scope: &[_] = &[("www-authenticate", "Bearer error=\"insufficient_scope\"")];
        let foreign: &[_] = &[("www-authenticate", "DPoP error=\"invalid_token\"")];

        let expired = RejectionPolicy { forbidden: Forbidden::IfExpired, ..Default::default() };
        assert_eq!(verdict_of(&expired, 403, &[], || true), REJECTED);
        assert_eq!(verdict_of(&expired, 403, &[], || false), Unknown);
        assert_eq!(verdict_of(&expired, 403, invalid, || true), INVALID);
        assert_eq!(verdict_of(&expired, 403, invalid, || false), Unknown);
        assert_eq!(verdict_of(&expired, 403, scope, || true), Unknown, "the token was looked at and known");

        let invalid_only = RejectionPolicy { forbidden: Forbidden::IfInvalidToken, ..Default::default() };
        assert_eq!(verdict(&invalid_only, 403, invalid), INVALID);
        for headers in [&[], scope, foreign] {
            assert_eq!(verdict(&invalid_only, 403, headers), Unknown);
        }
    }

    #[test]
    fn the_policy_says_which_statuses_reject() {
        let deaf = RejectionPolicy { on_unauthorized: false, ..Default::default() };
        assert_eq!(verdict(&deaf, 401, &[("www-authenticate", "Bearer error=\"invalid_token\"")]), Unknown);
        assert_eq!(verdict(&deaf, 200, &[("grpc-status", "16")]), Unknown);

        let no_grpc = RejectionPolicy { grpc: false, ..Default::default() };
        assert_eq!(verdict(&no_grpc, 200, &[("grpc-status", "16")]), Accepted);
        assert_eq!(verdict(&no_grpc, 401, &[("grpc-status", "7")]), REJECTED);

        let also = [419, 500, 403, 200].map(|status| StatusCode::from_u16(status).unwrap()).to_vec();
        let wide = RejectionPolicy { also, ..Default::default() };
        for status in [419, 500, 403, 401] {
            assert_eq!(verdict(&wide, status, &[]), REJECTED, "{status}");
        }
        assert_eq!(verdict(&wide, 418, &[]), Accepted);
        assert_eq!(verdict(&wide, 502, &[]), Unknown);
        assert_eq!(verdict(&wide, 200, &[("content-type", "text/plain")]), Accepted);
        assert_eq!(verdict(&wide, 401, &[("www-authenticate", "Bearer error=\"insufficient_scope\"")]), Unknown);
    }
}
