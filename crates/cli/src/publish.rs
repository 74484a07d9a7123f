//! `librpc pub`: each line of stdin, or each file, is published.
//!
//! Every subscriber gets the messages at its own speed. A full one costs at most the limit, and only once while it is stuck.

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use librpc::{FlushError, Policy, PublishError, Publisher, Schema, SendError, UnsentLoan, WaitSet, WaitSetError};

use crate::admit::ReadersArgs;
use crate::deadline::Deadline;
use crate::domain::DomainArgs;
use crate::feed::{Ended, Feed, Payload, Source, feed, flush, for_receivers};
use crate::file::FileArgs;
use crate::interrupt::Interrupt;
use crate::latency::counted;
use crate::options::MAX_MESSAGE;
use crate::outcome::{CommandResult, Outcome, Usage, say};
use crate::source::SourceArgs;
use crate::wait::{self, Wait};

/// The longest single wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Up to this limit, a message waits for full inboxes in the way that costs a publisher and its subscribers least, and no signal ends that.
const SHORT: Duration = Duration::from_secs(1);
/// How long a full inbox has to make room for more messages.
const PAUSE: Duration = Duration::from_millis(1);

/// Publishes each line of stdin, or each of some files, on a topic
///
/// Waits at the end until everything is processed. 0: every subscriber got everything, or there was none. 3: not
/// everything; stderr has the numbers. 124: no subscriber appeared. A message that is too large only for a subscriber that
/// drops or overwrites messages anyway counts as delivered. A subscriber that may not read the topic does not count.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo 21.5 | librpc pub sensor/kitchen/temperature
  seq 1000 | librpc pub numbers --wait 10s        # waits for a subscriber first
  yes | librpc pub load --rate 10000 --limit 100ms
  librpc pub camera/front --file frame-*.raw --rate 60  # of any size
  echo '{\"x\":1.5}' | librpc pub robot/goal --schema Goal/json
  librpc pub numbers --events                     # says who comes and goes
  librpc pub map --file map.pgm --history 1 --stay 1h  # also for those who come later
  cat code | librpc pub door/code --readers uid:1000 --readers gid:44+exe:/usr/bin/guard")]
pub(crate) struct Args {
    /// The topic: levels joined by slashes, as in group/topic
    topic: String,
    /// How long one message may wait for full inboxes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// Keep the last N messages for subscribers that come later. They get them first, marked as "past" in JSON
    #[arg(long, value_name = "N", default_value_t = 0)]
    history: usize,
    /// The type of the messages: NAME/ENCODING or NAME/ENCODING/HASH, as `librpc nodes` shows it. Without one they are bytes,
    /// which only reach subscribers without a type
    #[arg(long, value_name = "TYPE")]
    schema: Option<Schema>,
    /// Stay this long after the last message, for late subscribers, or until interrupted
    #[arg(long, value_name = "TIME", requires = "history", value_parser = humantime::parse_duration)]
    stay: Option<Duration>,
    /// Write to stderr which subscribers come, go, are stuck, or may not read the topic
    #[arg(long)]
    events: bool,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    readers: ReadersArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    args.files.check()?;
    let readers = args.readers.admission();
    let node = args.source.open_with(domain, "pub", |node| match readers {
        Some(readers) => node.readers(&args.topic, readers),
        None => node,
    })?;
    let mut publisher = node.publisher_builder(&args.topic).history(args.history);
    if let Some(schema) = args.schema {
        publisher = publisher.schema(schema);
    }
    let mut publisher = publisher.open().map_err(|bad| Usage(bad.to_string()))?;
    if let Some(wait) = args.source.wait
        && let Some(outcome) = wait_for_subscriber(&mut publisher, &args.topic, wait, &interrupt)?
    {
        return Ok(outcome);
    }
    publisher.set_timeout(args.limit);
    publisher.limit_rate(args.source.rate());
    publisher.set_redelivery(args.source.redeliver);
    let mut to = Publishing {
        publisher,
        messages: 0,
        inboxes: 0,
        passed_by: 0,
        unpublished: 0,
        unprocessed: false,
        said: BTreeSet::new(),
        events: args.events,
        limit: args.limit,
        wait: None,
    };
    let outcome = feed(&mut to, &args.files.files, &interrupt)?;
    if let (Some(stay), Outcome::Done | Outcome::Loss) = (args.stay, outcome) {
        stay_for(&mut to, stay, &interrupt)?;
    }
    Ok(outcome)
}

/// Stays for late subscribers, and then until they have processed what they were given.
fn stay_for(to: &mut Publishing, stay: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
    let (deadline, mut wait) = (Deadline::after(stay), for_receivers(to, interrupt)?);
    while !deadline.has_passed() && interrupt.signal().is_none() {
        to.tell();
        wait.step(pin!(pending::<()>()), Some(deadline.next_wait(LONGEST_WAIT)))?;
    }
    to.tell();
    if interrupt.signal().is_none() {
        flush(to, interrupt)?;
    }
    Ok(())
}

/// Waits for a subscriber. Returns how the command ends if none appears.
fn wait_for_subscriber(
    publisher: &mut Publisher,
    topic: &str,
    wait: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Outcome>> {
    match wait::run(publisher.wait_for_subscriber_async(wait), interrupt)? {
        Err(signal) => Ok(Some(Outcome::Interrupted(signal))),
        Ok(Ok(true)) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(false)) => {
            let wait = humantime::format_duration(wait);
            say(format_args!("{topic:?} has 0 inboxes: no subscriber appeared within {wait}"));
            Ok(Some(Outcome::TimedOut))
        }
    }
}

/// All subscribers of a topic.
struct Publishing {
    publisher: Publisher,
    messages: u64,
    /// The largest number of inboxes that one message has reached.
    inboxes: usize,
    /// Messages that were too large for a subscriber that drops or overwrites messages anyway. They are not our loss.
    passed_by: u64,
    /// Files for which there was no memory.
    unpublished: u64,
    /// Whether the last look found that something is not processed yet.
    unprocessed: bool,
    /// What has been reported, so that the same trouble with the same inbox is not reported for every message.
    said: BTreeSet<String>,
    /// Whether to report what happens to the subscriptions.
    events: bool,
    /// How long one message may wait.
    limit: Duration,
    /// What it waits with, once one has waited.
    wait: Option<Wait>,
}

impl Publishing {
    fn said_once(&mut self, text: String) {
        if !self.said.contains(&text) {
            say(&text);
            self.said.insert(text);
        }
    }

    fn say_once(&mut self, from: Source, text: String) {
        if !self.said.contains(&text) {
            say(format_args!("{from}: {text}"));
            self.said.insert(text);
        }
    }

    /// Whether every subscription of a node drops or overwrites messages.
    fn only_looks_on(&mut self, node: &str) -> bool {
        let inboxes = self.publisher.inboxes().into_iter().filter(|inbox| *inbox.node == *node);
        let waits: Vec<bool> = inboxes.map(|inbox| inbox.policy == Policy::Block).collect();
        !waits.is_empty() && !waits.contains(&true)
    }

    /// What a flush has found.
    fn flushed(&mut self, flushed: Result<(), FlushError>) -> anyhow::Result<Option<Ended>> {
        self.unprocessed = matches!(flushed, Err(FlushError::TimedOut { .. }));
        match flushed {
            Ok(()) | Err(FlushError::TimedOut { .. }) => Ok(None),
            // The other subscribers still get the messages.
            Err(FlushError::Lost { causes, .. }) => {
                causes.iter().for_each(say);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Why an inbox did not get a message.
enum Undelivered {
    TooLarge { node: String, bytes: usize, max: usize },
    Other(String),
}

impl From<&SendError> for Undelivered {
    fn from(error: &SendError) -> Self {
        match error {
            SendError::TooLarge { node, bytes, max } => {
                Self::TooLarge { node: node.to_string(), bytes: *bytes, max: *max }
            }
            error => Self::Other(error.to_string()),
        }
    }
}

impl Feed for Publishing {
    /// Each inbox has its own limit, which the publisher learns when it publishes.
    fn max_message(&mut self) -> anyhow::Result<usize> {
        Ok(MAX_MESSAGE)
    }

    fn send(&mut self, from: Source, payload: Payload, interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
        let mut loan = None;
        loop {
            let published = match payload {
                Payload::Bytes(bytes) if self.limit <= SHORT => self.publisher.publish(bytes),
                Payload::Bytes(bytes) => {
                    let wait = match &mut self.wait {
                        Some(wait) => wait,
                        None => self.wait.insert(Wait::new(interrupt)?),
                    };
                    let mut publishing = pin!(self.publisher.publish_async(bytes));
                    loop {
                        if let Some(published) = wait.step(publishing.as_mut(), None)? {
                            break published;
                        }
                        // What was full makes room for more than this message, so that not each one is waited for.
                        interrupt.wait_for(PAUSE)?;
                        if let Some(signal) = interrupt.signal() {
                            return Ok(Some(Ended::Interrupted(signal)));
                        }
                    }
                }
                Payload::File(file) => {
                    let filled = match loan.take() {
                        Some(filled) => filled,
                        None => match file.load(|bytes| self.publisher.loan_uninit(bytes))? {
                            Ok(filled) => filled,
                            Err(error) => {
                                self.unpublished += 1;
                                say(format_args!("{from} was not sent: {error}"));
                                return Ok(interrupt.signal().map(Ended::Interrupted));
                            }
                        },
                    };
                    self.publisher.publish_loan(filled).map_err(|UnsentLoan { error, loan: unsent }| {
                        loan = unsent;
                        error
                    })
                }
            };
            match published {
                Ok(receipt) => {
                    let undelivered: Vec<_> = receipt.undelivered().iter().map(Undelivered::from).collect();
                    self.messages += 1;
                    self.inboxes = self.inboxes.max(receipt.inboxes());
                    self.tell();
                    for why in undelivered {
                        match why {
                            Undelivered::TooLarge { node, max, .. } if self.only_looks_on(&node) => {
                                self.passed_by += 1;
                                self.say_once(from, format!("node {node:?} takes at most {max} bytes"));
                            }
                            Undelivered::TooLarge { node, bytes, max } => say(format_args!(
                                "{from} was not sent to node {node:?}: it has {bytes} bytes, the limit is {max}"
                            )),
                            Undelivered::Other(text) => self.say_once(from, text),
                        }
                    }
                    return Ok(interrupt.signal().map(Ended::Interrupted));
                }
                Err(PublishError::RateLimited { wait, .. }) => {
                    interrupt.wait_for(wait)?;
                    if let Some(signal) = interrupt.signal() {
                        return Ok(Some(Ended::Interrupted(signal)));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn watch(&mut self) -> anyhow::Result<Option<Ended>> {
        match self.all_processed() {
            true => pending().await,
            false => self.flush().await,
        }
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    async fn flush(&mut self) -> anyhow::Result<Option<Ended>> {
        let flushed = self.publisher.flush_async(Duration::MAX).await;
        self.flushed(flushed)
    }

    fn add_to(&self, set: &mut WaitSet, token: u64) -> Result<(), WaitSetError> {
        if self.events { set.add(token, &self.publisher) } else { Ok(()) }
    }

    fn tell(&mut self) {
        while self.events {
            match self.publisher.try_event() {
                Ok(Some(event)) => say(event),
                Ok(None) => return,
                // The next look finds what this one has not.
                Err(error) => return self.said_once(format!("cannot see who subscribes just now: {error}")),
            }
        }
    }

    fn all_processed(&mut self) -> bool {
        self.publisher.account().queued == 0 && !self.unprocessed
    }

    fn has_lost(&mut self) -> bool {
        let account = self.publisher.account();
        self.unpublished > 0 || account.dropped + account.returned > self.passed_by
    }

    fn numbers(&mut self) -> String {
        let librpc::Account { sent, processed, queued, dropped, returned, .. } = self.publisher.account();
        format!(
            "{} to {}: sent {sent}, processed {processed}, queued {queued}, dropped {dropped}, returned {returned}",
            counted(self.messages, "message"),
            counted(self.inboxes as u64, "inbox")
        )
    }

    fn says_numbers(&mut self) -> bool {
        true
    }
}
