//! A model of how the memories are mapped, on systems with pages of 4, 16 and 64 KiB.

use librpc_ring::layout::{ACK_BYTES, HEADER_BYTES, MAX_CAPACITY, WORD, data};
use librpc_ring::{Segment, ack_segment, data_segments, is_mappable};

const PAGE_SIZES: [usize; 3] = [4096, 16_384, 65_536];

/// Whether `mmap` accepts it: it demands whole pages of address and file offset, and would round the length up.
fn is_accepted(segment: &Segment, page_bytes: usize) -> bool {
    let Segment { address_offset, file_offset, bytes } = *segment;
    [address_offset, file_offset, bytes].iter().all(|number| number.is_multiple_of(page_bytes))
}

/// The offset in the file of a byte of the address space.
fn file_offset(segments: &[Segment], address: usize) -> usize {
    let within =
        |segment: &&Segment| (segment.address_offset..segment.address_offset + segment.bytes).contains(&address);
    let mut found = segments.iter().filter(within);
    let (Some(segment), None) = (found.next(), found.next()) else { panic!("address {address} is mapped once") };
    segment.file_offset + address - segment.address_offset
}

fn capacities() -> impl Iterator<Item = u64> {
    (12..=30).map(|power| 1 << power)
}

#[test]
fn every_segment_consists_of_whole_pages() {
    for page_bytes in PAGE_SIZES {
        for capacity in capacities().filter(|&capacity| is_mappable(capacity, page_bytes)) {
            for segment in data_segments(capacity) {
                assert!(is_accepted(&segment, page_bytes), "{segment:?} with pages of {page_bytes}");
            }
        }
        assert!(is_accepted(&ack_segment(page_bytes), page_bytes));
        assert!(ack_segment(page_bytes).bytes >= ACK_BYTES, "all words of the ack memory are mapped");
    }
}

/// What version 1 did: it began the ring at 4,096. The model must reject that.
#[test]
fn a_ring_that_begins_within_a_page_is_not_accepted() {
    let [whole, again] = data_segments(65_536);
    let version_1 = Segment { file_offset: 4096, address_offset: whole.bytes - HEADER_BYTES + 4096, ..again };
    assert_eq!(PAGE_SIZES.map(|page_bytes| is_accepted(&version_1, page_bytes)), [true, false, false]);
}

#[test]
fn the_smallest_capacity_is_one_page() {
    for page_bytes in PAGE_SIZES {
        assert!(is_mappable(page_bytes as u64, page_bytes));
        assert!(!is_mappable(page_bytes as u64 / 2, page_bytes));
        assert!(is_mappable(MAX_CAPACITY, page_bytes));
        for capacity in [0, 3 * page_bytes as u64, 2 * MAX_CAPACITY] {
            assert!(!is_mappable(capacity, page_bytes), "{capacity} is not a valid capacity");
        }
    }
}

/// The ring follows itself, so that a record that runs over its end is contiguous.
#[test]
fn the_ring_is_mapped_twice_in_a_row() {
    for capacity in capacities() {
        let segments = data_segments(capacity);
        let ring = data::RING * WORD;
        assert_eq!(ring, HEADER_BYTES);
        let mapped: usize = segments.iter().map(|segment| segment.bytes).sum();
        assert_eq!(mapped, ring + 2 * capacity as usize, "no gap, nothing twice");
        let capacity = capacity as usize;
        for within in [0, 8, capacity / 2, capacity - 8, capacity - 1] {
            assert_eq!(file_offset(&segments, ring + within), ring + within);
            assert_eq!(file_offset(&segments, ring + capacity + within), ring + within);
        }
        assert_eq!(segments[0].bytes, ring + capacity, "the first segment is the whole file");
    }
}
