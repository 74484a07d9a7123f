//! What the kernel says about a process, read from `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::process::Pid;

fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The directories of a process's threads.
fn threads(pid: u32) -> anyhow::Result<Vec<PathBuf>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("pid {pid} has ended"))?;
    Ok(tasks.flatten().map(|task| task.path()).collect())
}

/// A field of a `status` file.
fn field<'a>(status: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).with_context(|| format!("the kernel does not say {name}"))
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.trim_end_matches(" kB").parse().with_context(|| format!("{text:?} is no number"))
}

/// The fields of `stat` after the name of the program, which may contain anything.
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let stat = read(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a stat file without a name")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// What the first thread of a process is doing: `R` for running, `S` for sleeping, `T` for stopped, `Z` for ended, ...
pub fn state(pid: u32) -> anyhow::Result<char> {
    stat(pid)?.first().and_then(|state| state.chars().next()).context("a stat file without a state")
}

/// Whether a process is stopped by a signal. An error if it has ended.
pub fn is_stopped(pid: u32) -> anyhow::Result<bool> {
    let state = state(pid)?;
    anyhow::ensure!(!"ZX".contains(state), "pid {pid} has ended instead of being stopped");
    Ok(state == 'T')
}

/// The processor time that a process has used, in clock ticks (usually 10 ms).
pub fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let fields = stat(pid)?;
    let field = |at: usize| number(fields.get(at).context("a short stat file")?);
    Ok(field(11)? + field(12)?) // in user mode, in the kernel
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> anyhow::Result<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("pid {pid} has ended"))?;
    Ok(entries.count() as u64)
}

/// The children of a process; none if it has ended.
pub fn children_of(pid: u32) -> Vec<Pid> {
    let lists = threads(pid).unwrap_or_default().into_iter().flat_map(|thread| read(thread.join("children")));
    let pids: Vec<i32> =
        lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    pids.into_iter().filter_map(Pid::from_raw).collect()
}

/// How often the threads of a process have gone to sleep.
pub fn sleeps(pid: u32) -> anyhow::Result<u64> {
    let sleeps = |thread: PathBuf| match read(thread.join("status")) {
        Err(_) if !thread.exists() => Ok(0), // it has ended meanwhile
        status => number(field(&status?, "voluntary_ctxt_switches")?),
    };
    threads(pid)?.into_iter().map(sleeps).sum()
}

/// What each thread of a process is doing, for the error message about a process that hangs.
pub fn what_it_does(pid: u32) -> String {
    let Ok(threads) = threads(pid) else { return format!("  pid {pid} has ended") };
    let line = |thread: PathBuf| {
        let read = |name: &str| read(thread.join(name)).unwrap_or_default().trim().to_owned();
        let (status, name, wchan, call) = (read("status"), read("comm"), read("wchan"), read("syscall"));
        let state = field(&status, "State").unwrap_or("?");
        format!("  pid {pid} {name}: {state}, in {wchan}, system call {call}")
    };
    threads.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What a process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// How many mappings there are of each name.
    pub mapped: BTreeMap<String, u64>,
    /// Private memory and shared memory in use, in KiB, without the program's own file.
    pub memory_kib: u64,
    /// All memory in use, in KiB.
    pub resident_kib: u64,
}

impl Usage {
    /// What a process holds now. An error if it has ended.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let status = read(format!("/proc/{pid}/status"))?;
        let value = |name: &str| number(field(&status, name)?);
        let mut mapped = BTreeMap::new();
        for line in read(format!("/proc/{pid}/maps"))?.lines() {
            *mapped.entry(line.split_whitespace().nth(5).unwrap_or("anonymous").to_owned()).or_insert(0) += 1;
        }
        Ok(Self {
            descriptors: descriptors(pid)?,
            threads: value("Threads")?,
            mapped,
            memory_kib: value("RssAnon")? + value("RssShmem")?,
            resident_kib: value("VmRSS")?,
        })
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            memory_kib: self.memory_kib.max(other.memory_kib),
            resident_kib: self.resident_kib.max(other.resident_kib),
            mapped: if self.mappings() < other.mappings() { other.mapped } else { self.mapped },
        }
    }

    /// How many mappings there are.
    pub fn mappings(&self) -> u64 {
        self.mapped.values().sum()
    }

    /// How many mappings of memfds there are: channels, for example.
    pub fn memfds(&self) -> u64 {
        self.mapped.iter().filter(|(name, _)| name.contains("memfd")).map(|(_, count)| count).sum()
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { descriptors, threads, resident_kib, .. } = self;
        let mappings = self.mappings();
        write!(f, "{descriptors} descriptors, {threads} threads, {mappings} mappings, {resident_kib} KiB resident")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_what_it_holds_itself() {
        let own = std::process::id();
        let before = Usage::of(own).unwrap();
        assert!(before.threads > 0 && before.mappings() > 0 && before.resident_kib >= before.memory_kib, "{before}");
        let files: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(Usage::of(own).unwrap().descriptors >= before.descriptors + 90);
        drop(files);
        assert!(!is_stopped(own).unwrap());
        assert!(what_it_does(own).contains("system call"));
    }

    #[test]
    fn a_process_that_has_ended_holds_nothing_and_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(Usage::of(pid).is_err() && is_stopped(pid).is_err() && sleeps(pid).is_err() && cpu_ticks(pid).is_err());
        assert!(children_of(pid).is_empty());
    }
}
