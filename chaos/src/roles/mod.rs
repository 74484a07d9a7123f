//! The roles of workers. A role arrives as one argument, and reports lines on stdout.

mod calls; //     serves, and calls
mod crowd; //     many nodes that come and go
mod fork; //      a process that forks without exec
mod lean; //      a process that runs out of something
mod once; //      sends one message and ends
mod receive; //   processes numbered messages
mod registry; //  joins, leaves, sweeps
mod rounds; //    two processes that wake each other
mod send; //      sends numbered messages

use std::io::Write;
use std::path::PathBuf;

use librpc::{Domain, Limits, Node};
use serde::{Deserialize, Serialize};

pub(crate) use calls::{CallCount, CallMany, Ended, is_idempotent, now_ns};
pub(crate) use once::{Ending, Once, To};
pub(crate) use receive::Receive;
pub(crate) use rounds::{Kind as RoundsKind, Rounds as RoundsRole};
pub(crate) use send::Send;

/// The topic of all publishers and subscribers.
const TOPIC: &str = "battery";

/// The domain of a worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DomainAt {
    pub(crate) path: PathBuf,
    /// It is shared with the group of the workers.
    pub(crate) is_shared: bool,
}

impl DomainAt {
    fn domain(&self) -> Domain {
        let domain = Domain::at(&self.path);
        if self.is_shared { domain.shared_with_group(rustix::process::getegid().as_raw()) } else { domain }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    Receive(Receive),
    Send(Send),
    Once(Once),
    /// Says the number of each [`Once`].
    Collect {
        domain: DomainAt,
        from: To,
    },
    /// Joins, opens its inbox, leaves.
    Live {
        domain: DomainAt,
        id: String,
    },
    /// Joins, sends itself a message, leaves.
    Probe {
        domain: DomainAt,
        id: String,
    },
    Clean {
        domain: DomainAt,
    },
    /// Opens this many nodes, and waits to be killed.
    Corpses {
        domain: DomainAt,
        prefix: String,
        count: u32,
    },
    /// Serves, and says which requests it takes.
    Serve {
        domain: DomainAt,
        id: String,
    },
    /// Takes requests, and never answers.
    Hold {
        domain: DomainAt,
        id: String,
    },
    /// Serves, and notes which requests it takes.
    ServeNoted {
        domain: DomainAt,
        id: String,
        notes: String,
    },
    /// Calls, and says how each call ends.
    Call(CallCount),
    /// Calls from several threads, and notes how each call ends.
    CallMany(CallMany),
    /// Two processes wake each other with messages.
    Rounds(RoundsRole),
    /// Opens and closes nodes at random, up to `most` at a time.
    Churn {
        domain: DomainAt,
        prefix: String,
        most: usize,
        operations: u64,
        seed: u64,
    },
    /// Joins, leaves and counts at each line that says so.
    InAndOut {
        domain: DomainAt,
        id: String,
    },
    /// Forks without exec; the child outlives it.
    Fork {
        domain: DomainAt,
        id: String,
        to: String,
    },
    /// Enlarges a small tmpfs, block by block and file by file.
    FullShm {
        mount: PathBuf,
    },
    /// Lowers the limit on descriptors one by one.
    Descriptors {
        domain: PathBuf,
        most: u64,
    },
}

impl Role {
    pub(crate) fn play(self) -> anyhow::Result<()> {
        testkit::die_with_parent()?;
        match self {
            Self::Receive(receive) => receive.play(),
            Self::Send(send) => send.play(),
            Self::Once(once) => once.play(),
            Self::Collect { domain, from } => once::collect(&domain, from),
            Self::Live { domain, id } => registry::live(&domain, &id),
            Self::Probe { domain, id } => registry::probe(&domain, &id),
            Self::Clean { domain } => registry::clean(&domain),
            Self::Corpses { domain, prefix, count } => registry::corpses(&domain, &prefix, count),
            Self::Serve { domain, id } => calls::serve(&domain, &id),
            Self::Hold { domain, id } => calls::hold(&domain, &id),
            Self::ServeNoted { domain, id, notes } => calls::serve_noted(&domain, &id, &notes),
            Self::Call(call) => call.play(),
            Self::CallMany(calls) => calls.play(),
            Self::Rounds(rounds) => rounds.play(),
            Self::Churn { domain, prefix, most, operations, seed } => {
                crowd::churn(&domain, &prefix, most, operations, seed)
            }
            Self::InAndOut { domain, id } => crowd::in_and_out(&domain, &id),
            Self::Fork { domain, id, to } => fork::fork(&domain, &id, &to),
            Self::FullShm { mount } => lean::full_shm(mount),
            Self::Descriptors { domain, most } => lean::descriptors(domain, most),
        }
    }
}

/// Says a line to the supervisor.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

fn open(domain: &DomainAt, id: &str) -> anyhow::Result<Node> {
    open_with(domain, id, Limits::default())
}

fn open_with(domain: &DomainAt, id: &str, limits: Limits) -> anyhow::Result<Node> {
    Ok(Node::builder(id).domain(domain.domain()).limits(limits).open()?)
}

/// Calls this when the supervisor closes stdin.
fn at_end_of_stdin(call: impl FnOnce() + std::marker::Send + 'static) -> anyhow::Result<()> {
    let wait = move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()); // an error is the end, too
        call();
    };
    std::thread::Builder::new().name("stdin".into()).spawn(wait)?;
    Ok(())
}
