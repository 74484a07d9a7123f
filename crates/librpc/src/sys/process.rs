//! What the kernel says of processes: this one, and others by their numbers.

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

/// The program that a process runs.
pub(crate) fn executable(pid: u32) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe"))
}

/// This process's namespaces, which tell containers apart. What cannot be read is left out.
pub(crate) fn namespaces() -> Vec<(String, u64)> {
    let read = |name: &str| {
        let target = std::fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
        let number = target.to_str()?.split(['[', ']']).nth(1)?.parse().ok()?;
        Some((name.to_owned(), number))
    };
    ["ipc", "mnt", "net", "pid", "time", "user"].into_iter().filter_map(read).collect()
}
