//! Private bytes, aligned so that they can be read as plain data.

use std::ops::{Deref, DerefMut};

/// The alignment, in bytes.
pub(crate) const ALIGNED_TO: usize = 64;

/// Bytes that are aligned to [`ALIGNED_TO`]. The allocation is longer, and not aligned: so the allocator has it at hand.
pub(crate) struct AlignedBytes {
    /// Never grows, so it stays where it is.
    bytes: Vec<u8>,
    begin: usize,
}

impl AlignedBytes {
    pub(crate) fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNED_TO - 1];
        Self::new(bytes, len)
    }

    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Vec::with_capacity(bytes.len() + ALIGNED_TO - 1);
        copy.resize(begin(&copy), 0);
        copy.extend_from_slice(bytes);
        Self::new(copy, bytes.len())
    }

    /// No bytes, and room for this many.
    pub(crate) fn with_room(len: usize) -> Self {
        let mut bytes = Vec::with_capacity(len + ALIGNED_TO - 1);
        bytes.resize(begin(&bytes), 0);
        Self::new(bytes, 0)
    }

    /// Appends bytes. If there is not enough room, they are copied once more.
    #[inline(always)]
    pub(crate) fn append<T>(&mut self, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let appended = append(&mut self.bytes);
        if begin(&self.bytes) != self.begin {
            *self = Self::copy_of(&self.bytes[self.begin..]);
        }
        appended
    }

    fn new(mut bytes: Vec<u8>, len: usize) -> Self {
        let begin = begin(&bytes);
        bytes.truncate(begin + len);
        Self { bytes, begin }
    }
}

/// Where the first aligned byte is.
fn begin(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr().wrapping_neg() % ALIGNED_TO
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..]
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
            for room in [0, len, 300] {
                let mut appended = AlignedBytes::with_room(room);
                appended.append(|to| to.extend_from_slice(&bytes[..len]));
                assert_eq!(*appended, bytes[..len]);
                assert!(appended.is_empty() || appended.as_ptr().addr().is_multiple_of(ALIGNED_TO));
            }
        }
    }
}
