//! The command line of librpc: one file per command, data on stdout, talk on stderr.
//!
//! Whatever ends a command, `main` returns: the nodes are dropped by then, and nothing of them stays under `/dev/shm`.
//!
//! The commands:
mod bench; //        what things cost
mod check; //        limits, for monitoring probes
mod clean; //        removes what dead nodes have left
mod completions; //  for shells, and the manual
mod demo; //         two processes that exchange messages, shown
mod doctor; //       whether machine and domain are as they should be
mod duplex; //       both directions at once
mod graph; //        who sends what to whom, as a picture
mod hz; //           how often something is published
mod metrics; //      a page for Prometheus
mod nodes; //        lists a domain
mod publish; //      pub: lines of stdin to a topic
mod recv; //         messages to stdout
mod send; //         lines of stdin as messages
mod stat; //         what every channel has counted
mod subscribe; //    sub: what is published, to stdout
mod top; //          a domain at work, live
// What they share:
mod admit; //        --admit
mod children; //     processes that a command starts
mod domain; //       --domain, --group, opening a node
mod feed; //         stdin as messages
mod interrupt; //    signals as a value, a descriptor and a call
mod latency; //      percentiles
mod lines; //        stdin as lines
mod log; //          --log: what the library says
mod outcome; //      how a command ends
mod output; //       messages on stdout
mod pace; //         how many messages are due
mod payload; //      numbered messages that are checked
mod report; //       what was found, as lines of JSON
mod side; //         one side of an exchange
mod snapshot; //     what a look at a domain has found
mod source; //       --id, --rate, --redeliver
mod stdout; //       what may block, and ends at a signal
mod warnings; //     what is wrong, by name

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::domain::DomainArgs;
use crate::outcome::{CommandResult, exit};

/// The processes of one machine exchange messages through shared memory, with no broker.
#[derive(Parser)]
#[command(name = "librpc", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    domain: DomainArgs,
    #[command(flatten)]
    log: log::LogArgs,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  librpc recv display                       # in one terminal
  echo hello | librpc send display          # in another

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but with loss, 124 time ran out, 130 or 143 interrupted";

#[derive(Subcommand)]
enum Command {
    Recv(recv::Args),
    Send(send::Args),
    Sub(subscribe::Args),
    Pub(publish::Args),
    Duplex(duplex::Args),
    Nodes(nodes::Args),
    Stat(stat::Args),
    Top(top::Args),
    Hz(hz::Args),
    Graph(graph::Args),
    Metrics(metrics::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Clean(clean::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    BenchPart {
        #[command(subcommand)]
        part: bench::Part,
        #[command(flatten)]
        parent: children::ParentArgs,
    },
    #[command(hide = true)]
    DemoSide(demo::SideArgs),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

fn main() -> ExitCode {
    let Cli { domain, log, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { outcome::USAGE } else { 0 };
            let _ = error.print(); // stdout may be closed: there is nobody to tell
            return ExitCode::from(code);
        }
    };
    // On the terminal that `top` draws on there is no place for anything else.
    let draws = matches!(&command, Command::Top(args) if args.draws());
    let logs = if draws && std::io::stderr().is_terminal() { Ok(()) } else { log.install() };
    exit(logs.and_then(|()| run(&domain, command)))
}

fn run(domain: &DomainArgs, command: Command) -> CommandResult {
    match command {
        Command::Recv(args) => recv::run(domain, args),
        Command::Send(args) => send::run(domain, args),
        Command::Sub(args) => subscribe::run(domain, args),
        Command::Pub(args) => publish::run(domain, args),
        Command::Duplex(args) => duplex::run(domain, args),
        Command::Nodes(args) => nodes::run(domain, &args),
        Command::Stat(args) => stat::run(domain, &args),
        Command::Top(args) => top::run(domain, &args),
        Command::Hz(args) => hz::run(domain, args),
        Command::Graph(args) => graph::run(domain, &args),
        Command::Metrics(args) => metrics::run(domain, &args),
        Command::Check(args) => check::run(domain, &args),
        Command::Doctor(args) => doctor::run(domain, &args),
        Command::Clean(args) => clean::run(domain, &args),
        Command::Bench(args) => bench::run(domain, &args),
        Command::BenchPart { part, parent } => bench::part(domain, &parent, &part),
        Command::Demo(args) => demo::run(domain, &args),
        Command::DemoSide(args) => demo::side(domain, args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::man(&args),
    }
}
