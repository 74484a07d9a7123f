//! The byte layouts of the registry's files, version 2. Everything is little-endian. (A channel's: `librpc_ring::layout`.)
//!
//! ```text
//! generation: one page                       <id>.node: one page, or more where there are many inboxes
//! ┌────┬────────────────────────────┐        ┌─────┬──────────────────────────────────────────────────┐
//! │  0 │ magic "LRPC_GEN"           │        │   0 │ magic "LRPCNODE"                                 │
//! │  8 │ version                    │        │   8 │ version                                          │
//! │ 16 │ boot id (16 bytes)         │        │  16 │ incarnation (16 bytes)                           │
//! │ 64 │ change counter: a value    │        │  32 │ pid (4 bytes)                                    │
//! │    │ that is new each time      │        │  36 │ uid (4 bytes)                                    │
//! │2048│ 256 buckets: the same for  │        │  40 │ opened: ns since 1970                            │
//! │    │ the nodes of each bucket   │        │  48 │ select: where the list of inboxes is; 0: not open│
//! └────┴────────────────────────────┘        │ 128 │ two areas or more, each a list of inboxes (CBOR) │
//!                                            └─────┴──────────────────────────────────────────────────┘
//! select: sequence (16 bits) | length in bytes (24) | offset in units of 8 bytes (24)
//! ```
//!
//! A node writes a list of inboxes where the selected one is not, then selects it with one 8-byte write: a reader finds
//! the old or the new list, whole, even if the writer was killed or stopped in the middle.
//!
//! Version 2 differs from version 1 in the name of the node's socket, which carries the inode number of the node's file.

/// First 8 bytes of the change counter's file.
pub(crate) const GENERATION_MAGIC: [u8; 8] = *b"LRPC_GEN";
/// First 8 bytes of a node's file.
pub(crate) const NODE_MAGIC: [u8; 8] = *b"LRPCNODE";
/// The version of both files.
pub(crate) const VERSION: u64 = 2;
/// Both files are allocated in pages of this size.
pub(crate) use crate::sys::file::PAGE;
/// Offset of the change counter.
pub(crate) const COUNTER_OFFSET: u64 = 64;
/// Offset of the words of the buckets.
pub(crate) const BUCKETS_OFFSET: u64 = 2048;
/// How many groups of nodes have a word of their own that says that something in them has changed.
pub(crate) const BUCKETS: usize = 256;
/// Offset of a node's selecting word.
pub(crate) const SELECT_OFFSET: u64 = 48;
/// Offset of the first list of inboxes, at least.
pub(crate) const LISTS_OFFSET: u64 = 128;
/// The longest list of inboxes, in bytes.
pub(crate) const MAX_LIST_BYTES: usize = 1 << 20;
/// How many inboxes of a node others believe.
pub(crate) const MAX_INBOXES: usize = 1024;

/// The front of the change counter's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GenerationHeader {
    pub(crate) boot_id: [u8; 16],
}

impl GenerationHeader {
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&GENERATION_MAGIC);
        bytes[8..16].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.boot_id);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, BadLayout> {
        check_front(bytes, GENERATION_MAGIC)?;
        Ok(Self { boot_id: array(bytes, 16) })
    }
}

/// The front of a node's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeHeader {
    pub(crate) incarnation: [u8; 16],
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) opened_ns: u64,
    pub(crate) select: Select,
}

impl NodeHeader {
    pub(crate) const BYTES: usize = 56;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&NODE_MAGIC);
        bytes[8..16].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.incarnation);
        bytes[32..36].copy_from_slice(&self.pid.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.uid.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.opened_ns.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.select.0.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, BadLayout> {
        check_front(bytes, NODE_MAGIC)?;
        Ok(Self {
            incarnation: array(bytes, 16),
            pid: u32::from_le_bytes(array(bytes, 32)),
            uid: u32::from_le_bytes(array(bytes, 36)),
            opened_ns: u64::from_le_bytes(array(bytes, 40)),
            select: Select(u64::from_le_bytes(array(bytes, 48))),
        })
    }
}

/// Which list of inboxes is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Select(pub(crate) u64);

impl Select {
    pub(crate) fn new(sequence: u64, offset: u64, bytes: usize) -> Self {
        assert!(offset.is_multiple_of(8) && offset / 8 < 1 << 24 && bytes <= MAX_LIST_BYTES);
        Self(((sequence & 0xffff) << 48) | ((bytes as u64) << 24) | (offset / 8))
    }

    /// Offset and length in bytes; `None`: the node is being opened or closed. To be checked, because others write it.
    pub(crate) fn area(self) -> Option<(u64, usize)> {
        (self.0 != 0).then_some(((self.0 & 0xff_ffff) * 8, (self.0 >> 24 & 0xff_ffff) as usize))
    }
}

/// A file that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLayout {
    #[error("it is not a file of librpc")]
    Magic,
    #[error("it has layout version {found}; this librpc speaks version {VERSION}")]
    Version { found: u64 },
}

fn check_front(bytes: &[u8], magic: [u8; 8]) -> Result<(), BadLayout> {
    if array(bytes, 0) != magic {
        return Err(BadLayout::Magic);
    }
    match u64::from_le_bytes(array(bytes, 8)) {
        VERSION => Ok(()),
        found => Err(BadLayout::Version { found }),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

const _: () = {
    assert!(GenerationHeader::BYTES as u64 <= COUNTER_OFFSET);
    assert!(COUNTER_OFFSET < BUCKETS_OFFSET && BUCKETS_OFFSET + 8 * BUCKETS as u64 == PAGE);
    assert!(NodeHeader::BYTES as u64 == SELECT_OFFSET + 8);
    assert!(NodeHeader::BYTES as u64 <= LISTS_OFFSET);
};

#[cfg(test)]
mod golden {
    use super::*;

    #[test]
    fn the_change_counters_file_is_pinned() {
        let header = GenerationHeader { boot_id: *b"0123456789abcdef" };
        assert_eq!(&header.encode(), b"LRPC_GEN\x02\0\0\0\0\0\0\x000123456789abcdef");
        assert_eq!(GenerationHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_nodes_file_is_pinned() {
        let header = NodeHeader {
            incarnation: *b"fedcba9876543210",
            pid: 0x0102_0304,
            uid: 1000,
            opened_ns: 0x1122_3344_5566_7788,
            select: Select::new(5, 128, 77),
        };
        let expected = b"LRPCNODE\x02\0\0\0\0\0\0\0fedcba9876543210\x04\x03\x02\x01\xe8\x03\0\0\
            \x88\x77\x66\x55\x44\x33\x22\x11\x10\0\0\x4d\0\0\x05\0";
        assert_eq!(&header.encode(), expected);
        assert_eq!(NodeHeader::decode(&header.encode()), Ok(header));
        assert_eq!(header.select.area(), Some((128, 77)));
    }

    #[test]
    fn another_magic_and_other_versions_are_distinguished() {
        let mut bytes = GenerationHeader { boot_id: [0; 16] }.encode();
        bytes[8] = 1;
        assert_eq!(GenerationHeader::decode(&bytes), Err(BadLayout::Version { found: 1 }));
        bytes[0] = b'X';
        assert_eq!(GenerationHeader::decode(&bytes), Err(BadLayout::Magic));
    }
}
