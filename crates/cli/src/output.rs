//! Messages on stdout, for `recv` and `sub`.
//!
//! Invariant: no message is acknowledged before it was written in full.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use librpc::{Acknowledge, Inbox, InboxBuilder, InboxError, Message, Node, Policy, RecvError};
use serde::Serialize;
use serde_json::Value;

use crate::interrupt::Interrupt;
use crate::latency::counted;
use crate::options::RoomArgs;
use crate::outcome::{Usage, say};
use crate::stdout::{Stdout, Written};
use crate::turned_away::TurnedAway;
use crate::value;

#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct OutputArgs {
    /// Leave after N messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Write one object per line: from, topic, sequence, payload (or payload_base64), missed, redelivered; type and value, if it
    /// has a type
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Write a message as JSON where its type allows that, and as it is otherwise
    #[arg(long, conflicts_with_all = ["raw", "json"])]
    values: bool,
    /// Write nothing between the messages
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    room: RoomArgs,
    /// What happens to a message when the inbox is full: its sender waits, it is dropped, or it overwrites older ones
    #[arg(long, value_enum, default_value_t = PolicyArg::Block)]
    policy: PolicyArg,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum PolicyArg {
    Block,
    DropNewest,
    #[value(alias = "latest")] // its name in earlier versions
    DropOldest,
}

/// How many messages arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    /// Overwritten before they were received.
    pub(crate) missed: u64,
}

/// Opens an inbox. Options that are invalid for it are wrong usage.
pub(crate) fn open(inbox: InboxBuilder<'_>) -> anyhow::Result<Inbox> {
    inbox.open().map_err(|error| match error {
        InboxError::Capacity { .. }
        | InboxError::InvalidTopic(_)
        | InboxError::InvalidName(_)
        | InboxError::Patterns { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    })
}

impl OutputArgs {
    /// Opens an inbox as the options say.
    pub(crate) fn open(&self, inbox: InboxBuilder<'_>) -> anyhow::Result<Inbox> {
        open(self.room.apply(inbox).policy(self.policy()).acknowledge(Acknowledge::Explicit))
    }

    pub(crate) fn policy(&self) -> Policy {
        match self.policy {
            PolicyArg::Block => Policy::Block,
            PolicyArg::DropNewest => Policy::DropNewest,
            PolicyArg::DropOldest => Policy::DropOldest,
        }
    }

    /// Writes messages until there are enough, the reader of stdout is gone, or a signal comes.
    pub(crate) fn write(
        &self,
        mut inbox: Inbox,
        with_topic: bool,
        mut spectator: Option<Spectator<'_>>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Tally> {
        let mut stdout = Stdout::new();
        let stop = inbox.stop_handle();
        interrupt.then(move || stop.stop());
        let (mut tally, mut line) = (Tally::default(), Vec::new());
        loop {
            let received = match spectator {
                None => inbox.recv(),
                Some(_) => inbox.recv_timeout(Spectator::LOOK_EVERY),
            };
            let message = match received {
                Err(RecvError::Mismatch(mismatch)) => {
                    say(mismatch);
                    continue;
                }
                received => received?,
            };
            if let Some(message) = &message {
                let missed = message.missed();
                let bytes = match self.is_plain(with_topic) {
                    true => message.payload(),
                    false => self.format(message, with_topic, &mut line)?,
                };
                match stdout.write(bytes, interrupt).context("cannot write to stdout")? {
                    Written::All => inbox.ack(),
                    Written::Closed | Written::Interrupted => break,
                }
                tally.received += 1;
                tally.missed = tally.missed.saturating_add(missed);
            } else if spectator.is_none() || interrupt.signal().is_some() {
                break; // a signal has stopped the inbox
            }
            if self.count.is_some_and(|count| tally.received >= count.get()) {
                break;
            }
            if let Some(spectator) = &mut spectator {
                spectator.look_if_due();
            }
        }
        if let Some(spectator) = &mut spectator {
            spectator.look(); // while the inbox is there
        }
        Ok(tally)
    }

    /// Whether a message is written as it is.
    fn is_plain(&self, with_topic: bool) -> bool {
        self.raw && !with_topic
    }

    fn format<'l>(&self, message: &Message<'_>, with_topic: bool, line: &'l mut Vec<u8>) -> anyhow::Result<&'l [u8]> {
        line.clear();
        if self.json {
            serde_json::to_writer(&mut *line, &Line::new(message)).context("cannot write JSON")?;
        } else {
            if with_topic {
                line.extend_from_slice(message.topic().unwrap_or_default().as_bytes());
                line.push(b' ');
            }
            match self.values.then(|| value_of(message)).flatten() {
                Some(value) => serde_json::to_writer(&mut *line, &value).context("cannot write JSON")?,
                None => line.extend_from_slice(message.payload()),
            }
        }
        if !self.raw {
            line.push(b'\n');
        }
        Ok(line)
    }
}

/// A receiver that only watches. Its publishers ignore messages that it does not get, so it must report them itself.
pub(crate) struct Spectator<'n> {
    node: &'n Node,
    policy: Policy,
    turned_away: TurnedAway,
    /// The topics that were denied, by node.
    denied: BTreeSet<(String, String)>,
    looked: Instant,
}

impl<'n> Spectator<'n> {
    const LOOK_EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn new(node: &'n Node, policy: Policy) -> Self {
        let (turned_away, denied) = (TurnedAway::default(), BTreeSet::new());
        Self { node, policy, turned_away, denied, looked: Instant::now() }
    }

    fn look_if_due(&mut self) {
        if self.looked.elapsed() >= Self::LOOK_EVERY {
            self.look();
        }
    }

    /// Reports what was turned away or denied since the last look.
    fn look(&mut self) {
        for denial in self.node.stats().denials {
            if !denial.is_mismatch && self.denied.insert((denial.by.to_string(), denial.topic.to_string())) {
                say(format_args!("denied by node {}: {}", denial.by, denial.text));
            }
        }
        let now = TurnedAway::by(self.node);
        let TurnedAway { dropped, returned, .. } = now.since(self.turned_away);
        (self.turned_away, self.looked) = (now, Instant::now());
        if dropped > 0 {
            say(format_args!("{} dropped: the inbox was full", counted(dropped, "message")));
        }
        if returned > 0 {
            let why = match self.policy {
                Policy::Block => "too large for this inbox (see --max-message), or it was full for too long",
                _ => "too large for this inbox (see --max-message)",
            };
            say(format_args!("{} returned to the publisher: {why}", counted(returned, "message")));
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    missed: u64,
    redelivered: bool,
    /// Left out if it is not: only some publishers keep messages.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    past: bool,
    /// Left out where the topic has no type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

/// A message as JSON, if its type allows that.
fn value_of(message: &Message<'_>) -> Option<Value> {
    value::read(message.schema()?, message.payload())
}

impl<'a> Line<'a> {
    fn new(message: &Message<'a>) -> Self {
        let payload = std::str::from_utf8(message.payload()).ok();
        let encode = || base64::engine::general_purpose::STANDARD.encode(message.payload());
        Self {
            from: message.sender(),
            topic: message.topic(),
            sequence: message.sequence(),
            payload,
            payload_base64: payload.is_none().then(encode),
            missed: message.missed(),
            redelivered: message.is_redelivered(),
            past: message.is_past(),
            schema: message.schema().map(ToString::to_string),
            value: value_of(message),
        }
    }
}
