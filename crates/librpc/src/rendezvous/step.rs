//! What a step of a handshake leads to, and what an admitted sender is to get.

use std::sync::Arc;

use crate::link::admission::NotAdmitted;
use crate::link::inbox_shared::{Announced, InboxShared};
use crate::link::ledger::Charge;
use crate::link::readers::Access;
use crate::link::segments::SegmentTable;
use crate::name::{Address, Peer};
use crate::node_shared::NodeShared;
use crate::stats::Denial;
use crate::sys::memory::Mapping;
use crate::sys::socket::Credentials;
use crate::wire::{Data, FENCED_BY_RECEIVER, Observe, Reason};

/// What a sender wants.
pub(super) struct Wanted {
    pub(super) peer: Arc<Peer>,
    pub(super) inbox: Arc<InboxShared>,
    /// The number of its connection.
    pub(super) connection: u64,
    /// Its socket becomes that connection.
    pub(super) announced: Option<Announced>,
    /// The sender has no fence of its own: the receiver's barrier replaces it.
    pub(super) is_fenced: bool,
    /// Its ring, where it came with the hello.
    pub(super) memory: Option<Arc<Mapping>>,
    pub(super) owner: Credentials,
}

impl Wanted {
    /// The feature bits that the receiver makes use of.
    pub(super) fn features(&self) -> u64 {
        if self.is_fenced { FENCED_BY_RECEIVER } else { 0 }
    }

    /// What the ring must be.
    pub(super) fn terms(&self) -> Data {
        Data { capacity: self.inbox.capacity, policy: self.inbox.policy.number() }
    }

    pub(super) fn has_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether it is for a connection that is not there (yet, or any more).
    pub(super) fn is_of_unknown_connection(&self) -> bool {
        self.announced.is_none() && !self.inbox.knows(self.connection, self.owner)
    }
}

/// A memory that is to be mapped.
pub(super) struct Offered {
    pub(super) table: Arc<SegmentTable>,
    pub(super) segment: u64,
    pub(super) bytes: u64,
    pub(super) charge: Charge,
}

/// What a step leads to.
pub(super) enum Next {
    /// What was said is to be looked at again in a moment: descriptors or memory are used up.
    Again,
    Refuse(Reason, String),
    HangUp,
    /// The user's function decides.
    Ask(Asked),
    /// It is admitted.
    Admitted(Asked),
    /// A page was sent.
    Observing,
    /// The channel, or the memory for payloads, was handed to the inbox.
    Attached,
    /// The terms were stated.
    Data(Wanted, Charge),
    /// The memory is still in the socket, and cannot be taken just now.
    DataAgain(Wanted, Charge),
    /// The memory is here, and what its channel needs of this process is not, just now.
    AttachAgain(Wanted, Charge),
    /// A memory for payloads is due.
    Memory(Offered),
    /// It is still in the socket, and cannot be taken just now.
    MemoryAgain(Offered),
}

/// Who asks to be admitted, and what for.
pub(super) enum Asked {
    Sender(Wanted),
    Observer(Peer, Observe),
    /// A publisher that does not let an inbox read a topic.
    Denier(Arc<Peer>, Arc<InboxShared>, Arc<Denial>),
}

impl Asked {
    /// The inbox for which everything has come already, whatever becomes of the peer.
    pub(super) fn inbox_with_delivery(&self) -> Option<Arc<InboxShared>> {
        match self {
            Self::Sender(wanted) => wanted.has_memory().then(|| wanted.inbox.clone()),
            Self::Denier(_, inbox, _) => Some(inbox.clone()),
            Self::Observer(..) => None,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        match self {
            Self::Sender(wanted) => &wanted.peer,
            Self::Observer(peer, _) => peer,
            Self::Denier(peer, ..) => peer,
        }
    }
}

impl Next {
    pub(super) fn refuse(reason: Reason, text: impl Into<String>) -> Self {
        Self::Refuse(reason, text.into())
    }

    /// What the rules say of a peer, or who is to be asked.
    pub(super) fn by_rules(node: &NodeShared, asked: Asked) -> Self {
        if let Asked::Sender(wanted) = &asked
            && let Some(decided) = by_inbox(node, wanted)
        {
            return decided.map_or_else(|text| Self::Refuse(Reason::NotAdmitted, text), |()| Self::Admitted(asked));
        }
        match node.admission.by_rules(asked.peer()) {
            Some(Ok(())) => Self::Admitted(asked),
            Some(Err(why)) => not_admitted(node, asked.peer(), &why),
            None => Self::Ask(asked),
        }
    }
}

/// What an inbox says of a sender; `None`: it has no rules of its own.
fn by_inbox(node: &NodeShared, wanted: &Wanted) -> Option<Result<(), String>> {
    let Wanted { inbox, peer, .. } = wanted;
    if let Some(is_invited) = inbox.has_invited(peer) {
        return Some(match is_invited {
            true => Ok(()),
            false => Err(format!("node {:?} takes replies only from the servers that it has called", node.id)),
        });
    }
    let Address::Service(service) = &inbox.address else { return None };
    if !node.callers.restrict(service) {
        return None;
    }
    Some(match node.callers.access(service, peer.uid, Some(peer)) {
        Access::Denied(who) => Err(format!("node {:?} lets {who} not call service {service:?}", node.id)),
        Access::Granted | Access::Unknown => Ok(()),
    })
}

pub(super) fn not_admitted(node: &NodeShared, peer: &Peer, why: &NotAdmitted) -> Next {
    let text = format!("node {:?} does not admit uid {}, pid {}{why}", node.id, peer.uid, peer.pid);
    Next::Refuse(Reason::NotAdmitted, text)
}
