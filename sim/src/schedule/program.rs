//! What a running process asks for: another process, a fork, an end.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;

use super::fiber::{self, Fiber};
use super::guarded;
use super::here::{add_thread, clock_ns, notify, sleep_until, wait};
use super::process::{End, Risks, Static};
use super::trace::number;
use super::world::world;
use crate::kernel::{Pid, User};

/// A program: what one process runs.
pub struct Program {
    pub name: String,
    pub user: User,
    pub groups: Vec<u32>,
    pub risks: Risks,
    pub main: Box<dyn FnOnce()>,
}

impl Program {
    /// A program of an ordinary user, which may be killed at any step.
    pub fn new(name: &str, main: impl FnOnce() + 'static) -> Self {
        let user = User { uid: 1000, gid: 1000 };
        let risks = Risks { death: true, errors: true };
        Self { name: name.to_owned(), user, groups: Vec::new(), risks, main: Box::new(main) }
    }

    /// The same of another user.
    pub fn by(self, user: User, groups: &[u32]) -> Self {
        Self { user, groups: groups.to_vec(), ..self }
    }

    /// The same, but it is not killed.
    pub fn lives(self) -> Self {
        Self { risks: Risks { death: false, ..self.risks }, ..self }
    }

    /// The same, but it is not killed, and none of its calls fails for no reason.
    pub fn spared(self) -> Self {
        Self { risks: Risks { death: false, errors: false }, ..self }
    }
}

/// Starts a process, which ends with its main thread.
pub fn start(program: Program) -> Pid {
    let Program { name, user, groups, risks, main } = program;
    world(|world| {
        let pid = world.start_process(&name, user, &groups, risks);
        add_thread(world, pid, "main", move || {
            main();
            world_exit();
        });
        pid
    })
}

fn world_exit() {
    world(|world| {
        let pid = world.pid();
        world.note(number("exit"), || "exits".into());
        world.end_process(pid, End::Exited);
    });
}

/// Forks this process. The child runs `first`, which may borrow what this thread has, and then `then`. This thread goes on
/// when `first` has returned, or the child is dead.
pub fn fork(first: impl FnOnce(), then: impl FnOnce() + 'static) -> Pid {
    let calls = world(|world| world.process().fork_calls.clone());
    calls.iter().rev().for_each(|[before, ..]| before());
    let inherited = world(|world| {
        let statics = world.process().statics.iter();
        let mut statics: Vec<_> = statics.map(|(&key, &of)| (key, of)).collect();
        statics.sort_unstable_by_key(|&(key, _)| key);
        statics
    });
    let inherit = |(key, of): (usize, Static)| {
        let value: &'static dyn Any = Box::leak((of.inherit)(of.value));
        (key, Static { value, ..of })
    };
    let statics = inherited.into_iter().map(inherit).collect();
    let (child, tried) = world(|world| {
        let child = world.fork(statics);
        let (tried, in_child) = (Rc::new(Cell::new(false)), calls.clone());
        let done = tried.clone();
        let run = move || {
            guarded(move || {
                in_child.iter().for_each(|[.., in_child]| in_child());
                first();
                done.set(true);
                notify(fork_key(child), true);
                then();
                world_exit();
            });
        };
        // SAFETY: this thread waits below until `first` has returned, or the child will never run again. Where this thread
        // is killed, its stack stays as it is until the run has ended, and the child's fiber is dropped before it.
        let fiber = unsafe { Fiber::borrowing(run) };
        world.add_thread(child, "main".to_owned(), fiber);
        (child, tried)
    });
    calls.iter().for_each(|[_, after, _]| after());
    while !tried.get() && world(|world| world.processes[&child].end.is_none()) {
        wait(fork_key(child), Some(clock_ns() + 1_000_000), "a child that tries what it has inherited");
    }
    child
}

fn fork_key(child: Pid) -> u64 {
    number("fork") ^ u64::from(child)
}

/// Ends this process at once, as `_exit` does.
pub fn exit() -> ! {
    world_exit();
    fiber::suspend();
    unreachable!("a thread of a process that has ended does not run")
}

/// How a process has ended; `None`: it has not.
pub fn end_of(pid: Pid) -> Option<End> {
    world(|world| world.processes[&pid].end)
}

/// Whether other processes are there, or something of them.
pub fn others_are_there() -> bool {
    world(|world| {
        let pid = world.pid();
        world.processes.keys().any(|&other| other != pid && world.kernel.stage(other).is_some())
    })
}

/// Kills another process, or this one.
pub fn kill(pid: Pid) {
    let is_own = world(|world| {
        world.note(number("kill"), || format!("kills process {pid}"));
        world.end_process(pid, End::Killed);
        world.pid() == pid
    });
    if is_own {
        fiber::suspend();
    }
}

/// Waits until a process has ended and nothing of it is left.
pub fn wait_for_end(pid: Pid) {
    while world(|world| world.kernel.stage(pid).is_some()) {
        sleep_until(clock_ns() + 1_000_000);
    }
}

/// What the program has once per process under this key: made when it is first asked for, and never given back.
pub fn process_static(
    key: usize,
    make: &dyn Fn() -> Box<dyn Any>,
    inherit: fn(&dyn Any) -> Box<dyn Any>,
) -> &'static dyn Any {
    let found = world(|world| world.processes[&world.pid()].statics.get(&key).map(|found| found.value));
    found.unwrap_or_else(|| {
        let value: &'static dyn Any = Box::leak(make());
        world(|world| world.process().statics.entry(key).or_insert(Static { value, inherit }).value)
    })
}

/// Has functions called around each fork of this process.
pub fn at_fork(calls: [extern "C" fn(); 3]) {
    world(|world| world.process().fork_calls.push(calls));
}
