//! What a node's clients and servers have counted.
//!
//! Each of them counts in atomics of its own, which only the holder of its lock writes. Invariant: every service with an open client,
//! or server, is remembered. Of the others, at most [`IDLE`] are: those whose last one ended latest.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Histogram;

use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// How many services without a client or server are remembered.
const IDLE: usize = 64;
/// Of calls in quick succession, one in this many is measured: a clock costs more than it says of the others.
const MEASURED: u64 = 16;
/// One that begins this long after the last one that was measured, is measured, too.
const MEASURE_AFTER: Duration = Duration::from_millis(1);

/// Which side of a service has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CallSide {
    /// The clients, which call it.
    Client,
    /// The servers, which answer.
    Server,
}

/// How calls have failed, as [`crate::CallError`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallFailure {
    /// Nobody served the service.
    NoServer,
    /// The time was up. At a server: nobody had received the request by then.
    Deadline,
    /// The client has given up the call, or is gone.
    Cancelled,
    /// The server is gone. At a server: it has ended, and had not looked at the request.
    ServerDied,
    /// There were as many calls in flight as there may be.
    Busy,
    /// The server does not know such requests.
    Unimplemented,
    /// The answer was not of the kind that the call expects.
    Mismatch,
    /// The server says that the request has failed, or has dropped it.
    Failed,
    /// The server does not let this client call it.
    Refused,
    /// Another error.
    Other,
}

impl CallFailure {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoServer,
        Self::Deadline,
        Self::Cancelled,
        Self::ServerDied,
        Self::Busy,
        Self::Unimplemented,
        Self::Mismatch,
        Self::Failed,
        Self::Refused,
        Self::Other,
    ];

    /// Its name, in lower case with underscores.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::ServerDied => "server_died",
            Self::Busy => "busy",
            Self::Unimplemented => "unimplemented",
            Self::Mismatch => "mismatch",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}

/// How many calls have failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallFailures([u64; CallFailure::ALL.len()]);

impl CallFailures {
    /// How many have failed in this way.
    pub fn of(&self, kind: CallFailure) -> u64 {
        self.0[kind as usize]
    }

    /// How many have failed.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, more| sum.saturating_add(*more))
    }

    /// The kinds, and how many have failed in each way.
    pub fn iter(&self) -> impl Iterator<Item = (CallFailure, u64)> + '_ {
        CallFailure::ALL.into_iter().map(|kind| (kind, self.of(kind)))
    }

    pub(crate) fn from_counts(counts: impl IntoIterator<Item = u64>) -> Self {
        let mut failures = Self::default();
        failures.0.iter_mut().zip(counts).for_each(|(sum, count)| *sum = count);
        failures
    }
}

/// What the clients of a node, or its servers, have counted for one service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallStats {
    /// The service.
    pub service: Arc<str>,
    /// Whether its clients have counted this, or its servers.
    pub side: CallSide,
    /// How many of them are open now.
    pub open: u64,
    /// Calls that have begun; at a server, requests that have come.
    pub calls: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that have ended in another way.
    pub failures: CallFailures,
    /// How long answered calls have taken: from the request to the last of the reply; at a server, from the moment when the request was
    /// received. Of calls in quick succession, about one in 16 is measured.
    pub latency: Histogram,
}

impl CallStats {
    /// How many calls are in flight. A busy node counts while it is read: this may be a little wrong.
    pub fn in_flight(&self) -> u64 {
        self.calls.saturating_sub(self.answered).saturating_sub(self.failures.total())
    }

    fn none(Key { service, side }: Key) -> Self {
        let (failures, latency) = (CallFailures::default(), Histogram::default());
        Self { service, side, open: 0, calls: 0, answered: 0, failures, latency }
    }

    /// Adds what one client or server has counted.
    fn add(&mut self, counters: &CallCounters) {
        let CallCounters { begun, answered, failed, latency, .. } = counters;
        // The ends are read first: there are never more of them than there were beginnings.
        let add = |sum: &mut u64, more: &AtomicU64| *sum = sum.saturating_add(more.load(Ordering::Acquire));
        add(&mut self.answered, answered);
        self.failures.0.iter_mut().zip(failed).for_each(|(sum, more)| add(sum, more));
        add(&mut self.calls, begun);
        self.latency += &latency.lock();
    }
}

/// What one client or server has counted.
#[derive(Debug, Default)]
pub(crate) struct CallCounters {
    begun: AtomicU64,
    answered: AtomicU64,
    failed: [AtomicU64; CallFailure::ALL.len()],
    latency: Mutex<Histogram>,
    /// The beginning of the last call that was measured, in ns, and how many have begun since.
    measured: AtomicU64,
    skipped: AtomicU64,
}

/// Only the holder of a lock adds. Release: pairs with [`CallStats::add`], which reads the ends first.
fn add_one(sum: &AtomicU64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

impl CallCounters {
    /// A call has begun.
    pub(crate) fn begun(&self) {
        add_one(&self.begun);
    }

    /// Whether the time of a call that begins now is to be measured. `now` may be [coarse](Instant::coarse).
    #[inline]
    pub(crate) fn is_measured(&self, now: Instant) -> bool {
        // Relaxed: under the same lock as their changes.
        let (last, skipped) = (self.measured.load(Ordering::Relaxed), self.skipped.load(Ordering::Relaxed) + 1);
        let is_due = skipped == MEASURED || now.as_ns().saturating_sub(last) >= MEASURE_AFTER.as_nanos() as u64;
        if is_due {
            self.measured.store(now.as_ns(), Ordering::Relaxed);
        }
        self.skipped.store(if is_due { 0 } else { skipped }, Ordering::Relaxed);
        is_due
    }

    /// A call was answered. `since`: when it has begun, if it is measured.
    pub(crate) fn answered(&self, since: Option<Instant>) {
        add_one(&self.answered);
        if let Some(since) = since {
            self.took(since);
        }
    }

    #[cold]
    fn took(&self, since: Instant) {
        self.latency.lock().record(since.elapsed().as_nanos() as u64);
    }

    /// A call has failed.
    pub(crate) fn failed(&self, kind: CallFailure) {
        add_one(&self.failed[kind as usize]);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: Arc<str>,
    side: CallSide,
}

/// What a node's clients and servers have counted, by service.
#[derive(Debug, Default)]
pub(crate) struct CallTable(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts services, clients and servers.
    last: u64,
    entries: BTreeMap<Key, Entry>,
    /// The services that have none now, in the order in which their last one has ended.
    idle: BTreeMap<u64, Key>,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    open: BTreeMap<u64, Arc<CallCounters>>,
    idle_since: u64,
    ended: CallStats,
}

/// Keeps a client or a server in the table, and counts for it.
#[derive(Debug)]
pub(crate) struct CallGuard {
    table: Arc<CallTable>,
    key: Key,
    serial: u64,
    counters: Arc<CallCounters>,
    born: fork::Born,
}

impl CallTable {
    /// A client or server begins.
    pub(crate) fn begin(self: &Arc<Self>, service: Arc<str>, side: CallSide) -> CallGuard {
        let (key, counters) = (Key { service, side }, Arc::new(CallCounters::default()));
        let mut state = self.0.lock();
        let state = &mut *state;
        state.last += 1;
        let serial = state.last;
        let entry = state.entries.entry(key.clone()).or_insert_with(|| Entry {
            serial,
            open: BTreeMap::new(),
            idle_since: 0,
            ended: CallStats::none(key.clone()),
        });
        entry.open.insert(serial, counters.clone());
        state.idle.remove(&entry.idle_since);
        CallGuard { table: self.clone(), key, serial, counters, born: fork::Born::now() }
    }

    /// The services after this serial number, in order, at most this many.
    pub(crate) fn after(&self, serial: u64, most: usize) -> Vec<(u64, CallStats)> {
        let state = self.0.lock();
        let mut after: Vec<&Entry> = state.entries.values().filter(|entry| entry.serial > serial).collect();
        after.sort_unstable_by_key(|entry| entry.serial);
        let stats = |entry: &Entry| {
            let mut stats = CallStats { open: entry.open.len() as u64, ..entry.ended.clone() };
            entry.open.values().for_each(|counters| stats.add(counters));
            (entry.serial, stats)
        };
        after.into_iter().take(most).map(stats).collect()
    }

    fn end(&self, key: &Key, serial: u64) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let Some(entry) = state.entries.get_mut(key) else { return };
        if let Some(counters) = entry.open.remove(&serial) {
            entry.ended.add(&counters);
        }
        if !entry.open.is_empty() {
            return;
        }
        state.last += 1;
        entry.idle_since = state.last;
        state.idle.insert(state.last, key.clone());
        if state.idle.len() > IDLE
            && let Some((_, forgotten)) = state.idle.pop_first()
        {
            state.entries.remove(&forgotten);
        }
    }
}

impl Deref for CallGuard {
    type Target = CallCounters;

    fn deref(&self) -> &CallCounters {
        &self.counters
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.table.end(&self.key, self.serial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_clients_have_counted_is_kept_with_the_open_ones() {
        let table = Arc::<CallTable>::default();
        let begin = || table.begin("a".into(), CallSide::Client);
        let (one, two) = (begin(), begin());
        for client in [&one, &two] {
            (0..5).for_each(|_| client.begun());
            client.answered(Some(Instant::now()));
            client.failed(CallFailure::Busy);
        }
        table.begin("a".into(), CallSide::Server).begun();
        drop(one);
        let [(first, client), (_, server)] = <[_; 2]>::try_from(table.after(0, 9)).unwrap();
        assert_eq!((client.side, client.open, client.calls, client.answered), (CallSide::Client, 1, 10, 2));
        assert_eq!((client.failures.of(CallFailure::Busy), client.failures.total(), client.in_flight()), (2, 2, 6));
        assert_eq!(client.latency.count(), 2);
        assert_eq!((server.side, server.open, server.calls), (CallSide::Server, 0, 1));
        assert_eq!(table.after(first, 9).len(), 1, "read in parts, each once");
    }

    #[test]
    fn of_services_without_a_client_the_latest_are_remembered() {
        let table = Arc::<CallTable>::default();
        let kept = table.begin("kept".into(), CallSide::Client);
        for number in 0..IDLE + 5 {
            table.begin(format!("s{number}").into(), CallSide::Client).begun();
        }
        let names: Vec<_> = table.after(0, 999).into_iter().map(|(_, stats)| stats.service.to_string()).collect();
        let expected = std::iter::once("kept".to_owned()).chain((5..IDLE + 5).map(|number| format!("s{number}")));
        assert_eq!(names, expected.collect::<Vec<_>>());
        drop(kept);
    }

    #[test]
    fn of_calls_in_quick_succession_one_in_a_while_is_measured() {
        let (counters, begin) = (CallCounters::default(), Instant::now());
        let measured =
            |calls, apart| (0..calls).filter(|&n| counters.is_measured(begin + n * apart)).collect::<Vec<u32>>();
        assert_eq!(measured(50, Duration::from_nanos(1)), [0, 16, 32, 48]);
        let counters = CallCounters::default();
        let measured = |calls, apart| (0..calls).filter(|&n| counters.is_measured(begin + n * apart)).count();
        assert_eq!(measured(50, MEASURE_AFTER), 50);
    }
}
