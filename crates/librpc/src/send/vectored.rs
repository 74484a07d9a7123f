//! Messages from several slices, such as a header and a body.

use std::io::IoSlice;

use crate::send::error::{PublishError, SendError};
use crate::send::loan::{Loan, SHORT};
use crate::send::publish::Receipt;
use crate::send::publisher::Publisher;
use crate::send::sender::Sender;

/// One slice after the other.
enum Gathered {
    /// Where the receivers read it.
    InPlace(Loan),
    Privately(Vec<u8>),
}

/// Puts the slices one after the other: a long message where its receivers read it, if there is memory for it.
fn gather(parts: &[IoSlice<'_>], lend: impl FnOnce(usize) -> Option<Loan>) -> Gathered {
    let bytes = parts.iter().map(|part| part.len()).sum();
    match (bytes > SHORT).then(|| lend(bytes)).flatten() {
        Some(mut loan) => {
            let mut rest = &mut loan[..];
            for part in parts {
                let (place, after) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                rest = after;
            }
            Gathered::InPlace(loan)
        }
        None => Gathered::Privately(parts.iter().map(|part| &**part).collect::<Vec<_>>().concat()),
    }
}

impl Publisher {
    /// Publishes one message from several slices, one after the other. As [`Publisher::publish`]; its receivers see no difference.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_vectored_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// # let (viewer, camera) = (open("viewer")?, open("camera")?);
    /// use std::io::IoSlice;
    ///
    /// let mut frames = viewer.subscribe("camera/front")?;
    /// let mut publisher = camera.publisher("camera/front")?;
    /// publisher.publish_vectored(&[IoSlice::new(b"header"), IoSlice::new(b"pixels")])?;
    /// assert_eq!(frames.recv()?.expect("nobody stops this inbox").payload(), b"headerpixels");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Publisher::publish`].
    pub fn publish_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<Receipt<'_>, PublishError> {
        match gather(parts, |bytes| self.loan_uninit(bytes).ok()) {
            Gathered::InPlace(loan) => self.publish_loan(loan).map_err(|unsent| unsent.error),
            Gathered::Privately(payload) => self.publish(&payload),
        }
    }
}

impl Sender {
    /// Sends one message from several slices, one after the other. As [`Sender::send`]; its receiver sees no difference. See
    /// [`Publisher::publish_vectored`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub fn send_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        match gather(parts, |bytes| self.loan_uninit(bytes).ok()) {
            Gathered::InPlace(loan) => self.send_loan(loan).map_err(|unsent| unsent.error),
            Gathered::Privately(payload) => self.send(&payload),
        }
    }
}
