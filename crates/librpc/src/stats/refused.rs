//! Processes that wanted to send to a node, and were refused.
//!
//! Strangers can be refused as often as they like: they are counted by user and reason, and of those the last [`MOST`] are remembered. The
//! node's inboxes are told of the 1st, 2nd, 4th, 8th, ... of a kind.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::clock::Instant;
use crate::sys::sync::Mutex;
use crate::text::{counted, harmless_start};
use crate::wire::Reason;

/// How many kinds are remembered.
const MOST: usize = 64;
/// At most this many characters of a reason are kept.
const CHARS: usize = 400;

/// Processes of one user that wanted to send to a node, and were refused for one reason: [`crate::Event::Refused`],
/// [`crate::NodeStats::refused`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// Their user, from the kernel.
    pub uid: u32,
    /// The process of the last one, from the kernel; 0: in another pid namespace.
    pub pid: u32,
    /// Why.
    pub reason: Reason,
    /// Why, in words, for the last one: at most 400 characters.
    pub text: Arc<str>,
    /// How many connections.
    pub count: u64,
    /// How long ago the last one was.
    pub last: Duration,
}

/// For people, on one line: whom, how often, and why.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, pid, reason, text, count, .. } = self;
        write!(
            f,
            "{} of uid {uid} (pid {pid}) refused ({reason:?}): {text}",
            counted(*count, "connection", "connections")
        )
    }
}

/// What a node remembers of them.
#[derive(Debug, Default)]
pub(crate) struct RefusedTable(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// With a serial number each, in order.
    list: VecDeque<(u64, Instant, Refused)>,
    last: u64,
}

/// Whether an operator is to know. The others are tried again at once, and say nothing of who may send.
fn is_worth_telling(reason: Reason) -> bool {
    use Reason::*;
    matches!(reason, NotAdmitted | Version | TooMuch | Identity | BadHandshake | Resources)
}

/// A reason, as it is kept.
pub(crate) fn refusal_text(text: &str) -> Arc<str> {
    harmless_start(text, CHARS).into()
}

impl RefusedTable {
    /// One was refused. Returns it if the inboxes are to be told.
    pub(crate) fn add(&self, uid: u32, pid: u32, reason: Reason, text: &str) -> Option<Arc<Refused>> {
        if !is_worth_telling(reason) {
            return None;
        }
        let mut state = self.0.lock();
        let state = &mut *state;
        let same = state.list.iter().position(|(.., old)| (old.uid, old.reason) == (uid, reason));
        let before = same.and_then(|at| state.list.remove(at)).map_or(0, |(.., old)| old.count);
        if state.list.len() == MOST {
            state.list.pop_front();
        }
        let count = before.saturating_add(1);
        let refused = Refused { uid, pid, reason, text: refusal_text(text), count, last: Duration::ZERO };
        state.last += 1;
        state.list.push_back((state.last, Instant::now(), refused.clone()));
        count.is_power_of_two().then(|| Arc::new(refused))
    }

    /// Those after this serial number, in order.
    pub(crate) fn after(&self, serial: u64) -> Vec<(u64, Refused)> {
        let state = self.0.lock();
        let later = state.list.iter().filter(|(other, ..)| *other > serial);
        later.map(|(serial, at, refused)| (*serial, Refused { last: at.elapsed(), ..refused.clone() })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_counted_by_user_and_reason_and_told_ever_more_seldom() {
        let table = RefusedTable::default();
        let told = (1..=100).filter(|&pid| table.add(7, pid, Reason::NotAdmitted, "no").is_some()).collect::<Vec<_>>();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
        assert!(table.add(7, 1, Reason::TooMuch, "a\u{1b}b").is_some());
        assert!(table.add(7, 1, Reason::Busy, "it tries again").is_none());
        let all: Vec<_> = table.after(0).into_iter().map(|(_, refused)| refused).collect();
        let [first, second] = &all[..] else { panic!("{all:?}") };
        assert_eq!((first.uid, first.pid, first.count, &*second.text), (7, 100, 100, "ab"));
        (0..100).for_each(|uid| drop(table.add(uid, 1, Reason::NotAdmitted, "no")));
        assert_eq!(table.after(0).len(), MOST);
        let last = table.after(0).last().unwrap().0;
        assert!(table.after(last).is_empty());
    }
}
