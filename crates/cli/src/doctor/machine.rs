//! The kernel, its limits, and memory.

use librpc::Kernel;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::latency::size;

pub(super) const KIB: u64 = 1024;
/// A channel's file: a ring of the default size, and its header.
const CHANNEL_BYTES: u64 = librpc::DEFAULT_CAPACITY + 64 * KIB;

pub(super) fn checks() -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (version, of_kernel) = (kernel_version(&release), Kernel::probe());
    vec![
        kernel(&release, version),
        proc(),
        memory(),
        descriptors(),
        file_size(),
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

/// How much memory there is, and how much of it is available, in bytes: of the machine, or of this control group.
pub(super) fn available() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * KIB)
    };
    let (total, available) = field("MemTotal:").zip(field("MemAvailable:"))?;
    let group = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse::<u64>().ok();
    let group = group("memory.max").zip(group("memory.current"));
    let of_group = |(max, current): (u64, u64)| (max.min(total), max.saturating_sub(current).min(available));
    Some(group.map_or((total, available), of_group))
}

/// Rings are memory that belongs to no file system: the size of /dev/shm does not limit them.
fn memory() -> Check {
    const NAME: &str = "memory";
    let Some((total, available)) = available() else {
        return Check::warn(NAME, "/proc/meminfo cannot be read", "mount /proc");
    };
    let found = format!("{} of {} available for rings", size(available), size(total));
    if available < total / 20 {
        Check::warn(NAME, found, "rings are memory: free some, or open inboxes with a smaller capacity")
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
    let todo = "raise `ulimit -n`: a node takes 7, an inbox 2, a connection 1 on each side";
    match (now.current, &machine[..]) {
        (_, [used, _, most]) if *used > most - most / 10 => {
            Check::fail(NAME, format!("the machine has used {used} of {most}"), "raise fs.file-max")
        }
        (Some(..32), _) => Check::fail(NAME, found, todo),
        (Some(..512), _) => Check::warn(NAME, found, todo),
        _ => Check::pass(NAME, found),
    }
}

/// A process that makes a file larger than this is killed by SIGXFSZ. Rings are files.
fn file_size() -> Check {
    const NAME: &str = "file-size";
    let todo =
        "raise `ulimit -f` (systemd: LimitFSIZE=): rings are files, and the kernel kills a sender over the limit";
    match getrlimit(Resource::Fsize).current {
        None => Check::pass(NAME, "unlimited"),
        Some(limit) if limit < CHANNEL_BYTES => {
            Check::fail(NAME, format!("at most {} a file: no channel can be made", size(limit)), todo)
        }
        Some(limit) => Check::warn(NAME, format!("at most {} a file", size(limit)), todo),
    }
}

fn locked_memory() -> Check {
    let now = getrlimit(Resource::Memlock).current.map(size);
    let now = now.unwrap_or("unlimited".into());
    Check::pass("locked-memory", format!("{now} for each process; librpc locks none"))
}

/// Whether a file may be this large. A larger one would kill this command.
pub(super) fn allows_file_of(bytes: u64) -> bool {
    getrlimit(Resource::Fsize).current.is_none_or(|limit| limit >= bytes)
}

fn seals() -> Check {
    const NAME: &str = "memfd-seals";
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    let made = rustix::fs::memfd_create("librpc-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let sealed = made.and_then(|fd| {
        if allows_file_of(4096) {
            rustix::fs::ftruncate(&fd, 4096)?;
        }
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        rustix::fs::fcntl_get_seals(&fd)
    });
    match sealed {
        Ok(found) if found.contains(seals) => Check::pass(NAME, "memory can be created and sealed"),
        Ok(found) => Check::fail(NAME, format!("only {found:?} are kept"), "librpc needs Linux 5.10 or later"),
        Err(error) => {
            Check::fail(NAME, format!("{error}"), "a seccomp filter of this container forbids memfd_create: allow it")
        }
    }
}

fn pidfd() -> Check {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::pass("pidfd", "available"),
        Err(error) => Check::warn("pidfd", error.to_string(), "nothing: only the tests and tools need it"),
    }
}

fn membarrier(kernel: Kernel) -> Check {
    let name = "membarrier";
    if kernel.has_barriers {
        Check::pass(
            name,
            "used: a receiver that goes to sleep issues the barrier, so senders need no fence per message",
        )
    } else {
        let todo = "nothing: it is only slower. If a seccomp filter of this container forbids membarrier, allow it";
        Check::warn(name, "not available: senders execute a fence per message instead", todo)
    }
}

fn pass_rights(kernel: Kernel) -> Check {
    let name = "so-passrights";
    if kernel.refuses_descriptors {
        Check::pass(name, "used: no descriptors are accepted outside a handshake")
    } else {
        let todo =
            "nothing in a private domain; in a shared one, admit only users that you trust not to waste descriptors";
        Check::warn(
            name,
            "not available (needs Linux 6.16): a member of a shared domain can send descriptors at any time",
            todo,
        )
    }
}

fn execution(kernel: Kernel) -> Check {
    let name = "noexec-seal";
    match kernel.seals_execution {
        true => Check::pass(name, "used: shared memory can never be executed"),
        false => Check::pass(name, "not available (needs Linux 6.3): not required"),
    }
}

fn backlog() -> Check {
    let name = "socket-backlog";
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    match text.trim().parse::<u64>() {
        Ok(most) if most < 128 => {
            let todo = "raise net.core.somaxconn: otherwise many senders that connect at once must try again";
            Check::warn(name, format!("{most} connections may wait for a node"), todo)
        }
        Ok(most) => Check::pass(name, format!("{most} connections may wait for a node")),
        Err(_) => Check::pass(name, "unknown: /proc/sys/net is not readable here"),
    }
}
