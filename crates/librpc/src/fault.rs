//! Fault points: named steps at which a test can kill or stop the process. Compiled in with the feature `fault-points` only.
//!
//! `LIBRPC_FAULT=join.linked` kills the process with SIGKILL when it reaches that step, `LIBRPC_FAULT=join.linked:stop`
//! stops it with SIGSTOP, and `LIBRPC_FAULT=join.linked:kill:3` means the third time. docs/fault-points.md lists the steps.

/// Marks a step at which a process may die.
macro_rules! fault {
    ($step:literal) => {
        #[cfg(feature = "fault-points")]
        $crate::fault::reach($step);
    };
}
pub(crate) use fault;

/// Has the ring report its steps, too.
pub(crate) fn prepare() {
    #[cfg(feature = "fault-points")]
    librpc_ring::fault::HOOK.get_or_init(|| reach);
}

#[cfg(feature = "simulated")]
pub(crate) use crate::sys::machine::reach;

#[cfg(all(feature = "fault-points", not(feature = "simulated")))]
pub(crate) fn reach(step: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    struct Plan {
        step: String,
        signal: Signal,
        times: AtomicU32,
    }
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let plan = PLAN.get_or_init(|| {
        let text = std::env::var("LIBRPC_FAULT").ok()?;
        let mut parts = text.split(':');
        Some(Plan {
            step: parts.next()?.to_owned(),
            signal: if parts.next() == Some("stop") { Signal::STOP } else { Signal::KILL },
            times: AtomicU32::new(parts.next().map_or(1, |times| times.parse().expect("a number of times"))),
        })
    });
    if let Some(plan) = plan
        && plan.step == step
        && plan.times.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let _ = kill_process(getpid(), plan.signal);
    }
}
