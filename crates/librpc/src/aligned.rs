//! Private bytes, aligned so that they can be read as plain data.

use std::ops::{Deref, DerefMut};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// The alignment, in bytes.
pub(crate) const ALIGNED_TO: usize = 64;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line([u8; ALIGNED_TO]);

/// Bytes that are aligned to [`ALIGNED_TO`].
pub(crate) struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    pub(crate) fn zeroed(len: usize) -> Self {
        let lines = std::iter::repeat_with(Line::new_zeroed).take(len.div_ceil(ALIGNED_TO)).collect();
        Self { lines, len }
    }

    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let (whole, rest) = bytes.as_chunks::<ALIGNED_TO>();
        let mut lines = Vec::with_capacity(bytes.len().div_ceil(ALIGNED_TO));
        lines.extend(whole.iter().map(|line| Line(*line)));
        if !rest.is_empty() {
            let mut line = [0; ALIGNED_TO];
            line[..rest.len()].copy_from_slice(rest);
            lines.push(Line(line));
        }
        Self { lines, len: bytes.len() }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.lines.as_bytes()[..self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.lines.as_mut_bytes()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_is_aligned() {
        let bytes: Vec<u8> = (0..200).collect();
        for len in [0, 1, 63, 64, 65, 128, 200] {
            let copy = AlignedBytes::copy_of(&bytes[..len]);
            assert_eq!(*copy, bytes[..len]);
            assert!(copy.is_empty() || copy.as_ptr().addr().is_multiple_of(ALIGNED_TO));
            assert_eq!(*AlignedBytes::zeroed(len), vec![0; len]);
        }
    }
}
