//! `librpc bench`: what things cost here, beside what they would cost at least.
//!
//! The measurements, each a file, and what they share:
mod connect; //     join, connect, first message
mod idle; //        what an idle receiver does: nothing
mod latency; //     there and back
mod part; //        the processes that a measurement starts
mod process; //     what the kernel knows about them
mod scale; //       many channels, many nodes
mod throughput; //  one direction

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use librpc::Domain;
use serde::Serialize;

use crate::children::{Children, Report};
use crate::domain::{DomainArgs, clear_leftovers};
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome};

pub(crate) use part::{Part, run as part};

/// Measures, beside what the machine could do at best
///
/// In a domain of its own, unless --domain names one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench latency --size 64 --pin 0,1
  librpc bench throughput --size 256 --seconds 5 --json
  librpc bench connect --count 100
  librpc bench scale
  librpc bench idle --channels 1000 --seconds 10")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Latency(latency::Args),
    Throughput(throughput::Args),
    Connect(connect::Args),
    Scale(scale::Args),
    Idle(idle::Args),
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    clear_leftovers("bench");
    let base = domain.domain_or(&format!("bench-{}", std::process::id()))?;
    let bench = Bench { base, interrupt: interrupt.clone(), made: Default::default() };
    let result = match &args.what {
        What::Latency(args) => latency::run(&bench, args),
        What::Throughput(args) => throughput::run(&bench, args),
        What::Connect(args) => connect::run(&bench, args),
        What::Scale(args) => scale::run(&bench, args),
        What::Idle(args) => idle::run(&bench, args),
    };
    drop(bench);
    // Whatever has failed when the processes ended at a signal, has failed because of it.
    match interrupt.signal() {
        Some(signal) => Ok(Outcome::Interrupted(signal)),
        None => result.map(|()| Outcome::Done),
    }
}

/// Where a measurement takes place.
struct Bench {
    base: Domain,
    interrupt: Interrupt,
    made: std::cell::RefCell<Vec<Domain>>,
}

impl Bench {
    /// A domain beside the others of this measurement.
    fn domain(&self, name: &str) -> Domain {
        let mut path = self.base.path().as_os_str().to_owned();
        path.push(format!(".{name}"));
        let domain = Domain::at(PathBuf::from(path));
        self.made.borrow_mut().push(domain.clone());
        domain
    }

    /// Starts processes, and waits until each says that it is ready.
    fn start(&self, domain: &Domain, parts: &[Part]) -> anyhow::Result<Children> {
        let commands: Vec<_> = parts.iter().map(Part::arguments).collect();
        let mut children = Children::start(domain, &commands, &self.interrupt)?;
        for _ in parts {
            match children.next(Duration::from_secs(60)) {
                Some((_, Report::Line(line))) if line == part::READY => {}
                Some((child, report)) => bail!("process {child} of this measurement is not ready: {report:?}"),
                None => bail!("a process of this measurement does not become ready"),
            }
        }
        Ok(children)
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.interrupt.signal().is_none(), "interrupted");
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for domain in self.made.take().iter().chain([&self.base]) {
            let _ = domain.clean(); // what a killed process has left
        }
    }
}

/// Prints a result: as JSON, or in the words of `readable`.
fn print(json: bool, result: &impl Serialize, readable: impl FnOnce() -> String) -> anyhow::Result<()> {
    let line = if json { serde_json::to_string(result)? } else { readable() };
    writeln!(std::io::stdout(), "{line}").context("cannot write to stdout")
}

/// The value in the middle.
fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// The value that a part of all do not exceed.
fn quantile(sorted: &[u64], part: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(0)
}

fn ratio(many: u64, few: u64) -> f64 {
    (many as f64 / few.max(1) as f64 * 1000.0).round() / 1000.0
}
