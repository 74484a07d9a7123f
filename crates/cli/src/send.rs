//! `librpc send`: each line of stdin is a message.
//!
//! The receiver slows it down; nothing is dropped. It ends when everything is processed, or says what is not.

use std::time::{Duration, Instant};

use librpc::{ConnectError, FlushError, Node, SendError, Sender};

use crate::domain::DomainArgs;
use crate::feed::{Ended, Feed, SLICE, feed, say_too_long};
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, Usage, say};
use crate::source::SourceArgs;

/// Sends each line of stdin as a message to a node
///
/// Waits for the node first, and for it to have processed everything at the end. 0: all processed. 3: not all, the
/// numbers are on stderr. 124: the node did not come.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | librpc send display
  seq 1000000 | librpc send display --wait 1m
  seq 1000000 | librpc send display --redeliver 30s   # survives a restart of the receiver
  tail -f log | librpc send display --id tail")]
pub(crate) struct Args {
    /// The id of the node to send to
    node: String,
    /// How long to wait for the node to appear
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let node = args.source.open(domain, "send")?;
    let mut sender = match connect(&node, &args.node, args.wait, &interrupt)? {
        Ok(sender) => sender,
        Err(outcome) => return Ok(outcome),
    };
    sender.set_limit(SLICE);
    sender.limit_rate(args.source.rate());
    sender.set_redelivery(args.source.redeliver);
    feed(Sending { to: &args.node, sender, too_long: false }, &interrupt)
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

/// One node, which slows this command down.
struct Sending<'a> {
    to: &'a str,
    sender: Sender,
    too_long: bool,
}

impl Sending<'_> {
    fn why(&self, error: &SendError) -> String {
        match error {
            SendError::ReceiverGone { .. } => format!("node {:?} is gone", self.to),
            SendError::Refused { reason, text, .. } => format!("node {:?} refuses ({reason:?}: {text})", self.to),
            error => error.to_string(),
        }
    }
}

impl Feed for Sending<'_> {
    fn max_message(&mut self) -> anyhow::Result<Option<usize>> {
        Ok(self.sender.max_message()?)
    }

    /// Sends a line; waits as long as the receiver lives.
    #[inline]
    fn line(&mut self, number: u64, line: &[u8], interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
        loop {
            let error = match self.sender.send(line) {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            match error {
                SendError::Full { .. } | SendError::RateLimited { .. } => {
                    if let Some(signal) = interrupt.signal() {
                        return Ok(Some(Ended::Interrupted(signal)));
                    }
                    if let SendError::RateLimited { wait, .. } = error {
                        interrupt.wait_for(wait.min(SLICE))?;
                    }
                }
                SendError::Dropped { .. } => return Ok(None),
                SendError::TooLarge { bytes, max, .. } => {
                    self.too_long = true;
                    say_too_long(number, bytes as u64, max);
                    return Ok(None);
                }
                SendError::ReceiverGone { .. } | SendError::Refused { .. } => {
                    let why = self.why(&error);
                    return Ok(Some(Ended::Lost(format!("{why}; line {number} was not sent"))));
                }
                error => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self, limit: Duration) -> anyhow::Result<Option<Ended>> {
        match self.sender.flush(limit) {
            Ok(()) | Err(FlushError::TimedOut { .. }) => Ok(None),
            Err(FlushError::Lost { causes, .. }) => Ok(causes.first().map(|cause| Ended::Lost(self.why(cause)))),
            Err(error) => Err(error.into()),
        }
    }

    fn all_processed(&mut self) -> bool {
        self.sender.account().queued == 0
    }

    fn has_lost(&mut self) -> bool {
        self.too_long || self.sender.account().dropped > 0
    }

    fn numbers(&mut self) -> String {
        let librpc::Account { accepted, processed, dropped, .. } = self.sender.account();
        let numbers = format!("sent {accepted}, processed {processed}, not processed {}", accepted - processed);
        if dropped > 0 { format!("{numbers}, dropped by policy {dropped}") } else { numbers }
    }

    fn says_numbers(&mut self) -> bool {
        self.sender.account().dropped > 0
    }
}
