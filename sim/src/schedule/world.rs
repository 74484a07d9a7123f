//! The state of a run: the kernel, the clock, and the threads of all processes.
//!
//! One thread runs at a time. It stops running where it reaches a *point* (a call, a word that others change, a lock) and
//! the order of the run says so, or where it waits. Nothing else changes anything, so a seed decides everything.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use fastrand::Rng;

use super::fiber::Fiber;
use super::plan::{self, Fault, Moment, Order, Plan};
use super::trace::{Trace, number};
use crate::kernel::{Errno, Kernel, Outcome, Pid, Stage, User};

/// Names a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadId(pub(super) usize);

impl ThreadId {
    pub fn number(self) -> u64 {
        self.0 as u64
    }

    pub fn from_number(number: u64) -> Self {
        Self(number as usize)
    }
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Somebody notifies this key.
    Key(u64),
    /// This epoll set of its process has something.
    Poll(i32),
    /// Time.
    Time,
    /// Nobody: a lock whose holder a forked child does not have.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Waits { on: Wait, until: Option<u64> },
    Ended,
}

pub(super) struct Thread {
    pub(super) pid: Pid,
    pub(super) name: String,
    pub(super) state: State,
    /// Not there while it runs.
    pub(super) fiber: Option<Fiber>,
    priority: u64,
    timed_out: bool,
    /// How many steps it has made.
    pub(super) steps: u64,
    /// The kernel's changes when it last found nothing.
    seen: u64,
    /// For what, in words.
    pub(super) why: &'static str,
}

/// What may happen to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Risks {
    /// It may be killed at any step.
    pub death: bool,
    /// Its calls may fail for no reason of its own.
    pub errors: bool,
}

/// What a process has once.
#[derive(Clone, Copy)]
pub(super) struct Static {
    pub(super) value: &'static dyn Any,
    pub(super) inherit: fn(&dyn Any) -> Box<dyn Any>,
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exited,
    Killed,
}

pub(super) struct Process {
    pub(super) name: String,
    pub(super) risks: Risks,
    pub(super) end: Option<End>,
    /// When it goes on, if it is stopped.
    continues_at: Option<u64>,
    /// What the program has once per process, by address.
    pub(super) statics: HashMap<usize, Static>,
    /// Locks that are held, and by whom.
    pub(super) held: HashMap<usize, ThreadId>,
    /// Locks that no thread of this forked child will ever release.
    pub(super) stuck: BTreeSet<usize>,
    /// What is called around forks.
    pub(super) fork_calls: Vec<[extern "C" fn(); 3]>,
}

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
    calls: u64,
    pub(super) threads: Vec<Thread>,
    pub(super) running: ThreadId,
    pub(super) processes: BTreeMap<Pid, Process>,
    next_pid: Pid,
    plan: Plan,
    /// The faults that are still to come: by step and by call, the next one last.
    by_step: Vec<(u64, Fault)>,
    by_call: Vec<(u64, Fault)>,
    errors_left: u32,
    turns: Rng,
    faults: Rng,
    pub(super) program: Rng,
    pub(super) trace: Trace,
    pub(super) failure: Option<Failure>,
    pub(super) errors_injected: u64,
}

/// A run that takes more steps than this gets nowhere.
const MAX_STEPS: u64 = 8_000_000;
/// Nor does one that takes longer than this.
const MAX_NS: u64 = 24 * 3600 * 1_000_000_000;
/// What a thread runs at that others are to overtake.
const LAST: u64 = 1 << 32;

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

/// What is to run next.
pub(super) enum Next {
    Thread(ThreadId),
    /// The kernel closes one of a dead process's descriptors.
    Death(Pid),
    Nothing,
}

impl World {
    pub(super) fn new(plan: Plan, lines_kept: usize) -> Self {
        let seed = plan.seed;
        let pick = |by: fn(Moment) -> Option<u64>| {
            let mut faults: Vec<_> = plan.faults.iter().filter_map(|&(at, fault)| Some((by(at)?, fault))).collect();
            faults.sort_by_key(|&(at, _)| std::cmp::Reverse(at));
            faults
        };
        let by_step = pick(|at| if let Moment::Step(at) = at { Some(at) } else { None });
        let by_call = pick(|at| if let Moment::Call(at) = at { Some(at) } else { None });
        Self {
            kernel: Kernel::new(plan.machine.clone()),
            clock_ns: 1_000_000_000,
            steps: 0,
            calls: 0,
            threads: Vec::new(),
            running: ThreadId(0),
            processes: BTreeMap::new(),
            next_pid: 100,
            by_step,
            by_call,
            errors_left: 0,
            turns: Rng::with_seed(seed ^ 0x7475_726e),
            faults: Rng::with_seed(seed ^ 0x6661_756c),
            program: Rng::with_seed(seed ^ 0x7072_6f67),
            trace: Trace::new(lines_kept),
            failure: None,
            errors_injected: 0,
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

    pub(super) fn start_process(&mut self, name: &str, user: User, groups: &[u32], risks: Risks) -> Pid {
        let pid = self.next_pid;
        self.next_pid += 1;
        self.kernel.start(pid, user, groups);
        self.add_process(pid, name, risks);
        pid
    }

    /// Makes a child of the running process, with its copies of its parent's statics.
    pub(super) fn fork(&mut self, statics: HashMap<usize, Static>) -> Pid {
        let (parent, child, running) = (self.pid(), self.next_pid, self.running);
        self.next_pid += 1;
        self.kernel.fork(parent, child);
        let of = &self.processes[&parent];
        let (name, risks, fork_calls) = (format!("child of {}", of.name), of.risks, of.fork_calls.clone());
        // A lock of another thread stays locked in the child, where that thread is not.
        let stuck = of.held.iter().filter(|&(_, &by)| by != running).map(|(&lock, _)| lock).collect();
        self.add_process(child, &name, risks);
        let process = self.processes.get_mut(&child).expect("it was added just now");
        (process.statics, process.fork_calls, process.stuck) = (statics, fork_calls, stuck);
        self.note(number("fork"), || format!("forks process {child}"));
        child
    }

    pub(super) fn add_process(&mut self, pid: Pid, name: &str, risks: Risks) {
        let process = Process {
            name: name.to_owned(),
            risks,
            end: None,
            continues_at: None,
            statics: HashMap::new(),
            held: HashMap::new(),
            stuck: BTreeSet::new(),
            fork_calls: Vec::new(),
        };
        self.processes.insert(pid, process);
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
            seen: 0,
            why: "",
        });
        id
    }

    /// Ends a process: none of its threads runs any more, and the kernel takes its things back one by one.
    pub(super) fn end_process(&mut self, pid: Pid, end: End) {
        let process = self.processes.get_mut(&pid).expect("a process that is there");
        if process.end.replace(end).is_some() {
            return;
        }
        let name = process.name.clone();
        self.trace.note(number("end") ^ u64::from(pid), || format!("process {pid} ({name}): {end:?}"));
        for thread in self.threads.iter_mut().filter(|thread| thread.pid == pid) {
            thread.state = State::Ended;
        }
        self.kernel.begin_exit(pid);
    }

    fn runs(&self, pid: Pid) -> bool {
        self.kernel.stage(pid) == Some(Stage::Runs)
    }

    /// Whether a thread could go on now; wakes it if so.
    fn can_go_on(&mut self, at: usize) -> bool {
        let Thread { pid, state, seen, .. } = self.threads[at];
        let State::Waits { on, until } = state else { return state == State::Ready && self.runs(pid) };
        if !self.runs(pid) {
            return false;
        }
        let is_ready = match on {
            Wait::Poll(poll) if seen != self.kernel.changes() => {
                self.threads[at].seen = self.kernel.changes();
                self.kernel.is_ready(pid, poll)
            }
            _ => false,
        };
        let is_over = until.is_some_and(|until| until <= self.clock_ns);
        if is_ready || is_over {
            self.threads[at].state = State::Ready;
            self.threads[at].timed_out = !is_ready;
        }
        is_ready || is_over
    }

    /// Who goes on next.
    pub(super) fn pick(&mut self) -> Next {
        loop {
            self.wake_stopped();
            let mut able: Vec<ThreadId> = Vec::with_capacity(16);
            for at in 0..self.threads.len() {
                if self.threads[at].state != State::Ended && self.can_go_on(at) {
                    able.push(ThreadId(at));
                }
            }
            let is_dying = |pid: &Pid| self.kernel.stage(*pid) == Some(Stage::Dies);
            let dying: Vec<Pid> = self.processes.keys().copied().filter(is_dying).collect();
            if !able.is_empty() || !dying.is_empty() {
                return self.choose(&able, &dying);
            }
            if !self.pass_time() {
                return Next::Nothing;
            }
        }
    }

    fn choose(&mut self, able: &[ThreadId], dying: &[Pid]) -> Next {
        let at = match &self.plan.order {
            Order::Priority { .. } if !able.is_empty() && self.turns.u8(..8) > 0 => {
                let highest = able.iter().enumerate().max_by_key(|(_, id)| self.threads[id.0].priority);
                highest.expect("there is one").0
            }
            _ => self.turns.usize(..able.len() + dying.len()),
        };
        match able.get(at) {
            Some(&id) => Next::Thread(id),
            None if dying.is_empty() => Next::Thread(able[0]),
            None => Next::Death(dying[(at - able.len()) % dying.len()]),
        }
    }

    /// Nobody can go on: time passes until somebody can. `false`: never.
    fn pass_time(&mut self) -> bool {
        let deadline = |thread: &Thread| match thread.state {
            State::Waits { until: Some(until), .. } => Some((thread.pid, until)),
            _ => None,
        };
        let deadlines: Vec<(Pid, u64)> = self.threads.iter().filter_map(deadline).collect();
        let deadlines = deadlines.into_iter().filter(|&(pid, _)| self.runs(pid)).map(|(_, until)| until);
        let stopped = self.processes.values().filter_map(|process| process.continues_at);
        match deadlines.chain(stopped).min() {
            Some(next) => {
                self.clock_ns = self.clock_ns.max(next);
                true
            }
            None => false,
        }
    }

    fn wake_stopped(&mut self) {
        for (&pid, process) in &mut self.processes {
            if process.continues_at.is_some_and(|at| at <= self.clock_ns) {
                process.continues_at = None;
                if process.end.is_none() {
                    self.trace.note(number("continued"), || format!("process {pid} goes on"));
                    self.kernel.set_stopped(pid, false);
                }
            }
        }
    }

    /// Closes one more descriptor of a dead process: sockets first, or whichever.
    pub(super) fn step_of_death(&mut self, pid: Pid) {
        let open = self.kernel.open_descriptors(pid);
        let sockets: Vec<i32> = open.iter().copied().filter(|&fd| self.kernel.is_socket(pid, fd)).collect();
        let from = if !sockets.is_empty() && !self.plan.seed.is_multiple_of(4) { &sockets } else { &open };
        let fd = *self.turns.choice(from).expect("a process without descriptors is gone");
        self.trace.note(number("death") ^ fd as u64, || format!("process {pid}: the kernel closes {fd}"));
        self.kernel.exit_step(pid, fd);
        self.clock_ns += 1000;
    }

    /// The running thread has reached a point. `true`: it is somebody else's turn.
    #[inline]
    pub(super) fn reach(&mut self, is_call: bool, ns: u64) -> bool {
        self.steps += 1;
        self.threads[self.running.0].steps += 1;
        self.clock_ns += ns;
        if is_call {
            self.calls += 1;
        }
        let is_fault = self.by_step.last().is_some_and(|&(at, _)| at <= self.steps)
            || self.by_call.last().is_some_and(|&(at, _)| at <= self.calls);
        if is_fault || self.failure.is_some() || self.steps > MAX_STEPS || self.clock_ns > MAX_NS {
            return self.reach_fault();
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

    /// The running thread gets on only when others do.
    pub(super) fn yield_priority(&mut self) {
        let lowest = self.threads.iter().map(|thread| thread.priority).min().unwrap_or(LAST);
        let running = self.running;
        self.thread(running).priority = lowest.saturating_sub(1);
    }

    #[cold]
    fn reach_fault(&mut self) -> bool {
        if self.steps > MAX_STEPS || self.clock_ns > MAX_NS {
            let (steps, s) = (self.steps, self.clock_ns / 1_000_000_000);
            self.fail(format!("{steps} steps, {s} s, and still somebody runs:{}", self.stuck_threads()));
        }
        if self.failure.is_some() {
            return true;
        }
        let mut others = false;
        while let Some(&(at, fault)) = self.by_step.last()
            && at <= self.steps
        {
            self.by_step.pop();
            others |= self.happen(fault);
        }
        while let Some(&(at, fault)) = self.by_call.last()
            && at <= self.calls
        {
            self.by_call.pop();
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
                self.errors_left = more + 1;
                false
            }
        }
    }

    /// Whether a call that can fail in these ways is to fail now, and how.
    pub(super) fn injected(&mut self, errors: &[Errno]) -> Option<Errno> {
        if self.errors_left == 0 || errors.is_empty() || !self.processes[&self.pid()].risks.errors {
            return None;
        }
        // A wait that a signal ends early teaches little, and there are many of them.
        if errors == [Errno::INTR] && self.faults.u8(..8) > 0 {
            return None;
        }
        self.errors_left -= 1;
        self.errors_injected += 1;
        plan::error_of(&mut self.faults, errors)
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

    /// Who waits for what, where nobody can go on.
    pub(super) fn stuck_threads(&self) -> String {
        let waits = self.threads.iter().filter(|thread| thread.state != State::Ended);
        let line = |thread: &Thread| {
            let process = &self.processes[&thread.pid].name;
            format!("\n  process {} ({process}), thread {:?}: {}", thread.pid, thread.name, thread.why)
        };
        waits.map(line).collect()
    }
}
