//! Processes whose domain has the same path but is another directory: because they run in a container with its own
//! `/dev/shm`, or because the directory was removed. Each member keeps the directory of its domain open, and `/proc`
//! shows it to users with the permission to look.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Check;

/// Which directory a process has open under the domain's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    Elsewhere,
    Removed,
}

pub(super) fn check(domain: &Path) -> Check {
    const NAME: &str = "elsewhere";
    let (elsewhere, removed) = (in_place(domain, Place::Elsewhere), in_place(domain, Place::Removed));
    let shown = domain.display();
    let (mut found, mut todo) = (Vec::new(), Vec::new());
    if !elsewhere.is_empty() {
        found.push(format!("pid {} in another {shown}, in a mount namespace of its own", elsewhere.join(", ")));
        todo.push("share the directory (docker: --ipc=host, --ipc=container:…, or -v /dev/shm:/dev/shm)");
    }
    if !removed.is_empty() {
        found.push(format!("pid {} in a {shown} that was removed", removed.join(", ")));
        todo.push("it joins again when it next connects or opens an inbox; restart it if it only receives");
    }
    if found.is_empty() {
        Check::pass(NAME, format!("no process that can be seen is in another {shown}"))
    } else {
        Check::warn(NAME, found.join("; "), todo.join("; "))
    }
}

/// The processes whose domain of this path was removed.
pub(super) fn in_removed(domain: &Path) -> Vec<String> {
    in_place(domain, Place::Removed)
}

/// The processes that have such a directory open under this path, as far as they can be seen.
fn in_place(domain: &Path, wanted: Place) -> Vec<String> {
    let domain = &fs::canonicalize(domain).unwrap_or_else(|_| domain.to_owned());
    let here = fs::metadata(domain).ok().map(|found| (found.dev(), found.ino()));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = |process: fs::DirEntry| {
        let name = process.file_name().into_string().ok().filter(|name| name.parse::<u32>().is_ok())?;
        (place(&process.path(), domain, here) == Some(wanted)).then_some(name)
    };
    processes.filter_map(pid).collect()
}

/// Which directory a process has open under this path; `None`: none, or it does not show it.
fn place(process: &Path, domain: &Path, here: Option<(u64, u64)>) -> Option<Place> {
    let mut found = None;
    for descriptor in fs::read_dir(process.join("fd")).ok()?.flatten() {
        let Ok(target) = fs::read_link(descriptor.path()) else { continue };
        let is_removed =
            target.as_os_str().as_bytes().strip_suffix(b" (deleted)") == Some(domain.as_os_str().as_bytes());
        if !is_removed && target != domain {
            continue;
        }
        let Ok(metadata) = fs::metadata(descriptor.path()) else { continue };
        match (metadata.dev(), metadata.ino()) {
            of if Some(of) == here => return Some(Place::Here),
            _ if is_removed => found = Some(Place::Removed),
            _ => found = Some(Place::Elsewhere),
        }
    }
    found
}
