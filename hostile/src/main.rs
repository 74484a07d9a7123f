//! Seeded attacks on librpc: mutated bytes for everything that a peer can write, and a live attacker.
//!
//! The parts:
mod attacker; // an admitted peer that lies
mod calls; //   the calls of the honest pair
mod caller; //  a client that says what it likes
mod doors; //   messages, files and declarations, as bytes
mod fuse; //    files that cannot be closed
mod handshakes; // malformed handshakes over real sockets
mod holder; //  a receiver that keeps large payloads
mod honest; //  one of the honest pair
mod lender; //  a sender that lies about large payloads
mod live; //    an attacker beside an honest pair
mod mapping; // memory that an attacker offers
mod own_node; // attacks with the attacker's own file and socket
mod pair; //    the honest pair under attack
mod records; // a ring, word by word
mod ring; //    each side of a ring against the other
mod script; //  the messages of a malformed handshake
mod server; //  a server that answers as it likes
mod socket; //  messages with any descriptors

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};

use crate::ring::Tally;

/// Attacks on librpc: whatever a hostile peer does, it must not harm other processes.
#[derive(Parser)]
#[command(name = "librpc-hostile", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

const AFTER_HELP: &str = "\
Examples:
  librpc-hostile fuzz receiver --executions 1000000000 --seed 7    # a hostile sender's ring
  librpc-hostile fuzz doors --executions 10000000                  # handshakes, files, declarations, as bytes
  librpc-hostile fuzz handshakes --executions 10000000 --seed 7    # handshakes with a living node, over real sockets
  librpc-hostile live --rounds 1000 --seed 3                       # a live attacker beside an honest pair
  librpc-hostile live --rounds 100 --as 65534                      # ... of another user, in a shared domain

Exit codes: 0 all passed, 1 something failed (the scene that repeats it is shown), 2 wrong usage";

#[derive(Subcommand)]
enum Part {
    /// Mutated bytes.
    Fuzz {
        #[arg(value_enum)]
        target: Target,
        /// At least this many executions.
        #[arg(long, default_value_t = 1_000_000)]
        executions: u64,
        /// At most this many seconds.
        #[arg(long)]
        seconds: Option<u64>,
        /// The seed of all random numbers, and the number of the first scene.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// For handshakes: attack as this user, in a domain that is shared with the group of the same number (needs root).
        #[arg(long = "as", value_name = "UID")]
        user: Option<u32>,
    },
    /// A live attacker beside an honest pair.
    Live {
        /// The number of attacks.
        #[arg(long, default_value_t = 200)]
        rounds: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only the attack of this name.
        #[arg(long)]
        only: Option<String>,
        /// Attack as this user, in a domain that is shared with the group of the same number (needs root).
        #[arg(long = "as", value_name = "UID")]
        user: Option<u32>,
    },
    #[command(hide = true)]
    Honest { domain: PathBuf, id: String, other: String, attacker: Option<u32> },
    #[command(hide = true)]
    Attacker {
        domain: PathBuf,
        seed: u64,
        rounds: u64,
        #[arg(long)]
        only: Option<String>,
        #[arg(long = "as")]
        user: Option<u32>,
    },
    #[command(hide = true)]
    Handshaker { domain: PathBuf, first: u64, executions: u64, seconds: u64, user: Option<u32> },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    /// A receiver whose sender writes anything.
    Receiver,
    /// A sender whose receiver writes anything.
    Sender,
    /// Everything that decodes messages, files and declarations.
    Doors,
    /// A node of another process, over real sockets, beside an honest one.
    Handshakes,
}

fn main() -> ExitCode {
    let result = match Cli::parse().part {
        Part::Fuzz { target: Target::Handshakes, executions, seconds, seed, user } => {
            handshakes::run(seed, executions, seconds, user).map(|note| println!("handshakes: passed  {note}"))
        }
        Part::Fuzz { target, executions, seconds, seed, .. } => return fuzz(target, executions, seconds, seed),
        Part::Live { rounds, seed, only, user } => {
            live::run(seed, rounds, only, user).map(|note| println!("live: passed  {note}"))
        }
        Part::Honest { domain, id, other, attacker } => honest::honest(&domain, &id, &other, attacker),
        Part::Attacker { domain, seed, rounds, only, user } => {
            live::attack(&domain, seed, rounds, only.as_deref(), user)
        }
        Part::Handshaker { domain, first, executions, seconds, user } => {
            handshakes::attack(&domain, first, executions, seconds, user)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs scene after scene, until there were enough executions.
fn fuzz(target: Target, executions: u64, seconds: Option<u64>, seed: u64) -> ExitCode {
    let scene = match target {
        Target::Receiver => ring::receiver,
        Target::Sender => ring::sender,
        Target::Doors | Target::Handshakes => doors::doors,
    };
    let name = target.to_possible_value().expect("no target is hidden").get_name().to_owned();
    let (begun, mut tally, mut said) = (Instant::now(), Tally::default(), Instant::now());
    let mut number = seed << 32;
    let limit = seconds.map(Duration::from_secs);
    while tally.executions < executions && limit.is_none_or(|limit| begun.elapsed() < limit) {
        let before = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| scene(number))) {
            Ok(scene) => tally.add(scene),
            Err(_) => {
                println!("{name:9} FAILED in scene {number:#x}, after {} executions", tally.executions);
                return ExitCode::FAILURE;
            }
        }
        if before.elapsed() > Duration::from_secs(20) {
            println!("{name:9} FAILED: scene {number:#x} took {:?}", before.elapsed());
            return ExitCode::FAILURE;
        }
        number += 1;
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            report(&name, &tally, begun, "so far");
        }
    }
    report(&name, &tally, begun, "passed");
    ExitCode::SUCCESS
}

fn report(name: &str, tally: &Tally, begun: Instant, result: &str) {
    let Tally { executions, taken, refused } = tally;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{name:9} {executions:>12} executions  {taken:>12} accepted  {refused:>12} refused  {seconds:>7.1} s  {result}"
    );
}
