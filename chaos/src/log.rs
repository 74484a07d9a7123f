//! What a worker notes in memory of the supervisor, so that it survives a kill: records of five numbers.
//!
//! A note is one `pwrite` into one page, so a kill comes before it or after it. The file has no name; the worker reaches
//! it through the descriptors of the supervisor.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use anyhow::Context;

use crate::account::{Run, Segment};

const WORDS: usize = 5;
/// A power of two, so that no record spans two pages.
const RECORD_BYTES: usize = 64;

pub(crate) struct Log(File);

impl Log {
    /// Makes an empty log, in the supervisor.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let file = rustix::fs::memfd_create("librpc-chaos-log", rustix::fs::MemfdFlags::CLOEXEC);
        Ok(Self(file.context("cannot make a log")?.into()))
    }

    /// Where a worker can open it.
    pub(crate) fn path(&self) -> String {
        path_of(&self.0)
    }

    /// Opens the supervisor's log, in a worker.
    pub(crate) fn open(path: &str) -> anyhow::Result<Self> {
        Ok(Self(OpenOptions::new().write(true).open(path).with_context(|| format!("cannot open {path}"))?))
    }

    pub(crate) fn note(&self, slot: u64, words: [u64; WORDS]) -> anyhow::Result<()> {
        let mut bytes = [0; RECORD_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.0.write_all_at(&bytes, slot * RECORD_BYTES as u64).context("cannot write a log")
    }

    fn records(&self) -> anyhow::Result<Vec<[u64; WORDS]>> {
        let mut bytes = vec![0; self.0.metadata()?.len() as usize];
        self.0.read_exact_at(&mut bytes, 0).context("cannot read a log")?;
        let record = |bytes: &[u8]| {
            std::array::from_fn(|n| u64::from_le_bytes(bytes[n * 8..n * 8 + 8].try_into().expect("eight bytes")))
        };
        Ok(bytes.chunks_exact(RECORD_BYTES).map(record).collect())
    }

    /// The log of a sender.
    pub(crate) fn segments(&self) -> anyhow::Result<Vec<Segment>> {
        let segment = |[first, sent, begun, reported, pending]: [u64; WORDS]| Segment {
            first,
            sent,
            begun,
            reported: reported.checked_sub(1),
            pending: pending == 1,
        };
        Ok(self.records()?.into_iter().map(segment).collect())
    }

    /// The log of a receiver: the runs, each with its stream.
    pub(crate) fn runs(&self, receiver: u64) -> anyhow::Result<Vec<(u64, Run)>> {
        let run = |[stream, first, end, redelivered, _]: [u64; WORDS]| {
            (stream, Run { receiver, first, end, redelivered: redelivered == 1 })
        };
        Ok(self.records()?.into_iter().map(run).collect())
    }

    /// How many messages a sender has sent, or a receiver has processed.
    pub(crate) fn progress(&self) -> anyhow::Result<u64> {
        Ok(self.records()?.iter().map(|[_, first, end, ..]| end.saturating_sub(*first)).sum())
    }

    /// The number of the next message of a sender.
    pub(crate) fn sent(&self) -> anyhow::Result<u64> {
        Ok(self.segments()?.last().map_or(0, |last| last.sent))
    }
}

/// A byte for each of many numbers, in memory of the supervisor's. Each byte has one writer at a time.
pub(crate) struct Notes(File);

impl Notes {
    /// Zeros, in the supervisor.
    pub(crate) fn new(numbers: u64) -> anyhow::Result<Self> {
        let Log(file) = Log::new()?;
        file.set_len(numbers).context("cannot make notes")?;
        Ok(Self(file))
    }

    /// Where a worker can open them.
    pub(crate) fn path(&self) -> String {
        path_of(&self.0)
    }

    /// Opens the supervisor's notes, in a worker.
    pub(crate) fn open(path: &str) -> anyhow::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Self(file.with_context(|| format!("cannot open {path}"))?))
    }

    pub(crate) fn note(&self, number: u64, byte: u8) -> anyhow::Result<()> {
        self.0.write_all_at(&[byte], number).context("cannot write a note")
    }

    /// Adds 1 to a byte.
    pub(crate) fn count(&self, number: u64) -> anyhow::Result<()> {
        let mut byte = [0];
        self.0.read_exact_at(&mut byte, number).context("cannot read a note")?;
        self.note(number, byte[0].saturating_add(1))
    }

    pub(crate) fn read(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; self.0.metadata()?.len() as usize];
        self.0.read_exact_at(&mut bytes, 0).context("cannot read notes")?;
        Ok(bytes)
    }
}

/// Where a worker can open a file of the supervisor's.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// The notes of a sender.
pub(crate) struct SegmentLog {
    log: Log,
    slot: u64,
    /// Whether messages may be lost with their sender while the receiver has not answered: not in a private domain.
    may_be_pending: bool,
    pub(crate) now: Segment,
}

impl SegmentLog {
    pub(crate) fn open(path: &str, may_be_pending: bool) -> anyhow::Result<Self> {
        let now = Segment { first: 0, sent: 0, begun: 0, reported: None, pending: may_be_pending };
        let this = Self { log: Log::open(path)?, slot: 0, may_be_pending, now };
        this.save()?;
        Ok(this)
    }

    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let Segment { first, sent, begun, reported, pending } = self.now;
        self.log.note(self.slot, [first, sent, begun, reported.map_or(0, |reported| reported + 1), pending.into()])
    }

    /// A loss was reported: the next send begins another segment.
    pub(crate) fn reported(&mut self, lost: u64) -> anyhow::Result<()> {
        self.now.begun = self.now.sent;
        self.now.reported = Some(lost);
        self.save()?;
        self.slot += 1;
        let next = self.now.sent;
        self.now = Segment { first: next, sent: next, begun: next, reported: None, pending: self.may_be_pending };
        self.save()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_can_be_read_back() {
        let log = Log::new().unwrap();
        let mut notes = SegmentLog::open(&log.path(), true).unwrap();
        notes.now.sent = 7;
        notes.reported(2).unwrap();
        let first = Segment { first: 0, sent: 7, begun: 7, reported: Some(2), pending: true };
        assert_eq!(log.segments().unwrap(), [first, Segment { first: 7, sent: 7, reported: None, ..first }]);
        Log::open(&log.path()).unwrap().note(0, [3, 1, 5, 1, 0]).unwrap();
        let run = Run { receiver: 9, first: 1, end: 5, redelivered: true };
        assert_eq!(log.runs(9).unwrap()[0], (3, run));
    }
}
