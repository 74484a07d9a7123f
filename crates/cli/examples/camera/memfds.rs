//! How much memory some processes have in memfds, which is where rings and payloads are.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

/// The bytes of all of them. Each counts once, however many processes have it. One that ends meanwhile has none.
pub(crate) fn bytes(pids: impl Iterator<Item = u32>) -> u64 {
    let mut of_inode = BTreeMap::new();
    for pid in pids {
        mapped(pid, &mut of_inode);
        open(pid, &mut of_inode);
    }
    of_inode.values().sum()
}

/// Those that are mapped, as a memory may be whose descriptor is closed. All of it counts.
fn mapped(pid: u32, of_inode: &mut BTreeMap<u64, u64>) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    for line in maps.lines().filter(|line| line.contains("/memfd:")) {
        let mut fields = line.split_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let ends = range
            .and_then(|(begin, end)| Some((u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?)));
        if let (Some((begin, end)), Some(inode)) = (ends, fields.nth(3).and_then(|inode| inode.parse().ok())) {
            let bytes = of_inode.entry(inode).or_insert(0);
            *bytes = (end - begin).max(*bytes);
        }
    }
}

/// Those with a descriptor: what is allocated, which is less where a ring was not used yet.
fn open(pid: u32, of_inode: &mut BTreeMap<u64, u64>) {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
    for path in descriptors.flatten().map(|entry| entry.path()) {
        let is_memfd = std::fs::read_link(&path).is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:"));
        if let (true, Ok(about)) = (is_memfd, std::fs::metadata(&path)) {
            of_inode.insert(about.ino(), about.blocks() * 512);
        }
    }
}
