//! What a forked child has of its parent's memory.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;

use super::machine::machine;

/// Bits of the table of descriptors.
pub(crate) const NOTED: usize = 1 << 14;

/// A static of which each process has its own; a forked child begins with a copy.
macro_rules! per_process {
    (static $name:ident: $type:ty = $value:expr;) => {
        static $name: $crate::sys::os::inherit::PerProcess<$type> =
            $crate::sys::os::inherit::PerProcess::new(|| $value);
    };
}
pub(crate) use per_process;

/// A value that each simulated process has once.
pub(crate) struct PerProcess<T: 'static> {
    make: fn() -> T,
}

/// A static of which each thread has its own. A forked child begins without: what its parent holds locked, it has unlocked.
macro_rules! per_thread {
    (static $name:ident: RefCell<$type:ty> = $value:expr;) => {
        static $name: $crate::sys::os::inherit::PerThread<$type> = $crate::sys::os::inherit::PerThread::new(|| $value);
    };
}
pub(crate) use per_thread;

/// A value that each simulated thread has once.
pub(crate) struct PerThread<T: 'static> {
    make: fn() -> RefCell<T>,
}

/// Those of the threads of one process, by their numbers.
type OfThreads<T> = RefCell<BTreeMap<u64, Rc<RefCell<T>>>>;

impl<T> PerThread<T> {
    pub(crate) const fn new(make: fn() -> RefCell<T>) -> Self {
        Self { make }
    }

    /// Other threads may run before this returns, so only this thread's own value is borrowed meanwhile.
    pub(crate) fn with_borrow_mut<R>(&'static self, with: impl FnOnce(&mut T) -> R) -> R {
        let make = || -> Box<dyn Any> { Box::new(OfThreads::<T>::default()) };
        let inherit = |_: &dyn Any| -> Box<dyn Any> { Box::new(OfThreads::<T>::default()) };
        let all = machine().per_process(std::ptr::from_ref(self).addr(), &make, inherit);
        let all: &OfThreads<T> = all.downcast_ref().expect("one type for each key");
        let own = all.borrow_mut().entry(machine().thread()).or_insert_with(|| Rc::new((self.make)())).clone();
        with(&mut own.borrow_mut())
    }
}

/// What a forked child begins with.
pub(crate) trait Inherit {
    fn copy(&self) -> Self;
}

impl<T: Inherit + 'static> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { make }
    }
}

impl<T: Inherit + 'static> Deref for PerProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let make = || -> Box<dyn Any> { Box::new((self.make)()) };
        let inherit =
            |of: &dyn Any| -> Box<dyn Any> { Box::new(of.downcast_ref::<T>().expect("one type for each key").copy()) };
        let found = machine().per_process(std::ptr::from_ref(self).addr(), &make, inherit);
        found.downcast_ref().expect("one type for each key")
    }
}

/// A word that a child finds as its parent left it, or wiped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    Wiped(u32),
    Kept(&'static AtomicU64),
}

impl Word {
    pub(crate) fn load(self, order: Ordering) -> u64 {
        match self {
            Self::Wiped(region) => machine().load_private(region),
            Self::Kept(word) => word.load(order),
        }
    }

    pub(crate) fn store(self, value: u64, order: Ordering) {
        match self {
            Self::Wiped(region) => machine().store_private(region, value),
            Self::Kept(word) => word.store(value, order),
        }
    }
}

/// One that a child finds as its parent left it.
pub(crate) fn kept(word: &'static AtomicU64) -> Word {
    Word::Kept(word)
}

/// Where the one word that children find wiped is kept.
pub(crate) struct WipedWord(AtomicU32);

impl WipedWord {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn get(&self) -> Option<Word> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            region => Some(Word::Wiped(region)),
        }
    }

    pub(crate) fn make(&self, value: u64, first: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let region = machine().map_wiped_word()?;
        machine().store_private(region, value);
        first()?;
        machine().point();
        if self.0.compare_exchange(0, region, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            machine().unmap(region);
        }
        Ok(())
    }
}

impl Inherit for WipedWord {
    fn copy(&self) -> Self {
        Self(self.0.load(Ordering::Relaxed).into())
    }
}

/// Has functions called around each fork: before it and after it in the parent, and in the child.
pub(crate) fn at_fork(before: extern "C" fn(), after: extern "C" fn(), in_child: extern "C" fn()) -> Result<(), Errno> {
    machine().at_fork([before, after, in_child]);
    Ok(())
}
