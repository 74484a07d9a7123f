//! A node as its inboxes, its outboxes and the background thread share it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::fault::fault;
use crate::link::Links;
use crate::link::admission::Admission;
use crate::link::channel_shared::ChannelShared;
use crate::link::inbox_shared::InboxShared;
use crate::link::ledger::{Ledger, Limits};
use crate::name::{Address, BadNodeId, Incarnation};
use crate::process::Process;
use crate::registry::change_counter;
use crate::registry::domain::{Domain, DomainError};
use crate::registry::membership::Membership;
use crate::registry::registration::{JoinError, Registration};
use crate::registry::view::View;
use crate::stats::ended::EndedTable;
use crate::sys::clock::Instant;
use crate::sys::reactor::Reactor;
use crate::sys::socket::Socket;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{Descriptor, OsError, barrier, fork, thread};
use crate::wire::{ListedAddress, ListedInbox};

/// How long a leaving node waits for receivers that have not been given its messages yet.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(500);

/// Why an inbox was not listed.
pub(crate) enum NotListed {
    /// The node was closed.
    Closed,
    /// The node has such an inbox already.
    Taken,
    Os(OsError),
}

/// Has the background thread serve a node's socket.
pub(crate) type Listen = fn(&Arc<NodeShared>, Socket, u64) -> Result<(), OsError>;

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The id is none.
    #[error(transparent)]
    BadId(#[from] BadNodeId),
    /// A living node has this id.
    #[error("node {id:?} is held by pid {pid} of uid {uid} (`librpc nodes` shows it)")]
    IdInUse {
        /// The id.
        id: String,
        /// The process that holds it, as that process says.
        pid: u32,
        /// Its user.
        uid: u32,
    },
    /// A dead node of another user has left this id behind, and only that user, the domain's owner or root can sweep it.
    #[error("node {id:?} was left behind by uid {uid}: that user, the domain's owner or root must run `librpc clean`")]
    LeftBehind {
        /// The id.
        id: String,
        /// Whose it was.
        uid: u32,
    },
    /// Another process has been sweeping what a dead node of this id has left for over 2 s.
    #[error("what a dead node {id:?} has left is being swept by a process that does not go on: is it stopped?")]
    BeingSwept {
        /// The id.
        id: String,
    },
    /// The domain could not be entered.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// A node's place in its domain: its files, and its ear.
#[derive(Debug)]
struct Place {
    registration: Registration,
    /// The listener, as the background thread knows it.
    token: u64,
}

fn bind(registration: &mut Registration, is_private: bool) -> Result<Socket, OsError> {
    let socket = Socket::bind(&registration.socket_path()?)?;
    fault!("join.bound");
    registration.open_socket()?;
    socket.listen(is_private)?;
    fault!("join.listening");
    registration.announce(&[])?;
    fault!("join.announced");
    Ok(socket)
}

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

/// A node as its inboxes, its outboxes and the background thread know it.
pub(crate) struct NodeShared {
    pub(crate) id: Arc<str>,
    pub(crate) incarnation: Incarnation,
    pub(crate) admission: Admission,
    /// What those who send here cost.
    pub(crate) ledger: Arc<Ledger>,
    /// What those who are sent to cost: whoever may list an inbox could list ten thousand.
    pub(crate) sending: Arc<Ledger>,
    listen: Listen,
    is_private: bool,
    /// `None` once the node was closed.
    place: Mutex<Option<Place>>,
    inboxes: Mutex<Vec<Arc<InboxShared>>>,
    next_inbox: AtomicU32,
    /// Its connections to inboxes.
    pub(crate) links: Arc<Links>,
    /// What the node's outboxes send through.
    rings: Mutex<Rings>,
    /// What was counted on channels that have ended.
    pub(crate) ended_incoming: Arc<EndedTable>,
    pub(crate) ended_outgoing: Arc<EndedTable>,
    /// The domain's subscriptions, once somebody publishes.
    view: Mutex<Option<View>>,
    /// How many messages outboxes keep for receivers that are gone.
    pub(crate) kept: Arc<AtomicU64>,
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
    pub(crate) fn open(
        id: &str,
        domain: &Domain,
        (admission, limits): (Admission, Limits),
        listen: Listen,
    ) -> Result<Arc<Self>, OpenError> {
        let node = Arc::new(Self {
            id: id.into(),
            incarnation: Incarnation::random(),
            admission,
            ledger: Ledger::new(limits),
            sending: Ledger::new(limits),
            listen,
            is_private: domain.group().is_none(),
            place: Mutex::new(None),
            inboxes: Mutex::default(),
            next_inbox: AtomicU32::new(0),
            links: Arc::default(),
            rings: Mutex::default(),
            ended_incoming: Arc::default(),
            ended_outgoing: Arc::default(),
            view: Mutex::default(),
            kept: Arc::default(),
            born: fork::Born::now(),
            process: Process::get()?,
        });
        let place = node.take_place(domain)?;
        *node.place() = Some(place);
        Ok(node)
    }

    fn inboxes(&self) -> MutexGuard<'_, Vec<Arc<InboxShared>>> {
        self.inboxes.lock()
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock()
    }

    /// Takes the node's id in a domain, and listens there.
    fn take_place(self: &Arc<Self>, domain: &Domain) -> Result<Place, OpenError> {
        let id = || self.id.to_string();
        let membership = Membership::enter(domain, true)?.expect("a domain is made where there is none");
        let mut registration = match Registration::join(membership, &self.id, self.incarnation) {
            Ok(registration) => registration,
            Err(JoinError::InUse { pid, uid }) => return Err(OpenError::IdInUse { id: id(), pid, uid }),
            Err(JoinError::NotOurs { uid }) => return Err(OpenError::LeftBehind { id: id(), uid }),
            Err(JoinError::BeingSwept) => return Err(OpenError::BeingSwept { id: id() }),
            Err(JoinError::Domain(error)) => return Err(error.into()),
            Err(JoinError::Os(error)) => return Err(error.into()),
        };
        let token = self.reactor().token();
        let listening = bind(&mut registration, self.is_private);
        match listening.and_then(|socket| (self.listen)(self, socket, token)) {
            Ok(()) => Ok(Place { registration, token }),
            Err(error) => {
                registration.leave();
                Err(error.into())
            }
        }
    }

    /// Notices that the domain, or the node's file in it, was removed under the node, and joins anew: the same incarnation
    /// with the same inboxes. What is connected goes on all the while.
    pub(crate) fn join_anew_if_removed(self: &Arc<Self>) {
        let mut place = self.place();
        let Some(old) = place.as_ref().filter(|place| !place.registration.is_current()) else { return };
        let domain = old.registration.membership().domain().clone();
        let _span = tracing::debug_span!("join", node = &*self.id, domain = %domain.path().display()).entered();
        tracing::warn!(node = &*self.id, domain = %domain.path().display(), "the domain was removed under the node: joining anew");
        let list = listed(&self.inboxes());
        match self.take_place(&domain) {
            Ok(mut new) => {
                if let Err(error) = new.registration.announce(&list) {
                    tracing::warn!(%error, node = &*self.id, "the inboxes are not listed");
                }
                let membership = new.registration.membership();
                if let Some(view) = &mut *self.view.lock() {
                    match membership.watch() {
                        Ok(watch) => view.moved(membership.directory().clone(), watch),
                        Err(error) => tracing::warn!(%error, node = &*self.id, "publishers do not see the new domain"),
                    }
                }
                let old = place.replace(new);
                drop(place);
                old.into_iter().for_each(|old| self.give_up(old));
            }
            Err(error) => tracing::warn!(%error, node = &*self.id, "the node cannot join anew, and will try again"),
        }
    }

    fn give_up(&self, place: Place) {
        let listener = self.reactor().forget(place.token);
        place.registration.leave();
        drop(listener);
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        &self.process.reactor
    }

    /// The domain's directory; `None` once the node was closed, and in a forked child.
    pub(crate) fn directory(&self) -> Option<Arc<Descriptor>> {
        if !self.born.is_here() {
            return None;
        }
        self.place().as_ref().map(|place| place.registration.membership().directory().clone())
    }

    /// Asks the view of the domain's subscriptions; `None` once the node was closed.
    pub(crate) fn ask_view<T>(
        self: &Arc<Self>,
        ask: impl FnOnce(&mut View) -> Result<T, OsError>,
    ) -> Result<Option<T>, OsError> {
        self.join_anew_if_removed();
        let place = self.place();
        let Some(membership) = place.as_ref().map(|place| place.registration.membership()) else { return Ok(None) };
        let mut view = self.view.lock();
        if view.is_none() {
            *view = Some(View::new(membership.directory().clone(), membership.watch()?));
        }
        drop(place);
        view.as_mut().map(ask).transpose()
    }

    /// Whether only processes of the same user can enter the domain.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// The domain, as long as the node is open.
    pub(crate) fn domain(&self) -> Option<Domain> {
        self.place().as_ref().map(|place| place.registration.membership().domain().clone())
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
        self.join_anew_if_removed();
        let mut held = self.place();
        let place = held.as_mut().ok_or(NotListed::Closed)?;
        let list = {
            let mut inboxes = self.inboxes();
            let is_same = |other: &Arc<InboxShared>| match inbox.address {
                Address::Node => other.address == Address::Node,
                Address::Topics(_) => inbox.durable.is_some() && other.durable == inbox.durable,
            };
            if inboxes.iter().any(is_same) {
                return Err(NotListed::Taken);
            }
            inboxes.push(inbox.clone());
            listed(&inboxes)
        };
        place.registration.announce(&list).map_err(NotListed::Os)?;
        let is_shared = place.registration.membership().domain().group().is_some();
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
        let list = {
            let mut inboxes = self.inboxes();
            let before = inboxes.len();
            inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
            if inboxes.len() == before {
                return;
            }
            listed(&inboxes)
        };
        // Off the list first: whoever hears the hang-up finds that the inbox is no more.
        if let Some(place) = place.as_mut()
            && let Err(error) = place.registration.announce(&list)
        {
            tracing::warn!(%error, node = &*self.id, "a closed inbox stays listed");
        }
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

    /// The rings behind this serial number, in order, at most so many.
    pub(crate) fn rings_behind(&self, serial: u64, most: usize) -> Vec<(u64, Arc<ChannelShared>)> {
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
        let unprocessed: u64 = self.rings().iter().map(|ring| ring.flush(deadline)).sum();
        unprocessed + self.kept.load(Ordering::Relaxed)
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
        // Off the list first: whoever hears the hang-up finds that the inboxes are no more.
        if let Err(error) = place.registration.announce(&[]) {
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
        self.give_up(place);
        tracing::info!(node = &*self.id, "a node has left");
    }
}

fn listed(inboxes: &[Arc<InboxShared>]) -> Vec<ListedInbox> {
    let list = |inbox: &Arc<InboxShared>| ListedInbox {
        number: inbox.number,
        address: ListedAddress::from(&inbox.address),
        capacity: inbox.capacity,
        policy: inbox.policy.number(),
        own: inbox.own,
        durable: inbox.durable.clone(),
    };
    inboxes.iter().map(list).collect()
}

/// Gives rings that hold messages a moment to be handed over: afterwards they survive this process.
fn wait_until_sent(rings: &[Arc<ChannelShared>]) {
    let deadline = Instant::now() + HAND_OVER_LIMIT;
    for ring in rings.iter().filter(|ring| ring.has_unsent()) {
        ring.wait_until_sent(Some(deadline));
    }
}
