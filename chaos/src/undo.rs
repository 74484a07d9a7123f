//! What the battery leaves: nothing. Workers die with it, and a signal removes the domains, too.
//!
//! Invariant: a worker is started under [`gate`]; the thread that ends everything takes the gate and keeps it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static GATE: Mutex<()> = Mutex::new(());
const PREFIX: &str = "librpc_chaos_";
const SHM: &str = "/dev/shm";

pub(crate) fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where this run's domains lie.
pub(crate) fn prefix() -> String {
    format!("{SHM}/{PREFIX}{}_", std::process::id())
}

/// Has SIGINT, SIGTERM and SIGHUP end everything, and grandchildren come to this process when their parents die.
pub(crate) fn install() -> anyhow::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("cannot become a subreaper")?;
    remove_what_killed_runs_have_left();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install the signal handlers")?;
    let wait = move || {
        let signal = signals.forever().next().unwrap_or(SIGINT);
        let _gate = gate();
        end_children();
        remove_domains();
        std::process::exit(128 + signal);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}

/// Kills every child, and every orphan that has come to us, and waits for their end.
pub(crate) fn end_children() {
    loop {
        let children = children();
        if children.is_empty() {
            return;
        }
        for pid in children {
            let _ = kill_process(pid, Signal::KILL); // it may have ended
            let _ = waitpid(Some(pid), WaitOptions::empty()); // somebody else may have waited for it
        }
    }
}

/// The children of this process that run or were not waited for.
pub(crate) fn children() -> Vec<Pid> {
    children_of(std::process::id())
}

/// The children of a process.
pub(crate) fn children_of(pid: u32) -> Vec<Pid> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> =
        lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    pids.into_iter().filter_map(Pid::from_raw).collect()
}

/// What this run has left under `/dev/shm`.
pub(crate) fn left() -> Vec<String> {
    let own = prefix();
    let entries = std::fs::read_dir(SHM).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).filter(|path| path.starts_with(&own)).collect()
}

pub(crate) fn remove_domains() {
    for path in left() {
        let _ = std::fs::remove_dir_all(path); // what is gone is gone
    }
}

/// A run that was itself killed with SIGKILL cannot clean up: the next one does.
fn remove_what_killed_runs_have_left() {
    for entry in std::fs::read_dir(SHM).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next()).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
