//! A node's statistics, page by page: a page is a bounded piece of work, whatever the number of channels.
//!
//! The order is fixed: each inbox by its number, followed by its channels, then the outgoing channels. A reader that passes
//! its cursor along misses nothing that is there all the while, and sees nothing twice.

use crate::link::channel_shared::{self, ChannelShared};
use crate::node_shared::NodeShared;
use crate::stats::page::{self, Cursor, INBOXES, Item, OUTGOING};
use crate::stats::{ChannelState, ChannelStats, Ends, NodeStats};
use crate::sys::memory::no_ack;
use crate::sys::process;

/// Reads what follows a cursor until `take` wants no more, or `most` items were read; returns the cursor of the last one
/// that was taken. `None`: there is nothing more.
pub(crate) fn read(
    node: &NodeShared,
    mut cursor: Cursor,
    most: usize,
    mut take: impl FnMut(Item) -> bool,
) -> Option<Cursor> {
    let mut left = most;
    if cursor.part == INBOXES {
        let mut inboxes = node.inbox_list();
        inboxes.sort_by_key(|inbox| inbox.number);
        let from = cursor.inbox;
        for inbox in inboxes.into_iter().filter(|inbox| inbox.number >= from) {
            if inbox.number > cursor.inbox || !cursor.begun {
                let (number, address, policy, capacity) =
                    (inbox.number, inbox.address.clone(), inbox.policy, inbox.capacity);
                let item = Item::Inbox { number, address, policy, capacity, ended: inbox.channels.ended() };
                if left == 0 || !take(item) {
                    return Some(cursor);
                }
                left -= 1;
                cursor = Cursor { part: INBOXES, inbox: number, serial: 0, begun: true };
            }
            for (serial, channel) in inbox.channels.after(cursor.serial, left + 1) {
                if left == 0 || !take(Item::Incoming(channel.stats())) {
                    return Some(cursor);
                }
                left -= 1;
                cursor.serial = serial;
            }
        }
        cursor = Cursor { part: OUTGOING, ..Cursor::default() };
    }
    for (serial, ring) in node.rings_behind(cursor.serial, left + 1) {
        if left == 0 || !take(Item::Outgoing(outgoing(&ring))) {
            return Some(cursor);
        }
        left -= 1;
        cursor.serial = serial;
    }
    None
}

fn outgoing(ring: &ChannelShared) -> ChannelStats {
    let target = &ring.target;
    let ends = Ends {
        peer: target.node.clone(),
        peer_incarnation: target.incarnation,
        peer_pid: 0,
        inbox: target.inbox,
        ring: ring.attached().map(|attached| attached.number),
        state: match ring.status() {
            channel_shared::UNSENT | channel_shared::SENT => ChannelState::Pending,
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
    if !node.born.is_here() {
        return stats; // the parent's memory is not mapped here
    }
    read(node, Cursor::default(), usize::MAX - 1, |item| {
        page::add(&mut stats, item);
        true
    });
    stats
}

fn empty(node: &NodeShared) -> NodeStats {
    NodeStats {
        node: node.id.clone(),
        incarnation: node.incarnation,
        version: VERSION.to_owned(),
        namespaces: process::namespaces(),
        inboxes: Vec::new(),
        outgoing: Vec::new(),
    }
}

/// The version of this library.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
