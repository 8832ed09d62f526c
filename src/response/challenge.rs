//! `WWW-Authenticate`: what the challenges of the scheme that was sent say about the token.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What all `WWW-Authenticate` lines of a response say together (RFC 9110 §11.6.1).
///
/// Only challenges of the scheme that was sent count; what another scheme says concerns other credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// There is no challenge, or none that can be read.
    None,
    /// There are challenges, none of the scheme that was sent.
    Foreign,
    /// The scheme that was sent is challenged; of several of its challenges `invalid_token` wins, else the first error.
    Ours { error: Option<ErrorKind> },
}

/// The `error` parameter of a challenge (RFC 6750 §3.1, RFC 9449 §7.1 and §9, RFC 9470 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    InvalidToken,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidRequest,
    UseDpopNonce,
    InvalidDpopProof,
    Other,
}

/// Lines beyond this many bytes in total are not read.
const MAX_BYTES: usize = 16 * 1024;
const MAX_CHALLENGES: usize = 32;
/// Per challenge.
const MAX_PARAMS: usize = 32;

impl Challenge {
    /// Reads every line, in time linear in the first 16 KiB, without allocating.
    ///
    /// Lenient where the meaning is clear (parameters without a comma between them, empty list members, unquoted URIs).
    /// Where it is not, the challenge at hand and the rest of its line tell nothing: a mistake of the server must not
    /// look like a reason to keep the token.
    pub(crate) fn read(headers: &HeaderMap, sent: &[u8]) -> Self {
        let mut reader = Reader { sent, found: Challenge::None, open: Open::default() };
        walk(headers, &mut reader);
        reader.found
    }
}

/// Sees the challenges of a response, in order.
pub(super) trait Visit {
    /// One begins.
    fn open(&mut self, scheme: &[u8]);
    /// A parameter of the one at hand; its value as it stands, without its quotes.
    fn param(&mut self, name: &[u8], value: &[u8]);
    /// The one at hand was read whole. Without that it does not count.
    fn close(&mut self);
}

/// Shows every line to `visit`, each as far as it can be read.
pub(super) fn walk(headers: &HeaderMap, visit: &mut impl Visit) {
    let (mut bytes, mut challenges) = (0usize, 0);
    for line in headers.get_all(WWW_AUTHENTICATE) {
        bytes = bytes.saturating_add(line.len());
        if bytes > MAX_BYTES {
            break;
        }
        // `None` is a line that could not be read to its end.
        let _ = walk_line(Cursor(line.as_bytes()), &mut challenges, visit);
    }
}

fn walk_line(mut cursor: Cursor<'_>, challenges: &mut usize, visit: &mut impl Visit) -> Option<()> {
    // There is none at hand when a line begins.
    let (mut is_open, mut params) = (false, 0);
    let mut separated = true;
    loop {
        separated |= cursor.take_while(|b| is_space(b) || b == b',').contains(&b',');
        if cursor.0.is_empty() {
            if is_open {
                visit.close();
            }
            return Some(());
        }
        let name = cursor.token()?;
        if cursor.eat_equals() {
            let value = cursor.value()?;
            params += 1;
            if params > MAX_PARAMS {
                return None;
            }
            if is_open {
                visit.param(name, value);
            }
        } else if separated && cursor.at_end_of_word() {
            if is_open {
                visit.close();
            }
            *challenges += 1;
            if *challenges > MAX_CHALLENGES {
                return None;
            }
            visit.open(name);
            (is_open, params) = (true, 0);
            cursor.skip_token68();
        } else {
            return None;
        }
        separated = false;
    }
}

struct Reader<'a> {
    sent: &'a [u8],
    found: Challenge,
    open: Open,
}

/// A challenge whose parameters are being read.
#[derive(Default)]
struct Open {
    ours: bool,
    /// Only ever set if `ours`.
    error: Option<ErrorKind>,
}

impl Visit for Reader<'_> {
    fn open(&mut self, scheme: &[u8]) {
        let ours = scheme.eq_ignore_ascii_case(self.sent);
        self.found = match self.found {
            Challenge::None | Challenge::Foreign if ours => Challenge::Ours { error: None },
            Challenge::None => Challenge::Foreign,
            found => found,
        };
        self.open = Open { ours, error: None };
    }

    /// Notes the first `error`. A repeated one is against RFC 9110 §11.2.
    fn param(&mut self, name: &[u8], value: &[u8]) {
        let open = &mut self.open;
        if open.ours && open.error.is_none() && !value.is_empty() && name.eq_ignore_ascii_case(b"error") {
            open.error = Some(ErrorKind::of(value));
        }
    }

    fn close(&mut self) {
        if let (Some(new), Challenge::Ours { error }) = (self.open.error, &mut self.found)
            && (error.is_none() || new == ErrorKind::InvalidToken)
        {
            *error = Some(new);
        }
    }
}

impl ErrorKind {
    fn of(value: &[u8]) -> Self {
        const KNOWN: [(&[u8], ErrorKind); 6] = [
            (b"invalid_token", ErrorKind::InvalidToken),
            (b"insufficient_scope", ErrorKind::InsufficientScope),
            (b"insufficient_user_authentication", ErrorKind::InsufficientUserAuthentication),
            (b"invalid_request", ErrorKind::InvalidRequest),
            (b"use_dpop_nonce", ErrorKind::UseDpopNonce),
            (b"invalid_dpop_proof", ErrorKind::InvalidDpopProof),
        ];
        KNOWN.iter().find(|(word, _)| unescaped_eq(value, word)).map_or(ErrorKind::Other, |(_, kind)| *kind)
    }
}

/// Whether a value, its quoted-pairs resolved, is `word` in any case.
fn unescaped_eq(value: &[u8], word: &[u8]) -> bool {
    let mut escaped = false;
    let unescaped = value.iter().filter(|byte| {
        escaped = **byte == b'\\' && !escaped;
        !escaped
    });
    unescaped.map(u8::to_ascii_lowercase).eq(word.iter().copied())
}

/// What is left of a line.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.0.iter().position(|byte| !belongs(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn eat(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// An equals sign with any space around it; takes nothing if there is none.
    fn eat_equals(&mut self) -> bool {
        let before = self.0;
        self.take_while(is_space);
        let found = self.eat(b'=');
        if found {
            self.take_while(is_space);
        } else {
            self.0 = before;
        }
        found
    }

    fn at_end_of_word(&self) -> bool {
        self.0.first().is_none_or(|byte| is_space(*byte) || *byte == b',')
    }

    fn token(&mut self) -> Option<&'a [u8]> {
        let token = self.take_while(is_tchar);
        (!token.is_empty()).then_some(token)
    }

    /// A parameter's value as it stands, without its quotes. Empty for the padding that ends a token68.
    fn value(&mut self) -> Option<&'a [u8]> {
        if self.eat(b'"') { self.quoted() } else { Some(self.unquoted()) }
    }

    fn quoted(&mut self) -> Option<&'a [u8]> {
        let mut escaped = false;
        let end = self.0.iter().position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        })?;
        let (value, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        self.eat(b'"');
        Some(value)
    }

    fn unquoted(&mut self) -> &'a [u8] {
        self.take_while(|byte| !is_space(byte) && byte != b',' && byte != b'"')
    }

    /// After a scheme: skips a token68 (`Negotiate YII`), leaves a parameter (`Basic realm=x`) or a comma alone.
    fn skip_token68(&mut self) {
        self.take_while(is_space);
        let before = self.0;
        self.take_while(is_tchar);
        let param = self.eat_equals();
        self.0 = before;
        if !param {
            self.unquoted();
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::ErrorKind::*;
    use super::*;

    fn read<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Challenge {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(line.as_ref()).unwrap());
        }
        Challenge::read(&headers, b"Bearer")
    }

    fn ours(error: impl Into<Option<ErrorKind>>) -> Challenge {
        Challenge::Ours { error: error.into() }
    }

    /// Behaviour 53.
    #[test]
    fn every_spelling_of_a_challenge_is_read() {
        let table: &[(&str, Challenge)] = &[
            ("", Challenge::None),
            ("Bearer", ours(None)),
            ("bearer realm=\"x\"", ours(None)),
            ("BEARER ERROR=\"Invalid_Token\"", ours(InvalidToken)),
            (r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#, Challenge::Foreign),
            (
                r#"Basic realm="simple", Newauth realm="apps", title="Login to \"apps\"", Bearer error="invalid_token""#,
                ours(InvalidToken),
            ),
            (
                r#"Bearer error="invalid_token", error_description="a, Bearer error=\"insufficient_scope\"", DPoP algs="ES256 PS256""#,
                ours(InvalidToken),
            ),
            // Commas, spaces and a missing realm.
            (", ,Bearer error=invalid_token,", ours(InvalidToken)),
            ("\t ,\tBearer\terror\t=\t\"invalid_token\" \t, ,", ours(InvalidToken)),
            ("Bearer , error=invalid_token", ours(InvalidToken)),
            ("Bearer scope=\"a b\" error=\"insufficient_scope\"", ours(InsufficientScope)),
            ("Bearer error_uri=https://example.com/a=b?c, error=invalid_token", ours(InvalidToken)),
            (r#"Bearer error="invalid\_token""#, ours(InvalidToken)),
            (r#"Bearer realm="\\", error="invalid_token""#, ours(InvalidToken)),
            // token68.
            (r#"Negotiate YII=, Bearer error="insufficient_scope", scope="a b""#, ours(InsufficientScope)),
            (r#"Negotiate YII==, Bearer error="invalid_request""#, ours(InvalidRequest)),
            (
                r#"Negotiate a/b+c, Bearer error="insufficient_user_authentication""#,
                ours(InsufficientUserAuthentication),
            ),
            ("Negotiate YII, Bearer", ours(None)),
            ("Negotiate Bearer", Challenge::Foreign),
            // Every error.
            ("Bearer error=use_dpop_nonce", ours(UseDpopNonce)),
            ("Bearer error=insufficient_claims, claims=\"e30=\"", ours(Other)),
            ("Bearer error=\"\"", ours(None)),
            ("Bearer error=", ours(None)),
            ("Bearer error_description=\"invalid_token\", xerror=invalid_token", ours(None)),
            // Repeated parameters: the first.
            ("Bearer error=insufficient_scope, error=invalid_token", ours(InsufficientScope)),
            ("Bearer error=invalid_token, Error=insufficient_scope", ours(InvalidToken)),
            // Several of our scheme: invalid_token wins, else the first error.
            ("Bearer error=insufficient_scope, Bearer error=invalid_token", ours(InvalidToken)),
            ("Bearer error=invalid_token, Bearer error=insufficient_scope", ours(InvalidToken)),
            ("Bearer, Bearer error=invalid_request, Bearer error=insufficient_scope", ours(InvalidRequest)),
            // Another scheme's error is not ours.
            ("DPoP error=\"invalid_token\"", Challenge::Foreign),
            ("DPoP error=\"insufficient_scope\", Bearer realm=\"x\"", ours(None)),
            ("Bearer realm=\"x\", DPoP error=\"insufficient_scope\"", ours(None)),
            ("Bearerish error=insufficient_scope", Challenge::Foreign),
            ("Basic realm=\"Bearer error=insufficient_scope\"", Challenge::Foreign),
        ];
        for (line, expected) in table {
            assert_eq!(read([line]), *expected, "{line}");
        }
    }

    /// Behaviour 53.
    #[test]
    fn challenges_in_several_lines_are_read_together() {
        assert_eq!(read(["Basic realm=\"x\"", "Bearer error=\"invalid_token\""]), ours(InvalidToken));
        assert_eq!(read(["Bearer error=\"insufficient_scope\"", "Bearer error=\"invalid_token\""]), ours(InvalidToken));
        assert_eq!(read(["Bearer realm=\"cut", "Bearer error=\"invalid_token\""]), ours(InvalidToken));
        assert_eq!(read(["Bearer", "error=insufficient_scope"]), ours(None), "a line begins with a scheme");
        assert_eq!(read(["Basic", "Digest realm=\"x\""]), Challenge::Foreign);
        assert_eq!(read::<&str>([]), Challenge::None);
    }

    #[test]
    fn what_is_malformed_tells_nothing() {
        let table: &[(&[u8], Challenge)] = &[
            (br#"Bearer error="insufficient_scope"#, ours(None)),
            (br#"Bearer error="insufficient_scope", error_description="cut"#, ours(None)),
            (br#"Bearer error="insufficient_scope", error_description="a "quoted" word""#, ours(None)),
            (br#"Bearer error="insufficient_scope\"#, ours(None)),
            (b"Bearer error=insufficient_scope\"", ours(None)),
            (b"Bearer error=insufficient_scope, @", ours(None)),
            (b"Bearer \"error=insufficient_scope\"", ours(None)),
            (b"Bearer error=insufficient_scope \xe9\xff", ours(None)),
            (b"Basic realm=say Bearer error=insufficient_scope", Challenge::Foreign),
            (b"error=insufficient_scope", Challenge::None),
            (b"=,==,\"", Challenge::None),
            (b"\xff\xfe", Challenge::None),
            (b"Bearer/error=insufficient_scope", Challenge::None),
            // Eight-bit text inside of a value is text.
            (b"Bearer realm=\"\xe9\xff\", error=invalid_token", ours(InvalidToken)),
            (b"Bearer realm=\xe9\xff, error=invalid_token", ours(InvalidToken)),
            // What was read whole before still counts.
            (b"Bearer error=invalid_token, Basic realm=\"cut", ours(InvalidToken)),
        ];
        for (line, expected) in table {
            assert_eq!(read([line]), *expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn the_amount_that_is_read_is_capped() {
        let last = "Bearer error=insufficient_scope";
        assert_eq!(read([",".repeat(1024 * 1024) + last]), Challenge::None);
        assert_eq!(read([",".repeat(MAX_BYTES - last.len()) + last]), ours(InsufficientScope));
        assert_eq!(read([",".repeat(MAX_BYTES - last.len()), format!(",{last}")]), Challenge::None);
        assert_eq!(read(["\"".repeat(MAX_BYTES), last.into()]), Challenge::None);

        assert_eq!(read(["Basic, ".repeat(MAX_CHALLENGES - 1) + last]), ours(InsufficientScope));
        assert_eq!(read(["Basic, ".repeat(MAX_CHALLENGES) + last]), Challenge::Foreign);

        let params = |count| format!("{last}{}", ", a=b".repeat(count));
        assert_eq!(read([params(MAX_PARAMS - 1)]), ours(InsufficientScope));
        assert_eq!(read([params(MAX_PARAMS)]), ours(None));
    }

    #[test]
    fn the_scheme_is_the_one_that_was_sent() {
        let mut headers = HeaderMap::new();
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer error=invalid_token, DPoP error=use_dpop_nonce"),
        );
        assert_eq!(Challenge::read(&headers, b"dpop"), ours(UseDpopNonce));
        assert_eq!(Challenge::read(&headers, b"Token"), Challenge::Foreign);
        assert_eq!(Challenge::read(&headers, b""), Challenge::Foreign);
    }

    /// Header values that look like challenges, and some that do not.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[ \t,=\"\\\\]{0,3}".prop_map(String::into_bytes),
            prop::sample::select(vec![
                "Bearer",
                "Basic",
                "error",
                "realm",
                "invalid_token",
                "insufficient_scope",
                "YII="
            ])
            .prop_map(|word| word.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| {
            let legal = |byte: &u8| HeaderValue::from_bytes(&[*byte]).is_ok();
            pieces.concat().into_iter().filter(legal).collect()
        })
    }

    proptest! {
        #[test]
        fn no_header_panics(lines in prop::collection::vec(line(), 0..4)) {
            read(&lines);
        }

        #[test]
        fn another_schemes_challenge_changes_nothing(
            error in prop::option::of("[a-z_]{1,12}"), foreign in "[ -~]{0,40}", before in any::<bool>(),
        ) {
            let own = error.map_or("Bearer".to_owned(), |error| format!("Bearer error=\"{error}\""));
            let text: String = foreign.escape_default().to_string();
            let foreign = format!("Basic realm=\"{text}\", error=\"insufficient_scope\"");
            let mixed = if before { format!("{foreign}, {own}") } else { format!("{own}, {foreign}") };
            prop_assert_eq!(read([mixed]), read([own]));
        }
    }
}
