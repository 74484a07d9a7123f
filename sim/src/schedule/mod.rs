//! Which thread of which process takes the next step, and what goes wrong there.

mod faults; //  what goes wrong, and when
mod fiber; //   threads that switch only where they say so
mod here; //    what a running thread asks for: calls, words, locks, time
mod plan; //    what a seed decides before a run begins
mod process; // a simulated process
mod program; // what a running thread asks for: processes, forks, ends
mod thread; //  a simulated thread
mod trace; //   what has happened, as a number and as text
mod turns; //   whose turn it is
mod world; //   the state of a run

pub use here::*;
pub use plan::{Allowed, Plan};
pub use process::{End, Risks};
pub use program::*;
pub use thread::ThreadId;
pub use world::Failure;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::kernel::{Kernel, Stage};
use turns::Next;
use world::{World, world};

/// How a run went.
#[derive(Debug)]
pub struct Report {
    pub failure: Option<Failure>,
    /// Two runs that differ anywhere have different ones.
    pub digest: u64,
    pub steps: u64,
    /// Simulated time.
    pub ns: u64,
    pub errors_injected: u64,
    pub kills: usize,
    /// The last lines of what has happened, if asked for.
    pub lines: Vec<String>,
}

/// Runs what `setup` starts, until every process has ended, or something is wrong. `judge` then sees what is left.
pub fn run(
    plan: Plan,
    lines_kept: usize,
    setup: impl FnOnce(),
    judge: impl FnOnce(&mut Kernel) -> Result<(), String>,
) -> Report {
    world::enter(World::new(plan, lines_kept));
    setup();
    while step() {}
    let mut world = world::leave();
    if world.failure.is_none()
        && let Err(what) = judge(&mut world.kernel)
    {
        world.fail(what);
    }
    // A forked child may borrow from its parent's stack: the younger ones go first.
    let mut threads = std::mem::take(&mut world.threads);
    while let Some(thread) = threads.pop() {
        drop(thread);
    }
    let kills = world.processes.values().filter(|process| process.end == Some(End::Killed)).count();
    Report {
        failure: world.failure.take(),
        digest: world.trace.digest(),
        steps: world.steps,
        ns: world.clock_ns,
        errors_injected: world.faults.errors_injected,
        kills,
        lines: world.trace.into_lines(),
    }
}

/// One turn of one thread; `false`: the run is over.
fn step() -> bool {
    let next = world(|world| if world.failure.is_some() { None } else { Some(world.pick()) });
    match next {
        None => false,
        Some(Next::Death(pid)) => {
            world(|world| world.step_of_death(pid));
            true
        }
        Some(Next::Thread(id)) => {
            let fiber = world(|world| {
                world.running = id;
                world.thread(id).fiber.take()
            });
            let mut fiber = fiber.expect("a thread that does not run has its fiber");
            let ended = fiber.resume();
            world(|world| {
                let thread = world.thread(id);
                thread.fiber = Some(fiber);
                if ended {
                    thread.state = thread::State::Ended;
                }
            });
            true
        }
        Some(Next::Nothing) => {
            world(|world| {
                let alive = world.processes.keys().filter(|&&pid| world.kernel.stage(pid).is_some()).count();
                if alive > 0 {
                    let who = world.stuck_threads();
                    world.fail(format!("nobody can go on, and {alive} processes are there:{who}"));
                }
            });
            false
        }
    }
}

/// Runs a thread's function; a panic in it is a failure of the run.
fn guarded(run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        here::fail_with_panic();
    }
}

/// Whether a process still has something open, or runs.
pub fn is_there(pid: crate::kernel::Pid) -> bool {
    world(|world| world.kernel.stage(pid).is_some_and(|stage| stage != Stage::Dies))
}
