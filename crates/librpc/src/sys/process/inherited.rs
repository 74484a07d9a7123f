//! What a forked child has of its parent's statics, where the processes are simulated.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::barrier::State;
use super::descriptor::Table;
use super::dispose::{Closing, Leftover};
use super::fork::Generation;
use super::{Gated, Here};
use crate::sys::os::OwnedFd;
use crate::sys::os::inherit::Inherit;

impl Inherit for AtomicU64 {
    fn copy(&self) -> Self {
        Self::new(self.load(Ordering::Relaxed))
    }
}

impl Inherit for AtomicBool {
    fn copy(&self) -> Self {
        Self::new(self.load(Ordering::Relaxed))
    }
}

impl Inherit for Here {
    fn copy(&self) -> Self {
        let Self { generation, open, barriers, gate } = self;
        Self { generation: generation.copy(), open: open.copy(), barriers: barriers.copy(), gate: gate.copy() }
    }
}

impl Inherit for Generation {
    fn copy(&self) -> Self {
        Self { word: self.word.copy(), counted: self.counted.copy() }
    }
}

impl Inherit for Table {
    fn copy(&self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].copy()))
    }
}

impl Inherit for State {
    fn copy(&self) -> Self {
        Self { is_registered: self.is_registered.copy(), is_available: self.is_available.copy() }
    }
}

impl Inherit for Gated {
    fn copy(&self) -> Self {
        Self { generation: self.generation, shared: self.shared.clone(), closing: self.closing.copy() }
    }
}

impl Inherit for Closing {
    fn copy(&self) -> Self {
        let copy = |leftover: &Leftover| {
            let descriptors = leftover.descriptors.iter().map(|fd| OwnedFd(fd.0)).collect();
            Leftover { descriptors, until_closed: Box::new(()) }
        };
        Self { waiting: self.waiting.iter().map(copy).collect(), threads: self.threads }
    }
}
