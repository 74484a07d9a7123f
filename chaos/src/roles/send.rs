//! Sends numbered messages, and notes which messages it has sent and which losses were reported to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use librpc::{FlushError, Limits, Node, Publisher, SendError, Sender};
use serde::{Deserialize, Serialize};
use testkit::payload;

use super::{DomainAt, TOPIC, at_end_of_stdin, open_with, say};
use crate::log::SegmentLog;

/// The length of a payload that does not fit into a ring.
const LENT_BYTES: usize = 100_000;
/// The length of the others, of a sender whose memory is short, and how much it has.
const LONG_BYTES: usize = 3_000_000;
const SQUEEZED_BYTES: u64 = 5 << 20;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Send {
    pub(crate) domain: DomainAt,
    pub(crate) id: String,
    pub(crate) to: String,
    /// It publishes on [`TOPIC`], for a durable subscription, instead of sending to the node.
    pub(crate) publishes: bool,
    /// What a dead receiver has not processed is delivered to its next incarnation.
    pub(crate) redelivers: bool,
    pub(crate) log: String,
    pub(crate) stream: u64,
    /// The longest payload in bytes; 0 for the shortest that can be checked.
    pub(crate) bytes: usize,
    /// Its payloads do not fit into a ring.
    pub(crate) lends: bool,
    /// They are of two lengths, and its memory does not take both at the same time.
    pub(crate) squeezed: bool,
    /// How many messages it sends between two notes; 0 or 1 to note each.
    pub(crate) burst: u64,
    /// How many in all; `None` for as many as possible until it is asked to end.
    pub(crate) count: Option<u64>,
    /// The pause between two bursts, in microseconds.
    pub(crate) pause_us: u64,
}

impl Send {
    /// A sender with this id, to this node.
    pub(crate) fn between(id: &str, to: &str) -> Self {
        Self { id: id.into(), to: to.into(), ..Self::default() }
    }

    /// A sender from `source` to `sink` with random properties.
    pub(crate) fn random(rng: &mut fastrand::Rng) -> Self {
        Self {
            bytes: rng.usize(24..900),
            burst: [1, 1, 16, 64][rng.usize(0..4)],
            pause_us: if rng.u32(0..4) == 0 { 50 } else { 0 },
            ..Self::between("source", "sink")
        }
    }

    pub(super) fn play(self) -> anyhow::Result<()> {
        let mut notes = SegmentLog::open(&self.log, self.domain.is_shared)?;
        let limits = match self.squeezed {
            false => Limits::default(),
            true => Limits::default().payload_bytes(SQUEEZED_BYTES),
        };
        let node = open_with(&self.domain, &self.id, limits)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopper = stop.clone();
        at_end_of_stdin(move || stopper.store(true, Ordering::Relaxed))?; // Relaxed: it only ends the loop
        let begun = Instant::now();
        let mut way = self.way(&node)?;
        // It waits 1 s for the answer. After that, only a first acknowledgement shows that there was one.
        notes.now.pending &= begun.elapsed() >= Duration::from_secs(1);
        say("connected")?;
        let end = self.count.unwrap_or(u64::MAX);
        let (mut payload, mut acknowledged) = (Vec::new(), 0);
        while notes.now.sent < end && !stop.load(Ordering::Relaxed) {
            notes.now.begun = end.min(notes.now.sent + self.burst.max(1));
            if notes.now.pending {
                notes.now.pending = way.acknowledged() <= acknowledged;
            }
            notes.save()?;
            while notes.now.sent < notes.now.begun {
                self.write(&mut payload, notes.now.sent);
                match way.send(&payload)? {
                    Went::Well => notes.now.sent += 1,
                    Went::Gone { undelivered: 0, .. } => {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    Went::Gone { undelivered, why } => {
                        notes.reported(undelivered)?;
                        acknowledged = way.acknowledged();
                        say(&format!("reported {undelivered}: {why}"))?;
                        break;
                    }
                }
            }
            notes.save()?;
            if self.pause_us > 0 {
                std::thread::sleep(Duration::from_micros(self.pause_us));
            }
        }
        match way.flush(Duration::from_secs(60)) {
            Ok(()) => {}
            Err(ref error @ FlushError::Lost { lost, .. }) => {
                notes.reported(lost)?;
                say(&format!("reported {lost}: {error}"))?;
            }
            Err(error) => return Err(error.into()),
        }
        drop(way);
        node.close(Duration::from_secs(10))?;
        say("done")
    }
}

impl Send {
    fn write(&self, payload: &mut Vec<u8>, number: u64) {
        // A short one first: its memory leaves no room for that of a long one, so it is given back, however fast the receiver is.
        let length = if self.squeezed && !number.is_multiple_of(2) { LONG_BYTES } else { LENT_BYTES };
        match self.lends || self.squeezed {
            true => payload::write_exactly(payload, self.stream, number, length),
            false => payload::write(payload, self.stream, number, self.bytes),
        }
    }

    /// Waits until the receiver is there.
    fn way(&self, node: &Node) -> anyhow::Result<Way> {
        // Longer than any section takes, because on a busy machine all its receivers may die before they answer.
        let limit = Duration::from_secs(3600);
        let redelivery = self.redelivers.then_some(limit);
        // Sends have no time-out that would hide a lost wake-up.
        if self.publishes {
            let mut publisher = node.publisher(TOPIC)?;
            publisher.set_redelivery(redelivery);
            publisher.set_timeout(Duration::MAX);
            anyhow::ensure!(publisher.wait_for_subscriber(limit)?, "nobody subscribes");
            return Ok(Way::Topic(publisher, false));
        }
        let mut sender = node.connect_timeout(&self.to, limit)?;
        sender.set_redelivery(redelivery);
        sender.set_timeout(Duration::MAX);
        Ok(Way::Node(sender))
    }
}

/// Where messages go.
enum Way {
    Node(Sender),
    /// The flag: whether anything was published yet.
    Topic(Publisher, bool),
}

/// The outcome of a send.
enum Went {
    Well,
    /// This message was not sent, and this many earlier ones are lost.
    Gone {
        undelivered: u64,
        why: String,
    },
}

impl Way {
    fn send(&mut self, payload: &[u8]) -> anyhow::Result<Went> {
        match self {
            Self::Node(sender) => match sender.send(payload) {
                Ok(()) => Ok(Went::Well),
                Err(error @ (SendError::ReceiverGone { .. } | SendError::Refused { .. })) => {
                    Ok(Went::Gone { undelivered: error.undelivered(), why: error.to_string() })
                }
                Err(error) => Err(error.into()),
            },
            Self::Topic(publisher, begun) => {
                let receipt = publisher.publish(payload).context("publishing")?;
                if receipt.inboxes() == 0 && receipt.undelivered().is_empty() && !*begun {
                    // The first subscription ended before anything was published.
                    return Ok(Went::Gone { undelivered: 0, why: "nobody subscribes".into() });
                }
                let is_well = receipt.inboxes() == 1 && receipt.undelivered().is_empty();
                anyhow::ensure!(is_well, "LOST: a publish returned {receipt:?}");
                *begun = true;
                Ok(Went::Well)
            }
        }
    }

    fn flush(&mut self, limit: Duration) -> Result<(), FlushError> {
        match self {
            Self::Node(sender) => sender.flush(limit),
            Self::Topic(publisher, _) => publisher.flush(limit),
        }
    }

    fn acknowledged(&mut self) -> u64 {
        match self {
            Self::Node(sender) => sender.acknowledged(),
            Self::Topic(publisher, _) => publisher.account().processed,
        }
    }
}
