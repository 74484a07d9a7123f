//! The processes that a measurement starts. Each says that it is ready, and stays until it is told to leave; then it may
//! have something to report, on one line.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use super::end::Via;
use super::{connect, duplex, fanout, latency, scale, throughput, wake};
use crate::children::{Children, ParentArgs, Report};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome};

pub(super) const READY: &str = "ready";

/// What such a process does.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// Receives at each of these nodes, on a thread each.
    Receive {
        nodes: Vec<String>,
        #[arg(long)]
        cpu: Option<usize>,
    },
    /// Connects so many senders of one node to a node, and sends nothing.
    Connected { to: String, count: usize },
    /// Opens so many nodes.
    Nodes { count: usize },
    /// Joins, leaves and subscribes when it is told to.
    Visitor,
    /// Subscribes, with so many inboxes beside, one for a pattern each, and takes what comes.
    Patterns { count: usize, cpu: Option<usize> },
    /// Joins, connects and sends a first message, so many times.
    Connect { to: String, via: Via, size: usize, count: u64, cpu: Option<usize> },
    /// Sends every message back.
    Echo { node: String, to: String, via: Via, cpu: Option<usize> },
    /// Takes messages as they come.
    Sink { node: String, via: Via, cpu: Option<usize> },
    /// Sends and receives at the same time.
    Exchange(duplex::Exchange),
    /// Sleeps, and says how long a message took to wake it.
    Sleepers { socket: String, cpu: Option<usize> },
    /// Has many inboxes.
    Crowd { size: usize, cpu: Option<usize> },
}

impl Part {
    /// The words that start it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let cpu = |cpu: &Option<usize>| cpu.map(|cpu| cpu.to_string());
        let (name, words, cpu): (&str, Vec<String>, Option<String>) = match self {
            Self::Receive { nodes, cpu: on } => ("receive", nodes.clone(), on.map(|cpu| format!("--cpu={cpu}"))),
            Self::Connected { to, count } => ("connected", vec![to.clone(), count.to_string()], None),
            Self::Nodes { count } => ("nodes", vec![count.to_string()], None),
            Self::Visitor => ("visitor", Vec::new(), None),
            Self::Patterns { count, cpu: on } => ("patterns", vec![count.to_string()], cpu(on)),
            Self::Connect { to, via, size, count, cpu: on } => {
                ("connect", vec![to.clone(), via.name(), size.to_string(), count.to_string()], cpu(on))
            }
            Self::Echo { node, to, via, cpu: on } => ("echo", vec![node.clone(), to.clone(), via.name()], cpu(on)),
            Self::Sink { node, via, cpu: on } => ("sink", vec![node.clone(), via.name()], cpu(on)),
            Self::Exchange(exchange) => ("exchange", exchange.words(), None),
            Self::Sleepers { socket, cpu: on } => ("sleepers", vec![socket.clone()], cpu(on)),
            Self::Crowd { size, cpu: on } => ("crowd", vec![size.to_string()], cpu(on)),
        };
        ["bench-part", name].map(str::to_owned).into_iter().chain(words).chain(cpu).collect()
    }

    fn run(&self, domain: &DomainArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
        match self {
            Self::Receive { nodes, cpu } => scale::channels::receive(domain, nodes, *cpu, interrupt),
            Self::Connected { to, count } => scale::channels::connected(domain, to, *count, interrupt),
            Self::Nodes { count } => scale::joins::nodes(domain, *count, interrupt),
            Self::Visitor => scale::news::visitor(domain, interrupt),
            Self::Patterns { count, cpu } => scale::topics::patterns(domain, *count, *cpu, interrupt),
            Self::Connect { to, via, size, count, cpu } => {
                connect::rounds(domain, (to, *via), (*size, *count), *cpu, interrupt)
            }
            Self::Echo { node, to, via, cpu } => latency::echo(domain, (node, to, *via), *cpu, interrupt),
            Self::Sink { node, via, cpu } => throughput::sink(domain, node, *via, *cpu, interrupt),
            Self::Exchange(exchange) => duplex::side(domain, exchange, interrupt),
            Self::Sleepers { socket, cpu } => wake::sleepers(domain, socket, *cpu, interrupt),
            Self::Crowd { size, cpu } => fanout::crowd(domain, *size, *cpu, interrupt),
        }
    }
}

pub(crate) fn run(domain: &DomainArgs, parent: &ParentArgs, part: &Part) -> CommandResult {
    let interrupt = Interrupt::install()?;
    parent.follow()?;
    match part.run(domain, &interrupt) {
        // Told to leave, it may find that others have left before it.
        Err(_) if interrupt.signal().is_some() => Ok(Outcome::Done),
        result => result.map(|()| Outcome::Done),
    }
}

/// The next line of any of them.
pub(super) fn line(children: &mut Children, limit: Duration) -> anyhow::Result<(usize, String)> {
    match children.next(limit) {
        Some((child, Report::Line(line))) => Ok((child, line)),
        Some((child, Report::Ended(status))) => bail!("process {child} of this measurement has ended: {status}"),
        None => bail!("a process of this measurement says nothing"),
    }
}

/// Puts this thread on a CPU.
pub(super) fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = rustix::thread::CpuSet::new();
    anyhow::ensure!(cpu < rustix::thread::CpuSet::MAX_CPU, "there is no CPU {cpu}");
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// Does something on a CPU, while this thread, and the threads and processes that it starts, stay free to run anywhere.
pub(super) fn on_cpu<R: Send>(
    cpu: Option<usize>,
    call: impl FnOnce() -> anyhow::Result<R> + Send,
) -> anyhow::Result<R> {
    std::thread::scope(|scope| scope.spawn(|| pin(cpu).and_then(|()| call())).join().expect("no panic"))
}

pub(super) fn ready() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{READY}").context("cannot say that this process is ready")
}

/// Reports.
pub(super) fn tell(report: &impl Serialize) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string(report)?).context("cannot report")
}

pub(super) fn raise_descriptor_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the descriptor limit")
}
