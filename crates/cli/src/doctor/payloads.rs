//! The memory that all nodes together have for large payloads, beside what is left.
//!
//! It is memory that belongs to no file system, so the size of /dev/shm does not limit it. A pool that is too small grows by as much
//! as it has, so it is time to warn when the pools take more than what is available.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Check, machine};
use crate::latency::size;
use crate::snapshot::{NodeRow, Snapshot};

const NAME: &str = "payloads";

pub(super) fn check(snapshot: &Snapshot) -> Check {
    let mut of_groups: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let bytes = |node: &NodeRow| node.payloads.map_or(0, |payloads| payloads.bytes);
    for node in snapshot.nodes.iter().filter(|node| bytes(node) > 0) {
        if let Some(group) = group_of(node.pid) {
            let sum = of_groups.entry(group).or_default();
            *sum = sum.saturating_add(bytes(node));
        }
    }
    let all = snapshot.nodes.iter().map(bytes).fold(0, u64::saturating_add);
    let machine = machine::available().map(|(_, available)| Place { name: "memory".into(), taken: all, available });
    let groups = of_groups.into_iter().filter_map(|(group, taken)| {
        let available = available_to(&group)?;
        Some(Place { name: format!("control group {}", group.display()), taken, available })
    });
    judge(all, machine.into_iter().chain(groups))
}

/// Memory that is limited, what pools take of it, and what is left.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    taken: u64,
    available: u64,
}

fn judge(all: u64, places: impl Iterator<Item = Place>) -> Check {
    let tight: Vec<String> = places
        .filter(|place| place.taken > place.available)
        .map(|Place { name, taken, available }| {
            format!("{name}: {} for large payloads, and {} left", size(taken), size(available))
        })
        .collect();
    match &tight[..] {
        [] => Check::pass(NAME, format!("{} for large payloads, in all nodes that answer", size(all))),
        tight => {
            let todo = "see who holds them (`librpc stat`, LENT and HELD), release samples earlier, or set Limits::payload_bytes";
            Check::warn(NAME, tight.join("; "), todo)
        }
    }
}

/// The control group of a process, as a directory. `None`: unknown, as that of a process in another container.
fn group_of(pid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// What a control group may still take, with all those that it is in. `None`: it has no limit.
fn available_to(group: &Path) -> Option<u64> {
    let number = |group: &Path, file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let left = |group: &Path| Some(number(group, "memory.max")?.saturating_sub(number(group, "memory.current")?));
    group.ancestors().take_while(|group| group.starts_with("/sys/fs/cgroup")).filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn place(name: &str, taken: u64, available: u64) -> Place {
        Place { name: name.into(), taken, available }
    }

    #[test]
    fn pools_that_take_more_than_what_is_left_are_a_warning() {
        const GIB: u64 = 1 << 30;
        for (taken, available, expected) in [
            (0, 0, Verdict::Pass),
            (2 * GIB, 2 * GIB, Verdict::Pass),
            (2 * GIB + 1, 2 * GIB, Verdict::Warn),
            (u64::MAX, u64::MAX, Verdict::Pass),
            (1, 0, Verdict::Warn),
        ] {
            let check = judge(taken, [place("memory", taken, available)].into_iter());
            assert_eq!(check.verdict, expected, "{check:?}");
        }
        let places = [place("memory", 20 * GIB, 30 * GIB), place("control group /a", 12 * GIB, 11 * GIB)];
        let check = judge(20 * GIB, places.into_iter());
        assert_eq!(check.verdict, Verdict::Warn);
        assert_eq!(check.found, "control group /a: 12 GiB for large payloads, and 11 GiB left");
    }

    #[test]
    fn a_group_may_take_what_the_tightest_around_it_may() {
        let own = group_of(std::process::id());
        // Only where this process sees its own group.
        if let Some(own) = own.filter(|own| own.exists()) {
            let around = own.parent().and_then(available_to);
            assert!(around.is_none() || available_to(&own) <= around, "{own:?}");
        }
        assert_eq!(group_of(0), None);
        assert_eq!(available_to(Path::new("/sys/fs/cgroup/no/such/group")), available_to(Path::new("/sys/fs/cgroup")));
    }
}
