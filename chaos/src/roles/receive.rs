//! Processes numbered messages, and notes what it has processed before it acknowledges it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Context;
use librpc::{Acknowledge, Event, Inbox, Sample, Wait};
use serde::{Deserialize, Serialize};
use testkit::payload;

use super::{DomainAt, TOPIC, at_end_of_stdin, open, say};
use crate::log::Log;

/// How many samples are held.
const HELD: usize = 3;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Receive {
    pub(crate) domain: DomainAt,
    pub(crate) id: String,
    /// It opens a durable subscription to [`TOPIC`] instead of the node's own inbox.
    pub(crate) durable: bool,
    /// Each sender sends only its stream, so the library's numbers must be those of the stream.
    pub(crate) numbered: bool,
    pub(crate) log: String,
    /// In bytes; 0 for the default.
    pub(crate) capacity: u64,
    /// Whether it sleeps at once when there is no message.
    pub(crate) block: bool,
    /// It receives samples, and holds a few of them.
    pub(crate) samples: bool,
    /// How many messages it acknowledges at once; 0 or 1 for each at the next receive.
    pub(crate) batch: u64,
    /// How long each message takes, in microseconds.
    pub(crate) pause_us: u64,
}

impl Receive {
    /// A receiver with this id.
    pub(crate) fn by(id: &str) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// The receiver `sink` with random properties.
    pub(crate) fn random(rng: &mut fastrand::Rng) -> Self {
        Self {
            capacity: [0, 4096, 16_384][rng.usize(0..3)],
            block: rng.bool(),
            pause_us: if rng.u32(0..4) == 0 { 20 } else { 0 },
            ..Self::by("sink")
        }
    }

    pub(super) fn play(self) -> anyhow::Result<()> {
        let node = open(&self.domain, &self.id)?;
        let batched = self.batch > 1;
        let builder = match self.durable {
            false => node.inbox_builder(),
            true => node.subscriber_builder([TOPIC]).durable("battery"),
        };
        let builder = if self.capacity > 0 { builder.capacity(self.capacity) } else { builder };
        let builder = if self.block { builder.wait(Wait::Block) } else { builder };
        let builder = if batched { builder.acknowledge(Acknowledge::Explicit) } else { builder };
        let mut inbox = builder.open()?;
        let stop = inbox.stop_handle();
        at_end_of_stdin(move || stop.stop())?;
        let mut notes = Notes { log: Log::open(&self.log)?, slots: 0, runs: BTreeMap::new(), dirty: Vec::new() };
        say("ready")?; // from here on it opens nothing: its descriptors may be limited
        if self.samples {
            receive_samples(&mut inbox, &mut notes)?;
            drop(inbox);
            return node.close(Duration::from_secs(10)).context("closing");
        }
        let mut unacknowledged = 0;
        loop {
            // It notes and acknowledges before it sleeps, and after each batch.
            let event = if batched && unacknowledged > 0 { inbox.try_recv_event()? } else { inbox.recv_event()? };
            match event {
                None if unacknowledged == 0 => break,
                None => {
                    notes.save()?;
                    inbox.ack();
                    unacknowledged = 0;
                }
                Some(Event::Message(message)) => {
                    let read = payload::read(message.payload());
                    let (stream, number) = read.with_context(|| format!("TORN: {:?}", message.payload()))?;
                    let sequence = message.sequence();
                    anyhow::ensure!(!self.numbered || sequence == number, "NUMBER {sequence} for message {number}");
                    notes.add(stream, number, message.is_redelivered(), message.sender())?;
                    if self.pause_us > 0 {
                        std::thread::sleep(Duration::from_micros(self.pause_us));
                    }
                    unacknowledged += u64::from(batched);
                    if !batched {
                        notes.save()?;
                    } else if unacknowledged >= self.batch {
                        notes.save()?;
                        inbox.ack();
                        unacknowledged = 0;
                    }
                }
                Some(Event::SenderJoined(peer)) => say(&format!("joined {}", peer.node))?,
                Some(Event::SenderLeft(peer, departure)) => {
                    notes.forget(&peer.node)?;
                    say(&format!("left {} {departure:?}", peer.node))?;
                }
                Some(other) => anyhow::bail!("an unknown event: {other:?}"),
            }
        }
        drop(inbox);
        node.close(Duration::from_secs(10)).context("closing")
    }
}

/// Reads each sample when it comes, and once more when it is dropped.
fn receive_samples(inbox: &mut Inbox, notes: &mut Notes) -> anyhow::Result<()> {
    let mut held = VecDeque::new();
    let read = |sample: &Sample| payload::read(&sample.to_vec()).context("TORN: a sample");
    while let Some(sample) = inbox.recv_sample()? {
        let (stream, number) = read(&sample)?;
        notes.add(stream, number, sample.is_redelivered(), sample.sender())?;
        notes.save()?;
        held.push_back(((stream, number), sample));
        if held.len() > HELD {
            let (before, sample) = held.pop_front().context("there is one")?;
            anyhow::ensure!(read(&sample)? == before, "TORN: a sample that was held, {before:?}");
        }
    }
    Ok(())
}

struct Notes {
    log: Log,
    slots: u64,
    runs: BTreeMap<u64, Noted>,
    /// Streams whose last run is not in the log yet.
    dirty: Vec<u64>,
}

struct Noted {
    from: String,
    slot: u64,
    first: u64,
    end: u64,
    redelivered: bool,
}

impl Notes {
    fn add(&mut self, stream: u64, number: u64, redelivered: bool, from: &str) -> anyhow::Result<()> {
        match self.runs.get_mut(&stream) {
            Some(run) if run.end == number && run.redelivered == redelivered => {
                run.end += 1;
            }
            _ => {
                self.save()?;
                let run = Noted { from: from.into(), slot: self.slots, first: number, end: number + 1, redelivered };
                self.slots += 1;
                self.runs.insert(stream, run);
            }
        }
        if self.dirty.last() != Some(&stream) {
            self.dirty.push(stream);
        }
        Ok(())
    }

    fn save(&mut self) -> anyhow::Result<()> {
        for stream in self.dirty.drain(..) {
            let Some(run) = self.runs.get(&stream) else { continue };
            self.log.note(run.slot, [stream, run.first, run.end, run.redelivered.into(), 0])?;
        }
        Ok(())
    }

    /// The streams of a sender that has left are over.
    fn forget(&mut self, from: &str) -> anyhow::Result<()> {
        self.save()?;
        self.runs.retain(|_, run| run.from != from);
        Ok(())
    }
}
