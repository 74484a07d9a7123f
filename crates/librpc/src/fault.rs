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

#[cfg(any(not(feature = "fault-points"), feature = "simulated"))]
pub(crate) fn prepare() {}

#[cfg(all(feature = "fault-points", not(feature = "simulated")))]
pub(crate) use points::{prepare, reach};

#[cfg(feature = "simulated")]
pub(crate) use crate::sys::machine::reach;

#[cfg(all(feature = "fault-points", not(feature = "simulated")))]
mod points {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::sys::{fork, process};

    struct Plan {
        step: String,
        is_stop: bool,
        times: AtomicU32,
    }

    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

    /// Makes the ring report its steps, too.
    pub(crate) fn prepare() {
        fork::undivided(|| librpc_ring::fault::HOOK.get_or_init(|| reach));
    }

    pub(crate) fn reach(step: &str) {
        let plan = PLAN.get().unwrap_or_else(|| fork::undivided(|| PLAN.get_or_init(Plan::from_env)));
        if let Some(plan) = plan
            && plan.step == step
            // Relaxed: each step only counts.
            && plan.times.fetch_sub(1, Ordering::Relaxed) == 1
        {
            process::die(plan.is_stop);
        }
    }

    impl Plan {
        fn from_env() -> Option<Self> {
            let text = std::env::var("LIBRPC_FAULT").ok()?;
            let mut parts = text.split(':');
            Some(Self {
                step: parts.next()?.to_owned(),
                is_stop: parts.next() == Some("stop"),
                times: AtomicU32::new(parts.next().map_or(1, |times| times.parse().expect("a number of times"))),
            })
        }
    }
}
