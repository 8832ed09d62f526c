//! The secrets that were sent, to be found again in what came back.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::Uri;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::super::encode::form_encode;
use crate::types::{ErrorCode, Secret};

/// What must not be in an error. Servers echo it: as it was sent, and decoded or encoded again.
///
/// Whatever is made of a secret here has its room from the start: a text that grows leaves copies of itself behind.
#[derive(Default)]
pub(crate) struct Redactor<'a> {
    values: Vec<&'a str>,
    /// What is masked too, and may be ordinary words.
    words: Vec<&'a str>,
    owned: Vec<Secret<String>>,
}

impl<'a> Redactor<'a> {
    /// Shorter ones would be found everywhere by chance.
    const SHORTEST: usize = 4;
    /// So many characters in a row are no chance any more: as many as this, or the whole secret if it is shorter.
    const TELLING_RUN: usize = 8;
    /// In a description, which is made of words as some secrets are.
    const TELLING_RUN_OF_WORDS: usize = 12;
    const LONGEST_CODE: usize = 40;
    const LONGEST_DESCRIPTION: usize = 256;
    const MASK: &'static str = "[redacted]";

    pub(crate) fn push(&mut self, value: Option<&'a str>) {
        self.values.extend(value.filter(|value| value.len() >= Self::SHORTEST));
    }

    /// The same for what may be ordinary words: a description that shares some of them is told all the same.
    pub(crate) fn push_words(&mut self, value: Option<&'a str>) {
        self.words.extend(value.filter(|value| value.len() >= Self::SHORTEST));
    }

    pub(crate) fn push_owned(&mut self, value: Option<Secret<String>>) {
        self.owned.extend(value.filter(|value| value.expose().len() >= Self::SHORTEST));
    }

    /// The values of a URL's query: some servers want a key there.
    pub(crate) fn push_query(&mut self, url: &Uri) {
        for pair in url.query().unwrap_or_default().split('&') {
            let value = pair.split_once('=').map_or(pair, |(_, value)| value);
            self.push_owned(Some(Secret::from(value)));
            self.push_owned(percent_decode_str(value).decode_utf8().ok().map(|value| Secret::from(&*value)));
        }
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.spellings().iter().any(|secret| text.contains(secret.expose().as_str()))
    }

    /// An `error` code that may be told. `is_known`: registered, or configured; nobody gains from such a one. Any other may be
    /// a secret in disguise: its form is narrow, and it shares no run of characters with one, however that is written.
    pub(crate) fn code(&self, code: &str, is_known: bool) -> Option<ErrorCode> {
        let in_form = (1..=Self::LONGEST_CODE).contains(&code.len())
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_known || in_form && !self.is_code_alike(code) { ErrorCode::new(code) } else { None }
    }

    /// The text with every secret replaced, control characters removed, cut to 256 characters. Nothing of it is left if there
    /// is a secret in disguise in it.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mut masked = Zeroizing::new(String::with_capacity(text.len()));
        masked.extend(text.chars().filter(|c| !c.is_control()));
        for secret in self.spellings() {
            masked = replaced(&masked, secret.expose(), Self::MASK);
        }
        let mut cut = Zeroizing::new(String::with_capacity(masked.len()));
        cut.extend(masked.chars().take(Self::LONGEST_DESCRIPTION));
        let in_lower_case = Zeroizing::new(cut.to_ascii_lowercase());
        let run = Self::TELLING_RUN_OF_WORDS;
        let mut secrets = self.secrets().filter(|secret| secret.len() >= Self::TELLING_RUN);
        let is_alike = secrets.any(|secret| is_alike(secret, &in_lower_case, run));
        if is_alike { Self::MASK.to_owned() } else { cut.as_str().to_owned() }
    }

    /// Longest first: one secret may be part of another.
    fn spellings(&self) -> Vec<Secret<String>> {
        let mut spellings = Vec::with_capacity(self.owned.len() + 3 * (self.values.len() + self.words.len()));
        spellings.extend(self.owned.iter().cloned());
        for value in self.values.iter().chain(&self.words) {
            let encoded = encoded(value);
            // Where a space is written `+` instead.
            spellings.push(Secret::from(replaced(&encoded, "%20", "+").as_str()));
            spellings.push(Secret::from(encoded.as_str()));
            spellings.push(Secret::from(*value));
        }
        spellings.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        spellings
    }

    fn is_code_alike(&self, code: &str) -> bool {
        let mut all = self.secrets().chain(self.words.iter().copied());
        all.any(|value| is_alike(value, code, Self::TELLING_RUN))
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        self.values.iter().copied().chain(self.owned.iter().map(|secret| secret.expose().as_str()))
    }
}

/// Whether a text in lower case shares a run of characters with a secret as it is, reversed, in hex or in Base64, whatever the
/// case.
fn is_alike(secret: &str, text: &str, run: usize) -> bool {
    let spelled = [Zeroizing::new(secret.to_owned()), encoded(secret), hex(secret)];
    // Where it begins in what is encoded shifts all that follows.
    let in_base64 = (0..3)
        .filter_map(|skip| secret.as_bytes().get(skip..))
        .flat_map(|rest| [STANDARD_NO_PAD.encode(rest), URL_SAFE_NO_PAD.encode(rest)].map(Zeroizing::new));
    spelled.into_iter().chain(in_base64).any(|spelling| {
        let mut bytes = Zeroizing::new(spelling.to_ascii_lowercase().into_bytes());
        let forwards = shares_run(&bytes, text.as_bytes(), run);
        bytes.reverse();
        forwards || shares_run(&bytes, text.as_bytes(), run)
    })
}

fn shares_run(secret: &[u8], code: &[u8], run: usize) -> bool {
    let run = run.min(secret.len());
    // A run of none would be in everything.
    run > 0 && secret.windows(run).any(|part| code.windows(run).any(|other| other == part))
}

fn encoded(value: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * value.len()));
    encoded.extend(form_encode(value));
    encoded
}

fn hex(value: &str) -> Zeroizing<String> {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
    let mut hex = Zeroizing::new(String::with_capacity(2 * value.len()));
    hex.extend(value.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte)]));
    hex
}

fn replaced(text: &str, what: &str, by: &str) -> Zeroizing<String> {
    let mut replaced = Zeroizing::new(String::with_capacity(text.len() + text.matches(what).count() * by.len()));
    for (at, part) in text.split(what).enumerate() {
        if at > 0 {
            replaced.push_str(by);
        }
        replaced.push_str(part);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour 150.
    #[test]
    fn a_code_that_is_like_a_secret_is_not_told() {
        let secret = "correct_horse_battery";
        let mut redactor = Redactor::default();
        redactor.push(Some(secret));
        redactor.push_query(&Uri::from_static("https://a.example/t?key=wrong%5fdonkey&x=y"));
        let base64 = |text: &str| URL_SAFE_NO_PAD.encode(text).to_ascii_lowercase();
        let reversed: String = secret.chars().rev().collect();
        let in_disguise = [
            secret.to_owned(),
            secret[1..].to_owned(),
            secret[..10].to_owned(),
            secret.replacen('o', "", 1),
            format!("not_{}", &secret[3..12]),
            reversed,
            base64(secret),
            base64(&secret[1..]),
            base64(&secret[2..]),
            "wrong_donkey".into(),
            "Correct_Horse_Battery".into(),
            hex(secret).to_string(),
        ];
        for code in &in_disguise {
            assert_eq!(redactor.code(code, false), None, "{code}");
        }
        for honest in ["invalid_grant", "collect_me", "x", &"a".repeat(40)] {
            assert!(redactor.code(honest, false).is_some(), "{honest}");
        }
        for other in ["", "AADSTS50034", "invalid-grant", "urn:x", &"a".repeat(41)] {
            assert_eq!(redactor.code(other, false), None, "{other}");
        }
        assert!(redactor.code("AADSTS50034", true).is_some(), "a configured one");
    }

    /// Behaviour 150 (a description).
    #[test]
    fn a_description_with_a_secret_in_disguise_is_not_told() {
        let secret = "Correct+Horse&Battery";
        let mut redactor = Redactor::default();
        redactor.push(Some(secret));
        redactor.push(Some("tiny"));
        redactor.push_words(Some("https://graph.example.com/.default"));
        let reversed: String = secret.chars().rev().collect();
        for disguise in [
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE_NO_PAD.encode(format!("id:{secret}")),
            hex(secret).to_string(),
            hex(secret).to_uppercase(),
            reversed,
            secret[..12].to_owned(),
            secret.to_uppercase(),
            "correct%2bhorse%26battery".to_owned(),
            "Correct+Horse&amp;Battery".to_owned(),
        ] {
            assert_eq!(redactor.mask(&format!("it was {disguise} here")), "[redacted]", "{disguise}");
        }
        let honest = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the value";
        assert_eq!(redactor.mask(honest), honest);
        assert_eq!(redactor.mask("https://graph.example.com is no scope"), "https://graph.example.com is no scope");
        assert_eq!(redactor.mask(&format!("{secret}, no destiny")), "[redacted], no des[redacted]");
    }

    #[test]
    fn a_key_in_the_query_is_masked() {
        let mut redactor = Redactor::default();
        redactor.push_query(&Uri::from_static("https://a.example/t?key=a%2Bcanary&canary-2"));
        assert_eq!(redactor.mask("no a+canary and a%2Bcanary, canary-2"), "no [redacted] and [redacted], [redacted]");
        assert!(redactor.is_in("a+canary"));
    }
}
