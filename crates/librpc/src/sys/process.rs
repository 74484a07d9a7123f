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

/// This process's effective user as the parent of its user namespace numbers it; the same number where there is no
/// such namespace.
pub(crate) fn outer_uid() -> u32 {
    let (uid, path) = (uid(), "/proc/self/uid_map");
    // Without `/proc` there is nothing to be told about namespaces.
    let map = std::fs::read_to_string(path).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_a_namespace_is_told_from_the_machines_own() {
        assert_eq!(outer(0, "         0          0 4294967295\n"), Some(0));
        assert_eq!(outer(1000, "         0          0 4294967295\n"), Some(1000));
        assert_eq!(outer(0, "0 1000 1\n1 100000 65536\n"), Some(1000));
        assert_eq!(outer(1, "0 1000 1\n1 100000 65536\n"), Some(100_000));
        assert_eq!(outer(65_537, "0 1000 1\n1 100000 65536\n"), None);
    }
}
