//! `AuthChallenge`: what the API asks for, for callers that can do more about it than this crate.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use http::HeaderMap;

use super::challenge::{Visit, walk};
use crate::types::Scopes;

/// In a response's extensions: the challenge that came with it (`WWW-Authenticate`), of the scheme `Bearer` or `DPoP`.
///
/// This crate renews tokens that were rejected, and does nothing about what a new token of the same kind would not mend: a
/// missing scope (RFC 6750 §3.1), a sign-in that is too old or too weak (RFC 9470), claims that Entra wants, a resource
/// whose metadata say where tokens come from (RFC 9728). A caller that can do something about that reads it here. The server
/// wrote all of it: follow no URL in it that you do not know, and ask for no scope that you would not ask for yourself.
///
/// ```
/// use tower_oauth2_client::AuthChallenge;
///
/// fn explain<B>(response: &http::Response<B>) -> String {
///     match response.extensions().get::<AuthChallenge>() {
///         Some(challenge) if challenge.error() == Some("insufficient_scope") => {
///             format!("the API wants {:?}", challenge.scopes())
///         }
///         Some(challenge) if challenge.error() == Some("insufficient_user_authentication") => {
///             format!("sign in anew with acr_values={:?} max_age={:?}", challenge.acr_values(), challenge.max_age())
///         }
///         _ => "nothing to be done".into(),
///     }
/// }
/// # assert_eq!(explain(&http::Response::new(())), "nothing to be done");
/// ```
///
/// The example `step_up` asks for another token, and knows when to stop.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthChallenge {
    scheme: &'static str,
    params: Vec<(Box<str>, Box<str>)>,
}

impl AuthChallenge {
    /// Reads the challenges of a response. Of several, the one with an `error` counts, `invalid_token` before others, and the
    /// other ones complete it.
    #[cold]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut collector = Collector::default();
        walk(headers, &mut collector);
        let rank = |challenge: &Self| match challenge.error() {
            Some(error) if error.eq_ignore_ascii_case("invalid_token") => 0,
            Some(_) => 1,
            None => 2,
        };
        collector.found.sort_by_key(rank);
        let mut all = collector.found.into_iter();
        let mut first = all.next()?;
        for (name, value) in all.flat_map(|other| other.params) {
            // Another one's error is about another matter.
            if first.param(&name).is_none() && !name.starts_with("error") {
                first.params.push((name, value));
            }
        }
        Some(first)
    }

    /// `Bearer` or `DPoP`.
    pub fn scheme(&self) -> &str {
        self.scheme
    }

    /// Why (`error`): `invalid_token`, `insufficient_scope`, `insufficient_user_authentication`, `insufficient_claims`, ….
    pub fn error(&self) -> Option<&str> {
        self.param("error")
    }

    /// The scopes that are needed (`scope`, RFC 6750 §3), if they are scopes.
    pub fn scopes(&self) -> Option<Scopes> {
        let scopes = Scopes::new(self.param("scope")?.split_ascii_whitespace()).ok()?;
        (!scopes.is_empty()).then_some(scopes)
    }

    /// Where the resource says of itself who gives out its tokens (`resource_metadata`, RFC 9728 §5.1).
    pub fn resource_metadata(&self) -> Option<&str> {
        self.param("resource_metadata")
    }

    /// How the person must have signed in (`acr_values`, RFC 9470 §3).
    pub fn acr_values(&self) -> Option<&str> {
        self.param("acr_values")
    }

    /// How many seconds ago at most the person may have signed in (`max_age`, RFC 9470 §3).
    pub fn max_age(&self) -> Option<u64> {
        self.param("max_age")?.trim().parse().ok()
    }

    /// The claims that are needed, as JSON (`claims`, OpenID Connect Core §5.5): decoded where they come in Base64, as
    /// Entra sends them. For [`TokenParams::claims`](crate::TokenParams::claims) or a sign-in.
    pub fn claims(&self) -> Option<String> {
        let claims = self.param("claims")?;
        let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        if is_json(claims) {
            return Some(claims.to_owned());
        }
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        [STANDARD, URL_SAFE].iter().find_map(|alphabet| {
            let json = String::from_utf8(GeneralPurpose::new(alphabet, lenient).decode(claims).ok()?).ok()?;
            is_json(&json).then_some(json)
        })
    }

    /// Any parameter by its name, in any case.
    pub fn param(&self, name: &str) -> Option<&str> {
        let (_, value) = self.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// Tells the scheme and which parameters there are, not what the server wrote into them.
impl fmt::Debug for AuthChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.params.iter().map(|(name, _)| name.as_ref()).collect();
        f.debug_struct("AuthChallenge").field("scheme", &self.scheme).field("params", &names).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Collector {
    open: Option<AuthChallenge>,
    found: Vec<AuthChallenge>,
}

impl Visit for Collector {
    fn open(&mut self, scheme: &[u8]) {
        let ours = ["Bearer", "DPoP"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known.as_bytes()));
        self.open = ours.map(|scheme| AuthChallenge { scheme, params: Vec::new() });
    }

    fn param(&mut self, name: &[u8], value: &[u8]) {
        let (Some(open), Ok(name), Some(value)) = (&mut self.open, std::str::from_utf8(name), unescape(value)) else {
            return;
        };
        if !value.is_empty() && open.param(name).is_none() {
            open.params.push((name.to_ascii_lowercase().into(), value.into()));
        }
    }

    fn close(&mut self) {
        self.found.extend(self.open.take());
    }
}

/// A value, its quoted-pairs resolved.
fn unescape(value: &[u8]) -> Option<String> {
    let mut escaped = false;
    let bytes = value.iter().copied().filter(|byte| {
        escaped = *byte == b'\\' && !escaped;
        !escaped
    });
    String::from_utf8(bytes.collect()).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    fn read<const N: usize>(lines: [&str; N]) -> Option<AuthChallenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        AuthChallenge::of(&headers)
    }

    /// Behaviour 180.
    #[test]
    fn every_parameter_of_our_scheme_is_read() {
        // RFC 9470 §3, RFC 9728 §5.1, and Entra's claims challenge.
        let step_up =
            read([r#"Bearer error="insufficient_user_authentication", acr_values="myACR \"x\"", max_age="5""#]);
        let step_up = step_up.unwrap();
        assert_eq!((step_up.scheme(), step_up.error()), ("Bearer", Some("insufficient_user_authentication")));
        assert_eq!((step_up.acr_values(), step_up.max_age()), (Some(r#"myACR "x""#), Some(5)));
        assert_eq!(step_up.scopes(), None);

        let metadata = "https://resource.example/.well-known/oauth-protected-resource";
        let lines = ["Basic realm=x", &format!("dpop resource_metadata=\"{metadata}\", algs=ES256")];
        let found = read(lines).unwrap();
        assert_eq!((found.scheme(), found.error(), found.resource_metadata()), ("DPoP", None, Some(metadata)));
        assert_eq!(found.param("ALGS"), Some("ES256"));

        let json = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;
        for claims in [
            "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ==",
            "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ",
            &json.replace('"', r#"\""#),
        ] {
            let found = read([&format!(r#"Bearer realm="", error="insufficient_claims", claims="{claims}""#)]).unwrap();
            assert_eq!(found.claims().as_deref(), Some(json), "{claims}");
        }
        for claims in ["e30x", "@", "{"] {
            assert_eq!(read([&format!(r#"Bearer claims="{claims}""#)]).unwrap().claims(), None);
        }
    }

    #[test]
    fn of_several_the_one_with_an_error_leads() {
        let found = read([
            r#"Bearer resource_metadata="https://r.example", scope="ignored", error_description="x""#,
            r#"DPoP error="insufficient_scope", scope="a b""#,
        ]);
        let found = found.unwrap();
        assert_eq!((found.scheme(), found.error()), ("DPoP", Some("insufficient_scope")));
        assert_eq!(found.scopes(), Some(Scopes::new(["a", "b"]).unwrap()));
        assert_eq!(found.resource_metadata(), Some("https://r.example"));
        assert_eq!(found.param("error_description"), None);
        let invalid = read(["Bearer error=insufficient_scope, Bearer error=invalid_token"]).unwrap();
        assert_eq!(invalid.error(), Some("invalid_token"));
    }

    #[test]
    fn what_cannot_be_read_is_no_challenge() {
        for line in ["Basic realm=x", "Bearer error=\"cut", "error=x", "Negotiate YII="] {
            assert_eq!(read([line]), None, "{line}");
        }
        assert_eq!(read([]), None);
        let bare = read(["Bearer"]).unwrap();
        assert_eq!((bare.error(), bare.scopes(), bare.max_age(), bare.claims()), (None, None, None, None));
        let odd = read(["Bearer scope=\"a\\\\\", max_age=soon"]).unwrap();
        assert_eq!((odd.scopes(), odd.max_age()), (None, None));
    }

    /// Behaviour 103.
    #[test]
    fn debug_quotes_nothing() {
        let found = read(["Bearer error=canary, claims=canary"]).unwrap();
        assert!(!format!("{found:?}").contains("canary"));
    }
}
