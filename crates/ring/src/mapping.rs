//! Where each part of a channel's memories is, in its file and in the address space.
//!
//! ```text
//! file:           │ header │  ring  │
//! address space:  │ header │  ring  │  ring  │      a record that crosses the end of the ring is contiguous here
//! ```
//!
//! Invariant: every offset and length is a multiple of the page size, whether that is 4, 16 or 64 KiB. `mmap` accepts nothing
//! else.

use crate::layout::{ACK_BYTES, HEADER_BYTES, is_valid_capacity};

/// One part of a mapping, for one call of `mmap`. All fields are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is mapped, counted from the beginning of the whole mapping.
    pub address_offset: usize,
    /// Where it begins in the file.
    pub file_offset: usize,
    /// How long it is.
    pub bytes: usize,
}

/// The segments of a data memory: header and ring, then the ring once more. The first one is the whole file.
///
/// ```
/// let [whole, again] = librpc_ring::data_segments(256 * 1024);
/// assert_eq!((whole.bytes, again.file_offset), (320 * 1024, 64 * 1024));
/// assert_eq!(again.address_offset, whole.bytes, "every record is contiguous");
/// ```
pub const fn data_segments(capacity: u64) -> [Segment; 2] {
    let ring = capacity as usize;
    let whole = Segment { address_offset: 0, file_offset: 0, bytes: HEADER_BYTES + ring };
    [whole, Segment { address_offset: whole.bytes, file_offset: HEADER_BYTES, bytes: ring }]
}

/// The only segment of an ack memory, which is the whole file: two pages of 4 KiB, or one larger page.
pub const fn ack_segment(page_bytes: usize) -> Segment {
    let bytes = if page_bytes > ACK_BYTES { page_bytes } else { ACK_BYTES };
    Segment { address_offset: 0, file_offset: 0, bytes }
}

/// Whether a channel on a system with this page size can have this capacity: a valid one
/// ([`crate::layout::is_valid_capacity`]) of at least one page.
pub const fn is_mappable(capacity: u64, page_bytes: usize) -> bool {
    is_valid_capacity(capacity) && capacity >= page_bytes as u64
}
