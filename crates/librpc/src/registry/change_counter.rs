//! The change counter of a domain, and the words beside it that say where something has changed.
//!
//! Invariant: a change of the registry first writes the node's file, then the word of the node's *bucket*, then the
//! counter, each a random value that was never there before. So a reader that finds the counter as it was has missed
//! nothing, and one that does not has to look at the nodes of the changed buckets only. A writer that dies in between has
//! changed nothing that others rely on: what it was announcing had not returned.

use crate::sys::clock::Instant;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use librpc_ring::Memory;

use crate::registry::layout;
use crate::sys::file::{self, Errno};
use crate::sys::memory::{Mapping, Reader};
use crate::sys::process::random;
use crate::sys::{Context, Descriptor, OsError};

/// In a shared domain nothing that another user could truncate is mapped: the counter is read at most this often.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// This long after its announcement, every publish that begins sees a subscription in a shared domain.
pub(crate) const SEEN_AFTER: Duration = Duration::from_micros(1100);

/// The bucket of a node: FNV-1a of its id (Fowler, Noll and Vo), folded to the number of buckets.
pub(crate) fn bucket(id: &str) -> usize {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ hash >> 32) as usize % layout::BUCKETS
}

/// Says that a node's entry has changed.
pub(crate) fn bump(generation: &Descriptor, id: &str) -> Result<(), Errno> {
    let value: [u8; 16] = random();
    file::write_at(generation, &value[..8], layout::BUCKETS_OFFSET + bucket(id) as u64 * 8)?;
    file::write_at(generation, &value[8..], layout::COUNTER_OFFSET)?;
    Ok(())
}

/// The change counter as a publisher watches it.
#[derive(Debug)]
pub(crate) enum Watch {
    Mapped { page: Reader, mapping: Arc<Mapping> },
    Read { file: Arc<Descriptor>, looked: Option<Instant>, value: u64 },
}

impl Watch {
    /// Watches the counter in this file; in a private domain through a mapping.
    pub(crate) fn new(generation: &Descriptor, is_private: bool) -> Result<Self, OsError> {
        let doing = || "watch a domain for changes".to_owned();
        let file = file::reopen(generation).context(doing)?;
        Ok(match is_private {
            true => Self::mapped(Arc::new(Mapping::registry_page(file.as_fd())?)),
            false => Self::Read { file: Arc::new(file), looked: None, value: 0 },
        })
    }

    fn mapped(mapping: Arc<Mapping>) -> Self {
        Self::Mapped { page: mapping.reader(), mapping }
    }

    /// Another watch on the same counter.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Mapped { mapping, .. } => Self::mapped(mapping.clone()),
            Self::Read { file, .. } => Self::Read { file: file.clone(), looked: None, value: 0 },
        }
    }

    /// The counter for the hot path: what it is now, or in a shared domain was less than a millisecond ago.
    #[inline(always)]
    pub(crate) fn counter(&mut self) -> u64 {
        match self {
            // Acquire: what was written to the registry before the counter is visible after it.
            Self::Mapped { page, .. } => page.load(layout::COUNTER_OFFSET as usize / 8, Ordering::Acquire),
            Self::Read { file, looked, value } => {
                let now = Instant::now();
                if looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
                    // A counter that cannot be read counts as changed: the look that follows says what is wrong.
                    *value = read_counter(file).unwrap_or(!*value);
                    *looked = Some(now);
                }
                *value
            }
        }
    }

    /// The counter as it is now, and the words of the buckets, which are read after it.
    pub(crate) fn buckets(&self) -> Result<(u64, Buckets), OsError> {
        let mut buckets = [0; layout::BUCKETS];
        match self {
            Self::Mapped { page, .. } => {
                // Acquire: as in `counter`.
                let counter = page.load(layout::COUNTER_OFFSET as usize / 8, Ordering::Acquire);
                let first = layout::BUCKETS_OFFSET as usize / 8;
                buckets.iter_mut().zip(first..).for_each(|(bucket, word)| *bucket = page.load(word, Ordering::Acquire));
                Ok((counter, buckets))
            }
            Self::Read { file, .. } => {
                let counter = read_counter(file)?;
                let mut bytes = [0; layout::BUCKETS * 8];
                file::read_at(file, &mut bytes, layout::BUCKETS_OFFSET).context(|| "read what has changed".into())?;
                for (bucket, bytes) in buckets.iter_mut().zip(bytes.chunks_exact(8)) {
                    *bucket = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
                }
                Ok((counter, buckets))
            }
        }
    }
}

/// The words of all buckets.
pub(crate) type Buckets = [u64; layout::BUCKETS];

fn read_counter(file: &Descriptor) -> Result<u64, OsError> {
    let mut bytes = [0; 8];
    file::read_at(file, &mut bytes, layout::COUNTER_OFFSET).context(|| "read the change counter".into())?;
    Ok(u64::from_le_bytes(bytes))
}
