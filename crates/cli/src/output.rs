//! Messages on stdout: what `recv` and `sub` have in common.
//!
//! Invariant: what was not written is not acknowledged. A message is written first, whole, and acknowledged then.

use std::num::NonZeroU64;

use anyhow::Context;
use base64::Engine;
use librpc::{Acknowledge, DEFAULT_CAPACITY, Inbox, InboxBuilder, InboxError, Message, Policy};
use serde::Serialize;

use crate::interrupt::Interrupt;
use crate::outcome::Usage;
use crate::stdout::{Stdout, Written};

#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct OutputArgs {
    /// Leave after so many messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// One object a line: from, topic, sequence, payload (or payload_base64), missed, redelivered
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Nothing between the messages
    #[arg(long)]
    raw: bool,
    /// Bytes of each sender's ring, a power of two; the longest message is a quarter of it (latest: an eighth), less 64
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_CAPACITY)]
    capacity: u64,
    /// What happens to a message that finds the inbox full: its sender waits, it is dropped, or older ones are overwritten
    #[arg(long, value_enum, default_value_t = PolicyArg::Block)]
    policy: PolicyArg,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum PolicyArg {
    Block,
    DropNewest,
    Latest,
}

/// What has been received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) missed: u64,
}

impl OutputArgs {
    /// Opens an inbox as the options say.
    pub(crate) fn open(&self, inbox: InboxBuilder<'_>) -> anyhow::Result<Inbox> {
        let policy = match self.policy {
            PolicyArg::Block => Policy::Block,
            PolicyArg::DropNewest => Policy::DropNewest,
            PolicyArg::Latest => Policy::Latest,
        };
        let inbox = inbox.capacity(self.capacity).policy(policy).acknowledge(Acknowledge::Explicit).open();
        inbox.map_err(|error| match error {
            InboxError::Capacity { .. }
            | InboxError::BadTopic(_)
            | InboxError::BadName(_)
            | InboxError::Patterns { .. } => Usage(error.to_string()).into(),
            error => error.into(),
        })
    }

    /// Writes what comes until it is enough, nobody reads any more, or a signal comes.
    pub(crate) fn write(&self, mut inbox: Inbox, with_topic: bool, interrupt: &Interrupt) -> anyhow::Result<Tally> {
        let mut stdout = Stdout::new();
        let stop = inbox.stop_handle();
        interrupt.then(move || stop.stop());
        let (mut tally, mut line) = (Tally::default(), Vec::new());
        while let Some(message) = inbox.recv()? {
            let missed = message.missed();
            self.format(&message, with_topic, &mut line)?;
            match stdout.write(&line, interrupt).context("cannot write to stdout")? {
                Written::All => inbox.ack(),
                Written::Closed | Written::Interrupted => break,
            }
            tally.received += 1;
            tally.missed += missed;
            if self.count.is_some_and(|count| tally.received >= count.get()) {
                break;
            }
        }
        Ok(tally)
    }

    fn format(&self, message: &Message<'_>, with_topic: bool, line: &mut Vec<u8>) -> anyhow::Result<()> {
        line.clear();
        if self.json {
            serde_json::to_writer(&mut *line, &Line::new(message)).context("cannot write JSON")?;
        } else {
            if with_topic {
                line.extend_from_slice(message.topic().as_bytes());
                line.push(b' ');
            }
            line.extend_from_slice(message.payload());
        }
        if !self.raw {
            line.push(b'\n');
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Line<'a> {
    from: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    topic: &'a str,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    missed: u64,
    redelivered: bool,
}

impl<'a> Line<'a> {
    fn new(message: &Message<'a>) -> Self {
        let payload = std::str::from_utf8(message.payload()).ok();
        let encode = || base64::engine::general_purpose::STANDARD.encode(message.payload());
        Self {
            from: message.from(),
            topic: message.topic(),
            sequence: message.sequence(),
            payload,
            payload_base64: payload.is_none().then(encode),
            missed: message.missed(),
            redelivered: message.is_redelivered(),
        }
    }
}
