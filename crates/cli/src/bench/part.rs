//! The processes that a measurement starts. Each says that it is ready, and stays until it is told to leave.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use librpc::{Inbox, Node, Wait};

use super::{connect, latency};
use crate::children::ParentArgs;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome};

pub(super) const READY: &str = "ready";

/// What such a process does.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// Receives at each of these nodes, on a thread each.
    Receive { nodes: Vec<String> },
    /// Connects so many senders of one node to a node, and sends nothing.
    Connected { to: String, count: usize },
    /// Opens so many nodes.
    Nodes { count: usize },
    /// Joins, connects and sends a first message, so many times.
    Connect { to: String, count: usize },
    /// Sends every message back.
    Echo { node: String, to: String, cpu: Option<usize> },
    /// Takes messages as they come.
    Sink { node: String, cpu: Option<usize> },
}

impl Part {
    /// The words that start it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let with_cpu = |words: &[&String], cpu: &Option<usize>| {
            words.iter().map(|&word| word.clone()).chain(cpu.map(|cpu| cpu.to_string())).collect()
        };
        let (name, words): (&str, Vec<String>) = match self {
            Self::Receive { nodes } => ("receive", nodes.clone()),
            Self::Connected { to, count } => ("connected", vec![to.clone(), count.to_string()]),
            Self::Nodes { count } => ("nodes", vec![count.to_string()]),
            Self::Connect { to, count } => ("connect", vec![to.clone(), count.to_string()]),
            Self::Echo { node, to, cpu } => ("echo", with_cpu(&[node, to], cpu)),
            Self::Sink { node, cpu } => ("sink", with_cpu(&[node], cpu)),
        };
        ["bench-part", name].map(str::to_owned).into_iter().chain(words).collect()
    }
}

pub(crate) fn run(domain: &DomainArgs, parent: &ParentArgs, part: &Part) -> CommandResult {
    let interrupt = Interrupt::install()?;
    parent.follow()?;
    match part {
        Part::Receive { nodes } => receive(domain, nodes, &interrupt)?,
        Part::Connected { to, count } => connected(domain, to, *count, &interrupt)?,
        Part::Nodes { count } => {
            raise_descriptor_limit()?;
            let open = |number| domain.open(&format!("node-{number}"));
            let nodes = (0..*count).map(open).collect::<anyhow::Result<Vec<librpc::Node>>>()?;
            ready()?;
            interrupt.wait()?;
            drop(nodes);
        }
        Part::Connect { to, count } => {
            connect::rounds(domain, to, *count, &interrupt)?;
            return Ok(Outcome::Done);
        }
        Part::Echo { node, to, cpu } => latency::echo(domain, node, to, *cpu, &interrupt)?,
        Part::Sink { node, cpu } => {
            let node = domain.open(node)?;
            let mut inbox = spinning(&node, &interrupt)?;
            pin(*cpu)?;
            ready()?;
            while inbox.recv()?.is_some() {}
        }
    }
    Ok(Outcome::Done)
}

/// The node's inbox, which polls without end and stops at a signal.
pub(super) fn spinning(node: &Node, interrupt: &Interrupt) -> anyhow::Result<Inbox> {
    let inbox = node.inbox_builder().wait(Wait::Spin).open()?;
    let stop = inbox.stop_handle();
    interrupt.then(move || stop.stop());
    Ok(inbox)
}

/// Puts this thread on a CPU.
pub(super) fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = rustix::thread::CpuSet::new();
    anyhow::ensure!(cpu < rustix::thread::CpuSet::MAX_CPU, "there is no CPU {cpu}");
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

pub(super) fn ready() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{READY}").context("cannot say that this process is ready")
}

pub(super) fn raise_descriptor_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the descriptor limit")
}

fn receive(domain: &DomainArgs, names: &[String], interrupt: &Interrupt) -> anyhow::Result<()> {
    let nodes = names.iter().map(|name| domain.open(name)).collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads = nodes.iter().map(|node| {
            let mut inbox = node.inbox()?;
            let stop = inbox.stop_handle();
            interrupt.then(move || stop.stop());
            Ok(scope.spawn(move || -> anyhow::Result<()> {
                while inbox.recv()?.is_some() {}
                Ok(())
            }))
        });
        let threads = threads.collect::<anyhow::Result<Vec<_>>>()?;
        ready()?;
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn connected(domain: &DomainArgs, to: &str, count: usize, interrupt: &Interrupt) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let node = domain.open("connected")?;
    let connect = |_| node.sender_within(to, Duration::from_secs(10));
    let senders = (0..count).map(connect).collect::<Result<Vec<_>, _>>()?;
    ready()?;
    interrupt.wait()?;
    drop(senders);
    Ok(())
}
