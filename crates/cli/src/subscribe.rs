//! `librpc sub`: what is published to topics, on stdout.

use librpc::Schema;

use crate::admit::AdmitArgs;
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::options::PatternArgs;
use crate::outcome::{CommandResult, Outcome, say};
use crate::output::{OutputArgs, Tally};

/// Writes the messages published to topics to stdout, one per line
///
/// A message is acknowledged after it has been written. Ends with 0 at SIGINT or SIGTERM, or when the reader of stdout
/// is gone; with 3 if messages were overwritten before they could be written (--policy drop-oldest, --keep-last). Messages that did not
/// get into the inbox, because they were too large or it was full, are reported on stderr. So are topics that this
/// process may not read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc sub 'sensor/*/temperature' --topic
  librpc sub '**' --json | jq .topic
  librpc sub robot/pose --values                  # as JSON, whatever its encoding
  librpc sub camera/front --keep-last 1           # the newest that is there, whatever was missed
  librpc sub map --history 1 --count 1             # the last one that was published, also before this
  librpc sub orders --id archive --durable orders # continues after it was killed")]
pub(crate) struct Args {
    #[command(flatten)]
    patterns: PatternArgs,
    /// The id of the node that subscribes [default: sub-<8 hex digits>]
    #[arg(long)]
    id: Option<String>,
    /// A name for the subscription. When a node of the same id subscribes with it again, publishers with --redeliver
    /// deliver what had not been processed
    #[arg(long, value_name = "NAME", requires = "id")]
    durable: Option<String>,
    /// At most this many of the messages that each publisher keeps from before (pub --history) [default: all of them]
    #[arg(long, value_name = "N")]
    history: Option<usize>,
    /// Take only what is of this type: NAME/ENCODING or NAME/ENCODING/HASH, as `librpc nodes` shows it
    #[arg(long, value_name = "TYPE")]
    schema: Option<Schema>,
    /// Write the topic and a space before each message
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
    let mut subscriber = node.subscriber_builder(&args.patterns.pattern);
    if let Some(name) = &args.durable {
        subscriber = subscriber.durable(name);
    }
    if let Some(most) = args.history {
        subscriber = subscriber.history(most);
    }
    if let Some(schema) = args.schema {
        subscriber = subscriber.schema(schema);
    }
    let inbox = args.output.open(subscriber)?;
    let Tally { received, missed } = args.output.write(&node, inbox, args.topic, &interrupt)?;
    say(format_args!("received {received}, missed {missed}"));
    Ok(if missed > 0 { Outcome::Loss } else { Outcome::Done })
}
