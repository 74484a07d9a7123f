//! The battery: it kills, stops, starves and churns real processes, and checks the accounts of what they have sent.
//!
//! Every section is seeded, and a failure prints the command that repeats it: with the same random numbers, and the same
//! timing as far as real processes allow.
//!
//! The parts:
mod accepted; //  what was sent just before its sender ended
mod calls; //     many calls to servers that are killed
mod churn; //     nodes that come and go
mod full; //      no space, no descriptors, no memory
mod kills; //     kill -9 of either side, anywhere
mod soak; //      a billion messages, with kills in between
mod stops; //     SIGSTOP, fork, namespaces, clocks
mod sweepers; //  killing the process that cleans up
mod wakes; //     wake-ups that no time-out replaces
// What they share:
mod account; //   what was sent, what arrived, what was reported lost
mod battery; //   sections, counts, seeds, outcomes
mod health; //    whether a survivor has grown
mod limit; //     time limits that allow for a busy machine
mod log; //       notes that outlive a kill
mod points; //    the fault points, and how to get there
mod roles; //     what a worker does
mod scene; //     a domain, its senders and receivers, their accounts
mod undo; //      leaving nothing behind
mod worker; //    a process of this program

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::battery::{Battery, Options};

/// The battery of librpc: nothing is lost, nothing is left behind, nobody is delayed.
#[derive(Parser)]
#[command(name = "librpc-chaos", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Cli {
    /// What to run.
    #[arg(value_enum, default_value_t = Part::All)]
    part: Part,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    role: Option<Hidden>,
}

const AFTER_HELP: &str = "\
Examples:
  librpc-chaos all --seed 7                                      # everything, with the full counts: about an hour
  librpc-chaos all --short                                       # about two minutes
  librpc-chaos kills --only commit.committed --rounds 1000 --seed 3

Exit codes: 0 all passed, 1 something failed (the command that repeats it is shown), 2 wrong usage, 130 interrupted";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    All,
    Accepted,
    Kills,
    Sweepers,
    Stops,
    Full,
    Wakes,
    Churn,
    Calls,
    Soak,
}

#[derive(Subcommand)]
enum Hidden {
    #[command(hide = true)]
    Role { role: String },
}

type Run = fn(&mut Battery);

const PARTS: [(Part, &str, Run); 9] = [
    (Part::Accepted, "accepted", accepted::run),
    (Part::Kills, "kills", kills::run),
    (Part::Sweepers, "sweepers", sweepers::run),
    (Part::Stops, "stops", stops::run),
    (Part::Full, "full", full::run),
    (Part::Wakes, "wakes", wakes::run),
    (Part::Churn, "churn", churn::run),
    (Part::Calls, "calls", calls::run),
    (Part::Soak, "soak", soak::run),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.role {
        Some(Hidden::Role { role }) => play(&role),
        None => battery(cli.part, cli.options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("librpc-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(role: &str) -> anyhow::Result<bool> {
    let role: roles::Role = serde_json::from_str(role)?;
    if let Err(error) = role.play() {
        // The supervisor reads this and shows it.
        let _ = roles::say(&format!("error: {error:#}"));
        return Ok(false);
    }
    Ok(true)
}

fn battery(part: Part, options: Options) -> anyhow::Result<bool> {
    undo::install()?;
    let mut battery = Battery::new(options);
    for (each, name, run) in PARTS {
        if part == Part::All || part == each {
            battery.begin(name);
            run(&mut battery);
        }
    }
    anyhow::ensure!(!battery.outcomes.is_empty(), "there is no section of this name");
    Ok(battery.sum_up())
}
