//! Loans: payloads that are filled in place, and then published or sent without a copy.

use std::cell::OnceCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::aligned::{ALIGNED_TO, AlignedBytes};
use crate::send::error::SendError;
use crate::send::pool::Audience;
use crate::sys::slots::{Slot, SlotMut};
use crate::text::{self, counted};

/// A loan of at most this many bytes is private memory, and is copied into the rings.
pub(crate) const SHORT: usize = 4096;
/// Where a slot begins is aligned to this at least: a page.
const SLOT_ALIGNED_TO: usize = 4096;

/// Memory for one message, from [`crate::Outbox::loan`] and its like: fill it, then publish or send it. Receivers read it where it
/// is. Dropping it gives it back.
///
/// ```
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_loan_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// # let (viewer, camera) = (open("viewer")?, open("camera")?);
/// let mut frames = viewer.subscribe("camera/front")?;
/// let mut publisher = camera.publisher("camera/front")?;
/// let mut frame = publisher.loan(1920 * 1080 * 3)?;
/// frame.fill(0x80);
/// assert_eq!(publisher.publish_loan(frame)?.inboxes(), 1);
/// let sample = frames.recv_sample()?.expect("nobody stops this inbox");
/// assert_eq!((sample.len(), sample.view().get(7)), (1920 * 1080 * 3, Some(0x80)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It is `Send`, and independent of its outbox. In a forked child it is empty.
pub struct Loan {
    pub(crate) memory: LoanMemory,
    /// Who may read the slot.
    pub(crate) audience: Audience,
}

/// Where a loan's bytes are.
pub(crate) enum LoanMemory {
    Private(AlignedBytes),
    Slot(SlotMut),
}

impl Deref for Loan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            LoanMemory::Private(bytes) => bytes,
            LoanMemory::Slot(slot) => slot,
        }
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            LoanMemory::Private(bytes) => bytes,
            LoanMemory::Slot(slot) => slot,
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loan({})", text::bytes(self.len()))
    }
}

impl Loan {
    /// The same bytes as a slice of plain values: [`crate::Outbox::loan_slice`]. `Err`: they are not a whole number of them, or not
    /// aligned for them.
    pub fn into_slice<T: FromBytes + IntoBytes + Immutable>(mut self) -> Result<LoanSlice<T>, Self> {
        const { assert!(size_of::<T>() > 0, "a value has at least one byte") };
        match <[T]>::mut_from_bytes(&mut self).is_ok() {
            true => Ok(LoanSlice { loan: self, of: PhantomData }),
            false => Err(self),
        }
    }
}

/// Memory for one message of plain values, from [`crate::Outbox::loan_slice`] and its like. A [`Loan`] otherwise.
///
/// ```
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_slice_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// # let (viewer, lidar) = (open("viewer")?, open("lidar")?);
/// use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
/// #[zerocopy(crate = "librpc::zerocopy")]
/// #[repr(C)]
/// struct Point { x: f32, y: f32, z: f32, intensity: f32 }
///
/// let mut clouds = viewer.subscribe("lidar/points")?;
/// let mut publisher = lidar.publisher("lidar/points")?;
/// let mut points = publisher.loan_slice::<Point>(100_000)?;
/// points[7] = Point { x: 1.0, y: 2.0, z: 3.0, intensity: 0.5 };
/// assert_eq!(publisher.publish_loan(points)?.inboxes(), 1);
/// let cloud = clouds.recv_sample()?.expect("nobody stops this inbox");
/// assert_eq!(cloud.view().read::<Point>(7).expect("it has that many").z, 3.0); // one value, in place
/// assert_eq!(cloud.to_vec_of::<Point>()?[7].z, 3.0); //                           a copy of all
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LoanSlice<T> {
    loan: Loan,
    of: PhantomData<[T]>,
}

impl<T: FromBytes + IntoBytes + Immutable> Deref for LoanSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        <[T]>::ref_from_bytes(&self.loan).unwrap_or_default() // it was checked when this was made; in a forked child it is empty
    }
}

impl<T: FromBytes + IntoBytes + Immutable> DerefMut for LoanSlice<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        <[T]>::mut_from_bytes(&mut self.loan).unwrap_or_default() // as above
    }
}

impl<T> From<LoanSlice<T>> for Loan {
    fn from(slice: LoanSlice<T>) -> Self {
        slice.loan
    }
}

impl<T> fmt::Debug for LoanSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoanSlice({})", counted(self.loan.len() / size_of::<T>(), "value", "values"))
    }
}

/// How many bytes this many values take, as far as memory goes, and whether private memory is aligned for them.
pub(crate) const fn bytes_of<T>(values: usize) -> (usize, bool) {
    const { assert!(align_of::<T>() <= SLOT_ALIGNED_TO, "a value is aligned to at most 4096 bytes") };
    (values.saturating_mul(size_of::<T>()), align_of::<T>() <= ALIGNED_TO)
}

/// A loan that was not sent or published: it may be tried again.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct UnsentLoan<E: std::error::Error + 'static = SendError> {
    /// Why.
    #[source]
    pub error: E,
    /// The loan. `None`: an inbox that is gone by now may still be reading it.
    pub loan: Option<Loan>,
}

impl<E: std::error::Error + 'static> UnsentLoan<E> {
    /// The loan of a slot that was to be sent, if nobody else has a share in it.
    pub(crate) fn from_slot(error: E, slot: OnceCell<Slot>, audience: Audience) -> Self {
        let slot = slot.into_inner().and_then(Slot::into_mut);
        Self { error, loan: slot.map(|slot| Loan { memory: LoanMemory::Slot(slot), audience }) }
    }
}

/// How long a loan waits by default for a slot.
pub(crate) const DEFAULT_LOAN_TIMEOUT: Duration = Duration::from_secs(1);
