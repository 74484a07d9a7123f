//! `librpc send`: each line of stdin is a message.
//!
//! The receiver slows it down; nothing is dropped. It ends when everything is processed, or says what is not.

use std::time::{Duration, Instant};

use anyhow::Context;
use librpc::{ConnectError, FlushError, Node, SendError, Sender};

use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::lines::{Filled, Lines, Next};
use crate::outcome::{CommandResult, Outcome, Usage, say};

/// How long one wait lasts, between two looks at what else may have happened.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Sends each line of stdin as a message to a node
///
/// Waits for the node first, and for it to have processed everything at the end. 0: all processed. 3: not all, the
/// numbers are on stderr. 124: the node did not come.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | librpc send display
  seq 1000000 | librpc send display --wait 1m
  tail -f log | librpc send display --id tail")]
pub(crate) struct Args {
    /// The id of the node to send to
    node: String,
    /// The id of the node that sends [default: send-<8 hex digits>]
    #[arg(long)]
    id: Option<String>,
    /// How long to wait for the node to appear
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let id = args.id.map_or_else(|| unique_id("send"), Ok)?;
    let node = domain.open(&id)?;
    let mut sender = match connect(&node, &args.node, args.wait, &interrupt)? {
        Ok(sender) => sender,
        Err(outcome) => return Ok(outcome),
    };
    sender.set_limit(SLICE);
    let mut sending = Sending { to: &args.node, sender, interrupt: &interrupt, too_long: 0 };
    match sending.everything()? {
        Ended::Processed if sending.too_long == 0 => Ok(Outcome::Done),
        Ended::Processed => Ok(Outcome::Loss),
        Ended::Lost(why) => {
            say(format_args!("{why}: {}", sending.numbers()));
            Ok(Outcome::Loss)
        }
        Ended::Interrupted(signal) => {
            say(format_args!("interrupted: {}", sending.numbers()));
            Ok(Outcome::Interrupted(signal))
        }
    }
}

/// Waits for a node and connects to it, or says how the command ends without it.
pub(crate) fn connect(
    node: &Node,
    to: &str,
    wait: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Result<Sender, Outcome>> {
    let deadline = Instant::now().checked_add(wait);
    loop {
        if let Some(signal) = interrupt.signal() {
            return Ok(Err(Outcome::Interrupted(signal)));
        }
        let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
        match node.sender_within(to, left.min(SLICE)) {
            Ok(sender) => return Ok(Ok(sender)),
            Err(ConnectError::BadId(bad)) => return Err(Usage(bad.to_string()).into()),
            Err(ConnectError::NotFound { .. } | ConnectError::NoInbox { .. }) if left > SLICE => {}
            Err(error @ (ConnectError::NotFound { .. } | ConnectError::NoInbox { .. })) => {
                say(format_args!("{error}: it did not come within {}", humantime::format_duration(wait)));
                return Ok(Err(Outcome::TimedOut));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

enum Ended {
    Processed,
    /// The receiver is gone, or does not take this sender's messages.
    Lost(String),
    Interrupted(i32),
}

struct Sending<'a> {
    to: &'a str,
    sender: Sender,
    interrupt: &'a Interrupt,
    too_long: u64,
}

impl Sending<'_> {
    fn everything(&mut self) -> anyhow::Result<Ended> {
        let mut lines = Lines::new();
        loop {
            match lines.next(|| self.sender.max_message().unwrap_or(0)) {
                Next::Line(line) => {
                    if let Some(ended) = self.line(&lines, lines.bytes(line))? {
                        return Ok(ended);
                    }
                }
                Next::TooLong(bytes) => {
                    let max = self.sender.max_message().unwrap_or(0);
                    self.report_too_long(lines.number(), bytes, max);
                }
                Next::Nothing => {
                    if let Some(ended) = self.read(&mut lines)? {
                        return Ok(ended);
                    }
                }
                Next::End => return self.flush(),
            }
        }
    }

    /// Sends a line; waits as long as the receiver lives.
    #[inline]
    fn line(&mut self, lines: &Lines, line: &[u8]) -> anyhow::Result<Option<Ended>> {
        loop {
            let error = match self.sender.send(line) {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            match error {
                SendError::Full { .. } => {
                    if let Some(signal) = self.interrupt.signal() {
                        return Ok(Some(Ended::Interrupted(signal)));
                    }
                }
                SendError::TooLarge { bytes, max, .. } => {
                    self.report_too_long(lines.number(), bytes as u64, max);
                    return Ok(None);
                }
                SendError::ReceiverGone { .. } | SendError::Refused { .. } => {
                    let why = self.why(&error);
                    return Ok(Some(Ended::Lost(format!("{why}; line {} was not sent", lines.number()))));
                }
                error => return Err(error.into()),
            }
        }
    }

    /// Reads more of stdin. As long as anything is not processed, the receiver is looked at while nothing comes.
    fn read(&mut self, lines: &mut Lines) -> anyhow::Result<Option<Ended>> {
        let all_processed = self.sender.acknowledged() == self.sender.sent();
        let filled = lines.fill(self.interrupt, (!all_processed).then_some(SLICE)).context("cannot read stdin")?;
        match (filled, self.interrupt.signal()) {
            (_, Some(signal)) => Ok(Some(Ended::Interrupted(signal))),
            (Filled::Idle, None) => self.flush_within(Duration::ZERO),
            _ => Ok(None),
        }
    }

    /// Waits until everything is processed.
    fn flush(&mut self) -> anyhow::Result<Ended> {
        loop {
            if let Some(ended) = self.flush_within(SLICE)? {
                return Ok(ended);
            }
            if self.sender.acknowledged() == self.sender.sent() {
                return Ok(Ended::Processed);
            }
            if let Some(signal) = self.interrupt.signal() {
                return Ok(Ended::Interrupted(signal));
            }
        }
    }

    fn flush_within(&mut self, limit: Duration) -> anyhow::Result<Option<Ended>> {
        match self.sender.flush(limit) {
            Ok(()) | Err(FlushError::TimedOut { .. }) => Ok(None),
            Err(FlushError::Lost { cause, .. }) => Ok(Some(Ended::Lost(self.why(&cause)))),
            Err(error) => Err(error.into()),
        }
    }

    fn why(&self, error: &SendError) -> String {
        match error {
            SendError::ReceiverGone { .. } => format!("node {:?} is gone", self.to),
            SendError::Refused { reason, text, .. } => format!("node {:?} refuses ({reason:?}: {text})", self.to),
            error => error.to_string(),
        }
    }

    fn numbers(&mut self) -> String {
        let (sent, processed) = (self.sender.sent(), self.sender.acknowledged());
        format!("sent {sent}, processed {processed}, not processed {}", sent - processed)
    }

    fn report_too_long(&mut self, number: u64, bytes: u64, max: usize) {
        self.too_long += 1;
        say(format_args!("line {number} was not sent: it has {bytes} bytes, the limit is {max}"));
    }
}
