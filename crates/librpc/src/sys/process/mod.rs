//! This process: what it has once, and what the kernel says about it and about others.
//!
//! Everything that a process has once is in one static, and every other file asks [`here`] for it.

pub(crate) mod fork; //        how a forked child is distinguished from its parent
pub(crate) mod descriptor; //  descriptors that a forked child does not keep
pub(crate) mod dispose; //     closing what may block
pub(crate) mod barrier; //     memory barriers in other processes
#[cfg(feature = "simulated")]
mod inherited; //              what a simulated child begins with

use std::any::Any;
use std::sync::Arc;

use super::os::inherit::per_process;
pub(crate) use super::os::process::*;
use super::os::{self, sync::Mutex};

/// What a process has once. A forked child begins with a copy, see [`fork`].
struct Here {
    /// In which generation of the process we are.
    generation: fork::Generation,
    /// The descriptors that a child closes.
    open: descriptor::Table,
    /// What has been found out about barriers.
    barriers: barrier::State,
    /// What threads share: no thread forks while another one has it locked.
    gate: Mutex<Gated>,
}

/// What threads share, and what a forked child needs of it: it is locked by the forking thread, so a child finds it unlocked
/// and whole.
pub(super) struct Gated {
    /// The generation that this belongs to.
    generation: u64,
    /// What is shared by all nodes: [`share`].
    shared: Option<std::sync::Weak<dyn Any + Send + Sync>>,
    /// Descriptors that wait to be closed.
    closing: dispose::Closing,
}

impl Gated {
    /// Called with the lock held: a child drops what was its parent's.
    fn enter(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.shared = None;
            self.closing.enter_child();
        }
    }
}

per_process! {
    static HERE: Here = Here {
        generation: fork::Generation::new(),
        open: descriptor::Table::new(),
        barriers: barrier::State::new(),
        gate: Mutex::new(Gated { generation: 1, shared: None, closing: dispose::Closing::new() }),
    };
}

/// This process. (A simulator has one for each process that it simulates.)
#[inline(always)]
fn here() -> &'static Here {
    &HERE
}

/// What the nodes of this process share, if there is any. A forked child has none of its parent's.
pub(crate) fn shared<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let shared = fork::gate().shared.as_ref()?.upgrade()?;
    Some(shared.downcast().expect("only one type is shared"))
}

/// Shares something for as long as it is held; returns what another thread has shared in the meantime, if any.
pub(crate) fn share<T: Any + Send + Sync>(new: Arc<T>) -> Arc<T> {
    let mut gated = fork::gate();
    match gated.shared.as_ref().and_then(std::sync::Weak::upgrade) {
        Some(other) => {
            drop(gated); // dropping `new` may need the lock
            other.downcast().expect("only one type is shared")
        }
        None => {
            let weak: std::sync::Weak<T> = Arc::downgrade(&new);
            gated.shared = Some(weak);
            new
        }
    }
}

/// This process's effective user as the parent of its user namespace numbers it; the same number where there is no
/// such namespace.
pub(crate) fn outer_uid() -> u32 {
    let (uid, path) = (uid(), "/proc/self/uid_map");
    // Without `/proc` nothing is known about namespaces.
    let map = os::path::text(path).unwrap_or_default();
    outer(uid, &map).unwrap_or(uid)
}

/// Where a map of users, of lines `first inside, first outside, how many`, leads a user.
fn outer(uid: u32, map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let &[inside, outside, count] = &numbers[..] else { return None };
        let offset = uid.checked_sub(inside).filter(|&offset| offset < count)?;
        outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_a_namespace_is_distinguished_from_the_machines_own() {
        assert_eq!(outer(0, "         0          0 4294967295\n"), Some(0));
        assert_eq!(outer(1000, "         0          0 4294967295\n"), Some(1000));
        assert_eq!(outer(0, "0 1000 1\n1 100000 65536\n"), Some(1000));
        assert_eq!(outer(1, "0 1000 1\n1 100000 65536\n"), Some(100_000));
        assert_eq!(outer(65_537, "0 1000 1\n1 100000 65536\n"), None);
    }
}
