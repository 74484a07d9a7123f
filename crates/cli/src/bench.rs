//! `librpc bench`: what things cost here, and what they would cost at least.
//!
//! The measurements, one file each:
mod call; //         requests and replies
mod connect; //      join, connect, first message
mod duplex; //       both directions at once
mod fanout; //       one publish, many inboxes
mod idle; //         what an idle receiver does: nothing
mod large; //        large messages, in place and in full
mod latency; //      a round trip
mod scale; //        many channels, nodes, topics, patterns
mod throughput; //   one direction
mod wake; //         a receiver that sleeps
// The processes that a measurement starts:
mod child; //        what each of them does besides its part
mod dispatch; //     from a part to what does it
mod exchange; //     one side of a duplex measurement
mod part; //         what each of them does, as data
// What the measurements share:
mod content; //      what a message contains, and how it is checked
mod descriptors; //  passed from process to process
mod end; //          what a side sends and receives with
mod eventfd; //      limit: waking
mod limit; //        limits: a cache line, copying
mod machine; //      the machine of a measurement
mod options; //      --size, --seconds, --pin and others
mod process; //      what the kernel knows about a process
mod progress; //     a bar on the terminal
mod rates; //        messages and bytes per second
mod times; //        percentiles

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

use anyhow::{Context, bail};
use librpc::Domain;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::children::{Children, Report};
use crate::domain::{DomainArgs, clear_leftovers, unique_id};
use crate::interrupt::Interrupt;
use crate::latency::counted;
use crate::outcome::{CommandResult, Outcome};

pub(crate) use dispatch::run as part;
use eventfd::Line;
use machine::Machine;
pub(crate) use part::Part;

/// Measures what things cost, compared with the best that the machine can do
///
/// It runs in a domain of its own unless --domain names one.
#[derive(clap::Args)]
#[command(after_help = "\
Each measurement runs between processes of its own. Every message is written, read and checked in full. \
The limit, which is the best that the machine can do, is measured in turn in the same run: compare only within one run.

Examples:
  librpc bench latency --size 64 --pin 0,1
  librpc bench throughput --size 256 --seconds 5 --json
  librpc bench duplex --size 256 --rate 1000000 --pin 0,1
  librpc bench fanout --pin 0,1
  librpc bench large --subscribers 4
  librpc bench call
  librpc bench wake
  librpc bench connect --count 100
  librpc bench scale
  librpc bench idle --channels 1000 --seconds 10

To compare librpc with its peers (Aeron, iceoryx2, ZeroMQ and others): bench/peers/run --report FILE in librpc's source.
Exit code 3: done, but messages were lost.")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Latency(latency::Args),
    Throughput(throughput::Args),
    Duplex(duplex::Args),
    Fanout(fanout::Args),
    Large(large::Args),
    Wake(wake::Args),
    Call(call::Args),
    Connect(connect::Args),
    Scale(scale::Args),
    Idle(idle::Args),
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    clear_leftovers("bench");
    let base = domain.domain_or(&format!("bench-{}", std::process::id()))?;
    let (machine, interrupted) = (Machine::look(), interrupt.clone());
    let (made, lost, introduce) = (Mutex::default(), AtomicU64::new(0), Once::new());
    let bench = Bench { base, interrupt: interrupted, machine, made, lost, introduce };
    let result = match &args.what {
        What::Latency(args) => latency::run(&bench, args),
        What::Throughput(args) => throughput::run(&bench, args),
        What::Duplex(args) => duplex::run(&bench, args),
        What::Fanout(args) => fanout::run(&bench, args),
        What::Large(args) => large::run(&bench, args),
        What::Wake(args) => wake::run(&bench, args),
        What::Call(args) => call::run(&bench, args),
        What::Connect(args) => connect::run(&bench, args),
        What::Scale(args) => scale::run(&bench, args),
        What::Idle(args) => idle::run(&bench, args),
    };
    let lost = bench.lost.load(Ordering::Relaxed);
    drop(bench);
    // If a signal has ended the processes, it is the cause of any failure.
    match interrupt.signal() {
        Some(signal) => Ok(Outcome::Interrupted(signal)),
        None => result.map(|()| if lost == 0 { Outcome::Done } else { Outcome::Loss }),
    }
}

/// How long a process may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a measurement takes place.
struct Bench {
    base: Domain,
    interrupt: Interrupt,
    machine: Machine,
    made: Mutex<Vec<Domain>>,
    lost: AtomicU64,
    /// Shows the machine once.
    introduce: Once,
}

impl Bench {
    /// Another domain of this measurement.
    fn domain(&self, name: &str) -> Domain {
        let mut path = self.base.path().as_os_str().to_owned();
        path.push(format!(".{name}"));
        let domain = Domain::at(PathBuf::from(path));
        self.made.lock().expect("no panic under this lock").push(domain.clone());
        domain
    }

    /// Starts processes.
    fn spawn(&self, domain: &Domain, parts: &[Part]) -> anyhow::Result<Children> {
        let commands = parts.iter().map(Part::arguments).collect::<anyhow::Result<Vec<_>>>()?;
        Children::start(domain, &commands, &self.interrupt)
    }

    /// Starts processes, and waits until each says that it is ready.
    fn start(&self, domain: &Domain, parts: &[Part]) -> anyhow::Result<Children> {
        let mut children = self.spawn(domain, parts)?;
        self.await_ready(&mut children, parts.len())?;
        Ok(children)
    }

    /// Starts a process that is given the name of a socket, and exchanges eventfds with it. Waits until it says that it is ready.
    fn start_with_line(&self, domain: &Domain, part: impl FnOnce(String) -> Part) -> anyhow::Result<(Line, Children)> {
        let name = unique_id("librpc-bench")?;
        let listener = descriptors::listen(&name)?;
        let mut child = self.spawn(domain, &[part(name)])?;
        let line = Line::accept(&listener, &self.interrupt)?;
        self.await_ready(&mut child, 1)?;
        Ok((line, child))
    }

    fn await_ready(&self, children: &mut Children, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let (child, line) = next_line(children)?;
            anyhow::ensure!(line == child::READY, "process {child} of this measurement is not ready: {line}");
        }
        Ok(())
    }

    /// Asks a process to leave, and returns its report.
    fn report<T: DeserializeOwned>(&self, child: &mut Children) -> anyhow::Result<T> {
        child.end();
        let (_, line) = next_line(child)?;
        serde_json::from_str(&line).context("the report of a process of this measurement is not valid")
    }

    /// Counts messages that were lost or spoilt. With any, the run ends with a loss.
    fn count_lost(&self, lost: u64) {
        if lost > 0 {
            crate::outcome::say(format_args!("lost or spoilt: {}", counted(lost, "message")));
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Prints a result: as JSON with everything that belongs to it, or as the text of `readable`.
    fn print(
        &self,
        json: bool,
        bench: &'static str,
        pin: Option<(usize, usize)>,
        figures: &impl Serialize,
        readable: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout();
        if json {
            let object = Object { bench, figures, pin, machine: &self.machine };
            writeln!(stdout, "{}", serde_json::to_string(&object)?)
        } else {
            self.introduce.call_once(|| drop(writeln!(stdout, "{}", self.machine.line()))); // the next write reports a failure
            writeln!(stdout, "{}", readable())
        }
        .context("cannot write to stdout")
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.interrupt.signal().is_none(), "interrupted");
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for domain in self.made.lock().expect("no panic under this lock").iter().chain([&self.base]) {
            let _ = domain.clean(); // removes what a killed process has left
        }
    }
}

/// The next line of any of these processes.
fn next_line(children: &mut Children) -> anyhow::Result<(usize, String)> {
    match children.next(PATIENCE) {
        Some((child, Report::Line(line))) => Ok((child, line)),
        Some((child, Report::Ended(status))) => bail!("process {child} of this measurement has ended: {status}"),
        None => bail!("a process of this measurement does not report"),
    }
}

/// A result as it is printed.
#[derive(Serialize)]
struct Object<'a, F> {
    bench: &'static str,
    #[serde(flatten)]
    figures: &'a F,
    pin: Option<(usize, usize)>,
    machine: &'a Machine,
}

/// The median.
fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The median of the ratios of pairs that were measured in turn.
fn median_ratio(pairs: &[(u64, u64)]) -> f64 {
    round_to(median_of(pairs.iter().map(|&(one, other)| one as f64 / other.max(1) as f64)), 3)
}

fn ratio(many: u64, few: u64) -> f64 {
    round_to(many as f64 / few.max(1) as f64, 3)
}

fn round_to(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}
