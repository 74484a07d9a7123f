//! Samples: messages that are kept, with their payloads where their senders have put them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zerocopy::error::ConvertError;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::aligned::AlignedBytes;
use crate::fault::fault;
use crate::link::segments::Located;
use crate::name::Peer;
use crate::receive::message::{age, sent_at};
use crate::sys::fork;
use crate::sys::memory::{Mapping, Trust};
use crate::text;

/// A message that is owned: [`crate::Inbox::recv_sample`]. A large payload stays where its sender has put it, until the sample is
/// dropped, in any thread. It outlives the inbox and the node. A short one is a private copy.
///
/// The memory is the sender's, and a sender that is buggy or hostile may change it at any time. So it is read through [`View`] or
/// [`Sample::copy_to`]: what they return is a private copy that does not change. [`Sample::payload`] is a plain slice, where that is
/// sound.
pub struct Sample {
    pub(crate) peer: Arc<Peer>,
    pub(crate) topic: Option<Arc<str>>,
    pub(crate) sequence: u64,
    pub(crate) missed: u64,
    pub(crate) redelivered: bool,
    pub(crate) past: bool,
    pub(crate) sent: u64,
    pub(crate) payload: SamplePayload,
}

/// Where a sample's payload is.
pub(crate) enum SamplePayload {
    Copy(AlignedBytes),
    /// In a box, so that short ones are moved quickly.
    Lent(Box<LentSample>),
}

/// A payload that its sender has lent, and what keeps it as it is.
pub(crate) struct LentSample {
    pub(crate) located: Located,
    pub(crate) hold: Hold,
    pub(crate) trust: Option<Trust>,
}

/// A hold word of the receiver's. Dropping it lets go.
pub(crate) struct Hold {
    pub(crate) ack: Arc<Mapping>,
    pub(crate) word: usize,
    pub(crate) born: fork::Born,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In a forked child it is the parent's, and not mapped.
        if self.born.is_here() {
            librpc_ring::release(&self.ack.writer(), self.word);
            fault!("hold.released");
        }
    }
}

impl Sample {
    /// The id of the node that sent it.
    pub fn sender(&self) -> &str {
        &self.peer.node
    }

    /// Who sent it, as the kernel and the registry know it.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// As [`crate::Message::topic`].
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// As [`crate::Message::sequence`].
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// As [`crate::Message::missed`].
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// As [`crate::Message::is_past`].
    pub fn is_past(&self) -> bool {
        self.past
    }

    /// As [`crate::Message::sent_at`].
    pub fn sent_at(&self) -> Option<Duration> {
        sent_at(self.sent)
    }

    /// As [`crate::Message::age`].
    pub fn age(&self) -> Option<Duration> {
        age(self.sent)
    }

    /// As [`crate::Message::is_redelivered`].
    pub fn is_redelivered(&self) -> bool {
        self.redelivered
    }

    /// The length of its payload in bytes. 0 in a forked child, if the payload was lent.
    pub fn len(&self) -> usize {
        match &self.payload {
            SamplePayload::Copy(bytes) => bytes.len(),
            SamplePayload::Lent(lent) if lent.hold.born.is_here() => lent.located.bytes as usize,
            SamplePayload::Lent(_) => 0,
        }
    }

    /// Whether its payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its payload is in its sender's memory.
    pub fn is_lent(&self) -> bool {
        matches!(self.payload, SamplePayload::Lent(_))
    }

    /// Its payload as a slice: if it is a private copy, or the inbox trusts its publishers
    /// ([`crate::InboxBuilder::trust_publishers`]).
    pub fn payload(&self) -> Option<&[u8]> {
        match &self.payload {
            SamplePayload::Copy(bytes) => Some(bytes),
            SamplePayload::Lent(lent) => {
                let LentSample { located: Located { segment, offset, bytes }, hold, trust } = &**lent;
                let trust = trust.as_ref().filter(|_| hold.born.is_here())?;
                Some(segment.mapping().trusted(*offset, *bytes, trust))
            }
        }
    }

    /// The address of its payload, for other languages. It is valid for [`Sample::len`] bytes, until the sample is dropped. Reading
    /// through it is unsafe: where [`Sample::payload`] is `None`, the sender may write the memory at any time, which must not become a
    /// Rust reference.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_as_ptr_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// # let (viewer, camera) = (open("viewer")?, open("camera")?);
    /// let mut frames = viewer.subscribe("camera/front")?;
    /// camera.publisher("camera/front")?.publish(&[7; 1_000_000])?;
    /// let frame = frames.recv_sample()?.expect("nobody stops this inbox");
    /// // SAFETY: the sample is there, and it is this long. A volatile read copes with a sender that writes.
    /// let last = unsafe { frame.as_ptr().add(frame.len() - 1).read_volatile() };
    /// assert_eq!(last, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn as_ptr(&self) -> *const u8 {
        match &self.payload {
            SamplePayload::Copy(bytes) => bytes.as_ptr(),
            SamplePayload::Lent(lent) if lent.hold.born.is_here() => {
                let Located { segment, offset, bytes } = &lent.located;
                segment.mapping().address(*offset, *bytes)
            }
            SamplePayload::Lent(_) => std::ptr::NonNull::dangling().as_ptr(), // of no bytes
        }
    }

    /// Its payload as plain values, without a copy: where [`Sample::payload`] is a slice.
    ///
    /// # Errors
    ///
    /// [`SliceError`].
    pub fn slice<T: FromBytes + Immutable>(&self) -> Result<&[T], SliceError> {
        let bytes = self.payload().ok_or(SliceError::Untrusted)?;
        check_length::<T>(bytes.len())?;
        <[T]>::ref_from_bytes(bytes).map_err(|error| match error {
            ConvertError::Alignment(_) => SliceError::Alignment { of: align_of::<T>() },
            _ => SliceError::Length { bytes: bytes.len(), of: size_of::<T>() },
        })
    }

    /// A copy of its payload as plain values.
    ///
    /// # Errors
    ///
    /// [`SliceError::Length`], [`SliceError::Memory`].
    pub fn to_vec_of<T: FromBytes + IntoBytes + Immutable>(&self) -> Result<Vec<T>, SliceError> {
        let values = check_length::<T>(self.len())?;
        let mut copy = T::new_vec_zeroed(values).map_err(|_| SliceError::Memory { bytes: self.len() })?;
        self.copy_to(0, copy.as_mut_slice().as_mut_bytes());
        Ok(copy)
    }

    /// Copies a part of its payload, from this byte on.
    ///
    /// # Panics
    ///
    /// If the part is not within the payload.
    pub fn copy_to(&self, from: usize, into: &mut [u8]) {
        let len = self.len();
        assert!(
            from <= len && into.len() <= len - from,
            "bytes {from} to {} of {len}",
            from.saturating_add(into.len())
        );
        match &self.payload {
            SamplePayload::Copy(bytes) => into.copy_from_slice(&bytes[from..from + into.len()]),
            SamplePayload::Lent(lent) if !into.is_empty() => {
                let Located { segment, offset, .. } = &lent.located;
                segment.copy_to(offset + from as u64, into);
            }
            SamplePayload::Lent(_) => {}
        }
    }

    /// A copy of its payload.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = Vec::new();
        match &self.payload {
            SamplePayload::Copy(bytes) => copy.extend_from_slice(bytes),
            SamplePayload::Lent(lent) if !self.is_empty() => {
                let Located { segment, offset, .. } = &lent.located;
                segment.append_to(*offset, self.len() as u64, &mut copy);
            }
            SamplePayload::Lent(_) => {}
        }
        copy
    }

    /// Its payload, to be read in place byte by byte, or in parts.
    pub fn view(&self) -> View<'_> {
        View(self)
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample")
            .field("sender", &self.sender())
            .field("topic", &self.topic())
            .field("bytes", &self.len())
            .field("sequence", &self.sequence)
            .field("missed", &self.missed)
            .field("redelivered", &self.redelivered)
            .finish()
    }
}

/// Why a payload is not a slice of plain values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SliceError {
    /// It is in its sender's memory, and the inbox does not trust its publishers
    /// ([`crate::InboxBuilder::trust_publishers`]). It can be copied: [`Sample::to_vec_of`].
    #[error("the payload is in its sender's memory, which may change: copy it, or trust the publishers of the inbox")]
    Untrusted,
    /// It is not a whole number of values.
    #[error("a payload of {} is not a whole number of values of {of} bytes", text::bytes(*bytes))]
    Length {
        /// The payload's length in bytes.
        bytes: usize,
        /// A value's length in bytes.
        of: usize,
    },
    /// There is no memory for a copy.
    #[error("there is no memory for a copy of {}", text::bytes(*bytes))]
    Memory {
        /// The payload's length in bytes.
        bytes: usize,
    },
    /// It is not aligned for the values.
    #[error("the payload is not aligned to {of} bytes, as its values must be")]
    Alignment {
        /// The alignment of a value, in bytes.
        of: usize,
    },
}

/// How many values have this many bytes.
fn check_length<T>(bytes: usize) -> Result<usize, SliceError> {
    const { assert!(size_of::<T>() > 0, "a value has at least one byte") };
    match bytes.is_multiple_of(size_of::<T>()) {
        true => Ok(bytes / size_of::<T>()),
        false => Err(SliceError::Length { bytes, of: size_of::<T>() }),
    }
}

/// The payload of a sample, read in place: each read is one copy out of memory that may change.
#[derive(Clone, Copy, Debug)]
pub struct View<'s>(&'s Sample);

impl View<'_> {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The byte of this index; `None`: there are fewer.
    pub fn get(&self, index: usize) -> Option<u8> {
        (index < self.len()).then(|| {
            let mut byte = [0];
            self.0.copy_to(index, &mut byte);
            byte[0]
        })
    }

    /// The plain value of this index, if the payload is values of this type from its beginning, and has that many.
    pub fn read<T: FromBytes + IntoBytes>(&self, index: usize) -> Option<T> {
        let from = index.checked_mul(size_of::<T>())?;
        let is_there = from <= self.len() && size_of::<T>() <= self.len() - from;
        is_there.then(|| {
            let mut value = T::new_zeroed();
            self.0.copy_to(from, value.as_mut_bytes());
            value
        })
    }

    /// The bytes from this index on, if there are that many.
    pub fn array<const N: usize>(&self, from: usize) -> Option<[u8; N]> {
        (from <= self.len() && N <= self.len() - from).then(|| {
            let mut bytes = [0; N];
            self.0.copy_to(from, &mut bytes);
            bytes
        })
    }
}
