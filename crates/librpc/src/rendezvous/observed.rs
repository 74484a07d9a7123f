//! A connection that asks for the node's statistics: admitted by the same rules as a sender, answered page by page.
//!
//! Each request is answered by one message of bounded size, so nothing piles up for an observer that does not read, and the
//! background thread's other work waits for one page at most. An observer names no node: the kernel says who it is.

use std::sync::Arc;

use crate::name::{Incarnation, Peer};
use crate::node_shared::NodeShared;
use crate::rendezvous::hello::other_version;
use crate::rendezvous::pages;
use crate::rendezvous::step::{Asked, Next};
use crate::stats::page::Cursor;
use crate::sys::process;
use crate::sys::socket::{Credentials, Sent, Socket};
use crate::wire::{self, Answer, ListedItem, Observe, Page, Reason, Versions};

/// The most inboxes and channels of a page.
const ITEMS: usize = 64;
/// No item is added to a page that is longer than this, in bytes; the longest item is shorter than that itself.
const PAGE_BYTES: usize = 24 * 1024;

/// Who asks first, and whether it may.
pub(super) fn first(node: &Arc<NodeShared>, socket: &Socket, credentials: Credentials, bytes: &[u8]) -> Next {
    let asked: Observe = match wire::decode(bytes) {
        Ok(asked) => asked,
        Err(error) => return Next::refuse(Reason::BadHandshake, error.to_string()),
    };
    if let Some(next) = other_version("the observer", Versions { lowest: asked.lowest, highest: asked.highest }) {
        return next;
    }
    if asked.target != *node.incarnation.bytes() {
        return Next::refuse(Reason::Restarted, "the node was opened again");
    }
    let Credentials { pid, uid, gid } = credentials;
    let groups = socket.peer_groups().into();
    let peer = Peer { node: "".into(), incarnation: Incarnation::from_bytes([0; 16]), pid, uid, gid, groups };
    Next::by_rules(node, Asked::Observer(peer, asked))
}

/// One that was admitted asks for more.
pub(super) fn next(node: &NodeShared, socket: &Socket, bytes: &[u8]) -> Next {
    match wire::decode(bytes) {
        Ok(asked) => turn(node, socket, asked),
        Err(error) => Next::refuse(Reason::BadHandshake, error.to_string()),
    }
}

/// Sends one page.
pub(super) fn turn(node: &NodeShared, socket: &Socket, asked: Observe) -> Next {
    let answer = wire::encode(&Answer::Page(page(node, asked.behind.map(Cursor::from))));
    if matches!(socket.send(&answer, None), Ok(Sent::Done)) { Next::Observing } else { Next::HangUp }
}

fn page(node: &NodeShared, behind: Option<Cursor>) -> Page {
    let (mut items, mut bytes) = (Vec::new(), 0);
    let next = pages::read(node, behind.unwrap_or_default(), ITEMS, |item| {
        if bytes > PAGE_BYTES {
            return false;
        }
        let listed = ListedItem::from(&item);
        bytes += wire::encode(&listed).len();
        items.push(listed);
        true
    });
    let namespaces = if behind.is_none() { process::namespaces() } else { Vec::new() };
    let payloads = behind.is_none().then(|| node.payloads.used());
    let left_out = behind.is_none().then(|| node.published.left_out()).filter(|&topics| topics > 0);
    Page { version: pages::VERSION.to_owned(), namespaces, items, next: next.map(Into::into), payloads, left_out }
}
