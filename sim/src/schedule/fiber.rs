//! Threads of simulated processes: each has a stack of its own, all run on one real thread, and they switch only where
//! they say so.
//!
//! A fiber that is dropped before it has ended is simply forgotten, as the kernel forgets the threads of a process that is
//! killed: nothing on its stack is dropped. What that leaks is given back with the worker process that ran it.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

const STACK_BYTES: usize = 512 * 1024;

thread_local! {
    /// What the running fiber suspends itself with.
    static RUNNING: Cell<Option<NonNull<Yielder<(), ()>>>> = const { Cell::new(None) };
    /// Stacks that no fiber uses.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// A thread of a simulated process.
pub(super) struct Fiber(Option<Coroutine<(), (), (), DefaultStack>>);

impl Fiber {
    /// A fiber that will run this.
    pub(super) fn new(run: impl FnOnce() + 'static) -> Self {
        let stack = STACKS.with_borrow_mut(Vec::pop);
        let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("memory for a stack"));
        let run = ManuallyDrop::new(run); // one that never begins is forgotten, too
        Self(Some(Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
            RUNNING.set(Some(NonNull::from(yielder)));
            ManuallyDrop::into_inner(run)();
        })))
    }

    /// The same where the function borrows from its caller.
    ///
    /// # Safety
    ///
    /// What it borrows is there until the function has returned or the fiber is dropped.
    pub(super) unsafe fn borrowing<'a>(run: impl FnOnce() + 'a) -> Self {
        let run: Box<dyn FnOnce() + 'a> = Box::new(run);
        // SAFETY: only the lifetime changes, and what it promises holds by this function's contract.
        let run: Box<dyn FnOnce() + 'static> = unsafe { std::mem::transmute(run) };
        Self::new(run)
    }

    /// Runs it until it suspends itself; `true`: it has ended.
    pub(super) fn resume(&mut self) -> bool {
        let ended = matches!(self.0.as_mut().expect("it was not dropped").resume(()), CoroutineResult::Return(()));
        RUNNING.set(None);
        ended
    }
}

/// Gives the real thread back to the caller that resumed this fiber; returns when it is resumed again.
pub(super) fn suspend() {
    let yielder = RUNNING.get().expect("called on a fiber");
    // SAFETY: `RUNNING` names the yielder of the fiber that is running, which is this one: it is set when a fiber begins and
    // when it goes on, and unset whenever one stops running. The yielder lives until the fiber's function has returned.
    unsafe { yielder.as_ref() }.suspend(());
    RUNNING.set(Some(yielder));
}

impl Drop for Fiber {
    fn drop(&mut self) {
        let mut coroutine = self.0.take().expect("it is dropped once");
        if coroutine.started() && !coroutine.done() {
            // SAFETY: what is on the stack is never touched again. Nothing outside refers to it: fibers of other processes
            // share nothing with it, fibers of its own process are dropped together with it, and a forked child that
            // borrows from its parent's stack is dropped before its parent (`World::dispose`).
            unsafe { coroutine.force_reset() };
        }
        if coroutine.done() {
            STACKS.with_borrow_mut(|stacks| stacks.push(coroutine.into_stack()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn fibers_take_turns_and_are_forgotten_in_the_middle() {
        let log = Rc::new(RefCell::new(Vec::new()));
        let fiber = |name: &'static str| {
            let log = log.clone();
            Fiber::new(move || {
                for step in 0..3 {
                    log.borrow_mut().push((name, step));
                    suspend();
                }
            })
        };
        let (mut a, mut b) = (fiber("a"), fiber("b"));
        for _ in 0..2 {
            assert!(!a.resume());
            assert!(!b.resume());
        }
        drop(b);
        assert!(!a.resume());
        assert!(a.resume());
        assert_eq!(*log.borrow(), [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]);
        assert_eq!(Rc::strong_count(&log), 2, "what the forgotten fiber had on its stack is leaked");
    }
}
