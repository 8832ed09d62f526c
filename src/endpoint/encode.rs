//! Parameters of a token request to bytes: form or JSON.

use bytes::Bytes;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// How the parameters of a token request are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyEncoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 §4.4.2 asks. The default. A space is written `%20`, which every
    /// form decoder reads.
    #[default]
    Form,
    /// One JSON object of strings, which some servers ask for. A parameter that occurs twice becomes an array.
    Json,
}

impl BodyEncoding {
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            BodyEncoding::Form => "application/x-www-form-urlencoded",
            BodyEncoding::Json => "application/json",
        })
    }

    /// The body. It is wiped when its last handle is dropped.
    pub(crate) fn encode(self, params: &Params<'_>) -> Bytes {
        // Room for the worst case, since growing would leave copies of the secrets behind.
        let room = params.0.iter().map(|(name, value)| 6 * (name.len() + value.len()) + 8).sum::<usize>() + 2;
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        match self {
            BodyEncoding::Form => write_form(params, &mut body),
            BodyEncoding::Json => write_json(params, &mut body),
        }
        Bytes::from_owner(body)
    }
}

/// The parameters of a token request in the order in which they are sent. Names may repeat (`resource`, RFC 8707 §2).
#[derive(Default)]
pub(crate) struct Params<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Params<'a> {
    /// Adds one; an empty value means the same as none (RFC 6749 §3.2) and is left out.
    pub(crate) fn push(&mut self, name: &'a str, value: &'a str) {
        if !value.is_empty() {
            self.0.push((name, value));
        }
    }
}

/// Form-encodes one value. What RFC 3986 §2.3 calls unreserved stays as it is, everything else is escaped.
pub(crate) fn form_encode(value: &str) -> impl Iterator<Item = &str> {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(value, ESCAPED)
}

fn write_form(params: &Params<'_>, body: &mut Vec<u8>) {
    for (name, value) in &params.0 {
        if !body.is_empty() {
            body.push(b'&');
        }
        form_encode(name).for_each(|part| body.extend_from_slice(part.as_bytes()));
        body.push(b'=');
        form_encode(value).for_each(|part| body.extend_from_slice(part.as_bytes()));
    }
}

fn write_json(params: &Params<'_>, body: &mut Vec<u8>) {
    body.push(b'{');
    for (at, (name, value)) in params.0.iter().enumerate() {
        let of_same_name = |(other, _): &&(&str, &str)| other == name;
        if params.0.iter().take(at).any(|other| of_same_name(&other)) {
            continue;
        }
        if at > 0 {
            body.push(b',');
        }
        write_json_string(name, body);
        body.push(b':');
        let mut further = params.0.iter().skip(at + 1).filter(of_same_name).peekable();
        if further.peek().is_none() {
            write_json_string(value, body);
            continue;
        }
        body.push(b'[');
        write_json_string(value, body);
        for (_, value) in further {
            body.push(b',');
            write_json_string(value, body);
        }
        body.push(b']');
    }
    body.push(b'}');
}

fn write_json_string(text: &str, body: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(body, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encoding: BodyEncoding, params: &[(&str, &str)]) -> String {
        let mut list = Params::default();
        params.iter().for_each(|(name, value)| list.push(name, value));
        String::from_utf8(encoding.encode(&list).to_vec()).unwrap()
    }

    /// Behaviour 107.
    #[test]
    fn every_character_survives_a_form_body() {
        assert_eq!(encoded(BodyEncoding::Form, &[("s", " %&+£€")]), "s=%20%25%26%2B%C2%A3%E2%82%AC");
        assert_eq!(encoded(BodyEncoding::Form, &[("s", "a-b._~*:=/é")]), "s=a-b._~%2A%3A%3D%2F%C3%A9");
    }

    #[test]
    fn order_stays_and_empty_values_go() {
        let params = [("b", "1"), ("empty", ""), ("a", "2"), ("a", "3"), ("c", "4")];
        assert_eq!(encoded(BodyEncoding::Form, &params), "b=1&a=2&a=3&c=4");
        assert_eq!(encoded(BodyEncoding::Json, &params), r#"{"b":"1","a":["2","3"],"c":"4"}"#);
        assert_eq!(encoded(BodyEncoding::Json, &[]), "{}");
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(encoded(BodyEncoding::Json, &[("s", "a\"b\\c\u{1}/é")]), r#"{"s":"a\"b\\c\u0001/é"}"#);
    }
}
