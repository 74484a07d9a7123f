//! `librpc recv`: what is sent to a node, on stdout.

use librpc::Schema;

use crate::admit::AdmitArgs;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, say};
use crate::output::{OutputArgs, Tally};

/// Writes the messages sent to a node to stdout, one per line
///
/// A message is acknowledged after it has been written. Ends with 0 at SIGINT or SIGTERM, or when the reader of stdout
/// is gone; with 3 if messages were overwritten before they could be written (--policy drop-oldest, --keep-last).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc recv display                        # until interrupted
  librpc recv display --count 1              # one message
  librpc recv display --json | jq .payload
  librpc recv display --keep-last 1          # the newest of each sender, whatever was missed
  librpc recv robot --schema Goal/json --values  # what is of another type is turned away
  librpc recv display --admit uid:1001 --group users --domain /dev/shm/shared")]
pub(crate) struct Args {
    /// The id of the node to open
    node: String,
    /// Take only what is of this type: NAME/ENCODING or NAME/ENCODING/HASH, as `librpc nodes` shows it
    #[arg(long, value_name = "TYPE")]
    schema: Option<Schema>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    admit: AdmitArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let node = domain.open_admitting(&args.node, args.admit.admission())?;
    let mut inbox = node.inbox_builder();
    if let Some(schema) = args.schema {
        inbox = inbox.schema(schema);
    }
    let inbox = args.output.open(inbox)?;
    let Tally { received, missed } = args.output.write(&node, inbox, false, &interrupt)?;
    if missed > 0 {
        say(format_args!("received {received}, missed {missed}: newer messages had overwritten them"));
        return Ok(Outcome::Loss);
    }
    Ok(Outcome::Done)
}
