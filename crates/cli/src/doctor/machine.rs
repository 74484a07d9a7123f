//! The kernel, its limits, and the memory.

use std::path::{Path, PathBuf};

use librpc::Kernel;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Resource, getrlimit};

use super::Check;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const KIB: u64 = 1024;

pub(super) fn checks(domain: &Path) -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (version, of_kernel) = (kernel_version(&release), Kernel::probe());
    vec![
        kernel(&release, version),
        proc(),
        memory_file_system(domain),
        memory(),
        descriptors(),
        locked_memory(),
        seals(),
        pidfd(),
        membarrier(of_kernel),
        pass_rights(of_kernel),
        execution(of_kernel),
        backlog(),
    ]
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel(release: &str, version: (u32, u32)) -> Check {
    if version >= (5, 10) {
        Check::pass("kernel", format!("Linux {release}"))
    } else {
        Check::fail("kernel", format!("Linux {release}"), "librpc needs Linux 5.10 or later")
    }
}

fn proc() -> Check {
    match std::fs::read_link("/proc/self/fd/0").or_else(|_| std::fs::read_link("/proc/self/exe")) {
        Ok(_) => Check::pass("proc", "/proc is mounted"),
        Err(error) => Check::fail("proc", format!("/proc cannot be read: {error}"), "mount /proc in this container"),
    }
}

/// Sizes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes / KIB),
        10_485_760..10_737_418_240 => format!("{} MiB", bytes / KIB / KIB),
        _ => format!("{} GiB", bytes / KIB / KIB / KIB),
    }
}

/// The directory, or whatever of the path to it is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn memory_file_system(domain: &Path) -> Check {
    const NAME: &str = "shm";
    let at = nearest(domain);
    let shown = at.display();
    let found = match rustix::fs::statfs(&at) {
        Ok(found) => found,
        Err(error) => return Check::fail(NAME, format!("{shown}: {error}"), "mount a tmpfs at /dev/shm"),
    };
    if found.f_type as u64 != TMPFS_MAGIC {
        let todo = "mount a tmpfs at /dev/shm, or choose a directory on one with LIBRPC_DOMAIN";
        return Check::fail(NAME, format!("{shown} is not on tmpfs"), todo);
    }
    let block = found.f_bsize as u64;
    let (total, free) = (found.f_blocks * block, found.f_bavail * block);
    let (files, free_files) = (found.f_files, found.f_ffree);
    let text = format!("{shown}: {} of {} free, {free_files} of {files} files", size(free), size(total));
    // A size of 0 is none at all. A node takes a page, a domain one more.
    let todo = "remove what fills it (`du -ah /dev/shm`), or enlarge it (`mount -o remount,size=… /dev/shm`)";
    if total > 0 && free < 16 * KIB || files > 0 && free_files < 4 {
        Check::fail(NAME, format!("{text}: no node can join"), todo)
    } else if total > 0 && free < total / 10 || files > 0 && free_files < files / 100 {
        Check::warn(NAME, text, todo)
    } else {
        Check::pass(NAME, text)
    }
}

/// Rings are anonymous memory, which is no part of /dev/shm.
fn memory() -> Check {
    const NAME: &str = "memory";
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * KIB)
    };
    let (Some(total), Some(available)) = (field("MemTotal:"), field("MemAvailable:")) else {
        return Check::warn(NAME, "/proc/meminfo cannot be read", "mount /proc");
    };
    let group = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse::<u64>().ok();
    let group = group("memory.max").zip(group("memory.current"));
    let (total, available) =
        group.map_or((total, available), |(max, current)| (max.min(total), max.saturating_sub(current).min(available)));
    let found = format!("{} of {} available for rings", size(available), size(total));
    if available < total / 20 {
        Check::warn(NAME, found, "rings are memory: free some, or give inboxes a smaller capacity")
    } else {
        Check::pass(NAME, found)
    }
}

fn limit(limit: Option<u64>) -> String {
    limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
}

fn descriptors() -> Check {
    const NAME: &str = "descriptors";
    let now = getrlimit(Resource::Nofile);
    let text = std::fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
    let machine: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let found = format!("{} for each process (at most {})", limit(now.current), limit(now.maximum));
    let todo = "raise `ulimit -n`: a node takes 7, an inbox 2, a connection 1 on either side";
    match (now.current, &machine[..]) {
        (_, [used, _, most]) if *used > most - most / 10 => {
            Check::fail(NAME, format!("the machine has used {used} of {most}"), "raise fs.file-max")
        }
        (Some(..32), _) => Check::fail(NAME, found, todo),
        (Some(..512), _) => Check::warn(NAME, found, todo),
        _ => Check::pass(NAME, found),
    }
}

fn locked_memory() -> Check {
    let now = getrlimit(Resource::Memlock).current.map(size);
    let now = now.unwrap_or("unlimited".into());
    Check::pass("locked-memory", format!("{now} for each process; librpc locks none"))
}

fn seals() -> Check {
    const NAME: &str = "memfd-seals";
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    let made = rustix::fs::memfd_create("librpc-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let sealed = made.and_then(|fd| {
        rustix::fs::ftruncate(&fd, 4096)?;
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        rustix::fs::fcntl_get_seals(&fd)
    });
    match sealed {
        Ok(found) if found.contains(seals) => Check::pass(NAME, "memory can be made and sealed"),
        Ok(found) => Check::fail(NAME, format!("only {found:?} hold"), "librpc needs Linux 5.10 or later"),
        Err(error) => {
            Check::fail(NAME, format!("{error}"), "a seccomp filter of this container forbids memfd_create: allow it")
        }
    }
}

fn pidfd() -> Check {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::pass("pidfd", "there"),
        Err(error) => Check::warn(
            "pidfd",
            error.to_string(),
            "nothing: the library itself does without, its tests and tools do not",
        ),
    }
}

fn membarrier(kernel: Kernel) -> Check {
    let name = "membarrier";
    if kernel.has_barriers {
        Check::pass(name, "used: who goes to sleep has the barrier, senders need no fence for each message")
    } else {
        let todo = "nothing: it is only slower. Where a seccomp filter of this container forbids membarrier, allow it";
        Check::warn(name, "not there: senders have a fence for each message instead", todo)
    }
}

fn pass_rights(kernel: Kernel) -> Check {
    let name = "so-passrights";
    if kernel.refuses_descriptors {
        Check::pass(name, "used: no descriptors are taken outside a handshake")
    } else {
        let todo =
            "nothing in a private domain; in a shared one, admit only users that you trust not to waste descriptors";
        Check::warn(name, "not there (Linux 6.16): a member of a shared domain can send descriptors at any time", todo)
    }
}

fn execution(kernel: Kernel) -> Check {
    let name = "noexec-seal";
    match kernel.seals_execution {
        true => Check::pass(name, "used: nothing is ever executed from shared memory"),
        false => Check::pass(name, "not there (Linux 6.3): done without"),
    }
}

fn backlog() -> Check {
    let name = "socket-backlog";
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    match text.trim().parse::<u64>() {
        Ok(most) if most < 128 => {
            let todo = "raise net.core.somaxconn: many senders that connect at once must try again";
            Check::warn(name, format!("{most} connections may wait for a node"), todo)
        }
        Ok(most) => Check::pass(name, format!("{most} connections may wait for a node")),
        Err(_) => Check::pass(name, "unknown: /proc/sys/net is not readable here"),
    }
}
