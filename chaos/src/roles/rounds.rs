//! Two processes that wake each other. Nothing here has a time limit, so a lost wake-up stays lost, and the supervisor
//! sees that the counts stop.

use std::time::Duration;

use anyhow::Context;
use librpc::Wait;
use serde::{Deserialize, Serialize};
use testkit::payload;

use super::{DomainAt, at_end_of_stdin, open, say};
use crate::log::Log;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rounds {
    pub(crate) domain: DomainAt,
    pub(crate) id: String,
    pub(crate) peer: String,
    /// Where it counts its messages.
    pub(crate) log: String,
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    /// The longest random pause before each message, in turns of a loop. To find races, the two sides must meet at
    /// every distance.
    pub(crate) most_turns: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Sends, then sleeps until the answer comes.
    Ping,
    /// Sleeps until a message comes, then answers.
    Pong,
    /// Fills a small ring, and sleeps for room.
    Source,
    /// Empties a small ring, and sleeps for more.
    Sink,
}

/// How many messages there are between two notes of the count.
const NOTED: u64 = 256;

impl Rounds {
    pub(super) fn play(self) -> anyhow::Result<()> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let node = open(&self.domain, &self.id)?;
        let log = Log::open(&self.log)?;
        let mut inbox = node.inbox_builder().capacity(4096).wait(Wait::Block).open()?;
        let stop = inbox.stop_handle();
        at_end_of_stdin(move || stop.stop())?;
        say("ready")?;
        let mut sender = match self.kind {
            Kind::Sink => None,
            _ => Some(node.connect_timeout(&self.peer, Duration::from_secs(60))?),
        };
        if let Some(sender) = &mut sender {
            sender.set_timeout(Duration::MAX);
        }
        let bytes = if matches!(self.kind, Kind::Source | Kind::Sink) { 900 } else { payload::HEAD_BYTES };
        let (mut payload, mut count) = (Vec::new(), 0);
        loop {
            (0..rng.u32(0..=self.most_turns)).for_each(|_| std::hint::spin_loop());
            if matches!(self.kind, Kind::Ping | Kind::Source) {
                payload::write(&mut payload, 0, count, bytes);
                sender.as_mut().context("no sender")?.send(&payload)?;
            }
            if self.kind != Kind::Source {
                let Some(message) = inbox.recv()? else { break };
                let (_, number) = payload::read(message.payload()).context("TORN")?;
                anyhow::ensure!(number == count, "LOST or out of order: {number} instead of {count}");
            }
            if self.kind == Kind::Pong {
                (0..rng.u32(0..=self.most_turns)).for_each(|_| std::hint::spin_loop());
                payload::write(&mut payload, 0, count, bytes);
                sender.as_mut().context("no sender")?.send(&payload)?;
            }
            count += 1;
            if count % NOTED == 0 {
                log.note(0, [0, 0, count, 0, 0])?;
            }
        }
        Ok(()) // never reached: both are killed together
    }
}
