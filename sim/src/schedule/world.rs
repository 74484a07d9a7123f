//! The state of a run: the kernel, the clock, and the threads of all processes.
//!
//! One thread runs at a time. It stops running where it reaches a *point* (a call, a word that others change, a lock) and
//! the order of the run says so, or where it waits. Nothing else changes anything, so a seed decides everything.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fastrand::Rng;

use super::faults::Faults;
use super::fiber::Fiber;
use super::plan::{Order, Plan};
use super::process::Process;
use super::thread::{State, Thread, ThreadId, Wait};
use super::trace::{Trace, number};
use super::turns::LAST;
use crate::kernel::{Errno, Kernel, Outcome, Pid};

/// Why a run has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub what: String,
    pub at_ns: u64,
    pub step: u64,
}

pub(super) struct World {
    pub(super) kernel: Kernel,
    pub(super) clock_ns: u64,
    pub(super) steps: u64,
    pub(super) calls: u64,
    pub(super) threads: Vec<Thread>,
    pub(super) running: ThreadId,
    pub(super) processes: BTreeMap<Pid, Process>,
    pub(super) next_pid: Pid,
    pub(super) plan: Plan,
    pub(super) faults: Faults,
    pub(super) turns: Rng,
    pub(super) program: Rng,
    pub(super) trace: Trace,
    pub(super) failure: Option<Failure>,
}

/// A run that takes more steps than this gets nowhere.
const MAX_STEPS: u64 = 8_000_000;
/// Nor does one that takes longer than this.
const MAX_NS: u64 = 24 * 3600 * 1_000_000_000;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Does something with the world of this real thread. Nothing in it may switch to another thread.
#[inline]
pub(super) fn world<R>(with: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| with(world.as_mut().expect("a simulation runs on this thread")))
}

pub(super) fn enter(world: World) {
    WORLD.with_borrow_mut(|slot| assert!(slot.replace(world).is_none(), "one simulation at a time"));
}

pub(super) fn leave() -> World {
    WORLD.with_borrow_mut(|slot| slot.take().expect("a simulation runs on this thread"))
}

/// Whether a simulation runs on this real thread.
pub(super) fn is_entered() -> bool {
    WORLD.with(|slot| slot.try_borrow().map_or(true, |slot| slot.is_some()))
}

impl World {
    pub(super) fn new(plan: Plan, lines_kept: usize) -> Self {
        let seed = plan.seed;
        Self {
            kernel: Kernel::new(plan.machine.clone()),
            clock_ns: 1_000_000_000,
            steps: 0,
            calls: 0,
            threads: Vec::new(),
            running: ThreadId(0),
            processes: BTreeMap::new(),
            next_pid: 100,
            faults: Faults::new(seed, &plan.faults),
            turns: Rng::with_seed(seed ^ 0x7475_726e),
            program: Rng::with_seed(seed ^ 0x7072_6f67),
            trace: Trace::new(lines_kept),
            failure: None,
            plan,
        }
    }

    /// The run has failed, and ends.
    pub(super) fn fail(&mut self, what: String) {
        self.trace.note(number("failure"), || format!("FAILURE: {what}"));
        let (at_ns, step) = (self.clock_ns, self.steps);
        self.failure.get_or_insert(Failure { what, at_ns, step });
    }

    pub(super) fn thread(&mut self, id: ThreadId) -> &mut Thread {
        &mut self.threads[id.0]
    }

    pub(super) fn pid(&self) -> Pid {
        self.threads[self.running.0].pid
    }

    /// The running process.
    pub(super) fn process(&mut self) -> &mut Process {
        let pid = self.pid();
        self.processes.get_mut(&pid).expect("it runs")
    }

    /// Takes note of something that the running thread does.
    #[inline]
    pub(super) fn note(&mut self, what: u64, text: impl FnOnce() -> String) {
        let id = self.running.0;
        let (clock, thread) = (self.clock_ns, &self.threads[id]);
        self.trace.note(what ^ (id as u64) << 56, || {
            let micros = clock as f64 / 1000.0;
            format!("{micros:14.3} {:>4} {:<14} {}", thread.pid, thread.name, text())
        });
    }

    pub(super) fn add_thread(&mut self, pid: Pid, name: String, fiber: Fiber) -> ThreadId {
        let id = ThreadId(self.threads.len());
        let priority = LAST + self.turns.u64(..LAST);
        self.threads.push(Thread {
            pid,
            name,
            state: State::Ready,
            fiber: Some(fiber),
            priority,
            timed_out: false,
            steps: 0,
            loses_core: None,
            seen: 0,
            why: "",
        });
        id
    }

    /// The running thread has reached a point. `true`: it is somebody else's turn.
    #[inline]
    pub(super) fn reach(&mut self, is_call: bool, ns: u64) -> bool {
        self.steps += 1;
        let thread = &mut self.threads[self.running.0];
        thread.steps += 1;
        let (steps, loses_core) = (thread.steps, &mut thread.loses_core);
        let core_lost = loses_core.take_if(|(at, _)| *at <= steps);
        self.clock_ns += ns;
        if is_call {
            self.calls += 1;
        }
        let is_overdue = self.steps > MAX_STEPS || self.clock_ns > MAX_NS;
        if self.failure.is_some() || is_overdue || self.faults.are_due(self.steps, self.calls) {
            return self.reach_fault(is_overdue);
        }
        if let Some((_, ns)) = core_lost {
            self.wait(Wait::Time, Some(self.clock_ns + ns), "its core");
            return true;
        }
        match &self.plan.order {
            Order::Random { calls, words } => self.turns.u32(..if is_call { *calls } else { *words }) == 0,
            Order::Priority { changes } => {
                let is_change = changes.contains(&self.steps);
                if is_change {
                    self.yield_priority();
                }
                is_change || is_call
            }
        }
    }

    /// The run goes wrong here, or has gone wrong. `true`: the running thread does not go on.
    #[cold]
    fn reach_fault(&mut self, is_overdue: bool) -> bool {
        if is_overdue {
            let (steps, s) = (self.steps, self.clock_ns / 1_000_000_000);
            self.fail(format!("{steps} steps, {s} s, and still somebody runs:{}", self.stuck_threads()));
        }
        self.failure.is_some() || self.happen_all()
    }

    /// Makes a call of the running process, and takes note of it.
    pub(super) fn call<T>(
        &mut self,
        name: u64,
        text: impl FnOnce() -> String,
        errors: &[Errno],
        make: impl FnOnce(&mut Kernel, Pid) -> Outcome<T>,
        show: impl FnOnce(&T) -> String,
    ) -> Outcome<T> {
        let pid = self.pid();
        let injected = self.injected(errors);
        let outcome = match injected {
            Some(errno) => Err(errno),
            None => make(&mut self.kernel, pid),
        };
        let code = outcome.as_ref().map_or_else(|errno| errno.raw_os_error() as u64, |_| 0);
        self.note(name ^ code << 40, || {
            let answer = match &outcome {
                Ok(value) => show(value),
                Err(errno) if injected.is_some() => format!("{errno:?} (INJECTED)"),
                Err(errno) => format!("{errno:?}"),
            };
            format!("{} = {answer}", text())
        });
        if let Err(Errno::BADF) = outcome {
            let text = format!("process {pid} uses a descriptor that is not open");
            self.kernel.violation(text);
        }
        for violation in self.kernel.take_violations() {
            self.fail(violation);
        }
        outcome
    }

    /// Whether the running thread was woken by the clock.
    pub(super) fn has_timed_out(&mut self) -> bool {
        let running = self.running;
        std::mem::take(&mut self.thread(running).timed_out)
    }

    /// The running thread waits from now on.
    pub(super) fn wait(&mut self, on: Wait, until: Option<u64>, why: &'static str) {
        let (running, seen) = (self.running, self.kernel.changes().wrapping_sub(1));
        let thread = self.thread(running);
        (thread.state, thread.why, thread.seen) = (State::Waits { on, until }, why, seen);
        self.note(number("wait"), || format!("waits: {why}"));
    }

    /// Wakes one thread that waits for a key, or all.
    pub(super) fn notify(&mut self, key: u64, all: bool) {
        let waits = |thread: &Thread| matches!(thread.state, State::Waits { on: Wait::Key(on), .. } if on == key);
        let mut waiting: Vec<usize> = (0..self.threads.len()).filter(|&at| waits(&self.threads[at])).collect();
        if !all && waiting.len() > 1 {
            waiting = vec![waiting[self.turns.usize(..waiting.len())]];
        }
        for at in waiting {
            self.threads[at].state = State::Ready;
            self.threads[at].timed_out = false;
        }
    }
}
