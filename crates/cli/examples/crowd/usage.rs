//! The CPU time of processes and threads in nanoseconds, as the scheduler counts it.

use std::fs;

fn of_thread(task: &std::path::Path) -> u64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// The CPU time of the threads of a process whose names are wanted.
pub(crate) fn of(pid: u32, wanted: impl Fn(&str) -> bool) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let tasks = tasks.flatten().map(|task| task.path());
    let name = |task: &std::path::Path| fs::read_to_string(task.join("comm")).unwrap_or_default();
    tasks.filter(|task| wanted(name(task).trim_end())).map(|task| of_thread(&task)).sum()
}

/// The CPU time of the threads that answer observers and do the handshakes.
pub(crate) fn of_background_threads(pids: &[u32]) -> u64 {
    pids.iter().map(|&pid| of(pid, |name| name == "librpc")).sum()
}

pub(crate) fn of_all_threads(pids: &[u32]) -> u64 {
    pids.iter().map(|&pid| of(pid, |_| true)).sum()
}
