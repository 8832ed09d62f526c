//! The members of an answer, whether JSON or form.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::token::Extra;
use crate::types::Scopes;

/// The members as they came, in order.
pub(super) struct Members<'a> {
    list: Vec<(String, Member<'a>)>,
    /// Theirs, and the standard name it stands for.
    aliases: &'a [(String, String)],
}

/// One value, read no further than needed.
pub(super) enum Member<'a> {
    Text(Zeroizing<String>),
    /// Any other JSON value, as it was written; never `null`.
    Other(&'a str),
}

/// An answer without members.
pub(super) struct Unreadable {
    pub(super) class: Class,
    /// Where it stopped making sense, never what it says.
    pub(super) detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Empty,
    /// Something else than the authorization server is likely to have answered.
    Page,
    Other,
}

impl<'a> Members<'a> {
    /// Content types are wrong too often to be trusted: the first character decides where it can.
    pub(super) fn parse(
        text: &'a str,
        headers: &HeaderMap,
        aliases: &'a [(String, String)],
    ) -> Result<Self, Unreadable> {
        if let Some(encoding) = encoding(headers) {
            let detail = format!("the body is encoded ({encoding}) though `identity` was asked for");
            return Err(Unreadable { class: Class::Page, detail });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let list = match text.trim_start().chars().next() {
            None => return Err(Unreadable { class: Class::Empty, detail: "the body is empty".into() }),
            Some('<') => return Err(unreadable(Class::Page, "the body is an HTML or XML page", headers)),
            Some('{') => json(text).map_err(|what| unreadable(Class::Other, what, headers))?,
            Some(_) => form(text),
        };
        let members = Self { list, aliases };
        if text.trim_start().starts_with('{') || members.looks_like_an_answer() {
            return Ok(members);
        }
        let class = if content_type(headers) == Some("text/html") { Class::Page } else { Class::Other };
        Err(unreadable(class, "the body is neither a JSON object nor a form", headers))
    }

    /// Anything splits into pairs somehow; a form of ours has one of these.
    fn looks_like_an_answer(&self) -> bool {
        self.get("access_token").is_some() || self.get("error").is_some()
    }

    /// The member of that standard name, or of an alias.
    pub(super) fn get(&self, name: &str) -> Option<&Member<'a>> {
        let find = |name: &str| self.list.iter().find(|(own, _)| own == name).map(|(_, member)| member);
        let aliases = self.aliases.iter().filter(|(_, ours)| ours == name);
        find(name)
            .or_else(|| aliases.into_iter().find_map(|(theirs, _)| find(theirs)))
            .filter(|member| !member.is_null())
    }

    /// Whether the member is there at all, `null` or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(own, _)| self.standard_name(own) == name)
    }

    /// A string that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Member::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The first of `names` that occurs more than once: whichever counted, somebody would be misled.
    pub(super) fn repeated(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| {
            let mut spellings = self.aliases.iter().filter(|(_, ours)| ours == name).map(|(theirs, _)| theirs.as_str());
            let count = |name: &str| self.list.iter().filter(|(own, _)| own == name).count();
            count(name) > 1 || spellings.any(|theirs| count(theirs) > 1)
        })
    }

    /// `scope`; as a list where a server sends one. What is no scope is left out of account.
    pub(super) fn scopes(&self) -> Option<Scopes> {
        let scopes = match self.get("scope")? {
            Member::Text(text) => Scopes::new(text.split_ascii_whitespace()),
            Member::Other(raw) => Scopes::new(serde_json::from_str::<Vec<String>>(raw).ok()?),
        };
        scopes.ok().filter(|scopes| !scopes.is_empty())
    }

    /// The members that OAuth2 does not define.
    pub(super) fn extra(&self) -> Extra {
        const DEFINED: [&str; 5] = ["access_token", "token_type", "expires_in", "refresh_token", "scope"];
        self.list
            .iter()
            .filter(|(name, _)| !DEFINED.contains(&self.standard_name(name)))
            .filter_map(|(name, member)| Some((name.clone(), member.value()?)))
            .collect()
    }

    fn standard_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.aliases.iter().find(|(theirs, _)| theirs == name).map_or(name, |(_, ours)| ours)
    }
}

impl<'a> Member<'a> {
    fn from_raw(raw: &'a str) -> Self {
        match serde_json::from_str::<String>(raw) {
            Ok(text) => Member::Text(Zeroizing::new(text)),
            Err(_) => Member::Other(raw),
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Member::Other("null"))
    }

    fn value(&self) -> Option<Value> {
        match self {
            Member::Text(text) => Some(Value::from(text.as_str())),
            // Refuses what is nested too deep, or a number beyond f64; the token does not depend on it.
            Member::Other(raw) => serde_json::from_str(raw).ok(),
        }
    }
}

/// The top level of a JSON object, duplicates kept and values untouched: one bad value must not cost the token.
fn json(text: &str) -> Result<Vec<(String, Member<'_>)>, String> {
    struct TopLevel<'a>(Vec<(String, Member<'a>)>);

    impl<'de> Deserialize<'de> for TopLevel<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Pairs;

            impl<'de> Visitor<'de> for Pairs {
                type Value = TopLevel<'de>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a JSON object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut list = Vec::new();
                    while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
                        list.push((name, Member::from_raw(raw.get())));
                    }
                    Ok(TopLevel(list))
                }
            }

            deserializer.deserialize_map(Pairs)
        }
    }

    serde_json::from_str::<TopLevel<'_>>(text).map(|top| top.0).map_err(|error| {
        // The error itself quotes the text.
        let what = match error.classify() {
            Category::Eof => "ends too early",
            Category::Io | Category::Syntax | Category::Data => "is malformed",
        };
        format!("the JSON {what} at line {} column {}", error.line(), error.column())
    })
}

fn form(text: &str) -> Vec<(String, Member<'_>)> {
    let decode = |part: &str| {
        let spaced = Zeroizing::new(part.replace('+', " "));
        match percent_decode_str(&spaced).decode_utf8_lossy() {
            Cow::Borrowed(text) => text.to_owned(),
            Cow::Owned(text) => text,
        }
    };
    let pairs = text.trim().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), Member::Text(Zeroizing::new(decode(value))))).collect()
}

fn unreadable(class: Class, what: impl Into<String>, headers: &HeaderMap) -> Unreadable {
    let mut detail = what.into();
    if let Some(content_type) = content_type(headers) {
        detail.push_str(", sent as ");
        detail.push_str(content_type);
    }
    Unreadable { class, detail }
}

/// Only those worth telling: any other could be an echo.
fn content_type(headers: &HeaderMap) -> Option<&'static str> {
    const KNOWN: [&str; 6] = [
        "application/json",
        "application/x-www-form-urlencoded",
        "application/problem+json",
        "application/xml",
        "text/html",
        "text/plain",
    ];
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next()?.trim();
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(essence))
}

fn encoding(headers: &HeaderMap) -> Option<&'static str> {
    const KNOWN: [&str; 5] = ["gzip", "br", "deflate", "zstd", "compress"];
    let value = headers.get(CONTENT_ENCODING)?.to_str().unwrap_or("?").trim();
    if value.is_empty() || value.eq_ignore_ascii_case("identity") {
        return None;
    }
    Some(KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(value)).unwrap_or("in an unknown way"))
}
