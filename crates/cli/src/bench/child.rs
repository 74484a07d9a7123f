//! What a process of a measurement does besides its part: it runs on a CPU, says that it is ready, and reports.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

/// The line that says that a process is ready.
pub(super) const READY: &str = "ready";

/// Puts this thread on a CPU.
pub(super) fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = rustix::thread::CpuSet::new();
    anyhow::ensure!(cpu < rustix::thread::CpuSet::MAX_CPU, "there is no CPU {cpu}");
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// Does something on a CPU. This thread, and the threads and processes that it starts, stay free to run anywhere.
pub(super) fn on_cpu<R: Send>(
    cpu: Option<usize>,
    call: impl FnOnce() -> anyhow::Result<R> + Send,
) -> anyhow::Result<R> {
    std::thread::scope(|scope| scope.spawn(|| pin(cpu).and_then(|()| call())).join().expect("no panic"))
}

pub(super) fn ready() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{READY}").context("cannot report that this process is ready")
}

pub(super) fn report(report: &impl Serialize) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string(report)?).context("cannot report")
}

pub(super) fn raise_descriptor_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the descriptor limit")
}
