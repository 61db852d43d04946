//! Choices out of bytes: the same bytes are the same choices, and where they end the choice is the
//! first one, so that a shorter input is a simpler one.

pub(super) struct Draw<'a>(&'a [u8]);

impl<'a> Draw<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `limit`, which is at most 256.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Some of `of`, each with the same chance.
    pub(super) fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        let chosen = self.byte();
        of.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, it)| *it).collect()
    }

    /// Up to so many bytes as they are.
    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()) * 4;
        let (taken, rest) = self.0.split_at(length.min(most).min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
