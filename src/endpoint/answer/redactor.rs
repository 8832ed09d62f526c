//! The secrets that were sent, to be found again in what came back.

use super::super::encode::form_encode;
use crate::types::Secret;

/// What must not be in an error. Servers echo it: as it was sent, and decoded or encoded again.
#[derive(Default)]
pub(crate) struct Redactor<'a> {
    values: Vec<&'a str>,
    owned: Vec<Secret<String>>,
}

impl<'a> Redactor<'a> {
    /// Shorter ones would be found everywhere by chance.
    const SHORTEST: usize = 4;
    const LONGEST_DESCRIPTION: usize = 256;

    pub(crate) fn push(&mut self, value: Option<&'a str>) {
        self.values.extend(value.filter(|value| value.len() >= Self::SHORTEST));
    }

    pub(crate) fn push_owned(&mut self, value: Option<Secret<String>>) {
        self.owned.extend(value);
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.spellings().iter().any(|secret| text.contains(secret.expose().as_str()))
    }

    /// The text with every secret replaced, control characters removed, cut to 256 characters.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mut masked: String = text.chars().filter(|c| !c.is_control()).collect();
        for secret in self.spellings() {
            masked = masked.replace(secret.expose().as_str(), "[redacted]");
        }
        masked.chars().take(Self::LONGEST_DESCRIPTION).collect()
    }

    /// Longest first: one secret may be part of another.
    fn spellings(&self) -> Vec<Secret<String>> {
        let mut spellings: Vec<Secret<String>> = self.owned.clone();
        for value in &self.values {
            let encoded: String = form_encode(value).collect();
            // Where a space is written `+` instead.
            spellings.push(Secret::new(encoded.replace("%20", "+")));
            spellings.push(Secret::new(encoded));
            spellings.push(Secret::from(*value));
        }
        spellings.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        spellings
    }
}
