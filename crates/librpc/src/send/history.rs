//! What a publisher keeps of a topic for late subscriptions.
//!
//! Invariant: a new subscription gets what is kept when its route is found, before anything newer: its route is not used for a message
//! while something of that is left ([`crate::send::topics::TopicRoute::past`]). A message is kept once it was offered to all routes that were
//! known then. So each subscription gets each message once: as a past one, or as a new one.

use std::cell::OnceCell;
use std::collections::VecDeque;

use crate::sys::slots::Slot;

/// A message that is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct PastMessage {
    /// Empty if it is in a slot.
    pub(crate) payload: Vec<u8>,
    pub(crate) slot: OnceCell<Slot>,
}

impl PastMessage {
    fn bytes(&self) -> u64 {
        self.slot.get().map_or(self.payload.len() as u64, Slot::bytes)
    }
}

/// The last messages of a topic.
#[derive(Debug)]
pub(crate) struct History {
    /// Round and round: `next` is where the next one is put, in place of the oldest one once there are as many as there may be.
    messages: Vec<PastMessage>,
    next: usize,
    /// How many there are: the others are vacant.
    count: usize,
    /// How many messages and bytes there may be. The newest message is kept in any case.
    most: usize,
    most_bytes: u64,
    bytes: u64,
}

/// Copies a payload of the same length. For a short one, a call of `memcpy` takes longer than the copying: it is copied as its first
/// half and its last, which may overlap.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    #[inline(always)]
    fn halves<const N: usize>(to: &mut [u8], from: &[u8]) -> Option<()> {
        *to.first_chunk_mut()? = *from.first_chunk::<N>()?;
        *to.last_chunk_mut()? = *from.last_chunk::<N>()?;
        Some(())
    }
    let copied = match from.len() {
        32..=64 => halves::<32>(to, from),
        16..32 => halves::<16>(to, from),
        _ => None,
    };
    if copied.is_none() {
        to.copy_from_slice(from);
    }
}

impl History {
    pub(crate) fn new(most: usize, most_bytes: u64) -> Self {
        Self { messages: Vec::new(), next: 0, count: 0, most, most_bytes, bytes: 0 }
    }

    /// Keeps a message that was offered.
    #[inline]
    pub(crate) fn add(&mut self, payload: &[u8]) {
        // Most messages of a topic have one length: then the new one takes the place of the oldest one.
        if self.count == self.most
            && let Some(oldest) = self.messages.get_mut(self.next)
            && oldest.payload.len() == payload.len()
            && oldest.slot.get().is_none()
        {
            copy(&mut oldest.payload, payload);
            self.step();
            return;
        }
        self.add_anything(payload);
    }

    #[inline(never)]
    fn add_anything(&mut self, payload: &[u8]) {
        let place = self.place();
        place.payload.clear();
        place.payload.extend_from_slice(payload);
        self.added(payload.len() as u64);
    }

    #[inline]
    fn step(&mut self) {
        self.next += 1;
        if self.next == self.most {
            self.next = 0;
        }
    }

    /// Keeps a message whose payload is in a slot.
    pub(crate) fn add_slot(&mut self, slot: &Slot) {
        *self.place() = PastMessage { payload: Vec::new(), slot: slot.clone().into() };
        self.added(slot.bytes());
    }

    /// Where the next one is put: a vacant place, without a slot. Its memory serves again.
    fn place(&mut self) -> &mut PastMessage {
        if self.next == self.messages.len() {
            self.messages.push(PastMessage::default());
        } else if self.count == self.messages.len() {
            self.drop_oldest();
        }
        &mut self.messages[self.next]
    }

    fn added(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.count += 1;
        self.step();
        while self.bytes > self.most_bytes && self.count > 1 {
            let at = self.drop_oldest();
            self.messages[at].payload = Vec::new(); // it may be long until the place is used again
        }
    }

    /// Where the oldest one is.
    fn oldest(&self) -> usize {
        match self.next.checked_sub(self.count) {
            Some(at) => at,
            None => self.next + self.messages.len() - self.count,
        }
    }

    /// Returns its place, which is vacant now.
    fn drop_oldest(&mut self) -> usize {
        let at = self.oldest();
        let message = &mut self.messages[at];
        self.bytes -= message.bytes();
        drop(message.slot.take());
        self.count -= 1;
        at
    }

    /// The last ones, at most this many, oldest first.
    pub(crate) fn last(&self, most: usize) -> VecDeque<PastMessage> {
        let (older, newer) = self.messages.split_at(self.next);
        let all = newer.iter().chain(older);
        all.skip(self.messages.len() - self.count.min(most)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(history: &History, most: usize) -> Vec<usize> {
        history.last(most).iter().map(|message| message.payload.len()).collect()
    }

    #[test]
    fn the_last_messages_are_kept_within_both_limits() {
        let mut history = History::new(3, 100);
        for bytes in [10, 20, 30, 40] {
            history.add(&vec![0; bytes]);
        }
        assert_eq!(lengths(&history, usize::MAX), [20, 30, 40]);
        assert_eq!(lengths(&history, 2), [30, 40]);
        assert_eq!(lengths(&history, 0), [0; 0]);
        history.add(&[0; 50]); // 120 bytes would be too many
        assert_eq!(lengths(&history, 3), [40, 50]);
        history.add(&[0; 500]); // the newest one in any case
        assert_eq!(lengths(&history, 3), [500]);
        history.add(&[0; 1]);
        assert_eq!(lengths(&history, 3), [1]);
    }

    #[test]
    fn messages_of_one_length_take_the_places_of_the_oldest() {
        let mut history = History::new(3, 100);
        let all = |history: &History| history.last(9).iter().map(|message| message.payload[0]).collect::<Vec<_>>();
        for number in 0..20_u8 {
            history.add(&[number; 10]);
            let first = number.saturating_sub(2);
            assert_eq!(all(&history), (first..=number).collect::<Vec<_>>());
            assert_eq!(history.bytes, 10 * u64::from(number - first + 1));
        }
        history.add(&[20; 90]);
        history.add(&[21; 10]);
        assert_eq!((all(&history), history.bytes), (vec![20, 21], 100));
        (22..30).for_each(|number| history.add(&[number; 10]));
        assert_eq!((all(&history), history.bytes), (vec![27, 28, 29], 30));
    }

    #[test]
    fn payloads_of_every_length_are_copied() {
        for bytes in 0..200_usize {
            let from: Vec<u8> = (1..=bytes as u8).collect();
            let mut to = vec![0; bytes];
            copy(&mut to, &from);
            assert_eq!(to, from);
        }
    }

    #[test]
    fn memory_that_a_subscription_waits_for_is_not_written_again() {
        let mut history = History::new(1, 100);
        history.add(b"first");
        let past = history.last(1);
        history.add(b"other");
        assert_eq!((&*past[0].payload, &*history.last(1)[0].payload), (&b"first"[..], &b"other"[..]));
    }
}
