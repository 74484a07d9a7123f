//! What a running thread asks for: a call, a word, a lock, time, another thread.
//!
//! Each of these functions runs on a simulated thread, and may switch to another one before it returns.

use std::cell::RefCell;

use fastrand::Rng;

use super::fiber::{self, Fiber};
use super::guarded;
use super::thread::{State, ThreadId, Wait};
use super::trace::number;
use super::world::{World, is_entered, world};
use crate::kernel::{Errno, Kernel, Outcome, Pid};

/// What a call costs, in simulated ns.
const CALL_NS: u64 = 500;
/// What a word costs.
const WORD_NS: u64 = 5;
/// What a look at the clock costs.
const LOOK_NS: u64 = 40;
/// What a pause in a loop costs.
const PAUSE_NS: u64 = 1000;
/// What taking a lock costs.
const LOCK_NS: u64 = 20;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has panics on simulated threads say nothing by themselves: the run's failure says it.
pub fn catch_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !is_entered() {
            return usual(info);
        }
        let trace = match std::env::var_os("SIM_BACKTRACE") {
            Some(_) => format!("\n{}", std::backtrace::Backtrace::force_capture()),
            None => String::new(),
        };
        let first = LAST_PANIC.replace(format!("{info}{trace}"));
        if !first.is_empty() {
            println!("{first}\n{info}{trace}"); // a second one ends the worker: now or never
        }
    }));
}

/// This thread has panicked, and the run has failed with it.
pub(super) fn fail_with_panic() {
    let text = LAST_PANIC.take();
    world(|world| {
        let running = world.running;
        let thread = world.thread(running);
        let what = format!("a panic in process {}, thread {:?}: {text}", thread.pid, thread.name);
        world.fail(what);
    });
}

/// Whether the caller runs on a simulated thread.
pub fn is_simulated() -> bool {
    is_entered()
}

/// It may be somebody else's turn. While a panic unwinds it is not: what is dropped then would be seen half done.
#[inline]
fn turn(is_call: bool, ns: u64) {
    if world(|world| world.reach(is_call, ns)) && !std::thread::panicking() {
        fiber::suspend();
    }
}

/// A step at which the program may be killed, with a name.
pub fn fault_point(step: &str) {
    world(|world| world.note(number(step), || format!("reaches {step}")));
    turn(true, 0);
}

/// A word that somebody else may change, or wait for.
#[inline]
pub fn word<R>(with: impl FnOnce(&mut Kernel, Pid) -> R) -> R {
    turn(false, WORD_NS);
    plain_word(with)
}

/// A word that nobody else has to do with at this moment.
#[inline]
pub fn plain_word<R>(with: impl FnOnce(&mut Kernel, Pid) -> R) -> R {
    world(|world| {
        let pid = world.pid();
        let value = with(&mut world.kernel, pid);
        for violation in world.kernel.take_violations() {
            world.fail(violation);
        }
        value
    })
}

/// A call: `text` says which, `errors` how it may fail beside what the kernel says.
pub fn call<T>(
    name: &'static str,
    text: impl FnOnce() -> String,
    errors: &[Errno],
    make: impl FnOnce(&mut Kernel, Pid) -> Outcome<T>,
    show: impl FnOnce(&T) -> String,
) -> Outcome<T> {
    turn(true, CALL_NS);
    let outcome = world(|world| world.call(number(name), text, errors, make, show));
    if world(|world| world.failure.is_some()) && !std::thread::panicking() {
        fiber::suspend();
    }
    outcome
}

/// Something of the kernel that is no call of the program's.
pub fn kernel<R>(with: impl FnOnce(&mut Kernel, Pid) -> R) -> R {
    world(|world| {
        let pid = world.pid();
        with(&mut world.kernel, pid)
    })
}

/// Simulated time, in ns.
pub fn now_ns() -> u64 {
    turn(false, LOOK_NS);
    world(|world| world.clock_ns)
}

/// The same for somebody who watches: no time passes, and nobody else runs.
pub fn clock_ns() -> u64 {
    world(|world| world.clock_ns)
}

/// How many steps all threads together have made.
pub fn steps() -> u64 {
    world(|world| world.steps)
}

/// How many steps the running thread has made.
pub fn own_steps() -> u64 {
    world(|world| world.threads[world.running.0].steps)
}

/// Has this thread lose its core for a while, at one of its next `within` steps: the others go on.
pub fn lose_core(within: u64, ns: u64) {
    let after = random(|random| random.u64(1..=within));
    world(|world| {
        let running = world.running;
        let thread = world.thread(running);
        thread.loses_core = Some((thread.steps + after, ns));
    });
}

/// Waits until somebody notifies this key, or until this time; `false`: the time has come.
pub fn wait(key: u64, until: Option<u64>, why: &'static str) -> bool {
    block(Wait::Key(key), until, why)
}

/// Waits until an epoll set of this process has something, or until this time; `false`: the time has come.
pub fn wait_for_poll(poll: i32, until: Option<u64>) -> bool {
    block(Wait::Poll(poll), until, "an epoll set")
}

/// Sleeps until this time.
pub fn sleep_until(until: u64) {
    block(Wait::Time, Some(until), "time");
}

fn block(on: Wait, until: Option<u64>, why: &'static str) -> bool {
    if std::thread::panicking() {
        fail_with_panic(); // it is not to wait for ever, half unwound
    }
    world(|world| world.wait(on, until, why));
    fiber::suspend();
    world(|world| !world.has_timed_out())
}

/// Wakes one thread that waits for a key, or all of them.
pub fn notify(key: u64, all: bool) {
    world(|world| world.notify(key, all));
}

/// Says that this thread gets on only when others do.
pub fn pause() {
    world(World::yield_priority);
    turn(true, PAUSE_NS);
}

/// A point at which somebody else may run.
pub fn point() {
    turn(false, 20);
}

/// The running process.
pub fn pid() -> Pid {
    world(|world| world.pid())
}

/// The running thread.
pub fn thread() -> ThreadId {
    world(|world| world.running)
}

/// Random numbers for the program: keys, names, whatever it draws.
pub fn random<R>(with: impl FnOnce(&mut Rng) -> R) -> R {
    world(|world| with(&mut world.program))
}

/// Starts another thread of this process.
pub fn spawn(name: &str, run: impl FnOnce() + 'static) -> ThreadId {
    let id = world(|world| {
        let pid = world.pid();
        add_thread(world, pid, name, run)
    });
    turn(true, CALL_NS);
    id
}

pub(super) fn add_thread(world: &mut World, pid: Pid, name: &str, run: impl FnOnce() + 'static) -> ThreadId {
    let id = ThreadId(world.threads.len());
    let fiber = Fiber::new(move || {
        guarded(run);
        notify(thread_key(id), true);
    });
    world.add_thread(pid, name.to_owned(), fiber)
}

fn thread_key(id: ThreadId) -> u64 {
    number("thread") ^ id.0 as u64
}

/// Waits until a thread of this process has ended.
pub fn join(id: ThreadId) {
    loop {
        let ended = world(|world| world.thread(id).state == State::Ended || id == world.running);
        if ended {
            return;
        }
        wait(thread_key(id), None, "the end of a thread");
    }
}

/// A lock is about to be taken. In a forked child it may be one that nobody will ever release.
pub fn before_lock(lock: usize) {
    turn(true, LOCK_NS);
    if world(|world| world.process().stuck.contains(&lock)) {
        block(Wait::Never, None, "a lock that another thread held when this process was forked");
    }
}

/// This thread holds a lock.
pub fn took_lock(lock: usize) {
    world(|world| {
        let running = world.running;
        world.process().held.insert(lock, running);
    });
}

/// This thread holds a lock no longer.
pub fn released_lock(lock: usize) {
    world(|world| {
        world.process().held.remove(&lock);
        world.notify(lock as u64, true);
    });
}

/// The run has failed.
pub fn fail(what: String) -> ! {
    world(|world| world.fail(what));
    fiber::suspend();
    unreachable!("nobody runs in a run that has failed")
}

/// Takes note of something for the reader of the trace.
pub fn say(text: impl FnOnce() -> String) {
    world(|world| world.note(number("say"), text));
}
