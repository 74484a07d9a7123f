//! Sends numbered messages, and notes what it has sent and what it was told.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use librpc::{FlushError, SendError};
use serde::{Deserialize, Serialize};

use super::{at_end_of_stdin, open, say};
use crate::log::SegmentLog;
use crate::payload;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Send {
    pub(crate) domain: PathBuf,
    pub(crate) id: String,
    pub(crate) to: String,
    pub(crate) log: String,
    pub(crate) stream: u64,
    /// The longest payload in bytes; 0: the shortest that can be checked.
    pub(crate) bytes: usize,
    /// How many messages it sends between two notes; 0 or 1: each is noted.
    pub(crate) burst: u64,
    /// How many in all; `None`: until it is asked to end.
    pub(crate) count: Option<u64>,
    /// Between two bursts, in microseconds.
    pub(crate) pause_us: u64,
}

impl Send {
    pub(super) fn play(self) -> anyhow::Result<()> {
        let mut notes = SegmentLog::open(&self.log)?;
        let node = open(self.domain.clone(), &self.id)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopper = stop.clone();
        at_end_of_stdin(move || stopper.store(true, Ordering::Relaxed))?; // nothing else depends on it
        let begun = Instant::now();
        let mut sender = node.sender_within(&self.to, Duration::from_secs(60))?;
        // No time-out saves a sender that waits for room.
        sender.set_limit(Duration::MAX);
        // It waits for the answer for 1 s. Has that passed, only a first acknowledgement tells that there was one.
        notes.now.pending = begun.elapsed() >= Duration::from_secs(1);
        say("connected")?;
        let end = self.count.unwrap_or(u64::MAX);
        let (mut payload, mut acknowledged) = (Vec::new(), 0);
        while notes.now.sent < end && !stop.load(Ordering::Relaxed) {
            notes.now.begun = end.min(notes.now.sent + self.burst.max(1));
            if notes.now.pending {
                notes.now.pending = sender.acknowledged() <= acknowledged;
            }
            notes.save()?;
            while notes.now.sent < notes.now.begun {
                payload::write(&mut payload, self.stream, notes.now.sent, self.bytes);
                match sender.send(&payload) {
                    Ok(()) => notes.now.sent += 1,
                    Err(SendError::ReceiverGone { undelivered: 0, .. } | SendError::Refused { undelivered: 0, .. }) => {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    Err(
                        ref error @ (SendError::ReceiverGone { undelivered, .. }
                        | SendError::Refused { undelivered, .. }),
                    ) => {
                        notes.told(undelivered)?;
                        acknowledged = sender.acknowledged();
                        say(&format!("told {undelivered}: {error}"))?;
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            notes.save()?;
            if self.pause_us > 0 {
                std::thread::sleep(Duration::from_micros(self.pause_us));
            }
        }
        match sender.flush(Duration::from_secs(60)) {
            Ok(()) => {}
            Err(ref error @ FlushError::Lost { unprocessed, .. }) => {
                notes.told(unprocessed)?;
                say(&format!("told {unprocessed}: {error}"))?;
            }
            Err(error) => return Err(error.into()),
        }
        drop(sender);
        node.close(Duration::from_secs(10))?;
        say("done")
    }
}
