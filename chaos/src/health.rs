//! What a process holds: descriptors, mappings, memory. Survivors must not grow.

use std::collections::BTreeMap;

use anyhow::Context;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) descriptors: u64,
    pub(crate) mappings: u64,
    /// How many of each name.
    pub(crate) mapped: BTreeMap<String, u64>,
    pub(crate) memory_kib: u64,
}

impl Health {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let proc = |what: &str| format!("/proc/{pid}/{what}");
        let read =
            |what: &str| std::fs::read_to_string(proc(what)).with_context(|| format!("cannot read {}", proc(what)));
        let status = read("status")?;
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
        };
        let maps = read("maps")?;
        let mut mapped = BTreeMap::new();
        for line in maps.lines() {
            *mapped.entry(line.split_whitespace().nth(5).unwrap_or("anonymous").to_owned()).or_insert(0) += 1;
        }
        Ok(Self {
            descriptors: std::fs::read_dir(proc("fd"))?.count() as u64,
            mappings: mapped.values().sum(),
            mapped,
            memory_kib: kib("RssAnon:") + kib("RssShmem:"),
        })
    }

    /// That this has not grown by more than one channel: there may be one at one of the two moments only. The memory is
    /// also subject to the allocator's whims. Many rounds lie between the moments, so that any leak is more.
    pub(crate) fn has_not_grown_since(&self, before: &Self) -> anyhow::Result<()> {
        anyhow::ensure!(self.descriptors <= before.descriptors + 4, "descriptors have grown: {before:?}, now {self:?}");
        let memfds = |health: &Self| {
            health.mapped.iter().filter(|(name, _)| name.contains("memfd")).map(|(_, n)| n).sum::<u64>()
        };
        anyhow::ensure!(memfds(self) <= memfds(before) + 6, "channels are still mapped: {before:?}, now {self:?}");
        // The C library keeps the stacks and arenas of up to 8 threads that close strangers' descriptors.
        anyhow::ensure!(self.mappings <= before.mappings + 40, "mappings have grown: {before:?}, now {self:?}");
        anyhow::ensure!(self.memory_kib <= before.memory_kib + 1536, "memory has grown: {before:?}, now {self:?}");
        Ok(())
    }
}

/// How often a process's threads have gone to sleep.
pub(crate) fn sleeps(pid: u32) -> anyhow::Result<u64> {
    let mut sleeps = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps += line.context("no count of context switches")?.trim().parse::<u64>()?;
    }
    Ok(sleeps)
}

/// What each thread of a process is doing, for whoever looks at a hang.
pub(crate) fn state(pid: u32) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return format!("  pid {pid}: gone") };
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mut lines = Vec::new();
    for task in tasks.flatten().map(|task| task.path()) {
        let status = read(task.join("status"));
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("?").trim().to_owned();
        let (name, wchan, call) = (read(task.join("comm")), read(task.join("wchan")), read(task.join("syscall")));
        lines.push(format!("  pid {pid} {name}: {state}, in {wchan}, system call {call}"));
    }
    lines.join("\n")
}
