//! A channel's two memories over loom's words, and the ways in which they can be weakened on purpose.
//!
//! Each modelled word is an atomic with a loom cell beside it. Plain accesses touch both, so that loom reports two of
//! them that nothing orders; synchronising accesses touch the atomic only. loom runs all threads of a model on one real
//! thread, hence `Rc` and `Cell`: what they hold is invisible to loom, so it cannot order anything by accident.

#![allow(dead_code, reason = "not every model needs everything")]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use librpc_ring::layout::{self, WORD, ack, data};
use librpc_ring::{Consumer, Memory, MemoryMut, Mode, Producer};
use loom::cell::UnsafeCell;
use loom::sync::Notify;
use loom::sync::atomic::AtomicU64;

/// What a synchronising word is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// In mode Latest all words of the ring.
    Commit,
    Intent,
    Mark,
    Closed,
    Waiting,
    Consumed,
    /// Modelled only where a sender takes over.
    Taken,
    Armed,
    /// Modelled only where payloads are lent, as the following ones.
    HoldsUsed,
    /// The word that holds what was popped last.
    CurrentHold,
    /// The words that hold what was kept.
    KeptHold,
}

/// One thing that the protocol lacks. Each must make a model fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weakness {
    None,
    /// Its stores are relaxed.
    RelaxedStore(Role),
    /// The other side's loads of it are relaxed.
    RelaxedLoad(Role),
    /// The own side's loads of it are relaxed.
    RelaxedOwnLoad(Role),
    /// It stays as it is.
    NoStore(Role),
    /// The other side always finds 0 in it. If it is the intent, the receiver never sees that it was overtaken.
    NoLookAt(Role),
    /// The sender looks at what was kept first, and then at what was popped last.
    LooksAtKeptHoldsFirst,
    /// The fence that follows a store to it does nothing.
    NoFenceAfter(Role),
    /// The sender's fence before a look at the holds does nothing.
    NoFenceBeforeHolds,
    /// The receiver's fence between a copy and the look at the intent does nothing.
    NoAcquireFence,
    /// A side that has announced sleep in it ignores what the second look finds, and sleeps. The models do this.
    NoSecondLook(Role),
    /// Every sleep announced in it has the same epoch.
    SameEpoch(Role),
    /// No side rings after a store to it. The models do this.
    NoBellAfter(Role),
    /// A side that has announced sleep in it waits for any change of the position, not for the position that it needs. The
    /// models do this.
    WaitsForAnyChange(Role),
    /// There is no further look after a load of it or a store to it. The models do this.
    NoLookAfter(Role),
    /// A message that is not handed out after all stays taken. Played by the models.
    NotTakenBack,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Data,
    Ack,
}

struct Word {
    value: AtomicU64,
    plain: UnsafeCell<()>,
}

impl Word {
    fn new() -> Self {
        Self { value: AtomicU64::new(0), plain: UnsafeCell::new(()) }
    }

    fn get(&self) -> u64 {
        self.plain.with(|_| ());
        self.value.load(Ordering::Relaxed)
    }

    fn put(&self, value: u64) {
        self.plain.with_mut(|_| ());
        self.value.store(value, Ordering::Relaxed);
    }
}

/// One memory, shared by the two sides.
struct Words {
    which: Which,
    header: Vec<(usize, Word)>,
    ring: Vec<Word>,
}

impl Words {
    fn new(which: Which, header: &[usize], ring_bytes: u64) -> Rc<Self> {
        let header = header.iter().map(|&index| (index, Word::new())).collect();
        let ring = (0..ring_bytes as usize / WORD).map(|_| Word::new()).collect();
        Rc::new(Self { which, header, ring })
    }

    fn word(&self, index: usize) -> &Word {
        if self.which == Which::Data && index >= data::RING {
            // As if mapped twice in a row.
            assert!(index < data::RING + 2 * self.ring.len(), "word {index} is after the second mapping");
            return &self.ring[(index - data::RING) % self.ring.len()];
        }
        let found = self.header.iter().find(|(of, _)| *of == index);
        &found.unwrap_or_else(|| panic!("no model of header word {index}")).1
    }

    /// The role of a synchronising word; `None` if its only readers are not in this model.
    fn role(&self, index: usize) -> Option<Role> {
        match (self.which, index) {
            (Which::Data, data::WAITING) => Some(Role::Waiting),
            (Which::Data, data::CLOSED) => Some(Role::Closed),
            (Which::Data, data::INTENT) => Some(Role::Intent),
            (Which::Data, data::MARK) => Some(Role::Mark),
            (Which::Data, data::COMMITTED..=data::LAST_SENT) => None,
            (Which::Data, data::RING..) => Some(Role::Commit),
            (Which::Ack, ack::CONSUMED) => Some(Role::Consumed),
            (Which::Ack, ack::ARMED) => Some(Role::Armed),
            (Which::Ack, ack::TAKEN) => self.header.iter().any(|(of, _)| *of == index).then_some(Role::Taken),
            (Which::Ack, ack::RECEIVED..=ack::LAST_RECEIVED) => None,
            (Which::Ack, ack::HOLDS_USED) => Some(Role::HoldsUsed),
            (Which::Ack, ack::HOLDS) => Some(Role::CurrentHold),
            (Which::Ack, ack::HOLDS..) => Some(Role::KeptHold),
            _ => panic!("word {index} is not a synchronising word"),
        }
    }
}

/// One side's mapping of one memory.
pub(crate) struct Mapping {
    words: Rc<Words>,
    /// Whether this side writes it.
    is_own: bool,
    weakness: Weakness,
    last_store: Cell<Option<Role>>,
    /// For [`Weakness::LooksAtKeptHoldsFirst`]: how many holds were in use, and the first that was kept.
    seen_first: Cell<Option<[u64; 2]>>,
}

impl Mapping {
    fn of(words: &Rc<Words>, is_own: bool, weakness: Weakness) -> Self {
        let (last_store, seen_first) = Default::default();
        Self { words: words.clone(), is_own, weakness, last_store, seen_first }
    }

    /// What a look at the holds finds that begins with those that were kept.
    fn kept_holds_first(&self, role: Role) -> Option<u64> {
        if self.is_own || self.weakness != Weakness::LooksAtKeptHoldsFirst {
            return None;
        }
        match (role, self.seen_first.get()) {
            (Role::CurrentHold, _) => {
                let look = |word| self.words.word(word).value.load(Ordering::Acquire);
                self.seen_first.set(Some([ack::HOLDS_USED, ack::HOLDS + 1].map(look)));
                None
            }
            (Role::HoldsUsed, Some([used, _])) => Some(used),
            (Role::KeptHold, Some([_, kept])) => Some(kept),
            _ => None,
        }
    }

    fn bytes(&self, word: usize, bytes: usize) -> impl Iterator<Item = &Word> {
        (word..word + bytes.div_ceil(WORD)).map(|index| self.words.word(index))
    }
}

impl Memory for Mapping {
    fn load(&self, word: usize, order: Ordering) -> u64 {
        let role = self.words.role(word).expect("a word that is not modelled is never loaded");
        if self.weakness == Weakness::NoLookAt(role) && !self.is_own {
            return 0;
        }
        if let Some(seen) = self.kept_holds_first(role) {
            return seen;
        }
        let relaxed = if self.is_own { Weakness::RelaxedOwnLoad(role) } else { Weakness::RelaxedLoad(role) };
        let order = if self.weakness == relaxed { Ordering::Relaxed } else { order };
        self.words.word(word).value.load(order)
    }

    fn get(&self, word: usize) -> u64 {
        self.words.word(word).get()
    }

    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        let end = into.len() + bytes;
        for word in self.bytes(word, bytes) {
            into.extend(word.get().to_le_bytes());
        }
        into.truncate(end);
    }

    fn fence(&self, order: Ordering) {
        let is_missing = match (order, self.last_store.get()) {
            (Ordering::Acquire, _) => self.weakness == Weakness::NoAcquireFence,
            (_, Some(after)) => self.weakness == Weakness::NoFenceAfter(after),
            // Through a mapping that is only looked at.
            (Ordering::SeqCst, None) if self.is_own && self.words.which == Which::Data => {
                self.weakness == Weakness::NoFenceBeforeHolds
            }
            (_, None) => panic!("such a fence follows a store"),
        };
        if !is_missing {
            loom::sync::atomic::fence(order);
        }
    }
}

impl MemoryMut for Mapping {
    fn store(&self, word: usize, value: u64, order: Ordering) {
        let Some(role) = self.words.role(word) else { return };
        if role != Role::Mark {
            self.last_store.set(Some(role));
        }
        if self.weakness == Weakness::NoStore(role) {
            return;
        }
        let order = if self.weakness == Weakness::RelaxedStore(role) { Ordering::Relaxed } else { order };
        let value = if self.weakness == Weakness::SameEpoch(role) { value.min(1) } else { value };
        self.words.word(word).value.store(value, order);
    }

    fn put(&self, word: usize, value: u64) {
        self.words.word(word).put(value);
    }

    fn write(&self, word: usize, from: &[u8]) {
        for (word, chunk) in self.bytes(word, from.len()).zip(from.chunks(WORD)) {
            let mut bytes = [0; WORD];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.put(u64::from_le_bytes(bytes));
        }
    }
}

/// A new channel, and the words in which its sender announces that it waits.
pub(crate) struct Channel {
    pub(crate) producer: Producer<Mapping, Mapping>,
    pub(crate) consumer: Consumer<Mapping, Mapping>,
    pub(crate) sender_data: Mapping,
    pub(crate) sender_ack: Mapping,
    pub(crate) receiver_ack: Mapping,
}

impl Channel {
    pub(crate) fn new(capacity: u64, mode: Mode, weakness: Weakness) -> Self {
        Self::with_words(capacity, mode, weakness, &[])
    }

    /// A channel in which `taken` is modelled, too.
    pub(crate) fn with_takeover(capacity: u64, mode: Mode, weakness: Weakness) -> Self {
        Self::with_words(capacity, mode, weakness, &[ack::TAKEN])
    }

    /// A channel in which payloads are lent, of which the receiver keeps at most two.
    pub(crate) fn with_lent(capacity: u64, mode: Mode, weakness: Weakness) -> Self {
        let holds = [ack::HOLDS_USED, ack::HOLDS, ack::HOLDS + 1, ack::HOLDS + 2];
        Self::with_words(capacity, mode, weakness, &holds)
    }

    fn with_words(capacity: u64, mode: Mode, weakness: Weakness, more: &[usize]) -> Self {
        let constants = [data::MAGIC, data::VERSION, data::CAPACITY, data::MODE, data::FIRST];
        let header = [&constants[..], &[data::WAITING, data::CLOSED, data::INTENT, data::MARK]].concat();
        let data = Words::new(Which::Data, &header, capacity);
        let header = [&[ack::MAGIC, ack::VERSION, ack::CONSUMED, ack::ARMED], more].concat();
        let ack = Words::new(Which::Ack, &header, 0);
        let own = |words| Mapping::of(words, true, weakness);
        let others = |words| Mapping::of(words, false, weakness);
        assert!(layout::is_valid_capacity(capacity));
        Self {
            producer: Producer::new(own(&data), others(&ack), capacity, mode),
            consumer: Consumer::new(others(&data), own(&ack), capacity, mode).expect("a header just written"),
            sender_data: own(&data),
            sender_ack: others(&ack),
            receiver_ack: own(&ack),
        }
    }
}

/// A payload outside of the ring, as both sides have it mapped. loom reports a write and another access that nothing orders.
#[derive(Clone)]
pub(crate) struct LentMemory(Rc<(UnsafeCell<()>, Cell<u64>)>);

impl LentMemory {
    pub(crate) fn new() -> Self {
        Self(Rc::new((UnsafeCell::new(()), Cell::new(0))))
    }

    pub(crate) fn write(&self, value: u64) {
        self.0.0.with_mut(|_| self.0.1.set(value));
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.0.with(|_| self.0.1.get())
    }
}

/// Explores all executions with at most this many preemptions; `None`: all executions.
///
/// loom recommends 2 or 3: nearly every bug needs no more, and the number of executions grows exponentially. Models
/// that use 5 here also end with `None`, but take several times as long.
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} executions", executions.load(Ordering::Relaxed));
}

/// A sleeper's bell, and the other side's handle of it. As with a socket, it stays rung until the sleeper has woken, and may
/// wake it for nothing.
pub(crate) fn bell() -> (Rc<Notify>, Rc<Notify>) {
    let bell = Rc::new(Notify::new());
    (bell.clone(), bell)
}

/// The model must fail with this weakness, and in this way.
pub(crate) fn caught(model: fn(Weakness), weakness: Weakness, how: &str) {
    let failure = catch_unwind(AssertUnwindSafe(|| model(weakness))).expect_err("the model should fail");
    let message = failure.downcast_ref::<String>().map(String::as_str).or(failure.downcast_ref::<&str>().copied());
    let message = message.expect("a panic with a message");
    println!("caught: {message}");
    assert!(message.contains(how), "not {how:?} but {message:?}");
}

/// The failure of a model in which a side sleeps for ever.
pub(crate) const LOST_WAKE_UP: &str = "deadlock";
