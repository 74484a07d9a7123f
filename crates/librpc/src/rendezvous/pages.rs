//! A node's statistics, page by page: a page is a bounded piece of work, whatever the number of channels.
//!
//! The order is fixed: each inbox by its number with its channels behind it, then the outgoing channels. A reader that
//! says where it stands misses nothing that is there all the while, and sees nothing twice.

use std::sync::Arc;

use crate::link::channel_shared::{self, Ring};
use crate::name::Address;
use crate::node::NodeShared;
use crate::policy::Policy;
use crate::stats::{ChannelState, ChannelStats, Ends, InboxStats, NodeStats, Totals};
use crate::sys::memory::no_ack;

/// How far a reader has come: everything up to here was read. By default nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// 0 among the inboxes, 1 among the outgoing channels.
    pub(crate) part: u32,
    pub(crate) inbox: u32,
    /// The serial number of a channel; 0: the inbox itself, or nothing yet.
    pub(crate) serial: u64,
    /// Whether anything was read of this inbox.
    pub(crate) begun: bool,
}

const INBOXES: u32 = 0;
const OUTGOING: u32 = 1;

impl Place {
    /// Everything was read.
    pub(crate) const END: Self = Self { part: OUTGOING, inbox: 0, serial: u64::MAX, begun: false };
}

/// What stands at one place.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Inbox { number: u32, address: Address, policy: Policy, capacity: u64, ended: Totals },
    Incoming(ChannelStats),
    Outgoing(ChannelStats),
}

/// Reads what stands behind a place until `take` wants no more, or `most` items were read; the place of the last one that
/// was taken. `None`: there is nothing more.
pub(crate) fn read(
    node: &NodeShared,
    mut place: Place,
    most: usize,
    mut take: impl FnMut(Item) -> bool,
) -> Option<Place> {
    let mut left = most;
    if place.part == INBOXES {
        let mut inboxes = node.inbox_list();
        inboxes.sort_by_key(|inbox| inbox.number);
        let from = place.inbox;
        for inbox in inboxes.into_iter().filter(|inbox| inbox.number >= from) {
            if inbox.number > place.inbox || !place.begun {
                let (number, address, policy, capacity) =
                    (inbox.number, inbox.address.clone(), inbox.policy, inbox.capacity);
                let item = Item::Inbox { number, address, policy, capacity, ended: inbox.roll.ended() };
                if left == 0 || !take(item) {
                    return Some(place);
                }
                left -= 1;
                place = Place { part: INBOXES, inbox: number, serial: 0, begun: true };
            }
            for (serial, enrolled) in inbox.roll.behind(place.serial, left + 1) {
                if left == 0 || !take(Item::Incoming(enrolled.stats())) {
                    return Some(place);
                }
                left -= 1;
                place.serial = serial;
            }
        }
        place = Place { part: OUTGOING, ..Place::default() };
    }
    for (serial, ring) in node.rings_behind(place.serial, left + 1) {
        if left == 0 || !take(Item::Outgoing(outgoing(&ring))) {
            return Some(place);
        }
        left -= 1;
        place.serial = serial;
    }
    None
}

fn outgoing(ring: &Ring) -> ChannelStats {
    let target = &ring.link.target;
    let ends = Ends {
        peer: target.node.clone(),
        peer_incarnation: target.incarnation,
        peer_pid: 0,
        inbox: target.inbox,
        ring: ring.attached().map(|attached| attached.number),
        state: match ring.status() {
            channel_shared::PENDING => ChannelState::Pending,
            channel_shared::OPEN => ChannelState::Open,
            _ => ChannelState::Failed,
        },
        policy: target.policy,
        capacity: target.capacity,
        topics: Vec::new(),
    };
    let ack = ring.ack().map_or_else(no_ack, |ack| ack.reader());
    ChannelStats::read(ends, &ring.data.reader(), &ack)
}

/// All of it.
pub(crate) fn whole(node: &NodeShared) -> NodeStats {
    let mut stats = empty(node);
    read(node, Place::default(), usize::MAX - 1, |item| {
        add(&mut stats, item);
        true
    });
    stats
}

fn empty(node: &NodeShared) -> NodeStats {
    NodeStats {
        node: node.id.clone(),
        incarnation: node.incarnation,
        version: VERSION.to_owned(),
        namespaces: namespaces(),
        inboxes: Vec::new(),
        outgoing: Vec::new(),
    }
}

/// The version of this library.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Puts an item where it belongs. A channel comes behind its inbox.
pub(crate) fn add(stats: &mut NodeStats, item: Item) {
    match item {
        Item::Inbox { number, address, policy, capacity, ended } => {
            stats.inboxes.push(InboxStats { number, address, policy, capacity, channels: Vec::new(), ended });
        }
        Item::Incoming(channel) => {
            if let Some(inbox) = stats.inboxes.iter_mut().rfind(|inbox| inbox.number == channel.inbox) {
                inbox.channels.push(channel);
            }
        }
        Item::Outgoing(channel) => stats.outgoing.push(channel),
    }
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

impl crate::Node {
    /// What the node's inboxes and outboxes have counted, channel by channel. Does not block, and costs those who send and
    /// receive nothing.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_stats_{}", std::process::id()));
    /// # let node = librpc::Node::builder("display").domain(domain).open()?;
    /// let mut inbox = node.inbox()?;
    /// node.sender("display")?.send(b"hello")?;
    /// inbox.recv()?;
    /// let stats = node.stats();
    /// let channel = &stats.inboxes[0].channels[0];
    /// assert_eq!((&*channel.peer, channel.sent, channel.received), ("display", 1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> NodeStats {
        let node: &Arc<NodeShared> = self.owned();
        match node.born.is_here() {
            true => whole(node),
            false => empty(node), // the parent's memory is not mapped here
        }
    }
}
