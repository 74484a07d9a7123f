//! `librpc send`: each line of stdin, or each file, is a message.
//!
//! The receiver sets the pace, and nothing is dropped. It ends when everything is processed, or says what is not.

use std::time::{Duration, Instant};

use librpc::{ConnectError, Domain, FlushError, Loan, LoanError, Node, Schema, SendError, Sender, UnsentLoan};

use crate::deadline::{Deadline, SLICE};
use crate::domain::DomainArgs;
use crate::feed::{Ended, Feed, Payload, Source, feed, say_too_long};
use crate::file::FileArgs;
use crate::interrupt::Interrupt;
use crate::options::MAX_MESSAGE;
use crate::outcome::{CommandResult, Outcome, Usage, say};
use crate::source::SourceArgs;

/// How long to wait for the node by default.
const WAIT: Duration = Duration::from_secs(10);
/// How long a node may be absent before it counts as gone, unless it is known to be dead. Also the time between two
/// looks at the registry.
const AWAY: Duration = Duration::from_secs(1);

/// Sends each line of stdin, or each of some files, as a message to a node
///
/// Waits for the node first, and at the end until it has processed everything. 0: everything was processed. 3: not
/// everything, or the node has died; stderr has the numbers. 124: the node did not appear. 1: among others, its inbox is of another
/// type.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | librpc send display
  seq 1000000 | librpc send display --wait 1m
  seq 1000000 | librpc send display --redeliver 30s   # survives a restart of the receiver
  librpc send display --file frame-1.raw frame-2.raw  # of any size
  echo '{\"x\":1.5}' | librpc send robot --schema Goal/json
  tail -f log | librpc send display --id tail")]
pub(crate) struct Args {
    /// The id of the node to send to
    node: String,
    /// The type of the messages: NAME/ENCODING or NAME/ENCODING/HASH, as `librpc nodes` shows it. Without one they are bytes,
    /// which a node whose inbox has a type does not take
    #[arg(long, value_name = "TYPE")]
    schema: Option<Schema>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    args.files.check()?;
    let node = args.source.open(domain, "send")?;
    let mut sender =
        match connect((&node, args.schema.as_ref()), &args.node, args.source.wait.unwrap_or(WAIT), &interrupt)? {
            Ok(sender) => sender,
            Err(outcome) => return Ok(outcome),
        };
    sender.set_timeout(SLICE);
    sender.limit_rate(args.source.rate());
    sender.set_redelivery(args.source.redeliver);
    let receiver = Receiver { id: args.node, domain: domain.domain()?, next_look: None, is_away: false };
    let mut to = Sending { receiver, sender, redelivers: args.source.redeliver.is_some(), too_long: false };
    feed(&mut to, &args.files.files, &interrupt)
}

/// Waits for a node and connects to it, or says how the command ends without it.
pub(crate) fn connect(
    (node, schema): (&Node, Option<&Schema>),
    to: &str,
    wait: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Result<Sender, Outcome>> {
    let deadline = Deadline::after(wait);
    loop {
        if let Some(signal) = interrupt.signal() {
            return Ok(Err(Outcome::Interrupted(signal)));
        }
        let sender = node.sender_builder(to).wait(deadline.next_wait(SLICE));
        let sender = match schema {
            Some(schema) => sender.schema(schema.clone()),
            None => sender,
        };
        match sender.open() {
            Ok(sender) => return Ok(Ok(sender)),
            Err(ConnectError::InvalidId(bad)) => return Err(Usage(bad.to_string()).into()),
            Err(ConnectError::NotFound { .. } | ConnectError::NoInbox { .. }) if !deadline.has_passed() => {}
            Err(error @ (ConnectError::NotFound { .. } | ConnectError::NoInbox { .. })) => {
                say(format_args!("{error}: it did not appear within {}", humantime::format_duration(wait)));
                return Ok(Err(Outcome::TimedOut));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The receiving node, as the registry shows it.
struct Receiver {
    id: String,
    domain: Domain,
    /// When to look again; `None`: it was connected at the last look.
    next_look: Option<Instant>,
    is_away: bool,
}

impl Receiver {
    /// Whether it is gone: it has died, or has left without coming back. A node that is back counts as there, because
    /// the next line connects again.
    fn is_gone(&mut self, is_connected: bool) -> anyhow::Result<bool> {
        if is_connected {
            (self.next_look, self.is_away) = (None, false);
            return Ok(false);
        }
        if self.next_look.is_some_and(|at| Instant::now() < at) {
            return Ok(false);
        }
        self.next_look = Some(Instant::now() + AWAY);
        let found = self.domain.nodes()?.into_iter().find(|node| node.id == self.id);
        let was_away = std::mem::replace(&mut self.is_away, found.is_none());
        Ok(found.map_or(was_away, |node| !node.alive))
    }
}

/// The receiving node, which sets the pace.
struct Sending {
    receiver: Receiver,
    sender: Sender,
    redelivers: bool,
    too_long: bool,
}

impl Sending {
    fn why(&self, error: &SendError) -> String {
        let id = &self.receiver.id;
        match error {
            SendError::ReceiverGone { .. } => format!("node {id:?} is gone"),
            SendError::Refused { reason, text, .. } => format!("node {id:?} refuses ({reason:?}: {text})"),
            error => error.to_string(),
        }
    }

    /// Sends a message. A file is read into a loan, which is kept until it is sent.
    #[inline]
    fn send_once(&mut self, payload: Payload, loan: &mut Option<Loan>) -> anyhow::Result<Result<(), SendError>> {
        let file = match payload {
            Payload::Bytes(bytes) => return Ok(self.sender.send(bytes)),
            Payload::File(file) => file,
        };
        let filled = match loan.take() {
            Some(filled) => filled,
            None => match file.load(|bytes| self.sender.loan_uninit(bytes))? {
                Ok(filled) => filled,
                Err(source) => return Ok(Err(SendError::NoMemory { node: self.receiver.id.as_str().into(), source })),
            },
        };
        Ok(self.sender.send_loan(filled).map_err(|UnsentLoan { error, loan: unsent }| {
            *loan = unsent;
            error
        }))
    }

    fn flush_within(&mut self, limit: Duration) -> anyhow::Result<Option<Ended>> {
        match self.sender.flush(limit) {
            Ok(()) | Err(FlushError::TimedOut { .. }) => Ok(None),
            Err(FlushError::Lost { causes, .. }) => Ok(causes.first().map(|cause| Ended::Lost(self.why(cause)))),
            Err(error) => Err(error.into()),
        }
    }
}

impl Feed for Sending {
    fn max_message(&mut self) -> anyhow::Result<usize> {
        Ok(self.sender.max_message()?.unwrap_or(MAX_MESSAGE))
    }

    /// Waits as long as the receiver lives.
    #[inline]
    fn send(&mut self, from: Source, payload: Payload, interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
        let mut loan = None;
        loop {
            let error = match self.send_once(payload, &mut loan)? {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            match error {
                SendError::Full { .. }
                | SendError::RateLimited { .. }
                | SendError::NoMemory { source: LoanError::Exhausted { .. }, .. } => {
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
                    say_too_long(from, bytes as u64, max);
                    return Ok(None);
                }
                SendError::ReceiverGone { .. } | SendError::Refused { .. } | SendError::Mismatch(_) => {
                    let why = self.why(&error);
                    return Ok(Some(Ended::Lost(format!("{why}; {from} was not sent"))));
                }
                error => return Err(error.into()),
            }
        }
    }

    /// Without redelivery, the death of the receiver ends the command even if everything is processed.
    fn is_watched(&mut self) -> bool {
        !self.redelivers || !self.all_processed()
    }

    fn look(&mut self) -> anyhow::Result<Option<Ended>> {
        if let Some(ended) = self.flush_within(Duration::ZERO)? {
            return Ok(Some(ended));
        }
        let is_gone = !self.redelivers && self.receiver.is_gone(self.sender.is_connected())?;
        Ok(is_gone.then(|| Ended::Lost(format!("node {:?} is gone", self.receiver.id))))
    }

    fn flush(&mut self) -> anyhow::Result<Option<Ended>> {
        self.flush_within(SLICE)
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
