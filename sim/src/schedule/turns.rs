//! Whose turn it is: which thread goes on next, and how far the clock moves when none can.

use super::plan::Order;
use super::thread::{State, Thread, ThreadId, Wait};
use super::trace::number;
use super::world::World;
use crate::kernel::{Pid, Stage};

/// What a thread runs at that others are to overtake.
pub(super) const LAST: u64 = 1 << 32;

/// What is to run next.
pub(super) enum Next {
    Thread(ThreadId),
    /// The kernel closes one of a dead process's descriptors.
    Death(Pid),
    Nothing,
}

impl World {
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

    /// The running thread gets on only when others do.
    pub(super) fn yield_priority(&mut self) {
        let lowest = self.threads.iter().map(|thread| thread.priority).min().unwrap_or(LAST);
        let running = self.running;
        self.thread(running).priority = lowest.saturating_sub(1);
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
