//! `librpc send`: each line of stdin, or each file, is a message.
//!
//! The receiver sets the pace, and nothing is dropped. It ends when everything is processed, or says what is not.

use std::future::pending;
use std::time::{Duration, Instant};

use librpc::{
    ConnectError, Domain, FlushError, Loan, LoanError, Node, Schema, SendError, Sender, UnsentLoan, WaitSet,
    WaitSetError,
};

use crate::deadline::SLICE;
use crate::domain::DomainArgs;
use crate::feed::{Ended, Feed, Payload, Source, feed, say_too_long};
use crate::file::FileArgs;
use crate::interrupt::Interrupt;
use crate::options::MAX_MESSAGE;
use crate::outcome::{CommandResult, Outcome, Usage, say};
use crate::source::SourceArgs;
use crate::wait;

/// How long to wait for the node by default.
pub(crate) const WAIT: Duration = Duration::from_secs(10);
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
    let sender = match connect((&node, args.schema.as_ref()), &args.node, args.source.wait.unwrap_or(WAIT), &interrupt)?
    {
        Ok(sender) => sender,
        Err(outcome) => return Ok(outcome),
    };
    let mut to = Sending::new(sender, args.node, &args.source, domain)?;
    feed(&mut to, &args.files.files, &interrupt)
}

/// Waits for a node and connects to it, or says how the command ends without it.
pub(crate) fn connect(
    (node, schema): (&Node, Option<&Schema>),
    to: &str,
    wait: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Result<Sender, Outcome>> {
    let sender = node.sender_builder(to).wait(wait);
    let sender = match schema {
        Some(schema) => sender.schema(schema.clone()),
        None => sender,
    };
    match wait::run(sender.open_async(), interrupt)? {
        Err(signal) => Ok(Err(Outcome::Interrupted(signal))),
        Ok(Ok(sender)) => Ok(Ok(sender)),
        Ok(Err(ConnectError::InvalidId(bad))) => Err(Usage(bad.to_string()).into()),
        Ok(Err(error @ (ConnectError::NotFound { .. } | ConnectError::NoInbox { .. }))) => {
            say(format_args!("{error}: it did not appear within {}", humantime::format_duration(wait)));
            Ok(Err(Outcome::TimedOut))
        }
        Ok(Err(error)) => Err(error.into()),
    }
}

/// The receiving node, as the registry shows it.
struct Receiver {
    id: String,
    domain: Domain,
    /// When to look again at the earliest; `None`: it was connected at the last look.
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
pub(crate) struct Sending {
    receiver: Receiver,
    sender: Sender,
    redelivers: bool,
    too_long: bool,
}

impl Sending {
    pub(crate) fn new(
        mut sender: Sender,
        to: String,
        source: &SourceArgs,
        domain: &DomainArgs,
    ) -> anyhow::Result<Self> {
        sender.set_timeout(SLICE);
        sender.limit_rate(source.rate());
        sender.set_redelivery(source.redeliver);
        let receiver = Receiver { id: to, domain: domain.domain()?, next_look: None, is_away: false };
        Ok(Self { receiver, sender, redelivers: source.redeliver.is_some(), too_long: false })
    }

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

    /// Waits for room as long as it takes. Before, [`Sending::send_once`] waits for a while in the cheaper way, which a receiver that goes on
    /// needs most of the time.
    async fn send_when_there_is_room(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.sender.set_timeout(Duration::MAX);
        let sent = self.sender.send_async(bytes).await;
        self.sender.set_timeout(SLICE);
        sent
    }

    /// Whether the receiver is gone, or refuses.
    fn look(&mut self) -> anyhow::Result<Option<Ended>> {
        let flushed = self.sender.flush(Duration::ZERO);
        if let Some(ended) = self.flushed(flushed)? {
            return Ok(Some(ended));
        }
        let is_gone = !self.redelivers && self.receiver.is_gone(self.sender.is_connected())?;
        Ok(is_gone.then(|| Ended::Lost(format!("node {:?} is gone", self.receiver.id))))
    }

    /// What a flush has found.
    fn flushed(&self, flushed: Result<(), FlushError>) -> anyhow::Result<Option<Ended>> {
        match flushed {
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
        let (mut loan, mut sent) = (None, None);
        loop {
            let sent_now = match sent.take() {
                Some(sent) => sent,
                None => self.send_once(payload, &mut loan)?,
            };
            let Err(error) = sent_now else { return Ok(None) };
            match (error, payload) {
                (SendError::Full { .. } | SendError::Unanswered { .. }, Payload::Bytes(bytes)) => {
                    match wait::run(self.send_when_there_is_room(bytes), interrupt)? {
                        Ok(result) => sent = Some(result),
                        Err(signal) => return Ok(Some(Ended::Interrupted(signal))),
                    }
                }
                (
                    error @ (SendError::Full { .. }
                    | SendError::Unanswered { .. }
                    | SendError::RateLimited { .. }
                    | SendError::NoMemory { source: LoanError::Exhausted { .. }, .. }),
                    _,
                ) => {
                    if let SendError::RateLimited { wait, .. } = error {
                        interrupt.wait_for(wait)?;
                    }
                    if let Some(signal) = interrupt.signal() {
                        return Ok(Some(Ended::Interrupted(signal)));
                    }
                }
                (SendError::Dropped { .. }, _) => return Ok(None),
                (SendError::TooLarge { bytes, max, .. }, _) => {
                    self.too_long = true;
                    say_too_long(from, bytes as u64, max);
                    return Ok(None);
                }
                (error @ (SendError::ReceiverGone { .. } | SendError::Refused { .. } | SendError::Mismatch(_)), _) => {
                    let why = self.why(&error);
                    return Ok(Some(Ended::Lost(format!("{why}; {from} was not sent"))));
                }
                (error, _) => return Err(error.into()),
            }
        }
    }

    async fn watch(&mut self) -> anyhow::Result<Option<Ended>> {
        if self.sender.is_connected() {
            self.receiver.is_gone(true)?;
            self.sender.disconnected_async().await;
            return self.look();
        }
        if self.redelivers && !self.all_processed() {
            return self.flush().await;
        }
        match self.look()? {
            None => pending().await, // the next line connects again
            ended => Ok(ended),
        }
    }

    /// Without redelivery, the end of the receiver ends the command even if everything is processed. One that is away may come back.
    fn patience(&self) -> Option<Duration> {
        (!self.redelivers && !self.sender.is_connected()).then_some(AWAY)
    }

    async fn flush(&mut self) -> anyhow::Result<Option<Ended>> {
        let flushed = self.sender.flush_async(Duration::MAX).await;
        self.flushed(flushed)
    }

    fn add_to(&self, _: &mut WaitSet, _: u64) -> Result<(), WaitSetError> {
        Ok(())
    }

    fn tell(&mut self) {}

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
