//! What the kernel knows about a process: context switches, CPU time, and the shared memory of its channels.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

const BLOCK: u64 = 512;

/// The sums over all threads of a process so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Activity {
    pub(super) context_switches: u64,
    pub(super) cpu_ns: u64,
}

impl Activity {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("a process has ended")?.flatten() {
            let status = fs::read_to_string(task.path().join("status"))?;
            all.context_switches += status.lines().filter_map(switches).sum::<u64>();
            let schedule = fs::read_to_string(task.path().join("schedstat"))?;
            all.cpu_ns += schedule.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(all)
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self { context_switches: self.context_switches - before.context_switches, cpu_ns: self.cpu_ns - before.cpu_ns }
    }
}

fn switches(line: &str) -> Option<u64> {
    let (name, number) = line.split_once(':')?;
    name.ends_with("voluntary_ctxt_switches").then(|| number.trim().parse().ok()).flatten()
}

/// The memory of the files in a directory.
pub(super) fn directory_bytes(path: &Path) -> anyhow::Result<u64> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let blocks = entries.flatten().map(|entry| entry.metadata().map(|metadata| metadata.blocks()));
    Ok(blocks.sum::<std::io::Result<u64>>()? * BLOCK)
}

/// The memory of all memfds of librpc that these processes map, each counted once.
///
/// Exact where `/proc/<pid>/map_files` can be followed (as root). Otherwise the sum of the processes' shares of the pages
/// that they have touched.
pub(super) fn memfd_bytes(pids: &[u32]) -> anyhow::Result<u64> {
    let mut files = HashMap::new();
    for &pid in pids {
        for range in memfd_ranges(pid)? {
            match fs::metadata(format!("/proc/{pid}/map_files/{range}")) {
                Ok(file) => files.insert((file.dev(), file.ino()), file.blocks() * BLOCK),
                Err(_) => return proportional_memfd_bytes(pids),
            };
        }
    }
    Ok(files.values().sum())
}

fn is_channel(line: &str) -> bool {
    line.contains("/memfd:librpc")
}

fn memfd_ranges(pid: u32) -> anyhow::Result<Vec<String>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let ranges = maps.lines().filter(|line| is_channel(line)).filter_map(|line| line.split(' ').next());
    // The names in `map_files` have no leading zeroes.
    let trimmed = ranges
        .filter_map(|range| range.split_once('-'))
        .map(|(from, to)| format!("{}-{}", from.trim_start_matches('0'), to.trim_start_matches('0')));
    Ok(trimmed.collect())
}

fn proportional_memfd_bytes(pids: &[u32]) -> anyhow::Result<u64> {
    let mut kibibytes = 0;
    for pid in pids {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let mut counts = false;
        for line in smaps.lines() {
            match line.strip_prefix("Pss:") {
                Some(share) if counts => {
                    kibibytes += share.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
                }
                Some(_) => {}
                None if line.split(' ').next().is_some_and(|word| word.contains('-')) => counts = is_channel(line),
                None => {}
            }
        }
    }
    Ok(kibibytes * 1024)
}
