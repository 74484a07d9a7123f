//! The sender's end of a channel, used by one thread: the producer, and what the background thread has found out.
//!
//! A channel is *pending* until its receiver has answered; records go into the ring even so.
//! [`crate::link::channel_shared`] describes what a death leaves. It outlives this end while a handshake is under way.

mod counts; // what has happened to the messages
mod lent; //   what it lends
mod typed; //  what it declares of its messages

use crate::sys::clock::Instant;
use std::sync::Arc;

use librpc_ring::{Head, Kind, Producer, PushError, layout};

use self::lent::RELEASE_PAUSE;
use self::typed::Typed;
use crate::fault::fault;
use crate::link::LinkRef;
use crate::link::channel_shared::{self, Attached, ChannelShared, Failure};
use crate::link::inbox_shared::InboxShared;
use crate::link::lending::{Lending, Payloads};
use crate::link::readers::Access;
use crate::name::{Incarnation, Peer};
use crate::policy::Policy;
use crate::registry::target::Target;
use crate::send::lent_queue::{LentQueue, Reap};
use crate::send::polling::Polling;
use crate::send::task::Task;
use crate::send::topic_name::TopicName;
use crate::stats::sampling::Sampler;
use crate::sys::clock::now_ns;
use crate::sys::memory::{Reader, Writer, no_ack};
use crate::wire::Reason;

/// The sender's end of a channel.
#[derive(Debug)]
pub(crate) struct OutboundChannel {
    shared: Arc<ChannelShared>,
    /// Keeps the connection open.
    link: LinkRef,
    producer: Producer<Writer, Reader>,
    /// The channel's status when this end last looked at it. An open one counts as not answered while a type is to be declared.
    seen: u32,
    /// The type of messages to a node's own inbox, if the inbox is to know it.
    typed: Option<Typed>,
    attached: Option<Attached>,
    sampler: Sampler,
    /// The longest message that goes into the ring itself, and that is accepted at all, in bytes.
    max_inline: usize,
    max_message: usize,
    /// The memories for payloads that the receiver maps, by their numbers, and those that are being handed over.
    lendings: Vec<(u64, Arc<Lending>)>,
    under_way: Vec<Arc<Lending>>,
    /// When that was begun; the time of the channel, if none is.
    lends_since: Instant,
    /// What was lent, until the receiver is done with it.
    lent: LentQueue,
    /// How many bytes of that the node knows of.
    noted: u64,
    /// Where that is looked after when the channel closes.
    payloads: Arc<Payloads>,
    is_private: bool,
}

/// How a push went.
pub(crate) enum Pushed {
    Yes,
    /// There is room once the receiver has consumed up to this position.
    Full {
        room_at: u64,
    },
    TooLarge {
        bytes: usize,
        max: usize,
    },
    /// Only this process has the ring, so a record would not survive it.
    Unsent,
    /// It does not fit into the ring: it must be in a slot.
    NeedsSlot,
    /// The receiver does not map the slot's memory yet.
    Unlent,
    /// The receiver holds too much.
    Held,
    /// The receiver will not map it.
    NotLent(Reason, Arc<str>),
    /// The process at the other end may not read the topic.
    Denied,
    Failed,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// This position is consumed: then there is room, or the ring was handed over.
    Room(u64),
    /// The receiver maps its memory.
    Lending,
    /// The receiver lets go of something.
    Release,
    /// Everything is processed: then another ring is needed.
    All,
}

impl OutboundChannel {
    /// Starts a channel whose first message carries this number.
    pub(crate) fn new(
        shared: Arc<ChannelShared>,
        link: LinkRef,
        first: u64,
        payloads: Arc<Payloads>,
        is_private: bool,
    ) -> Self {
        let (target, data) = (&shared.target, shared.data.writer());
        let (max_message, mode) = (target.max_message(), target.policy.mode());
        let max_inline = max_message.min(layout::max_payload_bytes(target.capacity, mode) as usize);
        let mut producer = Producer::continuing(data, no_ack(), target.capacity, mode, first);
        producer.limit_plain(max_inline);
        Self {
            shared,
            link,
            producer,
            seen: channel_shared::UNSENT,
            typed: None,
            attached: None,
            sampler: Sampler::default(),
            max_inline,
            max_message,
            lendings: Vec::new(),
            under_way: Vec::new(),
            lends_since: Instant::now(),
            lent: LentQueue::default(),
            noted: 0,
            payloads,
            is_private,
        }
    }

    /// The hot path of [`OutboundChannel::push`], for a connected lossless inbox and a message with no optional word
    /// except, perhaps, a topic. `false`: nothing was written; call [`OutboundChannel::push`].
    #[inline(always)]
    pub(crate) fn push_plain(&mut self, topic: Option<u64>, payload: &[u8]) -> bool {
        self.push_at_once(|producer| producer.push_plain(topic, payload))
    }

    /// The same for a record that belongs to a call.
    #[inline(always)]
    pub(crate) fn push_of_call(&mut self, kind: Kind, number: u64, deadline: Option<u64>, payload: &[u8]) -> bool {
        self.push_at_once(|producer| producer.push_of_call(kind, number, deadline, payload))
    }

    #[inline(always)]
    fn push_at_once(&mut self, push: impl FnOnce(&mut Producer<Writer, Reader>) -> bool) -> bool {
        if self.seen != channel_shared::OPEN || self.sampler.is_due() {
            return false;
        }
        let is_open = self.shared.begin_push() == channel_shared::OPEN;
        let is_pushed = is_open && push(&mut self.producer);
        self.shared.end_push();
        if !is_pushed {
            return false;
        }
        self.sampler.tick();
        if self.producer.must_ring() {
            self.ring_bell();
        }
        true
    }

    /// Writes and commits a message, and wakes the receiver if it sleeps.
    #[inline(never)]
    pub(crate) fn push(&mut self, head: Head, payload: &[u8]) -> Pushed {
        if payload.len() > self.max_inline {
            return self.not_inline(payload.len());
        }
        if self.sampler.is_due() {
            return self.push_stamped(head, payload);
        }
        self.sampler.tick();
        self.push_as_it_is(head, payload)
    }

    /// The same with a time stamp.
    #[cold]
    #[inline(never)]
    fn push_stamped(&mut self, head: Head, payload: &[u8]) -> Pushed {
        self.sampler.restart();
        let pushed = self.push_as_it_is(Head { time: Some(now_ns()), ..head }, payload);
        if !matches!(pushed, Pushed::Yes) {
            self.sampler.make_due();
        }
        pushed
    }

    #[inline(always)]
    fn push_as_it_is(&mut self, head: Head, payload: &[u8]) -> Pushed {
        if self.seen != channel_shared::OPEN {
            return self.push_slowly(head, payload, false);
        }
        let is_open = self.shared.begin_push() == channel_shared::OPEN;
        let pushed = is_open.then(|| self.producer.push(head, payload));
        self.shared.end_push();
        match pushed {
            Some(Ok(_)) => {
                if self.producer.must_ring() {
                    self.ring_bell();
                }
                Pushed::Yes
            }
            Some(Err(error)) => self.not_pushed(error),
            None => self.push_slowly(head, payload, false),
        }
    }

    /// The same when the receiver has not answered yet, or is gone. With `may_pend` it also writes into a ring that
    /// only this process has, where the record would not survive the process.
    #[cold]
    #[inline(never)]
    fn push_slowly(&mut self, head: Head, payload: &[u8], may_pend: bool) -> Pushed {
        match self.declare_type(may_pend) {
            Ok(()) => self.write_slowly(head, payload, may_pend),
            Err(undeclared) => undeclared,
        }
    }

    fn write_slowly(&mut self, head: Head, payload: &[u8], may_pend: bool) -> Pushed {
        if self.shared.status() != self.seen {
            self.refresh();
        }
        let status = self.shared.begin_push();
        let pushed = match status {
            channel_shared::FAILED => None,
            channel_shared::UNSENT if !may_pend => None,
            _ => Some(self.producer.push(head, payload)),
        };
        self.shared.end_push();
        match pushed {
            Some(Ok(_)) => {}
            Some(Err(error)) => return self.not_pushed(error),
            None if status == channel_shared::UNSENT => return Pushed::Unsent,
            None => {
                self.refresh();
                return Pushed::Failed;
            }
        }
        if self.attached.is_none() && self.shared.was_answered_meanwhile() {
            self.refresh();
        }
        if self.attached.is_some() && self.producer.must_ring() {
            self.ring_bell();
        }
        Pushed::Yes
    }

    /// Writes and commits a message even if only this process has the ring. Then the message is lost if the process
    /// ends before the receiver has been given the ring.
    pub(crate) fn push_pending(&mut self, head: Head, payload: &[u8]) -> Pushed {
        if payload.len() > self.max_inline {
            return self.not_inline(payload.len());
        }
        self.push_slowly(head, payload, true)
    }

    #[cold]
    fn not_inline(&self, bytes: usize) -> Pushed {
        match bytes > self.max_message {
            true => Pushed::TooLarge { bytes, max: self.max_message },
            false => Pushed::NeedsSlot,
        }
    }

    /// Whether only this process has the ring.
    pub(crate) fn is_unsent(&self) -> bool {
        self.shared.status() == channel_shared::UNSENT
    }

    /// Waits until what is committed survives this process, or the channel has failed, or up to a deadline.
    pub(crate) fn wait_until_sent(&self, deadline: Option<Instant>) {
        self.shared.wait_until_sent(deadline);
    }

    #[cold]
    #[inline(never)]
    fn ring_bell(&mut self) {
        fault!("send.must-ring");
        self.sampler.make_due();
        if let Some(attached) = &self.attached {
            attached.ring_bell();
        }
    }

    #[cold]
    #[inline(never)]
    fn not_pushed(&self, error: PushError) -> Pushed {
        match error {
            PushError::Full { room_at } => Pushed::Full { room_at },
            PushError::TooLarge { bytes, .. } => self.not_inline(bytes),
            PushError::BadConsumed { .. } => {
                self.shared.fail(Failure::Broken(error.to_string()));
                Pushed::Failed
            }
        }
    }

    /// Takes over what the background thread has found out.
    #[cold]
    fn refresh(&mut self) {
        // The status is read first: if it says that the ack memory is attached, it is there afterwards.
        let status = self.shared.status();
        if self.attached.is_none() {
            self.attached = self.shared.attached();
            if self.attached.as_ref().is_some_and(|attached| attached.is_fenced_by_receiver) {
                self.producer.set_fenced_by_receiver();
            }
            if let Some(ack) = self.shared.ack() {
                self.producer.set_ack(ack.reader());
            }
        }
        let is_settled = self.typed.as_ref().is_none_or(|typed| typed.is_settled(self.producer.mode()));
        self.seen = if status == channel_shared::OPEN && !is_settled { channel_shared::SENT } else { status };
    }

    /// Whether the process at the other end may read a topic.
    pub(crate) fn access(&self, topic: &str) -> Access {
        self.shared.access(topic)
    }

    /// The process at the other end, if that matters and is known.
    pub(crate) fn reader(&self) -> Option<Arc<Peer>> {
        self.shared.reader()
    }

    /// Whether a topic may be declared to the process at the other end; if not, why.
    pub(crate) fn may_declare(&self, topic: &str) -> Result<(), Pushed> {
        match self.access(topic) {
            Access::Granted => Ok(()),
            Access::Denied(_) => Err(Pushed::Denied),
            Access::Unknown if self.is_connected() => Err(Pushed::Unsent),
            Access::Unknown => Err(Pushed::Failed),
        }
    }

    /// The declaration of a topic to the receiver. A long definition would take the place of messages.
    pub(crate) fn declaration<'t>(&self, topic: &'t TopicName) -> &'t [u8] {
        topic.declaration(self.target().knows_types(), self.max_inline / 4)
    }

    /// Declares something to the receiver, for the records that follow: a topic, or a caller.
    pub(crate) fn declare(&mut self, head: Head, what: &[u8]) -> Pushed {
        self.push_as_it_is(head, what)
    }

    /// The same as [`OutboundChannel::push_pending`].
    pub(crate) fn declare_pending(&mut self, head: Head, what: &[u8]) -> Pushed {
        self.push_slowly(head, what, true)
    }

    /// The part of the ring in which a declaration made now holds. Always the same if the receiver cannot be overtaken.
    #[inline(always)]
    pub(crate) fn chunk(&self) -> u64 {
        self.producer.chunk()
    }

    /// Calls `each` with every message that the receiver, which is gone, has not processed. Returns how many could not
    /// be found.
    pub(crate) fn unprocessed(&mut self, mut each: impl FnMut(Head, u64, &[u8])) -> u64 {
        self.refresh();
        // It may have read the ring although its answer was not seen. Then it may have handed out anything.
        let is_unknown = self.shared.may_be_read() && self.shared.ack().is_none();
        self.producer.unprocessed(|head, sequence, payload| {
            each(Head { redelivered: head.redelivered || is_unknown, ..head }, sequence, payload);
        })
    }

    /// Whether the receiver reads the ring, or may have read it.
    pub(crate) fn may_be_read(&self) -> bool {
        self.shared.may_be_read()
    }

    /// Whether the receiver may have sent an answer that has not been seen here.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.shared.awaits_answer()
    }

    /// How far the receiver has processed, in bytes. `None`: its position is invalid.
    pub(crate) fn consumed(&mut self) -> Option<u64> {
        self.refresh();
        self.producer.consumed().ok()
    }

    /// Whether the receiver has processed everything.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.consumed() == Some(self.producer.committed())
    }

    /// The number of the next message.
    pub(crate) fn sequence(&self) -> u64 {
        self.producer.sequence()
    }

    /// The capacity of the ring, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.producer.capacity()
    }

    /// The inbox that it leads to.
    pub(crate) fn target(&self) -> &Target {
        &self.shared.target
    }

    /// What happens to a message when the inbox is full.
    pub(crate) fn policy(&self) -> Policy {
        self.shared.target.policy
    }

    /// Stamps each message with the time, or only some.
    pub(crate) fn stamp_all(&mut self, all: bool) {
        self.sampler.set_for_all(all);
    }

    /// Makes the ring count as *high* once it is filled to this part of its capacity, until it is filled to half of
    /// that.
    pub(crate) fn set_high_water(&mut self, part: Option<f64>) {
        let capacity = self.producer.capacity() as f64;
        self.producer.set_high_water(part.map(|part| (capacity * part) as u64));
    }

    /// Whether the ring is high, as of now.
    pub(crate) fn is_high(&mut self) -> bool {
        self.producer.is_high()
    }

    /// Waits until the receiver has answered or failed, up to a deadline.
    pub(crate) fn wait_for_answer(&self, deadline: Instant) {
        self.shared.wait_for_answer(deadline);
    }

    /// Waits until a message may be pushed, or the receiver has failed, up to a deadline.
    pub(crate) fn wait(&mut self, what: WaitsFor, deadline: Option<Instant>) {
        match what {
            WaitsFor::Room(room_at) => self.wait_for(room_at, deadline),
            WaitsFor::Lending => self.wait_until_lent(deadline),
            WaitsFor::Release => self.wait_for_release(deadline),
            WaitsFor::All => self.wait_for_all(deadline),
        }
    }

    /// Whether a task has to wait for this. If so, it is woken when that may be over.
    pub(crate) fn is_awaited(&mut self, what: WaitsFor, task: &Task<'_>) -> bool {
        let status = self.shared.watched_by(task.tasks);
        if status != self.seen {
            self.refresh();
        }
        let is_consumed = |position| move |consumed| consumed >= position;
        match (what, status) {
            (_, channel_shared::FAILED) => false,
            (WaitsFor::Room(_), channel_shared::UNSENT) => true,
            (WaitsFor::Room(position), _) => !self.shared.is_consumed(is_consumed(position)),
            (WaitsFor::All, _) => !self.shared.is_consumed(is_consumed(self.producer.committed())),
            (WaitsFor::Lending, _) => self.is_lending(),
            (WaitsFor::Release, _) => {
                self.reap(Reap::Released);
                task.look_after(RELEASE_PAUSE);
                true
            }
        }
    }

    /// Whether the receiver has neither answered nor failed. If so, the task is woken when it does.
    pub(crate) fn is_unanswered(&self, task: &Task<'_>) -> bool {
        self.shared.watched_by(task.tasks) < channel_shared::OPEN
    }

    /// A task has waited for room since then.
    pub(crate) fn note_blocked(&mut self, since: Instant) {
        self.producer.note_blocked(since.elapsed().as_nanos() as u64);
    }

    /// Waits until the receiver has consumed up to a position, or has failed. While this polls, it waits for at least a
    /// quarter of the ring: a sender that follows its receiver closely costs both most of their speed.
    fn wait_for(&mut self, position: u64, deadline: Option<Instant>) {
        if self.is_unsent() {
            return self.wait_until_sent(deadline);
        }
        let begun = Instant::now();
        let plenty = self.producer.committed().min(position + self.producer.capacity() / 4);
        if !self.spin(plenty, deadline) {
            self.shared.wait_until(deadline, |consumed| consumed >= position);
        }
        self.producer.note_blocked(begun.elapsed().as_nanos() as u64);
    }

    /// Waits until everything is processed, or the receiver has failed.
    pub(crate) fn wait_for_all(&mut self, deadline: Option<Instant>) {
        let committed = self.producer.committed();
        if !self.spin(committed, deadline) {
            self.shared.wait_until(deadline, |consumed| consumed >= committed);
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.shared.status() != channel_shared::FAILED
    }

    /// Whether the receiver has answered, and is there.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.status() == channel_shared::OPEN
    }

    /// Wakes this inbox when the receiver answers, and when it is gone.
    pub(crate) fn report_to(&self, inbox: &Arc<InboxShared>) {
        self.shared.report_to(inbox);
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.shared.failure()
    }

    /// The incarnation of the node that it leads to.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.shared.target.incarnation
    }

    /// The longest message, in bytes.
    pub(crate) fn max_message(&self) -> usize {
        self.max_message
    }

    /// Polls for a position while that is worthwhile, up to a deadline. `true`: the receiver has reached it, or the
    /// ring has failed.
    fn spin(&mut self, position: u64, deadline: Option<Instant>) -> bool {
        let mut polling = Polling::new(Instant::now(), deadline);
        loop {
            if self.shared.status() != self.seen {
                self.refresh();
            }
            let consumed = self.producer.consumed();
            if self.seen == channel_shared::FAILED || consumed.is_ok_and(|consumed| consumed >= position) {
                return true;
            }
            let Some(pauses) = polling.next(consumed.unwrap_or(0), Instant::now()) else { return false };
            (0..pauses).for_each(|_| crate::sys::thread::spin_loop());
        }
    }
}

/// The head of a record that declares the number of a topic.
pub(crate) fn topic_declaration(number: u64) -> Head {
    Head { topic: Some(number), ..Head::of(Kind::Topic) }
}

impl Drop for OutboundChannel {
    fn drop(&mut self) {
        if !self.shared.born.is_here() {
            return;
        }
        self.producer.close();
        self.shared.closed();
        self.payloads.note_lent(self.noted, 0);
        self.payloads.adopt(self.lent.take());
    }
}
