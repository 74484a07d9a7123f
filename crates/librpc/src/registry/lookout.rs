//! What this process watches in its domains: directories in which something is waited for ([`super::wait`]), and the files
//! of its own nodes, so that a node whose files were removed is restored.
//!
//! One inotify instance serves both. A user has 128 by default, for all programs together, and a process with one dies some
//! milliseconds later; so a node is watched only once it has lived for a second. Where the kernel gives no instance, or no
//! watch, a node is looked at every few seconds instead. A watched node costs nothing while nothing happens to its files.
//!
//! Invariant: the instance exists while somebody waits or something is watched, unless the kernel gives none. A watch ends
//! with its last user. A node that was found in order is watched, or has a time at which it is looked at again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use crate::sys::clock::Instant;
use crate::sys::poll::{Ready, Signal};
use crate::sys::reactor::{Reactor, Source};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::tasks::{Tasks, Woken};
use crate::sys::watch::{Interest, Watch};
use crate::sys::{Descriptor, fork};

/// How long a node lives unwatched.
const UNWATCHED: Duration = Duration::from_secs(1);
/// How long after a report a node is checked: files are seldom removed one at a time.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a node is looked at that cannot be watched.
const SLOW_LOOK: Duration = Duration::from_secs(5);
/// How long after a failure a node is restored again; then twice as long, up to [`SLOW_LOOK`].
const RETRY: Duration = Duration::from_millis(20);
/// How often a node is restored in one look: each time something else may be missing.
pub(crate) const RESTORED_AT_ONCE: usize = 3;

/// A node whose files are kept in place.
pub(crate) trait Kept: Send + Sync {
    /// The files that must not be lost, by their names in a directory; `None` once the node has left.
    fn files(&self) -> Option<(Arc<Descriptor>, Vec<PathBuf>)>;

    /// Looks whether they are still in place, and restores what is lost. Never waits.
    fn restore(self: Arc<Self>) -> Condition;
}

/// How a look at a node's files ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    InPlace,
    /// They were not, and are now.
    Restored,
    /// They are not, or that could not be determined. The next look may change that.
    Unsettled,
    /// The node has left.
    Left,
}

/// What the nodes of a process watch.
pub(crate) struct Lookout {
    reactor: Arc<Reactor>,
    token: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Those that wait for a change.
    tasks: Arc<Tasks>,
}

struct State {
    /// Keeps a low descriptor number for the instance: of a killed process the kernel closes the highest one first, and an
    /// inotify instance takes its time. So nobody waits for that to see the node's lock go.
    reserved: Option<Signal>,
    instance: Option<Instance>,
    waiters: u32,
    /// Counts the reports.
    changes: u64,
    /// How many users each watch has.
    users: BTreeMap<i32, u32>,
    kept: BTreeMap<u64, Entry>,
    last_key: u64,
    /// For when the background thread was asked to look.
    armed: Option<Instant>,
}

struct Instance {
    watch: Watch,
    token: u64,
}

struct Entry {
    node: Weak<dyn Kept>,
    watches: Vec<i32>,
    /// When it is looked at next; `None`: when something is reported.
    due: Option<Instant>,
    retry: Duration,
}

/// What the background thread knows of a lookout.
struct Looker(Weak<Lookout>);

impl Source for Looker {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, _ready: Ready) {
        if let Some(lookout) = self.0.upgrade() {
            lookout.reported();
        }
    }

    fn expired(self: Arc<Self>, _reactor: &Arc<Reactor>, _token: u64) {
        if let Some(lookout) = self.0.upgrade() {
            lookout.look();
        }
    }
}

impl Lookout {
    /// To be made before anything whose closing others wait for: it reserves a descriptor number.
    pub(crate) fn reserve() -> Option<Signal> {
        Signal::new().inspect_err(|error| tracing::debug!(%error, "no descriptor number is reserved for inotify")).ok()
    }

    pub(crate) fn new(reactor: &Arc<Reactor>, reserved: Option<Signal>) -> Arc<Self> {
        let state = State {
            reserved,
            instance: None,
            waiters: 0,
            changes: 0,
            users: BTreeMap::new(),
            kept: BTreeMap::new(),
            last_key: 0,
            armed: None,
        };
        let (reactor, token, tasks) = (reactor.clone(), reactor.token(), Tasks::new(reactor, None));
        Arc::new(Self { reactor, token, state: Mutex::new(state), changed: Condvar::default(), tasks })
    }

    /// Keeps a node's files in place from its second second on. Returns a key for [`Lookout::forget`].
    pub(crate) fn keep(self: &Arc<Self>, node: Weak<dyn Kept>) -> u64 {
        let mut state = self.state.lock();
        state.last_key += 1;
        let (key, due) = (state.last_key, Some(Instant::now() + UNWATCHED));
        state.kept.insert(key, Entry { node, watches: Vec::new(), due, retry: RETRY });
        self.arm(state);
        key
    }

    /// Looks after a node no longer. Called before the node removes its files itself.
    pub(crate) fn forget(&self, key: u64) {
        let mut state = self.state.lock();
        if let Some(entry) = state.kept.remove(&key) {
            state.end_watches(&entry.watches);
        }
        self.release(state);
    }

    /// Has the background thread look when the next node is due. It is woken only if that is sooner than it knows.
    fn arm(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let due = state.kept.values().filter_map(|entry| entry.due).min();
        let Some(due) = due.filter(|&due| state.armed.is_none_or(|armed| due < armed)) else { return };
        state.armed = Some(due);
        // Under the lock: an earlier deadline must not be replaced by a later one.
        self.reactor.deadline(self.token, Arc::new(Looker(Arc::downgrade(self))), Some(due));
    }

    /// Something was reported: those that wait look again, and each watched node is due.
    fn reported(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if let Some(instance) = &state.instance {
            instance.watch.drain();
        }
        state.changes += 1;
        let due = Instant::now() + PAUSE;
        state.kept.values_mut().for_each(|entry| entry.due = entry.due.or(Some(due)));
        self.changed.notify_all();
        self.arm(state);
        self.tasks.wake();
    }

    /// Looks at the nodes that are due.
    fn look(self: &Arc<Self>) {
        let now = Instant::now();
        let due: Vec<(u64, Weak<dyn Kept>)> = {
            let mut state = self.state.lock();
            state.armed = None;
            let is_due = |(_, entry): &(&u64, &Entry)| entry.due.is_some_and(|due| due <= now);
            state.kept.iter().filter(is_due).map(|(&key, entry)| (key, entry.node.clone())).collect()
        };
        for (key, node) in due {
            // Not under the lock: it reads and writes files.
            self.look_at(key, node.upgrade().as_ref());
        }
        self.arm(self.state.lock());
    }

    fn look_at(self: &Arc<Self>, key: u64, node: Option<&Arc<dyn Kept>>) {
        for _ in 0..RESTORED_AT_ONCE {
            // Watched first, and looked at then: nothing is lost between the two.
            let is_watched = node.and_then(|node| node.files()).is_some_and(|(_, files)| self.watch_files(key, &files));
            let condition = node.map_or(Condition::Left, |node| node.clone().restore());
            let mut state = self.state.lock();
            let Some(entry) = state.kept.get_mut(&key) else { return };
            match condition {
                Condition::InPlace => {
                    entry.due = (!is_watched).then(|| Instant::now() + SLOW_LOOK);
                    entry.retry = RETRY;
                    return;
                }
                Condition::Restored => {}
                Condition::Unsettled => {
                    entry.due = Some(Instant::now() + entry.retry);
                    entry.retry = (entry.retry * 2).min(SLOW_LOOK);
                    return;
                }
                Condition::Left => {
                    drop(state);
                    return self.forget(key);
                }
            }
        }
        // Somebody removes them again and again.
        if let Some(entry) = self.state.lock().kept.get_mut(&key) {
            entry.due = Some(Instant::now() + SLOW_LOOK);
        }
    }

    /// Watches a node's files in place of those that it had before; `false`: some are not watched.
    fn watch_files(self: &Arc<Self>, key: u64, files: &[PathBuf]) -> bool {
        let mut state = self.state.lock();
        if !state.kept.contains_key(&key) {
            return false; // it is leaving
        }
        let watches: Vec<i32> = files.iter().filter_map(|file| self.add(&mut state, file, Interest::Removal)).collect();
        let all = watches.len() == files.len();
        let entry = state.kept.get_mut(&key).expect("it was there, under the same lock");
        let former = std::mem::replace(&mut entry.watches, watches);
        state.end_watches(&former);
        all
    }

    /// Begins a watch, or becomes another user of the same one; `None`: the kernel gives none.
    fn add(self: &Arc<Self>, state: &mut State, path: &Path, interest: Interest) -> Option<i32> {
        if state.instance.is_none() {
            state.instance = self.open(state.reserved.take());
        }
        let watch = state.instance.as_ref()?.watch.add(path, interest);
        let watch = watch.inspect_err(|error| tracing::debug!(%error, "looking again and again instead")).ok()?;
        *state.users.entry(watch).or_default() += 1;
        Some(watch)
    }

    fn open(self: &Arc<Self>, reserved: Option<Signal>) -> Option<Instance> {
        drop(reserved);
        let opened = Watch::new().and_then(|watch| {
            let token = self.reactor.token();
            self.reactor.watch(token, &watch, Arc::new(Looker(Arc::downgrade(self))))?;
            Ok(Instance { watch, token })
        });
        opened.inspect_err(|error| tracing::debug!(%error, "looking again and again instead")).ok()
    }

    /// Closes the instance if nobody uses it.
    fn release(&self, mut state: MutexGuard<'_, State>) {
        if state.waiters == 0
            && state.users.is_empty()
            && let Some(Instance { watch, token }) = state.instance.take()
        {
            drop(state);
            self.reactor.unwatch(&watch);
            drop(self.reactor.forget(token));
        }
    }
}

impl State {
    /// Ends a user's share in watches.
    fn end_watches(&mut self, watches: &[i32]) {
        for watch in watches {
            let Some(users) = self.users.get_mut(watch) else { continue };
            *users -= 1;
            if *users == 0 {
                self.users.remove(watch);
                self.instance.as_ref().inspect(|instance| instance.watch.remove(*watch));
            }
        }
    }
}

/// Somebody who waits for a directory to change: a thread, or a task.
pub(crate) struct Waiting {
    lookout: Arc<Lookout>,
    directory: PathBuf,
    /// `None`: the directory is not watched.
    watch: Option<i32>,
    /// Distinguishes it among the tasks.
    number: u64,
    born: fork::Born,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "waiting for a change of {}", self.directory.display())
    }
}

impl Waiting {
    pub(crate) fn begin(lookout: &Arc<Lookout>, directory: &Path) -> Self {
        let number = {
            let mut state = lookout.state.lock();
            state.waiters += 1;
            state.last_key += 1;
            state.last_key
        };
        let (lookout, directory, born) = (lookout.clone(), directory.to_owned(), fork::Born::now());
        let mut this = Self { lookout, directory, watch: None, number, born };
        this.watches_another();
        this
    }

    /// Watches the directory that the path leads to now; `true`: that is another one than before.
    pub(crate) fn watches_another(&mut self) -> bool {
        let mut state = self.lookout.state.lock();
        let watch = self.lookout.add(&mut state, &self.directory, Interest::Entries);
        let former = std::mem::replace(&mut self.watch, watch);
        state.end_watches(former.as_slice());
        former != watch
    }

    /// Whether each change of the directory is reported.
    pub(crate) fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// How many reports there were.
    pub(crate) fn changes(&self) -> u64 {
        self.lookout.state.lock().changes
    }

    /// Waits for a report after the ones that were seen, up to a limit.
    pub(crate) fn wait(&self, seen: u64, limit: Duration) {
        let state = self.lookout.state.lock();
        let unchanged = |state: &mut State| state.changes == seen;
        drop(self.lookout.changed.wait_timeout_while(state, limit, unchanged));
    }

    /// Has a task woken by the next report, and at this time.
    pub(crate) fn wake(&self, waker: &Waker, until: Option<Instant>) {
        self.lookout.tasks.wait(self.number, waker, until, &mut Woken::default());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return; // another thread may have had the locks when the process forked
        }
        self.lookout.tasks.forget(self.number);
        let mut state = self.lookout.state.lock();
        state.waiters -= 1;
        state.end_watches(self.watch.as_slice());
        self.lookout.release(state);
    }
}
