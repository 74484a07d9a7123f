//! `librpc pub`: each line of stdin is published.
//!
//! Every subscriber gets it at its own speed; a full one costs at most the limit, and only once while it is stuck.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use librpc::{FlushError, PublishError, Publisher, SendError};

use crate::domain::DomainArgs;
use crate::feed::{Ended, Feed, SLICE, feed, say_too_long};
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, Usage, say};
use crate::source::SourceArgs;

/// Publishes each line of stdin on a topic
///
/// Waits at the end until everything is processed. 0: every subscriber got everything, or there was none. 3: not
/// everything, the numbers are on stderr. 124: no subscriber came.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo 21.5 | librpc pub sensor/kitchen/temperature
  seq 1000 | librpc pub numbers --wait 10s        # waits for a subscriber first
  yes | librpc pub load --rate 10000 --limit 100ms")]
pub(crate) struct Args {
    /// The topic: levels joined by slashes, as in group/topic
    topic: String,
    /// Wait so long for a subscriber before stdin is read
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// How long one message may wait for full inboxes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    limit: Duration,
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let node = args.source.open(domain, "pub")?;
    let mut publisher = node.publisher(&args.topic).map_err(|bad| Usage(bad.to_string()))?;
    if let Some(wait) = args.wait
        && let Some(outcome) = wait_for_subscriber(&mut publisher, &args.topic, wait, &interrupt)?
    {
        return Ok(outcome);
    }
    publisher.limit_rate(args.source.rate());
    publisher.set_redelivery(args.source.redeliver);
    let publishing = Publishing { publisher, limit: args.limit, messages: 0, inboxes: 0, told: BTreeSet::new() };
    feed(publishing, &interrupt)
}

/// Waits for a subscriber; how the command ends if none comes.
fn wait_for_subscriber(
    publisher: &mut Publisher,
    topic: &str,
    wait: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<Outcome>> {
    let deadline = Instant::now().checked_add(wait);
    loop {
        let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
        if publisher.wait_for_subscriber(left.min(SLICE))? {
            return Ok(None);
        }
        if let Some(signal) = interrupt.signal() {
            return Ok(Some(Outcome::Interrupted(signal)));
        }
        if left <= SLICE {
            say(format_args!(
                "{topic:?} has 0 inboxes: no subscriber came within {}",
                humantime::format_duration(wait)
            ));
            return Ok(Some(Outcome::TimedOut));
        }
    }
}

/// All subscribers of a topic.
struct Publishing {
    publisher: Publisher,
    limit: Duration,
    messages: u64,
    /// The most that one message has reached.
    inboxes: usize,
    /// What has been said already: the same trouble with the same inbox is not said for every line.
    told: BTreeSet<String>,
}

impl Feed for Publishing {
    fn max_message(&mut self) -> anyhow::Result<Option<usize>> {
        Ok(self.publisher.max_message()?)
    }

    fn line(&mut self, number: u64, line: &[u8], interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
        loop {
            self.publisher.set_limit(self.limit);
            match self.publisher.publish(line) {
                Ok(receipt) => {
                    self.messages += 1;
                    self.inboxes = self.inboxes.max(receipt.inboxes());
                    for error in receipt.undelivered() {
                        match error {
                            SendError::TooLarge { bytes, max, .. } => say_too_long(number, *bytes as u64, *max),
                            error => {
                                let text = error.to_string();
                                if !self.told.contains(&text) {
                                    say(format_args!("line {number}: {text}"));
                                    self.told.insert(text);
                                }
                            }
                        }
                    }
                    return Ok(interrupt.signal().map(Ended::Interrupted));
                }
                Err(PublishError::RateLimited { wait, .. }) => {
                    interrupt.wait_for(wait.min(SLICE))?;
                    if let Some(signal) = interrupt.signal() {
                        return Ok(Some(Ended::Interrupted(signal)));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self, limit: Duration) -> anyhow::Result<Option<Ended>> {
        match self.publisher.flush(limit) {
            Ok(()) | Err(FlushError::TimedOut { .. }) => Ok(None),
            // The others go on.
            Err(FlushError::Lost { causes, .. }) => {
                causes.iter().for_each(say);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn all_processed(&mut self) -> bool {
        self.publisher.account().queued == 0
    }

    fn has_lost(&mut self) -> bool {
        let account = self.publisher.account();
        account.dropped + account.returned > 0
    }

    fn numbers(&mut self) -> String {
        let librpc::Account { sent, processed, queued, dropped, returned, .. } = self.publisher.account();
        format!(
            "{} messages to {} inboxes: sent {sent}, processed {processed}, queued {queued}, dropped {dropped}, returned {returned}",
            self.messages, self.inboxes
        )
    }

    fn says_numbers(&mut self) -> bool {
        true
    }
}
