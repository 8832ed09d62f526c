//! `Digest`: labelled inputs as one digest; what tells two configurations or keys apart.

use sha2::{Digest as _, Sha256};

/// A digest of labelled inputs, each with its length before it: different inputs are different bytes.
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn new(purpose: &'static str) -> Self {
        let mut digest = Self(Sha256::new());
        digest.field("tower-oauth2-client", purpose);
        digest
    }

    pub(crate) fn field(&mut self, label: &'static str, value: impl AsRef<[u8]>) {
        for part in [label.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    /// A list whose order says nothing comes sorted.
    pub(crate) fn list<V: AsRef<[u8]>>(&mut self, label: &'static str, values: impl IntoIterator<Item = V>) {
        let values: Vec<V> = values.into_iter().collect();
        self.field(label, (values.len() as u64).to_be_bytes());
        values.into_iter().for_each(|value| self.field("-", value));
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(label: &'static str, values: &[&str]) -> [u8; 32] {
        let mut digest = Digest::new("test");
        digest.list(label, values);
        digest.finish()
    }

    #[test]
    fn inputs_do_not_run_together() {
        let different = [
            digest("a", &[]),
            digest("a", &[""]),
            digest("a", &["", ""]),
            digest("a", &["bc"]),
            digest("a", &["b", "c"]),
            digest("ab", &["c"]),
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(!different[at + 1..].contains(one), "{at}");
        }
    }
}
