//! `librpc recv`: what is sent to a node, on stdout.

use crate::admit::AdmitArgs;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome};
use crate::output::OutputArgs;

/// Writes the messages sent to a node to stdout, one line each
///
/// A message is acknowledged when it is written. Ends with 0 at SIGINT, SIGTERM, or when nobody reads its stdout.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc recv display                        # until interrupted
  librpc recv display --count 1              # one message
  librpc recv display --json | jq .payload
  librpc recv display --admit uid:1001 --group users --domain /dev/shm/shared")]
pub(crate) struct Args {
    /// The id of the node to open
    node: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    admit: AdmitArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let node = domain.open_admitting(&args.node, args.admit.admission())?;
    let inbox = args.output.open(node.inbox_builder())?;
    let tally = args.output.write(inbox, false, &interrupt)?;
    Ok(if tally.missed > 0 { Outcome::Loss } else { Outcome::Done })
}
