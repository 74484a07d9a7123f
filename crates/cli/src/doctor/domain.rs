//! The domain's directory and files, and the nodes in it.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use librpc::Domain;

use super::{Check, elsewhere};
use crate::latency::counted;
use crate::snapshot::{NodeRow, Snapshot, State};
use crate::warnings;

const PRIVATE: u32 = 0o700;
const SHARED: u32 = 0o3770;

/// Whether this user can enter the domain, and what is in it. `Err`: the nodes cannot be looked at.
pub(super) fn directory(domain: &Domain) -> Result<Vec<Check>, Check> {
    const NAME: &str = "domain";
    let (path, shown) = (domain.path(), domain.path().display());
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let none = Check::pass(NAME, format!("{shown} does not exist yet: the first node creates it"));
            return Ok(vec![none, elsewhere::check(path)]);
        }
        Err(error) => return Err(Check::fail(NAME, format!("{shown}: {error}"), "choose another with LIBRPC_DOMAIN")),
    };
    let me = rustix::process::geteuid().as_raw();
    let (owner, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    let found = format!("{shown}: uid {owner}, gid {group}, mode {mode:o}");
    let other = "choose another with LIBRPC_DOMAIN or --domain";
    if !metadata.is_dir() {
        return Err(Check::fail(
            NAME,
            format!("{shown} is {}", if metadata.is_symlink() { "a symbolic link" } else { "not a directory" }),
            other,
        ));
    }
    let is_shared = mode == SHARED;
    let check = match domain.group() {
        Some(wanted) if !is_shared || group != wanted => {
            return Err(Check::fail(NAME, format!("{found}: not shared with gid {wanted}"), other));
        }
        None if mode & !0o2000 != PRIVATE && !is_shared => {
            let todo = format!("chmod 700 {shown} if it is yours and for librpc; otherwise {other}");
            return Err(Check::fail(NAME, format!("{found}: neither private (700) nor shared (3770)"), todo));
        }
        None if owner != me && !is_shared => {
            let todo = format!("{other}, or share one by group (--group)");
            let denied = Check::fail(NAME, format!("{found}: another user's; this is uid {me}"), todo);
            // Root may look in any case.
            if std::fs::read_dir(path).is_err() {
                return Err(denied);
            }
            denied
        }
        None if is_shared => Check::warn(
            NAME,
            format!("{found}: a shared domain"),
            format!("name its group to join it: --group {group}"),
        ),
        _ => Check::pass(NAME, found),
    };
    Ok(vec![check, files(domain, owner, is_shared), strange(domain), elsewhere::check(path)])
}

/// Files of another version, or not of librpc. Nodes of different versions do not see one another.
fn strange(domain: &Domain) -> Check {
    const NAME: &str = "layouts";
    let strange = match domain.strange_files() {
        Ok(strange) => strange,
        Err(error) => return Check::fail(NAME, error.to_string(), "see the lines above"),
    };
    let found: Vec<String> = strange.iter().map(|file| format!("{}: {}", file.path.display(), file.why)).collect();
    let is_own = |file: &librpc::StrangeFile| file.path.ends_with("generation");
    let todo = "run one version of librpc everywhere; what no process holds (`fuser -v FILE`) may be removed";
    match strange.iter().any(is_own) {
        _ if strange.is_empty() => Check::pass(NAME, "every file is of this version"),
        true => Check::fail(NAME, found.join("; "), format!("nobody can join: {todo}")),
        false => Check::warn(NAME, found.join("; "), todo),
    }
}

/// Owners, modes and kinds of the files.
fn files(domain: &Domain, owner: u32, is_shared: bool) -> Check {
    const NAME: &str = "files";
    let entries = match std::fs::read_dir(domain.path()) {
        Ok(entries) => entries,
        Err(error) => return Check::fail(NAME, error.to_string(), "see the line above"),
    };
    let (mut strange, mut count) = (Vec::new(), 0);
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue }; // gone in the meantime
        count += 1;
        let (name, mode) = (entry.file_name().to_string_lossy().into_owned(), metadata.mode() & 0o777);
        let kind = metadata.file_type();
        let is_ours = match name.rsplit_once('.') {
            Some((_, "node")) => kind.is_file(),
            Some((_, "sock")) => kind.is_socket(),
            _ => name == "generation" && kind.is_file(),
        };
        if !is_ours {
            strange.push(format!("{name} is not librpc's"));
        } else if !is_shared && metadata.uid() != owner {
            strange.push(format!("{name} belongs to uid {}", metadata.uid()));
        } else if mode & !(if is_shared { 0o660 } else { 0o600 }) != 0 && !kind.is_socket() {
            strange.push(format!("{name} has mode {mode:o}"));
        }
    }
    if strange.is_empty() {
        Check::pass(NAME, format!("{count} in the domain, with the right owners and modes"))
    } else {
        Check::warn(NAME, strange.join(", "), "remove what no node uses")
    }
}

/// What the nodes answer, and which of them do not answer.
pub(super) fn nodes(snapshot: &Snapshot) -> Vec<Check> {
    let alive = snapshot.nodes.iter().filter(|node| node.state != State::Dead).count();
    let mut checks = vec![
        Check::pass("nodes", format!("{alive} alive, {}", counted(snapshot.channels.len() as u64, "channel"))),
        of_state(snapshot, State::Dead, "dead-nodes", "`librpc clean` removes what they left"),
        of_state(
            snapshot,
            State::Stalled,
            "stalled-nodes",
            "`kill -CONT PID` if it is stopped; otherwise look at what it waits for (`cat /proc/PID/stack`, a debugger)",
        ),
        of_state(snapshot, State::Refused, "refusing-nodes", "look as a user that they admit"),
        broken(snapshot),
        versions(snapshot),
        containers(snapshot),
    ];
    checks.extend([denials(snapshot), refusals(snapshot), types(snapshot), traffic(snapshot)]);
    checks
}

fn names<'a>(nodes: impl Iterator<Item = &'a NodeRow>) -> String {
    let names: Vec<String> = nodes.map(|node| format!("{} (pid {})", node.id, node.pid)).collect();
    match names.len() {
        0..=10 => names.join(", "),
        all => format!("{}, and {} more", names[..10].join(", "), all - 10),
    }
}

fn of_state(snapshot: &Snapshot, state: State, check: &'static str, todo: &str) -> Check {
    let found = names(snapshot.nodes.iter().filter(|node| node.state == state));
    if found.is_empty() { Check::pass(check, "none") } else { Check::warn(check, found, todo) }
}

/// Nodes that could not be asked, each with the reason.
fn broken(snapshot: &Snapshot) -> Check {
    const NAME: &str = "broken-nodes";
    let broken: Vec<&NodeRow> = snapshot.nodes.iter().filter(|node| node.state == State::Broken).collect();
    match &broken[..] {
        [] => Check::pass(NAME, "none"),
        [first, ..] => {
            let found = format!("{}: {}", names(broken.iter().copied()), first.why.as_deref().unwrap_or_default());
            Check::warn(NAME, found, "look at them with `librpc nodes`; if it lasts, restart them")
        }
    }
}

fn versions(snapshot: &Snapshot) -> Check {
    const NAME: &str = "versions";
    let mut versions: BTreeMap<&str, Vec<&NodeRow>> = BTreeMap::new();
    for node in &snapshot.nodes {
        if let Some(version) = &node.version {
            versions.entry(version).or_default().push(node);
        }
    }
    let own = env!("CARGO_PKG_VERSION");
    if versions.keys().all(|version| *version == own) {
        return Check::pass(NAME, format!("all nodes that answer run {own}, as this command does"));
    }
    let found = versions.iter().map(|(version, nodes)| format!("{version}: {}", names(nodes.iter().copied())));
    let found = found.collect::<Vec<_>>().join("; ");
    Check::warn(NAME, format!("this command is {own}; {found}"), "run one version everywhere")
}

/// Which namespaces must be shared, and what it costs if they are not.
fn containers(snapshot: &Snapshot) -> Check {
    const NAME: &str = "containers";
    let own: BTreeMap<String, u64> = ["pid", "time", "user", "mnt", "net", "ipc"]
        .into_iter()
        .filter_map(|name| {
            let target = std::fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
            Some((name.to_owned(), target.to_str()?.split(['[', ']']).nth(1)?.parse().ok()?))
        })
        .collect();
    let apart = |what: &str| -> Vec<&NodeRow> {
        let is_apart = |node: &&NodeRow| {
            let theirs = node.namespaces.iter().find(|(name, _)| name == what).map(|(_, number)| *number);
            theirs.is_some_and(|theirs| own.get(what).is_some_and(|own| *own != theirs))
        };
        snapshot.nodes.iter().filter(is_apart).collect()
    };
    let costs = [
        ("pid", "pid namespace: their pids mean other processes here, so they cannot be admitted by pid or program"),
        ("time", "time namespace: latencies between there and here are wrong or missing"),
        ("user", "user namespace: their uids may mean other users here"),
    ];
    let found: Vec<String> = costs
        .into_iter()
        .filter_map(|(what, cost)| {
            let nodes = apart(what);
            (!nodes.is_empty()).then(|| format!("{} in another {cost}", names(nodes.into_iter())))
        })
        .collect();
    if found.is_empty() {
        let elsewhere = apart("mnt").len();
        let more = if elsewhere > 0 {
            format!("; {elsewhere} in another mount namespace, which does not matter")
        } else {
            String::new()
        };
        Check::pass(NAME, format!("pid, time and user namespaces are shared by all nodes that answer{more}"))
    } else {
        Check::warn(NAME, found.join("; "), "share what is needed (docker: --pid=host or --pid=container:…)")
    }
}

/// Subscriptions that may not read a topic.
fn denials(snapshot: &Snapshot) -> Check {
    const NAME: &str = "subscriptions";
    let denied = |node: &NodeRow| node.denied().map(|denial| format!("{}: {denial}", node.id)).collect::<Vec<_>>();
    let found: Vec<String> = snapshot.nodes.iter().flat_map(denied).collect();
    let todo = "if they are to read it, have the publisher admit them (`NodeBuilder::readers`, `librpc pub --readers`)";
    match found.len() {
        0 => Check::pass(NAME, "none is denied a topic"),
        1..=5 => Check::warn(NAME, found.join("; "), todo),
        all => Check::warn(NAME, format!("{}; and {} more", found[..5].join("; "), all - 5), todo),
    }
}

/// Senders that nodes have refused.
fn refusals(snapshot: &Snapshot) -> Check {
    const NAME: &str = "senders";
    let refused =
        |node: &NodeRow| node.refused.iter().map(|refused| format!("node {}: {refused}", node.id)).collect::<Vec<_>>();
    let found: Vec<String> = snapshot.nodes.iter().flat_map(refused).collect();
    let todo =
        "if they are to send, admit them (`NodeBuilder::admit`, `callers`, `limits`), or run one version everywhere";
    match found.len() {
        0 => Check::pass(NAME, "none was refused"),
        1..=5 => Check::warn(NAME, found.join("; "), todo),
        all => Check::warn(NAME, format!("{}; and {} more", found[..5].join("; "), all - 5), todo),
    }
}

/// Inboxes that others mean as another type.
fn types(snapshot: &Snapshot) -> Check {
    const NAME: &str = "types";
    let mismatched =
        |node: &NodeRow| node.mismatched(false).map(|text| format!("node {}: {text}", node.id)).collect::<Vec<_>>();
    let found: Vec<String> = snapshot.nodes.iter().flat_map(mismatched).collect();
    let todo = "build both sides with the same type, or give one of them another topic";
    match found.len() {
        0 => Check::pass(NAME, "both sides of each topic, service and inbox mean the same type"),
        1..=5 => Check::warn(NAME, found.join("; "), todo),
        all => Check::warn(NAME, format!("{}; and {} more", found[..5].join("; "), all - 5), todo),
    }
}

fn traffic(snapshot: &Snapshot) -> Check {
    let found: Vec<String> = warnings::find(snapshot)
        .into_iter()
        .filter(|warning| warning.from.is_some())
        .map(|warning| format!("{}: {}", warning.name, warning.text))
        .collect();
    match found.len() {
        0 => Check::pass("traffic", "no inbox is full, and nothing was lost"),
        1..=5 => Check::warn("traffic", found.join("; "), "`librpc top` shows which node waits for which"),
        all => {
            let text = format!("{}; and {} more", found[..5].join("; "), all - 5);
            Check::warn("traffic", text, "`librpc top` shows which node waits for which")
        }
    }
}
