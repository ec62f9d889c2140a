//! Memory that begins at a cache line. A vector of 64 bytes that lies across two lines takes two reads.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Numbers that begin at a cache line.
pub struct Aligned<T> {
    /// With some more at the beginning.
    numbers: Vec<T>,
    start: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// So many zeros.
    pub fn zeros(len: usize) -> Self {
        let mut numbers = Self::default();
        numbers.resize(len);
        numbers
    }

    /// Makes room for so many numbers. They have any values.
    pub fn resize(&mut self, len: usize) {
        // As many numbers as lines may be between two that begin a line.
        self.numbers.resize(len + LINE, T::default());
        self.start = self.numbers.as_ptr().align_offset(LINE).min(LINE);
        self.numbers.truncate(self.start + len);
    }
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { numbers: Vec::new(), start: 0 }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.numbers[self.start..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.start..]
    }
}
