//! The battery leaves nothing behind. Its workers die with it, and a signal removes the domains, too.
//!
//! Invariant: a worker is started under [`gate`]. The thread that ends everything takes the gate and keeps it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use testkit::proc::children_of;

static GATE: Mutex<()> = Mutex::new(());

pub(crate) fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes SIGINT, SIGTERM and SIGHUP end everything, and this process the parent of orphaned grandchildren.
pub(crate) fn install() -> anyhow::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("cannot become a subreaper")?;
    testkit::remove_what_killed_runs_left();
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

/// Kills every child and every orphan that came to this process, and waits for their end.
pub(crate) fn end_children() {
    loop {
        let children = children_of(std::process::id());
        if children.is_empty() {
            return;
        }
        for pid in children {
            let _ = kill_process(pid, Signal::KILL); // it may have ended
            let _ = waitpid(Some(pid), WaitOptions::empty()); // somebody else may have waited for it
        }
    }
}

pub(crate) fn remove_domains() {
    for path in testkit::left_by_this_process() {
        let _ = std::fs::remove_dir_all(path); // it may have been removed
    }
}
