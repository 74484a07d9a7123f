//! A node as its inboxes, its outboxes and the background thread share it.

use crate::sys::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::kept::KeptCount;
use crate::link::Links;
use crate::link::admission::Admission;
use crate::link::channel_shared::ChannelShared;
use crate::link::inbox_shared::InboxShared;
use crate::link::ledger::{Ledger, Limits};
use crate::link::lending::Payloads;
use crate::link::readers::Readers;
use crate::name::{Address, Incarnation};
use crate::place::{OpenError, Owner, Place, Restored};
use crate::process::Process;
use crate::registry::change_counter;
use crate::registry::domain::Domain;
use crate::registry::lookout::{Condition, Kept, RESTORED_AT_ONCE};
use crate::registry::membership::{JOIN_LIMIT, Patience};
use crate::registry::registration::AnnounceError;
use crate::registry::view::View;
use crate::stats::calls::CallTable;
use crate::stats::ended::EndedTable;
use crate::stats::published::PublishedTable;
use crate::stats::refused::RefusedTable;
use crate::sys::clock::Instant;
use crate::sys::reactor::Reactor;
use crate::sys::socket::Socket;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{Descriptor, OsError, barrier, fork, thread};
use crate::wire::{DEFAULT_MAX_MESSAGE, ListedAddress, ListedInbox};

/// How long a leaving node waits for receivers that have not been given its messages yet.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(500);

/// Why an inbox was not listed.
pub(crate) enum NotListed {
    /// The node was closed.
    Closed,
    /// The node has such an inbox already.
    Taken,
    /// The node's files were removed, and cannot be restored.
    Removed(OpenError),
    Failed(AnnounceError),
}

/// Whom a node lets in, who may read what it publishes and call what it serves, and what others may cost it.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) admission: Admission,
    pub(crate) readers: Readers,
    pub(crate) callers: Readers,
    pub(crate) limits: Limits,
}

/// Has the background thread serve a node's socket, under this token.
pub(crate) type Listen = fn(&Arc<NodeShared>, Socket, u64) -> Result<(), OsError>;

/// What a node's user holds: the node itself, its inboxes and its outboxes. The last one to go has the node leave, there
/// and then; the background thread, which may be looking at the node just now, keeps nothing open.
#[derive(Debug)]
pub(crate) struct Owned(Arc<NodeShared>);

impl Owned {
    pub(crate) fn new(node: Arc<NodeShared>) -> Self {
        Self(node)
    }
}

impl std::ops::Deref for Owned {
    type Target = Arc<NodeShared>;

    fn deref(&self) -> &Arc<NodeShared> {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.leave();
        } else {
            // The parent's: nothing in it is to be undone here.
            std::mem::forget(self.0.clone());
        }
    }
}

impl Drop for NodeShared {
    fn drop(&mut self) {
        self.payloads.end(); // never in a forked child: see above
    }
}

/// A node as its inboxes, its outboxes and the background thread know it.
pub(crate) struct NodeShared {
    pub(crate) id: Arc<str>,
    pub(crate) incarnation: Incarnation,
    pub(crate) admission: Admission,
    /// Who may read what it publishes.
    pub(crate) readers: Readers,
    /// Who may call which of its services.
    pub(crate) callers: Readers,
    /// What those who send here cost.
    pub(crate) ledger: Arc<Ledger>,
    /// What the receivers cost that this node sends to: a peer that may list one inbox could list ten thousand.
    pub(crate) sending: Arc<Ledger>,
    listen: Listen,
    is_private: bool,
    /// `None` once the node was closed.
    place: Mutex<Option<Place>>,
    /// The key under which the process's lookout knows the node; 0: it does not yet.
    lookout_key: AtomicU64,
    /// Whether its files were removed, and could not be restored. It is reported once.
    is_displaced: AtomicBool,
    inboxes: Mutex<Vec<Arc<InboxShared>>>,
    next_inbox: AtomicU32,
    /// Its connections to inboxes.
    pub(crate) links: Arc<Links>,
    /// What the node's outboxes send through.
    rings: Mutex<Rings>,
    /// What was counted on channels that have ended.
    pub(crate) ended_incoming: Arc<EndedTable>,
    pub(crate) ended_outgoing: Arc<EndedTable>,
    /// What its clients and servers have counted.
    pub(crate) calls: Arc<CallTable>,
    /// The topics that its outboxes publish.
    pub(crate) published: Arc<PublishedTable>,
    /// Who wanted to send, and was refused.
    pub(crate) refused: RefusedTable,
    /// The domain's subscriptions, once somebody publishes.
    view: Mutex<Option<View>>,
    /// How many messages outboxes keep for receivers that are gone.
    pub(crate) kept: Arc<KeptCount>,
    /// What its outboxes have made for large payloads.
    pub(crate) payloads: Arc<Payloads>,
    /// How many notices to inboxes that get nothing wait to be sent.
    pub(crate) waiting_notices: Mutex<u32>,
    pub(crate) born: fork::Born,
    process: Arc<Process>,
}

/// What a node's outboxes send through, and whether they may go on.
#[derive(Debug, Default)]
struct Rings {
    closed: bool,
    /// With their serial numbers, in order.
    list: Vec<(u64, Weak<ChannelShared>)>,
    last: u64,
}

impl std::fmt::Debug for NodeShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("incarnation", &self.incarnation).finish()
    }
}

impl NodeShared {
    /// Takes an id in a domain, and listens there.
    pub(crate) fn open(id: &str, domain: &Domain, terms: Terms, listen: Listen) -> Result<Arc<Self>, OpenError> {
        let Terms { admission, readers, callers, limits } = terms;
        let node = Arc::new(Self {
            id: id.into(),
            incarnation: Incarnation::random(),
            admission,
            readers,
            callers,
            ledger: Ledger::new(limits),
            sending: Ledger::new(limits),
            listen,
            is_private: domain.group().is_none(),
            place: Mutex::new(None),
            lookout_key: AtomicU64::new(0),
            is_displaced: AtomicBool::new(false),
            inboxes: Mutex::default(),
            next_inbox: AtomicU32::new(0),
            links: Arc::default(),
            rings: Mutex::default(),
            ended_incoming: Arc::default(),
            ended_outgoing: Arc::default(),
            calls: Arc::default(),
            published: PublishedTable::new(),
            refused: RefusedTable::default(),
            view: Mutex::default(),
            kept: Arc::new(KeptCount::new()),
            payloads: Payloads::new(limits.payload_bytes),
            waiting_notices: Mutex::default(),
            born: fork::Born::now(),
            process: Process::get()?,
        });
        let place = node.as_owner(|owner| Place::take(domain, owner, JOIN_LIMIT))?;
        *node.place() = Some(place);
        let kept: Weak<dyn Kept> = Arc::downgrade(&(node.clone() as Arc<dyn Kept>));
        node.lookout_key.store(node.process.lookout.keep(kept), Ordering::Relaxed);
        Ok(node)
    }

    /// Calls something that looks after the node's place.
    fn as_owner<T>(self: &Arc<Self>, call: impl FnOnce(&Owner<'_>) -> T) -> T {
        let listen = |socket, token| (self.listen)(self, socket, token);
        call(&Owner { id: &self.id, incarnation: self.incarnation, reactor: self.reactor(), listen: &listen })
    }

    fn inboxes(&self) -> MutexGuard<'_, Vec<Arc<InboxShared>>> {
        self.inboxes.lock()
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock()
    }

    /// Looks whether somebody has removed the node's files, and restores them: under the same incarnation, with the same
    /// inboxes. What is connected goes on all the while. Never waits.
    fn restore_place(self: &Arc<Self>) -> Result<Condition, OpenError> {
        let former = {
            let mut place = self.place();
            let Some(place) = place.as_mut() else { return Ok(Condition::Left) };
            let _span = tracing::debug_span!("join", node = &*self.id).entered();
            let list = listed(&self.inboxes());
            match self.as_owner(|owner| place.restore(owner, &list))? {
                Restored::InPlace => return Ok(Condition::InPlace),
                Restored::Anew(former) => former,
            }
        };
        tracing::warn!(node = &*self.id, "the domain was removed under the node, or a file of it: restored");
        former.give_up(&self.id, self.reactor());
        self.is_displaced.store(false, Ordering::Relaxed);
        Ok(Condition::Restored)
    }

    /// The same, until there is nothing to restore any more. A failure is reported once. The next
    /// caller tries again, and so does the background thread.
    pub(crate) fn join_anew_if_removed(self: &Arc<Self>) {
        if !self.born.is_here() {
            return;
        }
        for _ in 0..RESTORED_AT_ONCE {
            if self.look_and_report() != Condition::Restored {
                break;
            }
        }
    }

    /// Nobody restores the node's files any more.
    #[cfg(test)]
    pub(crate) fn neglect(&self) {
        self.process.lookout.forget(self.lookout_key.load(Ordering::Relaxed));
    }

    fn look_and_report(self: &Arc<Self>) -> Condition {
        self.restore_place().unwrap_or_else(|error| {
            if !self.is_displaced.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, node = &*self.id, "the node's files are not in place, or cannot be looked at");
            }
            Condition::Unsettled
        })
    }

    /// The same for somebody who depends on it. Waits for processes that are in the way.
    fn be_in_place(self: &Arc<Self>) -> Result<(), NotListed> {
        let mut patience = Patience::new(JOIN_LIMIT);
        loop {
            match self.restore_place() {
                Ok(Condition::InPlace) => return Ok(()),
                Ok(Condition::Left) => return Err(NotListed::Closed),
                Ok(Condition::Restored | Condition::Unsettled) => {}
                Err(error) if error.is_passing() && patience.waits() => {}
                Err(error) => return Err(NotListed::Removed(error)),
            }
        }
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        &self.process.reactor
    }

    /// The domain's directory; `None` once the node was closed, and in a forked child.
    pub(crate) fn directory(&self) -> Option<Arc<Descriptor>> {
        self.of_membership(|membership| membership.directory().clone())
    }

    fn of_membership<T>(&self, take: impl FnOnce(&crate::registry::membership::Membership) -> T) -> Option<T> {
        if !self.born.is_here() {
            return None; // a thread of the parent's may have had the lock when it forked
        }
        self.place().as_ref().map(|place| take(place.membership()))
    }

    /// Asks the view of the domain's subscriptions; `None` once the node was closed, and in a forked child.
    pub(crate) fn ask_view<T>(
        self: &Arc<Self>,
        ask: impl FnOnce(&mut View) -> Result<T, OsError>,
    ) -> Result<Option<T>, OsError> {
        if !self.born.is_here() {
            return Ok(None);
        }
        self.join_anew_if_removed();
        let place = self.place();
        let Some(membership) = place.as_ref().map(Place::membership) else { return Ok(None) };
        let directory = membership.directory();
        let mut view = self.view.lock();
        match &mut *view {
            None => *view = Some(View::new(directory.clone(), membership.watch()?)),
            Some(view) if !view.is_of(directory) => view.moved(directory.clone(), membership.watch()?),
            Some(_) => {}
        }
        drop(place);
        view.as_mut().map(ask).transpose()
    }

    /// Whether only processes of the same user can enter the domain.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// The domain; `None` once the node was closed, and in a forked child.
    pub(crate) fn domain(&self) -> Option<Domain> {
        self.of_membership(|membership| membership.domain().clone())
    }

    pub(crate) fn next_inbox(&self) -> u32 {
        self.next_inbox.fetch_add(1, Ordering::Relaxed)
    }

    /// The inboxes that are open.
    pub(crate) fn inbox_list(&self) -> Vec<Arc<InboxShared>> {
        self.inboxes().clone()
    }

    /// The inbox of this number.
    pub(crate) fn inbox(&self, number: u32) -> Option<Arc<InboxShared>> {
        self.inboxes().iter().find(|inbox| inbox.number == number).cloned()
    }

    /// Lists a new inbox, for everyone to see.
    pub(crate) fn announce(self: &Arc<Self>, inbox: &Arc<InboxShared>) -> Result<(), NotListed> {
        self.be_in_place()?;
        let mut held = self.place();
        let place = held.as_mut().ok_or(NotListed::Closed)?;
        let list = {
            let mut inboxes = self.inboxes();
            let is_same = |other: &Arc<InboxShared>| match inbox.address {
                Address::Node => other.address == Address::Node,
                _ => inbox.durable.is_some() && other.durable == inbox.durable,
            };
            if inboxes.iter().any(is_same) {
                return Err(NotListed::Taken);
            }
            inboxes.push(inbox.clone());
            if inbox.address == Address::Replies {
                return Ok(());
            }
            listed(&inboxes)
        };
        place.announce(&list).map_err(NotListed::Failed)?;
        let is_shared = place.membership().domain().group().is_some();
        drop(held);
        if is_shared && inbox.address != Address::Node {
            // Publishers there look at the change counter once a millisecond.
            thread::sleep(change_counter::SEEN_AFTER);
        }
        Ok(())
    }

    /// Takes an inbox off the list.
    pub(crate) fn withdraw(&self, inbox: &Arc<InboxShared>) {
        let mut place = self.place();
        let (gone, rest): (Vec<_>, Vec<_>) = self.inbox_list().into_iter().partition(|other| Arc::ptr_eq(other, inbox));
        if gone.is_empty() {
            return;
        }
        // Off the list first: a sender that is turned away, or notices the hang-up, then finds that the inbox has ended.
        if inbox.address != Address::Replies
            && let Some(place) = place.as_mut()
            && let Err(error) = place.announce(&listed(&rest))
        {
            tracing::warn!(%error, node = &*self.id, "a closed inbox stays listed");
        }
        self.inboxes().retain(|other| !Arc::ptr_eq(other, inbox));
        inbox.shut();
    }

    /// Remembers a ring, to be flushed and closed with the node; `false`: the node is closed already.
    pub(crate) fn remember(&self, ring: &Arc<ChannelShared>) -> bool {
        let mut rings = self.all_rings();
        rings.list.retain(|(_, ring)| ring.strong_count() > 0);
        rings.last += 1;
        let serial = rings.last;
        rings.list.push((serial, Arc::downgrade(ring)));
        !rings.closed
    }

    fn all_rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock()
    }

    fn rings(&self) -> Vec<Arc<ChannelShared>> {
        self.all_rings().list.iter().filter_map(|(_, ring)| ring.upgrade()).collect()
    }

    /// The channels after this serial number, in order, at most this many.
    pub(crate) fn channels_after(&self, serial: u64, most: usize) -> Vec<(u64, Arc<ChannelShared>)> {
        let rings = self.all_rings();
        let behind = &rings.list[rings.list.partition_point(|&(other, _)| other <= serial)..];
        behind.iter().filter_map(|(serial, ring)| Some((*serial, ring.upgrade()?))).take(most).collect()
    }

    /// Whether the node was closed.
    pub(crate) fn has_left(&self) -> bool {
        self.all_rings().closed
    }

    /// Waits until everything sent is processed; returns how many messages are not.
    fn flush(&self, deadline: Option<Instant>) -> u64 {
        // What is kept goes into rings as its outboxes are used.
        let kept = self.kept.wait_for_none(deadline);
        let unprocessed: u64 = self.rings().iter().map(|ring| ring.flush(deadline)).sum();
        unprocessed + kept
    }

    /// Waits until everything sent is processed, up to a deadline, and leaves; returns how many messages are not processed.
    pub(crate) fn close(&self, deadline: Option<Instant>) -> u64 {
        let unprocessed = self.flush(deadline);
        self.leave();
        unprocessed
    }

    fn leave(&self) {
        let Some(mut place) = self.place().take() else { return };
        let _span = tracing::debug_span!("leave", node = &*self.id).entered();
        self.process.lookout.forget(self.lookout_key.load(Ordering::Relaxed));
        // Off the list first: a sender that notices the hang-up then finds that the inboxes have ended.
        if let Err(error) = place.announce(&[]) {
            tracing::warn!(%error, node = &*self.id, "a leaving node's inboxes stay listed for a moment");
        }
        let inboxes = std::mem::take(&mut *self.inboxes());
        inboxes.iter().for_each(|inbox| inbox.close());
        self.all_rings().closed = true;
        let rings = self.rings();
        wait_until_sent(&rings);
        rings.iter().for_each(|ring| ring.refuse_pushes());
        barrier::in_own_threads();
        rings.iter().for_each(|ring| ring.close_with_node());
        place.give_up(self.reactor());
        tracing::info!(node = &*self.id, "a node has left");
    }
}

impl Kept for NodeShared {
    fn files(&self) -> Option<(Arc<Descriptor>, Vec<PathBuf>)> {
        self.place().as_ref().map(Place::files)
    }

    fn restore(self: Arc<Self>) -> Condition {
        self.look_and_report()
    }
}

fn listed(inboxes: &[Arc<InboxShared>]) -> Vec<ListedInbox> {
    let list = |inbox: &Arc<InboxShared>| ListedInbox {
        number: inbox.number,
        address: ListedAddress::from(&inbox.address),
        capacity: inbox.capacity,
        policy: inbox.policy.number(),
        own: inbox.receive_own,
        durable: inbox.durable.clone(),
        history: matches!(inbox.address, Address::Topics(_)).then_some(inbox.history as u64),
        max_message: Some(inbox.max_message).filter(|&bytes| bytes != DEFAULT_MAX_MESSAGE),
        schemas: Some(inbox.schemas.iter().map(|wanted| (&wanted.short()).into()).collect()),
    };
    inboxes.iter().filter(|inbox| inbox.address != Address::Replies).map(list).collect()
}

/// Gives rings that hold messages a moment to be handed over: afterwards they survive this process.
fn wait_until_sent(rings: &[Arc<ChannelShared>]) {
    let deadline = Instant::now() + HAND_OVER_LIMIT;
    for ring in rings.iter().filter(|ring| ring.has_unsent()) {
        ring.wait_until_sent(Some(deadline));
    }
}
