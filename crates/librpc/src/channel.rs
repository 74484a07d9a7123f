//! The sender's end of a channel as one thread uses it: the producer, and what the background thread has learnt.
//!
//! A channel is *pending* until its receiver has answered: records go into the ring all the same. What a death leaves is
//! told in [`crate::ring`], which outlives this where a handshake is still under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use librpc_ring::{Head, Producer, PushError, layout};

use crate::fault::fault;
use crate::name::Incarnation;
use crate::outbox::Progress;
use crate::ring::{self, Attached, Failure, Ring};
use crate::sys::fork;
use crate::sys::memory::{Reader, Writer, no_ack};

/// So long between two looks at what the receiver has consumed: each look takes the line away from it.
const PAUSES: u32 = 32;
/// How long a sender polls for room before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// The sender's end of a channel.
#[derive(Debug)]
pub(crate) struct Channel {
    ring: Arc<Ring>,
    producer: Producer<Writer, Reader>,
    /// The ring's status when it was last taken notice of.
    seen: u32,
    attached: Option<Attached>,
}

/// How a push went.
pub(crate) enum Pushed {
    Yes,
    /// There is room when this position is consumed.
    Full {
        room_at: u64,
    },
    TooLarge {
        bytes: usize,
        max: usize,
    },
    Failed,
}

impl Channel {
    pub(crate) fn new(ring: Arc<Ring>) -> Self {
        let producer = Producer::new(ring.data.writer(), no_ack(), ring.link.target.capacity);
        Self { ring, producer, seen: ring::PENDING, attached: None }
    }

    /// Writes and commits a message, and wakes the receiver if it sleeps.
    #[inline]
    pub(crate) fn push(&mut self, payload: &[u8]) -> Pushed {
        if self.ring.status() != self.seen {
            self.refresh();
        }
        if self.seen == ring::FAILED {
            return Pushed::Failed;
        }
        match self.producer.push(Head::MESSAGE, payload) {
            Ok(_) => {}
            Err(PushError::Full { room_at }) => return Pushed::Full { room_at },
            Err(PushError::TooLarge { bytes, max }) => return Pushed::TooLarge { bytes, max },
            Err(error @ PushError::BadConsumed { .. }) => {
                self.ring.fail(Failure::Broken(error.to_string()));
                return Pushed::Failed;
            }
        }
        match &self.attached {
            None if self.ring.was_answered_meanwhile() => {
                self.refresh();
                if let Some(attached) = &self.attached
                    && self.producer.must_ring()
                {
                    attached.ring_bell();
                }
            }
            None => {}
            Some(attached) if self.producer.must_ring() => {
                fault!("send.must-ring");
                attached.ring_bell();
            }
            Some(_) => {}
        }
        Pushed::Yes
    }

    /// Takes notice of what the background thread has learnt.
    #[cold]
    fn refresh(&mut self) {
        if self.attached.is_none() {
            self.attached = self.ring.attached();
            if let Some(ack) = self.ring.ack() {
                self.producer.set_ack(ack.reader());
            }
        }
        self.seen = self.ring.status();
    }

    /// How far the receiver has got.
    pub(crate) fn progress(&mut self) -> Progress {
        self.refresh();
        let sent = self.producer.sequence();
        let outstanding = match self.producer.outstanding() {
            Ok(outstanding) => outstanding,
            Err(error) => {
                self.ring.fail(Failure::Broken(error.to_string()));
                sent
            }
        };
        Progress { sent, acknowledged: sent - outstanding }
    }

    /// Waits until the receiver has consumed up to a position, or has failed. While it polls, it is not content with less
    /// than a quarter of the ring: a sender on its receiver's heels costs both most of their speed.
    pub(crate) fn wait_for(&mut self, position: u64, deadline: Option<Instant>) {
        let plenty = self.producer.committed().min(position + self.producer.capacity() / 4);
        if !self.spin(|channel| channel.producer.consumed().is_ok_and(|consumed| consumed >= plenty)) {
            self.ring.wait_until(deadline, |consumed| consumed >= position);
        }
    }

    /// Waits until everything is processed, or the receiver has failed.
    pub(crate) fn wait_for_all(&mut self, deadline: Option<Instant>) {
        self.wait_for(self.producer.committed(), deadline);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.ring.status() != ring::FAILED
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.ring.failure()
    }

    /// The incarnation of the node that it leads to.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.ring.link.target.incarnation
    }

    /// The longest message, in bytes.
    pub(crate) fn max_message(&self) -> usize {
        layout::max_payload_bytes(self.producer.capacity()) as usize
    }

    /// Polls for a moment; `true` if that was enough, or the ring has failed.
    fn spin(&mut self, mut enough: impl FnMut(&mut Self) -> bool) -> bool {
        let begun = Instant::now();
        loop {
            if self.ring.status() != self.seen {
                self.refresh();
            }
            if enough(self) || self.seen == ring::FAILED {
                return true;
            }
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            if begun.elapsed() > SPIN {
                return false;
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.ring.born != fork::generation() {
            return;
        }
        self.producer.close();
        self.ring.closed();
    }
}
