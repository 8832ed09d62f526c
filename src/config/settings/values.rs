//! Values of settings: times with a unit, lists, and those that are a word or a table.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::keys::{choice, table};
use super::missing;
use crate::endpoint::BodyEncoding;
use crate::request::{ExistingAuthorization, UnlistedOrigin};
use crate::response::Forbidden;
use crate::token::{ExpirySource, Renew, UnknownExpiry};
use crate::types::{ConfigError, Replay};

/// A time, such as `"30s"`, `"1h 30m"` or `"0.5s"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span(pub(super) Duration);

const SPAN: &str = "a time with its unit, such as \"30s\", \"500ms\", \"5m\", \"1h 30m\" or \"7d\"";

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SPAN)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                parse_span(text).map(Span).ok_or_else(|| E::custom(format!("not {SPAN}")))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Numbers and units in turn, white space where it pleases; no sign, no exponent, no unit twice.
fn parse_span(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 5] = [("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001)];
    let (mut rest, mut total, mut after) = (text.trim(), Duration::ZERO, 0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let number: f64 = if number.starts_with('.') { None } else { number.parse().ok() }?;
        let unit = unit.trim_start();
        let (name, left) = unit.split_at(unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len()));
        // From large to small.
        let at = UNITS.iter().skip(after).position(|(unit, _)| *unit == name)?.saturating_add(after);
        let (_, seconds) = UNITS.get(at)?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        (rest, after) = (left.trim_start(), at.saturating_add(1));
    }
    Some(total)
}

/// Some texts; one alone needs no list.
#[derive(Clone, Debug)]
pub(super) struct Many<T = String>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
            type Value = Many<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Many<T>, E> {
                T::deserialize(de::value::StrDeserializer::new(text)).map(|one| Many(vec![one]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Many<T>, E> {
                T::deserialize(de::value::U64Deserializer::new(number)).map(|one| Many(vec![one]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Many<T>, E> {
                T::deserialize(de::value::I64Deserializer::new(number)).map(|one| Many(vec![one]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Many<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|one| Many(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Many<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Many(all))
            }
        }

        deserializer.deserialize_any(OneOrMany(std::marker::PhantomData))
    }
}

impl Many {
    /// As the `scope` parameter has them: a text may hold several, with spaces between.
    pub(super) fn into_words(self) -> impl Iterator<Item = String> {
        self.0.into_iter().flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }
}

table! {
    /// A pause and what it grows to.
    pub(super) struct Pauses {
        first: Span,
        longest: Span,
    }
}

impl Pauses {
    pub(super) fn both(self, whose: &str) -> Result<(Span, Span), ConfigError> {
        let missing = |key| missing(key, format_args!("`{whose}`"));
        Ok((self.first.ok_or_else(|| missing("first"))?, self.longest.ok_or_else(|| missing("longest"))?))
    }
}

table! {
    struct FixedLife {
        fixed: Span,
    }
}

table! {
    struct AssumedLife {
        assume: Span,
    }
}

/// Where the end of a token's life is read from: a word, or `{ fixed = ".." }`.
#[derive(Clone)]
pub(super) struct Expiry(pub(super) ExpirySource);

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = word_or_table(deserializer, EXPIRY, |word| {
            Some(match word {
                "expires_in" => ExpirySource::ExpiresIn,
                "expires_at" => ExpirySource::ExpiresAt,
                "jwt_exp" => ExpirySource::JwtExp,
                _ => return None,
            })
        })?;
        source.or_table(|table: FixedLife| Some(ExpirySource::Fixed(table.fixed?.0)), EXPIRY).map(Self)
    }
}

const EXPIRY: &str = "`expires_in`, `expires_at`, `jwt_exp` or { fixed = \"1h\" }";

/// What to make of a token without one: a word, or `{ assume = ".." }`.
#[derive(Clone)]
pub(super) struct NoExpiry(pub(super) UnknownExpiry);

impl<'de> Deserialize<'de> for NoExpiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = word_or_table(deserializer, NO_EXPIRY, |word| {
            Some(match word {
                "until_rejected" => UnknownExpiry::UntilRejected,
                "error" => UnknownExpiry::Error,
                _ => return None,
            })
        })?;
        found.or_table(|table: AssumedLife| Some(UnknownExpiry::Assume(table.assume?.0)), NO_EXPIRY).map(Self)
    }
}

const NO_EXPIRY: &str = "`until_rejected`, `error` or { assume = \"1h\" }";

enum WordOrTable<W, T> {
    Word(W),
    Table(T),
}

impl<W, T> WordOrTable<W, T> {
    fn or_table<E: de::Error>(self, read: impl FnOnce(T) -> Option<W>, expected: &str) -> Result<W, E> {
        match self {
            Self::Word(word) => Ok(word),
            Self::Table(table) => read(table).ok_or_else(|| E::custom(format!("not {expected}"))),
        }
    }
}

fn word_or_table<'de, D: Deserializer<'de>, W, T: Deserialize<'de>>(
    deserializer: D,
    expected: &'static str,
    word: fn(&str) -> Option<W>,
) -> Result<WordOrTable<W, T>, D::Error> {
    struct Either<W, T> {
        expected: &'static str,
        word: fn(&str) -> Option<W>,
        table: std::marker::PhantomData<T>,
    }

    impl<'de, W, T: Deserialize<'de>> Visitor<'de> for Either<W, T> {
        type Value = WordOrTable<W, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            (self.word)(text).map(WordOrTable::Word).ok_or_else(|| E::custom(format!("not {}", self.expected)))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map)).map(WordOrTable::Table)
        }
    }

    deserializer.deserialize_any(Either { expected, word, table: std::marker::PhantomData })
}

/// When a token is renewed: a fraction of its life, or `at_expiry`.
#[derive(Clone)]
pub(super) struct RenewAt(pub(super) Renew);

impl<'de> Deserialize<'de> for RenewAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FractionOrWord;

        impl Visitor<'_> for FractionOrWord {
            type Value = RenewAt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a fraction such as 0.8, or `at_expiry`")
            }

            fn visit_f64<E: de::Error>(self, fraction: f64) -> Result<RenewAt, E> {
                Ok(RenewAt(Renew::Fraction(fraction)))
            }

            fn visit_u64<E: de::Error>(self, whole: u64) -> Result<RenewAt, E> {
                self.visit_f64(if whole == 1 { 1.0 } else { f64::NAN })
            }

            fn visit_i64<E: de::Error>(self, whole: i64) -> Result<RenewAt, E> {
                self.visit_f64(if whole == 1 { 1.0 } else { f64::NAN })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<RenewAt, E> {
                if word == "at_expiry" {
                    return Ok(RenewAt(Renew::AtExpiry));
                }
                Err(E::custom("not a fraction such as 0.8, or `at_expiry`"))
            }
        }

        deserializer.deserialize_any(FractionOrWord)
    }
}

/// A status code of HTTP.
#[derive(Clone, Copy)]
pub(super) struct Status(pub(super) StatusCode);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = u16::deserialize(deserializer)?;
        StatusCode::from_u16(code).map(Self).map_err(|_| de::Error::custom("not an HTTP status, such as 419"))
    }
}

choice! {
    /// How the parameters of a token request are written.
    Encoding: BodyEncoding {
        "form" => BodyEncoding::Form,
        "json" => BodyEncoding::Json,
    }
}

choice! {
    Unlisted: UnlistedOrigin {
        "refuse" => UnlistedOrigin::Refuse,
        "pass_without_credentials" => UnlistedOrigin::PassWithoutCredentials,
    }
}

choice! {
    Existing: ExistingAuthorization {
        "replace" => ExistingAuthorization::Replace,
        "keep" => ExistingAuthorization::Keep,
        "reject" => ExistingAuthorization::Reject,
    }
}

choice! {
    Replayed: Replay {
        "any_replayable" => Replay::AnyReplayable,
        "idempotent" => Replay::Idempotent,
        "safe" => Replay::Safe,
        "never" => Replay::Never,
    }
}

choice! {
    On403: Forbidden {
        "never" => Forbidden::Never,
        "if_expired" => Forbidden::IfExpired,
        "if_invalid_token" => Forbidden::IfInvalidToken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let table = [
            ("30s", 30.0),
            ("0s", 0.0),
            ("500ms", 0.5),
            ("1.5s", 1.5),
            (" 5 m ", 300.0),
            ("1h 30m", 5400.0),
            ("1h30m", 5400.0),
            ("7d", 604_800.0),
            ("1d 1h 1m 1s 1ms", 90_061.001),
        ];
        for (text, seconds) in table {
            assert_eq!(parse_span(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        let not_one =
            ["", " ", "30", "s", "-1s", "+1s", "1e3s", ".5s", "1..2s", "1s 1s", "1s 1h", "1w", "1 s x", "NaNs"];
        for text in not_one.into_iter().chain(["99999999999999999999999999999999d", "١s"]) {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_not_quoted() {
        let errors = [
            serde_json::from_str::<Span>("\"canary\"").map(drop).unwrap_err(),
            serde_json::from_str::<Encoding>("\"canary\"").map(drop).unwrap_err(),
            serde_json::from_str::<Expiry>("\"canary\"").map(drop).unwrap_err(),
            serde_json::from_str::<Expiry>("{}").map(drop).unwrap_err(),
            serde_json::from_str::<NoExpiry>("\"canary\"").map(drop).unwrap_err(),
            serde_json::from_str::<RenewAt>("\"canary\"").map(drop).unwrap_err(),
            serde_json::from_str::<Status>("99").map(drop).unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().starts_with("not "), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        assert!(serde_json::from_str::<Span>("30").unwrap_err().to_string().contains("with its unit"));
    }
}
