//! A simulated process: how it begins, forks and ends.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};

use super::thread::{State, ThreadId};
use super::trace::number;
use super::world::World;
use crate::kernel::{Pid, Stage, User};

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
    pub(super) continues_at: Option<u64>,
    /// What the program has once per process, by address.
    pub(super) statics: HashMap<usize, Static>,
    /// Locks that are held, and by whom.
    pub(super) held: HashMap<usize, ThreadId>,
    /// Locks that no thread of this forked child will ever release.
    pub(super) stuck: BTreeSet<usize>,
    /// What is called around forks.
    pub(super) fork_calls: Vec<[extern "C" fn(); 3]>,
}

impl World {
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

    fn add_process(&mut self, pid: Pid, name: &str, risks: Risks) {
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

    /// Whether it is neither stopped nor dead.
    pub(super) fn runs(&self, pid: Pid) -> bool {
        self.kernel.stage(pid) == Some(Stage::Runs)
    }
}
