//! The fault points, which process reaches each, and how to make a process reach it. docs/fault-points.md says what
//! each means.

use crate::health::Slack;
use crate::roles::{Receive, Send};

/// Which process reaches a fault point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A sender whose receiver lives.
    Sender,
    /// A receiver whose sender lives.
    Receiver,
    /// A node that joins an empty domain, and leaves it as the last one.
    Alone,
    /// A process that finds a dead node.
    Sweeper,
    /// A sender with redelivery whose receiver was killed.
    Redeliverer,
    /// A client whose server lives.
    Caller,
    /// A server, while another one lives.
    Server,
}

/// Whether a message that was being sent counts as committed after a death at this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    Yes,
    No,
    /// Either is possible.
    Open,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) who: Who,
    /// Whether one process reaches it many times.
    pub(crate) often: bool,
    pub(crate) commits: Commits,
}

const fn once(name: &'static str, who: Who) -> Point {
    Point { name, who, often: false, commits: Commits::Open }
}

const fn often(name: &'static str, who: Who, commits: Commits) -> Point {
    Point { name, who, often: true, commits }
}

/// All fault points. A test compares this with the sources of the library.
pub(crate) const POINTS: &[Point] = &[
    once("domain.unfinished", Who::Alone),
    once("domain.made", Who::Alone),
    once("domain.generation-linked", Who::Alone),
    once("last.locked", Who::Alone),
    once("last.swept", Who::Alone),
    once("last.generation-removed", Who::Alone),
    once("join.member", Who::Receiver),
    once("join.locked", Who::Receiver),
    once("join.linked", Who::Receiver),
    once("join.bound", Who::Receiver),
    once("join.listening", Who::Receiver),
    once("join.announced", Who::Receiver),
    once("join.served", Who::Receiver),
    often("announce.written", Who::Receiver, Commits::Open),
    often("announce.selected", Who::Receiver, Commits::Open),
    once("accept.accepted", Who::Receiver),
    once("accept.terms-sent", Who::Receiver),
    once("accept.mapped", Who::Receiver),
    once("accept.attached", Who::Receiver),
    often("consume.taken", Who::Receiver, Commits::Open),
    often("consume.consumed", Who::Receiver, Commits::Open),
    often("arm.armed", Who::Receiver, Commits::Open),
    often("wake.woken", Who::Receiver, Commits::Open),
    once("connect.connected", Who::Sender),
    once("connect.hello-sent", Who::Sender),
    once("connect.terms-received", Who::Sender),
    once("connect.data-sent", Who::Sender),
    once("connect.attached", Who::Sender),
    often("commit.payload-written", Who::Sender, Commits::No),
    often("commit.zero-written", Who::Sender, Commits::No),
    often("commit.committed", Who::Sender, Commits::Yes),
    often("send.must-ring", Who::Sender, Commits::Yes),
    often("wait.announced", Who::Sender, Commits::Open),
    once("leave.begun", Who::Sender),
    once("leave.socket-removed", Who::Sender),
    once("leave.file-removed", Who::Sender),
    once("lend.grown", Who::Sender),
    once("lend.asked", Who::Sender),
    often("lend.pushed", Who::Sender, Commits::Yes),
    once("lend.retired", Who::Sender),
    once("lend.mapped", Who::Receiver),
    often("hold.copied", Who::Receiver, Commits::Open),
    often("hold.kept", Who::Receiver, Commits::Open),
    often("hold.sampled", Who::Receiver, Commits::Open),
    often("hold.released", Who::Receiver, Commits::Open),
    once("redeliver.absorbed", Who::Redeliverer),
    often("redeliver.brought", Who::Redeliverer, Commits::Open),
    often("call.requested", Who::Caller, Commits::Open),
    often("call.cancelled", Who::Caller, Commits::Open),
    often("call.handed-out", Who::Server, Commits::Open),
    often("call.answered", Who::Server, Commits::Open),
    once("sweep.locked", Who::Sweeper),
    once("sweep.taken-away", Who::Sweeper),
    once("sweep.socket-removed", Who::Sweeper),
    once("sweep.file-removed", Who::Sweeper),
];

impl Point {
    /// The process is killed or stopped when it reaches the point for this time.
    pub(crate) fn nth(&self, rng: &mut fastrand::Rng) -> u32 {
        match self.name {
            "announce.written" | "announce.selected" => rng.u32(1..=2), // joining, and opening the inbox
            "call.cancelled" => rng.u32(1..=8),
            _ if self.often => rng.u32(1..=20),
            _ => 1,
        }
    }

    /// Whether only the owner of the directory reaches it, by sweeping a dead node of another user.
    pub(crate) fn is_between_users(&self) -> bool {
        self.name == "sweep.taken-away"
    }

    /// Whether it is reached in shared domains only.
    pub(crate) fn is_in_shared_domains(&self) -> bool {
        let has_terms = matches!(self.name, "connect.terms-received" | "connect.data-sent" | "accept.terms-sent");
        has_terms || self.name == "domain.unfinished" || self.is_between_users()
    }

    /// Whether it is reached only if the receiver sleeps. Then the sender pauses between its messages.
    fn wants_sleep(&self) -> bool {
        matches!(self.name, "send.must-ring" | "arm.armed" | "wake.woken")
    }

    /// Whether it is reached only with payloads that do not fit into the ring.
    fn wants_large_payloads(&self) -> bool {
        self.name.starts_with("lend.") || self.name.starts_with("hold.")
    }

    /// How much a survivor may grow.
    pub(crate) fn slack(&self) -> Slack {
        if self.wants_large_payloads() { Slack::PAYLOADS } else { Slack::CHANNEL }
    }

    /// Whether it is reached only if memories for payloads are made and given back all the time.
    fn wants_little_memory(&self) -> bool {
        matches!(self.name, "lend.grown" | "lend.retired")
    }

    /// Whether it is reached only if samples are held.
    fn wants_samples(&self) -> bool {
        matches!(self.name, "hold.kept" | "hold.sampled" | "hold.released")
    }

    /// Whether it is reached only if the sender waits for room. Then the ring is small and the receiver slow.
    fn wants_full_ring(&self) -> bool {
        self.name == "wait.announced"
    }
}

/// A receiver that reaches the point, or whose sender reaches it.
pub(crate) fn receive_for(point: &Point) -> Receive {
    let full = point.wants_full_ring();
    Receive {
        capacity: if full { 4096 } else { 0 },
        pause_us: if full { 100 } else { 0 },
        block: point.wants_sleep(),
        samples: point.wants_samples(),
        ..Receive::by("sink")
    }
}

/// A sender that reaches the point, or whose receiver reaches it.
pub(crate) fn send_for(point: &Point) -> Send {
    let full = point.wants_full_ring();
    Send {
        bytes: if full { 900 } else { 200 },
        burst: if full { 64 } else { 1 },
        lends: point.wants_large_payloads(),
        squeezed: point.wants_little_memory(),
        pause_us: if point.wants_sleep() { 300 } else { 0 },
        ..Send::between("source", "sink")
    }
}

#[cfg(test)]
mod tests {
    use super::POINTS;

    #[test]
    fn the_list_contains_every_fault_point_of_the_library() {
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        let mut found = Vec::new();
        let mut folders = vec![crates.join("ring/src"), crates.join("librpc/src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                    continue;
                }
                let text = std::fs::read_to_string(entry).unwrap();
                found.extend(text.split("fault!(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
        let mut known: Vec<String> = POINTS.iter().map(|point| point.name.to_owned()).collect();
        found.sort();
        found.dedup();
        known.sort();
        assert_eq!(known, found, "a new fault point needs a line in points.rs");
    }
}
