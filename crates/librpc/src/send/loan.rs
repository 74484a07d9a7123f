//! Loans: payloads that are filled in place, and then published or sent without a copy.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::send::error::SendError;
use crate::send::pool::Audience;
use crate::sys::slots::SlotMut;

/// A loan of at most this many bytes is private memory, and is copied into the rings.
pub(crate) const SHORT: usize = 4096;

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
    Private(Box<[u8]>),
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
        write!(f, "Loan({} bytes)", self.len())
    }
}

/// A loan that was not sent: it may be sent again.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct UnsentLoan {
    /// Why.
    #[source]
    pub error: SendError,
    /// The loan.
    pub loan: Option<Loan>,
}

/// How long a loan waits by default for a slot.
pub(crate) const DEFAULT_LOAN_TIMEOUT: Duration = Duration::from_secs(1);
