//! Messages on stdout, for `recv`, `sub` and `chat`.
//!
//! Invariant: no message is acknowledged before it was written in full.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use librpc::{Acknowledge, Event, Inbox, InboxBuilder, InboxError, Message, Node, Policy};
use serde::Serialize;
use serde_json::Value;

use crate::interrupt::Interrupt;
use crate::latency::counted;
use crate::options::RoomArgs;
use crate::outcome::{Usage, say};
use crate::snapshot::Losses;
use crate::stdout::{Stdout, Written};
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
    /// Take only the newest N messages of each topic and sender that are there; older ones are passed over, and count as missed.
    /// Nobody waits for this inbox
    #[arg(long, value_name = "N", conflicts_with = "policy")]
    keep_last: Option<NonZeroUsize>,
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
        let inbox = self.room.apply(inbox).policy(self.policy()).acknowledge(Acknowledge::Explicit);
        open(match self.keep_last {
            Some(messages) => inbox.keep_last(messages.get()),
            None => inbox,
        })
    }

    pub(crate) fn policy(&self) -> Policy {
        match self.policy {
            _ if self.keep_last.is_some() => Policy::DropOldest,
            PolicyArg::Block => Policy::Block,
            PolicyArg::DropNewest => Policy::DropNewest,
            PolicyArg::DropOldest => Policy::DropOldest,
        }
    }

    /// Writes messages until there are enough, the reader of stdout is gone, or a signal comes.
    pub(crate) fn write(
        &self,
        node: &Node,
        mut inbox: Inbox,
        with_topic: bool,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Tally> {
        let stop = inbox.stop_handle();
        interrupt.then(move || stop.stop());
        let (mut written, mut notices) = (Messages::new(*self, with_topic), Notices::new(node));
        loop {
            let due = notices.due();
            let event = match due {
                None => inbox.recv_event()?,
                Some(due) => inbox.recv_event_timeout(due)?,
            };
            match event {
                Some(Event::Message(message)) => match written.write(&message, interrupt)? {
                    Written::All => inbox.ack(),
                    Written::Closed | Written::Interrupted => break,
                },
                Some(other) => notices.take(other),
                None if due.is_none() || interrupt.signal().is_some() => break, // it was stopped
                None => {}
            }
            if written.are_enough() {
                break;
            }
            notices.say_if_due();
        }
        notices.say(); // while the inbox is there
        Ok(written.tally)
    }
}

/// The messages that a command writes.
pub(crate) struct Messages {
    args: OutputArgs,
    with_topic: bool,
    stdout: Stdout,
    line: Vec<u8>,
    pub(crate) tally: Tally,
}

impl Messages {
    pub(crate) fn new(args: OutputArgs, with_topic: bool) -> Self {
        Self { args, with_topic, stdout: Stdout::new(), line: Vec::new(), tally: Tally::default() }
    }

    /// Writes a message. Only one that was written in full may be acknowledged.
    pub(crate) fn write(&mut self, message: &Message<'_>, interrupt: &Interrupt) -> anyhow::Result<Written> {
        let bytes = match self.is_plain() {
            true => message.payload(),
            false => {
                self.format(message)?;
                &self.line
            }
        };
        let written = self.stdout.write(bytes, interrupt).context("cannot write to stdout")?;
        if written == Written::All {
            self.tally.received += 1;
            self.tally.missed = self.tally.missed.saturating_add(message.missed());
        }
        Ok(written)
    }

    /// Whether there are as many as were asked for.
    pub(crate) fn are_enough(&self) -> bool {
        self.args.count.is_some_and(|count| self.tally.received >= count.get())
    }

    /// Whether a message is written as it is.
    fn is_plain(&self) -> bool {
        self.args.raw && !self.with_topic
    }

    fn format(&mut self, message: &Message<'_>) -> anyhow::Result<()> {
        let Self { args, line, .. } = self;
        line.clear();
        if args.json {
            serde_json::to_writer(&mut *line, &Line::new(message)).context("cannot write JSON")?;
        } else {
            if self.with_topic {
                line.extend_from_slice(message.topic().unwrap_or_default().as_bytes());
                line.push(b' ');
            }
            match args.values.then(|| value_of(message)).flatten() {
                Some(value) => serde_json::to_writer(&mut *line, &value).context("cannot write JSON")?,
                None => line.extend_from_slice(message.payload()),
            }
        }
        if !args.raw {
            line.push(b'\n');
        }
        Ok(())
    }
}

/// What a receiver is told besides messages: what it does not get, and why. What was turned away is said once a second at most.
pub(crate) struct Notices<'n> {
    node: &'n Node,
    said: Losses,
    at: Option<Instant>,
    is_behind: bool,
}

impl<'n> Notices<'n> {
    const EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn new(node: &'n Node) -> Self {
        Self { node, said: Losses::default(), at: None, is_behind: false }
    }

    /// Takes an event that is no message.
    pub(crate) fn take(&mut self, event: Event<'_>) {
        match event {
            Event::TurnedAway(_) => self.is_behind = true,
            Event::Denied(denial) => say(format_args!("denied by node {}: {}", denial.by, denial.text)),
            Event::Mismatch(mismatch) => say(mismatch),
            Event::Refused(refused) => say(refused),
            _ => {}
        }
    }

    /// How long it takes until something is to be said; `None`: there is nothing.
    fn due(&self) -> Option<Duration> {
        let since = self.at.map_or(Self::EVERY, |at| at.elapsed());
        self.is_behind.then(|| Self::EVERY.saturating_sub(since))
    }

    pub(crate) fn say_if_due(&mut self) {
        if self.due() == Some(Duration::ZERO) {
            self.say();
        }
    }

    /// Says what was turned away since the last time.
    pub(crate) fn say(&mut self) {
        let now = Losses::at(self.node);
        let Losses { too_large, dropped, no_room, no_memory, .. } = now.since(self.said);
        let reasons = [
            (too_large, "returned to the publisher: too large for this inbox (see --max-message)"),
            (dropped, "dropped: the inbox was full"),
            (no_room, "returned to the publisher: the inbox was full for too long"),
            (no_memory, "returned to the publisher: it had no memory for them"),
        ];
        for (count, why) in reasons.into_iter().filter(|(count, _)| *count > 0) {
            say(format_args!("{} {why}", counted(count, "message")));
        }
        (self.said, self.at, self.is_behind) = (now, Some(Instant::now()), false);
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
