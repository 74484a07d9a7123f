//! Waiting for several things at once.
//!
//! Invariant: an inbox whose last receive has found nothing announces what comes through its descriptor. Any other one is looked at by
//! the next wait: it was reported, or has woken the set when something was taken from it. So nothing is missed by a program that takes
//! only some of what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crate::call::{Pending, Replies, Server, Waited};
use crate::link::inbox_shared::InboxShared;
use crate::receive::Inbox;
use crate::send::{Happens, Publisher, SharedPublisher};
use crate::sys::clock::Instant;
use crate::sys::poll::{Poll, Ready, Signal};
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::{OsError, fork};

/// Why a wait set could not wait, or take something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitSetError {
    /// Something else in the set has this token.
    #[error("the wait set has something under the token {token} already")]
    Taken {
        /// The token.
        token: u64,
    },
    /// It was made before a fork, and belongs to the parent process.
    #[error("this wait set belongs to the process that forked this one: make one here")]
    Forked,
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// What a [`WaitSet`] waits for: an [`Inbox`], a [`Server`], a [`Pending`] call, [`Replies`], or the events of a [`Publisher`] or a
/// [`SharedPublisher`].
pub trait Waitable: sealed::Waits {}

impl<T: sealed::Waits> Waitable for T {}

mod sealed {
    /// How a wait set waits for it.
    pub trait Waits {
        #[doc(hidden)]
        fn source(&self) -> super::Source;
    }
}

/// Something that a wait set waits for.
#[doc(hidden)]
pub struct Source(Kind);

enum Kind {
    /// The descriptor is readable when there may be something, and only announced what comes after a look that found nothing.
    Inbox(Arc<InboxShared>, Weak<Poll>),
    /// The background thread wakes the set for it.
    Woken(Arc<dyn Waited>),
    Descriptor(OwnedFd),
}

impl sealed::Waits for Inbox {
    fn source(&self) -> Source {
        Source(Kind::Inbox(self.shared().clone(), Arc::downgrade(self.watch())))
    }
}

impl sealed::Waits for Server {
    fn source(&self) -> Source {
        Source(Kind::Woken(self.waited()))
    }
}

/// Until it has no event.
impl Waited for Happens {
    fn is_ready(&self, context: &Context<'_>) -> bool {
        self.is_likely(context)
    }
}

impl sealed::Waits for Publisher {
    fn source(&self) -> Source {
        Source(Kind::Woken(Arc::new(self.happens())))
    }
}

impl sealed::Waits for SharedPublisher {
    fn source(&self) -> Source {
        Source(Kind::Woken(Arc::new(self.happens())))
    }
}

impl sealed::Waits for Pending {
    fn source(&self) -> Source {
        Source(Kind::Woken(self.waited()))
    }
}

impl sealed::Waits for Replies {
    fn source(&self) -> Source {
        Source(Kind::Woken(self.waited()))
    }
}

/// Waits for several things at once: inboxes, servers, calls, publishers' events, and any other descriptors, each under a token of yours.
///
/// A wait returns the tokens of what may have something: a message, a request, an answer, or an error. Look at each with a call that does not
/// block, such as [`Inbox::try_recv`], and take as much as you like: what is left is reported by the next wait. So a busy one delays no
/// other. What is idle costs nothing.
///
/// What is dropped is reported no more; its token stays taken until [`WaitSet::remove`]. The set is `Send`, and used by one thread at a
/// time; what it waits for may be used by other threads.
///
/// ```
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_wait_set_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// use std::time::Duration;
///
/// use librpc::WaitSet;
///
/// # let (robot, camera) = (open("robot")?, open("camera")?);
/// let (mut pictures, planner) = (robot.subscribe("camera/**")?, robot.serve("plan/route")?);
/// let mut set = WaitSet::new()?;
/// set.add(1, &pictures)?;
/// set.add(2, &planner)?;
/// # camera.publisher("camera/front")?.publish(b"a picture")?;
/// # let mut taken = 0;
/// loop {
///     for &token in set.wait_timeout(Duration::from_secs(1))? {
///         match token {
///             1 => while let Some(picture) = pictures.try_recv()? {
///                 println!("{} bytes", picture.payload().len());
/// #               taken += 1;
///             },
///             _ => while let Some(request) = planner.try_recv()? {
///                 request.reply(b"straight on")?;
///             },
///         }
///     }
/// #   if taken == 1 { break }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WaitSet {
    poll: Poll,
    woken: Arc<Woken>,
    entries: BTreeMap<u64, Entry>,
    by_token: BTreeMap<u64, u64>,
    last_key: u64,
    /// What the next wait looks at in any case: it was reported, and may have more.
    again: BTreeSet<u64>,
    events: Vec<Ready>,
    ready: Vec<u64>,
    born: fork::Born,
}

struct Entry {
    token: u64,
    kind: Kind,
    wakes: Arc<EntryWaker>,
    waker: Waker,
}

impl Entry {
    /// The set is woken for it no more.
    fn end(&self) {
        if let Kind::Inbox(inbox, _) = &self.kind {
            inbox.remove_onlooker(&self.waker);
        }
    }
}

/// Which entries the background thread has woken the set for.
struct Woken {
    signal: Signal,
    keys: Mutex<BTreeSet<u64>>,
}

/// Wakes the set for one entry.
struct EntryWaker {
    woken: Arc<Woken>,
    key: u64,
    /// The next wait looks at the entry already.
    is_due: AtomicBool,
}

impl Wake for EntryWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // SeqCst: pairs with the store in `WaitSet::look`, which looks after it.
        if !self.is_due.swap(true, Ordering::SeqCst) {
            self.woken.keys.lock().insert(self.key);
            self.woken.signal.raise();
        }
    }
}

/// The key of the signal.
const SIGNAL: u64 = 0;

impl std::fmt::Debug for WaitSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitSet").field("tokens", &self.by_token.keys()).finish()
    }
}

impl WaitSet {
    /// An empty set. Takes two descriptors.
    ///
    /// # Errors
    ///
    /// [`WaitSetError`].
    pub fn new() -> Result<Self, WaitSetError> {
        let (poll, signal) = (Poll::new()?, Signal::new()?);
        poll.add(&signal, SIGNAL)?;
        Ok(Self {
            poll,
            woken: Arc::new(Woken { signal, keys: Mutex::default() }),
            entries: BTreeMap::new(),
            by_token: BTreeMap::new(),
            last_key: SIGNAL,
            again: BTreeSet::new(),
            events: Vec::new(),
            ready: Vec::new(),
            born: fork::Born::now(),
        })
    }

    /// Adds an inbox, a server, a call, or a publisher, under a token that the set does not have.
    ///
    /// # Errors
    ///
    /// [`WaitSetError`].
    pub fn add(&mut self, token: u64, what: &impl Waitable) -> Result<(), WaitSetError> {
        self.check(token)?;
        self.insert(token, sealed::Waits::source(what).0)
    }

    /// Adds any other descriptor, which is reported while it is readable. The set has a copy of it: closing it does not remove it.
    ///
    /// # Errors
    ///
    /// [`WaitSetError`].
    pub fn add_descriptor(&mut self, token: u64, descriptor: impl AsFd) -> Result<(), WaitSetError> {
        self.check(token)?;
        let descriptor = descriptor.as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| OsError::new("copy a descriptor for a wait set", error))?;
        self.insert(token, Kind::Descriptor(descriptor))
    }

    fn check(&self, token: u64) -> Result<(), WaitSetError> {
        match self.by_token.contains_key(&token) {
            _ if !self.born.is_here() => Err(WaitSetError::Forked),
            true => Err(WaitSetError::Taken { token }),
            false => Ok(()),
        }
    }

    fn insert(&mut self, token: u64, kind: Kind) -> Result<(), WaitSetError> {
        let key = self.last_key + 1;
        match &kind {
            Kind::Inbox(_, poll) => poll.upgrade().map_or(Ok(()), |poll| self.poll.add(&*poll, key))?,
            Kind::Descriptor(descriptor) => self.poll.add(descriptor, key)?,
            Kind::Woken(_) => {}
        }
        self.last_key = key;
        let wakes = Arc::new(EntryWaker { woken: self.woken.clone(), key, is_due: AtomicBool::new(true) });
        let waker = Waker::from(wakes.clone());
        if let Kind::Inbox(inbox, _) = &kind {
            inbox.add_onlooker(waker.clone());
        }
        self.again.insert(key);
        self.by_token.insert(token, key);
        self.entries.insert(key, Entry { token, kind, wakes, waker });
        Ok(())
    }

    /// Removes what has this token. `false`: nothing has.
    pub fn remove(&mut self, token: u64) -> bool {
        let Some(entry) = self.by_token.remove(&token).and_then(|key| self.entries.remove(&key)) else { return false };
        if !self.born.is_here() {
            return true;
        }
        entry.end();
        match &entry.kind {
            Kind::Inbox(_, poll) => drop(poll.upgrade().map(|poll| self.poll.remove(&*poll))),
            Kind::Descriptor(descriptor) => self.poll.remove(descriptor),
            Kind::Woken(_) => {}
        }
        true
    }

    /// How many things it waits for.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it waits for nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Waits until something may have something, and returns the tokens of all that may.
    ///
    /// # Errors
    ///
    /// [`WaitSetError`].
    pub fn wait(&mut self) -> Result<&[u64], WaitSetError> {
        self.wait_until(None)
    }

    /// The tokens of what may have something now; perhaps none. Does not block.
    ///
    /// # Errors
    ///
    /// [`WaitSetError`].
    pub fn try_wait(&mut self) -> Result<&[u64], WaitSetError> {
        self.wait_until(Some(Instant::now()))
    }

    /// Waits at most this long. No tokens: the time is up.
    ///
    /// # Errors
    ///
    /// [`WaitSetError`].
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<&[u64], WaitSetError> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<&[u64], WaitSetError> {
        if !self.born.is_here() {
            return Err(WaitSetError::Forked);
        }
        self.ready.clear();
        for key in std::mem::take(&mut self.again) {
            self.look(key);
        }
        loop {
            let now = Instant::now();
            let until = if self.ready.is_empty() { deadline } else { Some(now) };
            let mut events = std::mem::take(&mut self.events);
            let waited = self.poll.wait(until, &mut events);
            for event in events.drain(..) {
                match event.token {
                    SIGNAL => self.look_at_woken(),
                    key => self.report(key),
                }
            }
            self.events = events;
            waited?;
            if !self.ready.is_empty() || deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(&self.ready);
            }
        }
    }

    fn look_at_woken(&mut self) {
        self.woken.signal.clear();
        let keys = std::mem::take(&mut *self.woken.keys.lock());
        keys.into_iter().for_each(|key| self.look(key));
    }

    /// Reports an entry if it may have something.
    fn look(&mut self, key: u64) {
        let Some(Entry { kind, wakes, waker, .. }) = self.entries.get(&key) else { return };
        // SeqCst: pairs with the swap in `EntryWaker`: what changes after this look wakes the set.
        wakes.is_due.store(false, Ordering::SeqCst);
        let is_ready = match kind {
            // An inbox that was dropped has nothing any more.
            Kind::Inbox(inbox, poll) => poll.strong_count() > 0 && !inbox.is_announcing(),
            Kind::Woken(waited) => waited.is_ready(&Context::from_waker(waker)),
            Kind::Descriptor(_) => false, // the kernel reports it
        };
        if is_ready {
            self.report(key);
        }
    }

    fn report(&mut self, key: u64) {
        let Some(Entry { token, wakes, .. }) = self.entries.get(&key) else { return };
        if self.again.insert(key) {
            wakes.is_due.store(true, Ordering::SeqCst); // the next wait looks
            self.ready.push(*token);
        }
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.entries.values().for_each(Entry::end);
        }
    }
}
