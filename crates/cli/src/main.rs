//! The command line of librpc: one file per command, data on stdout, messages for the user on stderr.
//!
//! However a command ends, `main` returns. By then the nodes are dropped, and nothing of them stays under `/dev/shm`.
//!
//! The commands:
mod bench; //        measurements
mod call; //         one request to a service, and its reply
mod chat; //         messages to a node, and what comes back
mod check; //        limits, for monitoring probes
mod clean; //        removes what dead nodes have left
mod completions; //  for shells
mod demo; //         two processes that exchange messages
mod doctor; //       whether machine and domain meet librpc's needs
mod duplex; //       both directions at once
mod graph; //        who sends what to whom, as a picture
mod hz; //           how often messages are published
mod manual; //       man: pages for `man`
mod metrics; //      a page for Prometheus
mod nodes; //        lists a domain
mod publish; //      pub: lines of stdin, or files, to a topic
mod recv; //         messages to stdout
mod serve; //        a command as a service
mod services; //     lists the services of a domain
mod send; //         lines of stdin, or files, to a node
mod stat; //         what every channel has counted
mod subscribe; //    sub: what is published, to stdout
mod top; //          a domain at work, live
mod topics; //       lists the topics of a domain
// What they share:
mod about; //        what is connected to a node, topic or pattern
mod admit; //        --admit
mod children; //     processes that a command starts
mod deadline; //     how long to wait
mod domain; //       --domain, --group, opening a node
mod feed; //         lines of stdin or files, as messages
mod file; //         files as messages
mod interrupt; //    signals as a value, a descriptor and a call
mod latency; //      percentiles
mod lines; //        stdin as lines
mod log; //          --log: what the library logs
mod options; //      options of several commands, and their values
mod outcome; //      how a command ends
mod output; //       messages on stdout
mod pace; //         how many messages are due
mod payload; //      numbered messages that are checked
mod published; //    the topics of a domain, each with both its ends
mod report; //       what a look found, as lines of JSON
mod served; //       what clients and servers have counted
mod side; //         one side of an exchange
mod snapshot; //     what a look at a domain found
mod source; //       --id, --wait, --rate, --redeliver
mod stdout; //       writes that may block, and end at a signal
mod value; //        payloads of a type as JSON
mod wait; //         for a future, a signal and more at once
mod warnings; //     what is wrong, by name
mod watch; //        one look, or one after the other

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

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but with loss, 124 timed out, 130 or 143 interrupted";

#[derive(Subcommand)]
enum Command {
    Recv(recv::Args),
    Send(send::Args),
    Chat(chat::Args),
    Sub(subscribe::Args),
    Pub(publish::Args),
    Call(call::Args),
    Serve(serve::Args),
    Duplex(duplex::Args),
    Nodes(nodes::Args),
    Stat(stat::Args),
    Top(top::Args),
    Topics(topics::Args),
    Services(services::Args),
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
        part: bench::Part,
        #[command(flatten)]
        parent: children::ParentArgs,
    },
    #[command(hide = true)]
    DemoSide(demo::SideArgs),
    #[command(hide = true)]
    Names(completions::NamesArgs),
    Completions(completions::Args),
    Man(manual::Args),
}

fn main() -> ExitCode {
    let Cli { domain, log, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { outcome::USAGE } else { 0 };
            let _ = error.print(); // a closed stdout is no failure
            return ExitCode::from(code);
        }
    };
    // The terminal that `top` draws on has no room for anything else.
    let draws = matches!(&command, Command::Top(args) if args.draws());
    let logs = if draws && std::io::stderr().is_terminal() { Ok(()) } else { log.install() };
    exit(logs.and_then(|()| run(&domain, command)))
}

fn run(domain: &DomainArgs, command: Command) -> CommandResult {
    match command {
        Command::Recv(args) => recv::run(domain, args),
        Command::Send(args) => send::run(domain, args),
        Command::Chat(args) => chat::run(domain, args),
        Command::Sub(args) => subscribe::run(domain, args),
        Command::Pub(args) => publish::run(domain, args),
        Command::Call(args) => call::run(domain, args),
        Command::Serve(args) => serve::run(domain, args),
        Command::Duplex(args) => duplex::run(domain, args),
        Command::Nodes(args) => nodes::run(domain, &args),
        Command::Stat(args) => stat::run(domain, &args),
        Command::Top(args) => top::run(domain, &args),
        Command::Topics(args) => topics::run(domain, &args),
        Command::Services(args) => services::run(domain, &args),
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
        Command::Names(args) => completions::names(domain, &args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => manual::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
