//! The faults of a plan that are still to come, and what each does when it happens.

use std::cmp::Reverse;

use fastrand::Rng;

use super::plan::{Fault, Moment};
use super::process::End;
use super::trace::number;
use super::world::World;
use crate::kernel::Errno;

pub(super) struct Faults {
    /// By step and by call, the next one last.
    by_step: Vec<(u64, Fault)>,
    by_call: Vec<(u64, Fault)>,
    /// How many calls are still to fail.
    errors_left: u32,
    pub(super) errors_injected: u64,
    random: Rng,
}

impl Faults {
    pub(super) fn new(seed: u64, planned: &[(Moment, Fault)]) -> Self {
        let pick = |by: fn(Moment) -> Option<u64>| {
            let mut faults: Vec<_> = planned.iter().filter_map(|&(at, fault)| Some((by(at)?, fault))).collect();
            faults.sort_by_key(|&(at, _)| Reverse(at));
            faults
        };
        Self {
            by_step: pick(|at| if let Moment::Step(at) = at { Some(at) } else { None }),
            by_call: pick(|at| if let Moment::Call(at) = at { Some(at) } else { None }),
            errors_left: 0,
            errors_injected: 0,
            random: Rng::with_seed(seed ^ 0x6661_756c),
        }
    }

    /// Whether one is due after this many steps and calls.
    #[inline]
    pub(super) fn are_due(&self, steps: u64, calls: u64) -> bool {
        is_due(&self.by_step, steps) || is_due(&self.by_call, calls)
    }

    /// Takes the next one that is due.
    fn take_due(&mut self, steps: u64, calls: u64) -> Option<Fault> {
        let due = match is_due(&self.by_step, steps) {
            true => self.by_step.pop(),
            false if is_due(&self.by_call, calls) => self.by_call.pop(),
            false => None,
        };
        due.map(|(_, fault)| fault)
    }

    /// The error with which a call that can fail in these ways is to fail now.
    fn error(&mut self, errors: &[Errno]) -> Option<Errno> {
        if self.errors_left == 0 || errors.is_empty() {
            return None;
        }
        // A wait that a signal ends early teaches little, and there are many of them.
        if errors == [Errno::INTR] && self.random.u8(..8) > 0 {
            return None;
        }
        self.errors_left -= 1;
        self.errors_injected += 1;
        self.random.choice(errors).copied()
    }
}

#[inline]
fn is_due(faults: &[(u64, Fault)], count: u64) -> bool {
    faults.last().is_some_and(|&(at, _)| at <= count)
}

impl World {
    /// All faults that are due happen; `true`: the running thread does not go on.
    pub(super) fn happen_all(&mut self) -> bool {
        let mut others = false;
        while let Some(fault) = self.faults.take_due(self.steps, self.calls) {
            others |= self.happen(fault);
        }
        others
    }

    /// A fault of the plan happens; `true`: the running thread does not go on.
    fn happen(&mut self, fault: Fault) -> bool {
        let pid = self.pid();
        if self.processes[&pid].end.is_some() {
            return true; // killed at this very step
        }
        match fault {
            Fault::Kill if self.processes[&pid].risks.death => {
                self.note(number("kill"), || "KILLED".into());
                self.end_process(pid, End::Killed);
                true
            }
            Fault::Kill => false,
            Fault::Stop { ns } => {
                self.note(number("stop"), || format!("STOPPED for {} ms", ns / 1_000_000));
                self.kernel.set_stopped(pid, true);
                let until = self.clock_ns + ns;
                self.processes.get_mut(&pid).expect("it runs").continues_at = Some(until);
                true
            }
            Fault::Pause { ns } => {
                self.note(number("pause"), || format!("{} ms pass", ns / 1_000_000));
                self.clock_ns += ns;
                true
            }
            Fault::Errors { more } => {
                self.faults.errors_left = more + 1;
                false
            }
        }
    }

    /// Whether a call that can fail in these ways is to fail now, and how.
    pub(super) fn injected(&mut self, errors: &[Errno]) -> Option<Errno> {
        if !self.processes[&self.pid()].risks.errors {
            return None;
        }
        self.faults.error(errors)
    }
}
