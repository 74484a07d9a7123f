//! What the machine says of processes.

use std::path::PathBuf;

use super::machine::machine;

pub(crate) fn pid() -> u32 {
    machine().pid()
}

pub(crate) fn uid() -> u32 {
    machine().uid()
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    machine().random(&mut bytes);
    bytes
}

pub(crate) fn executable(pid: u32) -> std::io::Result<PathBuf> {
    Ok(machine().executable(pid)?)
}

pub(crate) fn namespaces() -> Vec<(String, u64)> {
    ["ipc", "mnt", "net", "pid", "time", "user"].into_iter().zip(1..).map(|(name, id)| (name.to_owned(), id)).collect()
}

pub(crate) fn page_size() -> usize {
    machine().page_size()
}

pub(crate) fn file_size_limit() -> Option<u64> {
    machine().file_size_limit()
}

pub(crate) fn is_stopped(pid: u32, uid: u32) -> bool {
    machine().is_stopped(pid, uid)
}
