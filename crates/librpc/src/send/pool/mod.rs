//! The pool of an outbox: the memory in which its large payloads are, in slots of a few sizes.
//!
//! Invariant: what is in a slot may be read by every receiver that maps its memory. So a memory belongs to one *audience*: where not
//! everybody may read everything, to one topic or one destination.

mod class; // the memories of one size and audience

use std::sync::Arc;
use std::time::Duration;

use self::class::Class;
pub(crate) use self::class::{UNUSED, slot_bytes};
use crate::link::lending::Payloads;
use crate::send::lent_queue::Reap;
use crate::sys::OsError;
use crate::sys::clock::Instant;
use crate::sys::slots::{SlotMut, Slots};

/// Who may read what is in a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Everybody in the domain.
    All,
    /// The subscriptions of one topic, by its number.
    Topic(u64),
    /// The receivers of one route, by its serial number.
    Route(u64),
}

/// Why no slot was taken.
#[derive(Debug)]
pub(crate) enum NoSlot {
    /// All are in use, and there may not be more.
    Exhausted,
    /// The system lacks memory.
    Os(OsError),
}

/// The slots of an outbox.
#[derive(Debug)]
pub(crate) struct Pool {
    payloads: Arc<Payloads>,
    classes: Vec<Class>,
    has_retired: bool,
    /// When it was last looked for memories that are not used.
    looked: Instant,
}

/// No payload is longer, whatever the limit: so no length overflows.
const MOST_BYTES: u64 = 1 << 60;
/// How often a pool looks for memories that are not used.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Pool {
    pub(crate) fn new(payloads: Arc<Payloads>) -> Self {
        Self { payloads, classes: Vec::new(), has_retired: false, looked: Instant::now() }
    }

    /// Takes a slot for this many bytes. `reap` takes back what receivers are done with, `all` of it if there is no slot otherwise.
    /// Does not wait for receivers; a new memory takes milliseconds.
    pub(crate) fn take(
        &mut self,
        audience: Audience,
        bytes: u64,
        all: Reap,
        mut reap: impl FnMut(Reap),
    ) -> Result<SlotMut, NoSlot> {
        if bytes > self.payloads.limit().min(MOST_BYTES) {
            return Err(NoSlot::Exhausted);
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.looked) >= LOOK_EVERY {
            reap(Reap::Released);
            self.give_back_unused(now);
        }
        let at = self.class(audience, slot_bytes(bytes));
        // A slot that was used just now is likely in the cache, so it is taken back before another one is used.
        for how in [Reap::First, Reap::Released, all] {
            reap(how);
            if how == all {
                self.payloads.reap();
            }
            if let Some(slot) = self.classes[at].take(bytes, now) {
                return Ok(slot);
            }
        }
        if !self.grow(at)? {
            self.classes.iter_mut().for_each(|class| class.give_back(now, true));
            self.has_retired = true;
            if !self.grow(at)? {
                return Err(NoSlot::Exhausted);
            }
        }
        self.classes[at].take(bytes, now).ok_or(NoSlot::Exhausted)
    }

    fn grow(&mut self, at: usize) -> Result<bool, NoSlot> {
        let memories = self.classes.iter().map(Class::memories).sum();
        self.classes[at].grow(&self.payloads, memories).map_err(NoSlot::Os)
    }

    /// Whether memories may have been given back since the last call: receivers are to unmap them.
    pub(crate) fn take_retired(&mut self) -> bool {
        std::mem::take(&mut self.has_retired)
    }

    fn class(&mut self, audience: Audience, slot_bytes: u64) -> usize {
        let is_it = |class: &Class| class.audience == audience && class.slot_bytes == slot_bytes;
        self.classes.iter().position(is_it).unwrap_or_else(|| {
            self.classes.push(Class::new(audience, slot_bytes));
            self.classes.len() - 1
        })
    }

    /// Gives back memories of which no slot was used for some seconds, and what was lent over channels that are closed.
    pub(crate) fn give_back_unused(&mut self, now: Instant) {
        self.looked = now;
        self.payloads.reap();
        self.classes.iter_mut().for_each(|class| class.give_back(now, false));
        self.classes.retain(|class| class.memories() > 0);
        self.has_retired = true;
    }

    /// Whether it has no memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Whether it has this memory.
    pub(crate) fn has(&self, segment: u64) -> bool {
        self.classes.iter().any(|class| class.has(segment))
    }

    /// Whether a slot of these may be lent to this audience.
    pub(crate) fn is_for(&self, slots: &Arc<Slots>, audience: Audience) -> bool {
        self.classes.iter().any(|class| class.audience == audience && class.has(slots.number))
    }

    /// How many bytes the node's pools may have.
    pub(crate) fn limit(&self) -> u64 {
        self.payloads.limit()
    }

    /// How many bytes the node's pools have, and how many they may have.
    pub(crate) fn used(&self) -> (u64, u64) {
        self.payloads.used()
    }
}
