//! A node's statistics, page by page: a page is a bounded piece of work, whatever the number of channels.
//!
//! The order is fixed: what was counted on channels that have ended, each inbox by its number, followed by its channels, then
//! the outgoing channels, what is denied to the inboxes, the calls, who was
//! refused, and last the topics that it publishes. A reader that passes its cursor along misses nothing that is
//! there all the while, and sees nothing twice.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::link::inbox_shared::InboxShared;
use crate::node_shared::NodeShared;
use crate::stats::page::{
    self, CALLS, Cursor, DENIED, ENDED_INCOMING, ENDED_OUTGOING, INBOXES, Item, OUTGOING, PUBLISHED, REFUSED,
};
use crate::stats::{Denial, NodeStats};
use crate::sys::process;

/// Reads what follows a cursor until `take` wants no more, or `most` items were read; returns the cursor of the last one
/// that was taken. `None`: there is nothing more.
pub(crate) fn read(node: &NodeShared, cursor: Cursor, most: usize, take: impl FnMut(Item) -> bool) -> Option<Cursor> {
    let mut reading = Reading { cursor, left: most, take };
    reading.all(node).is_break().then_some(reading.cursor)
}

/// How far a reader has got.
struct Reading<T> {
    cursor: Cursor,
    left: usize,
    take: T,
}

impl<T: FnMut(Item) -> bool> Reading<T> {
    /// Goes on from the cursor; breaks off where the reader wants no more.
    fn all(&mut self, node: &NodeShared) -> ControlFlow<()> {
        if self.enters(ENDED_INCOMING) {
            self.list(node.ended_incoming.after(self.cursor.serial, self.left + 1), Item::EndedIncoming)?;
        }
        if self.enters(ENDED_OUTGOING) {
            self.list(node.ended_outgoing.after(self.cursor.serial, self.left + 1), Item::EndedOutgoing)?;
        }
        if self.enters(INBOXES) {
            for inbox in self.inboxes(node) {
                if inbox.number > self.cursor.inbox || !self.cursor.begun {
                    let begun = Cursor { part: INBOXES, inbox: inbox.number, serial: 0, begun: true };
                    self.add(begun, item(&inbox))?;
                }
                let channels = inbox.channels.after(self.cursor.serial, self.left + 1);
                self.list(channels, |channel| Item::Incoming(channel.stats()))?;
            }
        }
        if self.enters(OUTGOING) {
            let channels = node.channels_after(self.cursor.serial, self.left + 1);
            self.list(channels, |channel| Item::Outgoing(channel.stats()))?;
        }
        if self.enters(DENIED) {
            for inbox in self.inboxes(node) {
                if inbox.number > self.cursor.inbox {
                    self.cursor = Cursor { part: DENIED, inbox: inbox.number, ..Cursor::default() };
                }
                self.list(inbox.denials_after(self.cursor.serial), |denial| Item::Denied(Denial::clone(&denial)))?;
            }
        }
        if self.enters(CALLS) {
            self.list(node.calls.after(self.cursor.serial, self.left + 1), Item::Calls)?;
        }
        if self.enters(REFUSED) {
            self.list(node.refused.after(self.cursor.serial), Item::Refused)?;
        }
        if self.enters(PUBLISHED) {
            self.list(node.published.after(self.cursor.serial, self.left + 1), Item::Published)?;
        }
        ControlFlow::Continue(())
    }

    /// The inboxes from the cursor on, in order.
    fn inboxes(&self, node: &NodeShared) -> impl Iterator<Item = Arc<InboxShared>> + use<T> {
        let (mut inboxes, from) = (node.inbox_list(), self.cursor.inbox);
        inboxes.sort_by_key(|inbox| inbox.number);
        inboxes.into_iter().filter(move |inbox| inbox.number >= from)
    }

    /// Whether the cursor is in this part: at its beginning, if it was in an earlier one.
    fn enters(&mut self, part: u32) -> bool {
        if self.cursor.part < part {
            self.cursor = Cursor { part, ..Cursor::default() };
        }
        self.cursor.part == part
    }

    fn list<I>(&mut self, items: Vec<(u64, I)>, item: impl Fn(I) -> Item) -> ControlFlow<()> {
        items.into_iter().try_for_each(|(serial, each)| self.add(Cursor { serial, ..self.cursor }, item(each)))
    }

    fn add(&mut self, cursor: Cursor, item: Item) -> ControlFlow<()> {
        if self.left == 0 || !(self.take)(item) {
            return ControlFlow::Break(());
        }
        self.left -= 1;
        self.cursor = cursor;
        ControlFlow::Continue(())
    }
}

fn item(inbox: &InboxShared) -> Item {
    let InboxShared { number, policy, capacity, .. } = *inbox;
    Item::Inbox { number, address: inbox.address.clone(), policy, capacity, ended: inbox.channels.ended() }
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
    let mut stats = NodeStats::new(node.id.clone(), node.incarnation);
    (stats.version, stats.namespaces) = (VERSION.to_owned(), process::namespaces());
    (stats.payload_bytes, stats.payload_limit) = node.payloads.used();
    stats.published_left_out = node.published.left_out();
    stats
}

/// The version of this library.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
