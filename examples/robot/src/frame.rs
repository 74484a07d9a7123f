//! A frame: its head, and 1280 × 800 pixels of 12 bits.

use librpc::Sample;
use librpc::zerocopy::{FromBytes, IntoBytes};

use crate::messages::{FrameHead, Head};
use crate::process::now_ns;

pub(crate) const HEAD_BYTES: usize = size_of::<FrameHead>();
pub(crate) const BYTES: usize = HEAD_BYTES + 1280 * 800 * 3 / 2;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes a picture. A real camera would write its pixels here.
pub(crate) fn take(head: Head, frame: &mut [u8]) {
    let (first, pixels) = frame.split_at_mut(HEAD_BYTES);
    let taken_ns = now_ns();
    for (word, at) in pixels.chunks_exact_mut(8).zip(1..) {
        word.copy_from_slice(&(head.number.wrapping_add(at)).wrapping_mul(MIX).to_le_bytes());
    }
    first.copy_from_slice(FrameHead { head, taken_ns, checksum: checksum(pixels) }.as_bytes());
}

/// What a receiver has found out about a frame.
pub(crate) struct Checked {
    pub(crate) head: Head,
    /// How long ago it was taken.
    pub(crate) age_ns: u64,
    /// Its checksum is wrong.
    pub(crate) is_torn: bool,
}

/// Copies a frame into a buffer, and checks it.
pub(crate) fn check(frame: &Sample, buffer: &mut Vec<u8>) -> anyhow::Result<Checked> {
    let now = now_ns();
    buffer.resize(frame.len(), 0);
    frame.copy_to(0, buffer);
    let (first, pixels) = FrameHead::read_from_prefix(buffer).map_err(|_| anyhow::anyhow!("a frame without a head"))?;
    let is_torn = frame.len() != BYTES || first.checksum != checksum(pixels);
    Ok(Checked { head: first.head, age_ns: now.saturating_sub(first.taken_ns), is_torn })
}

fn checksum(pixels: &[u8]) -> u64 {
    let words = pixels.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    words.fold(1, |sum: u64, word| (sum ^ word).wrapping_mul(MIX).rotate_left(23))
}
