//! `librpc sub`: what is published to topics, on stdout.

use crate::admit::AdmitArgs;
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, say};
use crate::output::{OutputArgs, Tally};

/// Writes what is published to topics to stdout, one line a message
///
/// In a pattern `*` stands for one level and `**` for any number, none too. A message is acknowledged when it is written.
/// Ends with 0 at SIGINT, SIGTERM, or when nobody reads its stdout; with 3 if messages were missed (--policy latest).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc sub 'sensor/*/temperature' --topic
  librpc sub '**' --json | jq .topic
  librpc sub position --policy latest             # only the newest count
  librpc sub orders --id archive --durable orders # goes on where it was killed")]
pub(crate) struct Args {
    /// The topics: patterns of levels joined by slashes
    #[arg(required = true)]
    pattern: Vec<String>,
    /// The id of the node that subscribes [default: sub-<8 hex digits>]
    #[arg(long)]
    id: Option<String>,
    /// A name under which a node of the same id takes this subscription up again: publishers with --redeliver keep for it
    /// what it has not processed
    #[arg(long, value_name = "NAME", requires = "id")]
    durable: Option<String>,
    /// The topic and a space before each message
    #[arg(long)]
    topic: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    admit: AdmitArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let id = args.id.map_or_else(|| unique_id("sub"), Ok)?;
    let node = domain.open_admitting(&id, args.admit.admission())?;
    let mut subscriber = node.subscriber_builder(&args.pattern);
    if let Some(name) = &args.durable {
        subscriber = subscriber.durable(name);
    }
    let inbox = args.output.open(subscriber)?;
    let Tally { received, missed } = args.output.write(inbox, args.topic, &interrupt)?;
    say(format_args!("received {received}, missed {missed}"));
    Ok(if missed > 0 { Outcome::Loss } else { Outcome::Done })
}
