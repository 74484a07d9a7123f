//! This process and others, as the kernel shows them.

use std::path::PathBuf;

/// This process's number.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// This process's effective user.
pub(crate) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(N), "the kernel gives up to 256 random bytes without fail once it has booted");
    bytes
}

/// Bytes of a page of this system.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// The longest file that this process may make (`ulimit -f`), in bytes; `None`: no limit.
pub(crate) fn file_size_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// The program that a process runs.
pub(crate) fn executable(pid: u32) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe"))
}

/// Whether a process of this user is stopped, by a signal or a debugger. What cannot be seen is not.
pub(crate) fn is_stopped(pid: u32, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let is_owners = std::fs::metadata(&process).is_ok_and(|found| found.uid() == uid);
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    is_owners && stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't']))
}

/// Kills this process, or stops it.
#[cfg(feature = "fault-points")]
pub(crate) fn die(is_stop: bool) {
    use rustix::process::{Signal, getpid, kill_process};
    // It fails for no process that signals itself.
    let _ = kill_process(getpid(), if is_stop { Signal::STOP } else { Signal::KILL });
}

/// This process's namespaces, which distinguish containers. What cannot be read is left out.
pub(crate) fn namespaces() -> Vec<(String, u64)> {
    let read = |name: &str| {
        let target = std::fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
        let number = target.to_str()?.split(['[', ']']).nth(1)?.parse().ok()?;
        Some((name.to_owned(), number))
    };
    ["ipc", "mnt", "net", "pid", "time", "user"].into_iter().filter_map(read).collect()
}
