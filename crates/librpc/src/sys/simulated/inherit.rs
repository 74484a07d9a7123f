//! What a forked child has of its parent's memory.

use std::any::Any;
use std::ops::Deref;
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

impl From<&'static AtomicU64> for Word {
    fn from(word: &'static AtomicU64) -> Self {
        Self::Kept(word)
    }
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
