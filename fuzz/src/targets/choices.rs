//! `Choices`: bytes read as decisions, so that a fuzzer's mutations stay within a grammar.

/// The bytes not yet used. At their end every choice is the first one, so that each input ends.
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// One time in `of`; not at the end of the bytes.
    pub(super) fn one_in(&mut self, of: u8) -> bool {
        self.byte() % of == of - 1
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub(super) fn number(&mut self) -> u64 {
        let bytes = self.below(9);
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Up to `longest` characters of the alphabet.
    pub(super) fn text(&mut self, alphabet: &str, longest: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..self.below(longest + 1)).map(|_| self.pick(&letters)).collect()
    }

    /// Up to `longest` bytes as they come.
    pub(super) fn bytes(&mut self, longest: usize) -> &'a [u8] {
        let length = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % (longest + 1);
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}
