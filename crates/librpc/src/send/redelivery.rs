//! Redelivery: the messages that a receiver did not process before it was gone go to its next incarnation.
//!
//! When a receiver is gone, the outbox takes the unprocessed messages out of the ring and keeps them. It also keeps
//! what is sent meanwhile, up to the capacity of the ring. When the same address appears in a new incarnation,
//! everything goes there in order, in a fresh ring that continues the numbers; what may have been handed out is
//! flagged. All of this happens in the outbox's own calls (send, publish, flush), step by step: [`Redelivery::advance`]
//! goes as far as it can without waiting. What is kept is lost with the sender: then both sides were dead.
//!
//! ```text
//!              it is gone             it is back            everything is through
//! in doubt ───────────────▶ away ───────────────▶ back ─────────────────────────▶ done
//!     ▲                      ▲                     │
//!     │     it has hung up   │   after a gap       │     (and from anywhere: the wait is over, everything comes back)
//!     └──────────────────────┴─────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::fault::fault;
use crate::link::channel_shared::Failure;
use crate::name::Incarnation;
use crate::node_shared::NodeShared;
use crate::policy::Policy;
use crate::registry::lookout::Waiting;
use crate::registry::target::Target;
use crate::registry::view::Subscription;
use crate::registry::{lookup, wait};
use crate::send::account::Account;
use crate::send::backlog::{Absorbed, Backlog};
use crate::send::bringing::{Bringing, Brought, Past};
use crate::send::channel::{OutboundChannel, Pushed};
use crate::send::dial::{self, ConnectError};
use crate::send::direct::Direct;
use crate::send::lent_queue::Reap;
use crate::send::message::Message;
use crate::send::task::Task;
use crate::send::topic_name::TopicName;
use crate::sys::clock::Instant;
use crate::sys::{Descriptor, OsError, thread};
use crate::wire::Reason;

/// The shortest time between two looks for a receiver.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long a waiting sender relies on the watch alone to report the receiver's return.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How far a redelivery has got.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub(crate) enum Progress {
    /// Everything is in the receiver's ring, and so will be whatever is sent from now on.
    Done(OutboundChannel),
    /// Nothing more can be done now.
    Waits,
    /// The receiver no longer takes this many of the messages: they came back. The rest is still being delivered.
    CameBack(u64),
    /// This many messages could not be found in the ring, because the receiver's claims are invalid. The rest is still
    /// being delivered.
    Lost(u64),
    /// It failed, or the wait is over. Everything came back.
    Over(Over),
}

/// The end of a redelivery.
#[derive(Debug)]
pub(crate) struct Over {
    /// Why; `None`: the receiver did not return in time.
    pub(crate) failure: Option<Failure>,
    /// The last incarnation that was known.
    pub(crate) incarnation: Option<Incarnation>,
    /// How many messages came back, or are lost.
    pub(crate) messages: u64,
}

/// What is known of the receiver.
#[derive(Debug)]
enum Stage {
    /// It has hung up, but still holds its lock. Either it is dying, or it lives and reads the ring to the end. Until
    /// that is clear, nobody knows what it will leave unprocessed.
    InDoubt(OutboundChannel),
    /// It is gone.
    Away,
    /// It is back, and what was kept is being delivered.
    Back(Bringing),
}

/// The inbox whose return is waited for.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) to: Arc<str>,
    /// `None`: the node's own inbox.
    pub(crate) subscription: Option<Arc<Subscription>>,
    /// What is sent to the node's own inbox.
    pub(crate) direct: Option<Arc<Direct>>,
}

/// What an outbox keeps for one inbox, and how far its delivery has got.
#[derive(Debug)]
pub(crate) struct Redelivery {
    node: Arc<NodeShared>,
    to: Arc<str>,
    /// The subscription whose return is waited for; `None`: the node's own inbox.
    subscription: Option<Arc<Subscription>>,
    direct: Option<Arc<Direct>>,
    /// The user of its node. A node of another user with the same id gets nothing.
    uid: u32,
    stage: Stage,
    backlog: Backlog,
    /// What happens to a message for which there is no room.
    policy: Policy,
    /// How long the receiver may stay away, and when that time ends; `None`: never.
    limit: Duration,
    until: Option<Instant>,
    looked: Option<Instant>,
    /// What a task watches that waits for its return.
    waiting: Option<Waiting>,
    /// The inbox that is gone.
    gone: Option<Target>,
    /// What happened to the messages that are neither kept nor in a channel.
    past: Past,
    /// How many messages could not be found in a ring and have not been reported yet.
    lost: u64,
    /// How many messages returned receivers have got, and how many of them had been in work.
    brought: (u64, u64),
    /// The span `redeliver`, from the receiver's end to the end of this.
    span: tracing::Span,
}

impl Redelivery {
    /// The receiver of this channel has hung up. `name` returns the name of a topic by its number.
    pub(crate) fn new<'t>(
        node: Arc<NodeShared>,
        to: Receiver,
        mut channel: OutboundChannel,
        limit: Duration,
        name: impl Fn(u64) -> Option<&'t Arc<TopicName>>,
    ) -> Self {
        let Receiver { to, subscription, direct } = to;
        let mut backlog = Backlog::new(node.kept.clone(), node.payloads.used().1 / 2);
        channel.unprocessed(|head, _, _| {
            if let Some((number, name)) = head.topic.and_then(|number| Some((number, name(number)?))) {
                backlog.name_topic(number, name);
            }
        });
        let span = tracing::debug_span!("redeliver", to = &*to);
        tracing::info!(parent: &span, node = &*to, ?limit, "a receiver is gone: its return is waited for");
        let (uid, policy) = (channel.target().uid, channel.policy());
        let mut this = Self {
            node,
            to,
            subscription,
            direct,
            uid,
            stage: Stage::Away,
            backlog,
            policy,
            limit,
            until: Instant::now().checked_add(limit),
            looked: None,
            waiting: None,
            gone: None,
            past: Past::default(),
            lost: 0,
            brought: (0, 0),
            span,
        };
        this.doubt(channel);
        this
    }

    /// Goes as far as it can without waiting.
    pub(crate) fn advance(&mut self) -> Progress {
        let span = self.span.clone();
        let _span = span.enter();
        loop {
            if !matches!(self.stage, Stage::Back(_)) {
                let Some(directory) = self.node.directory() else { return self.end(Some(Failure::NodeClosed)) };
                if self.is_over() {
                    return self.end(None);
                }
                if !self.may_look() {
                    return Progress::Waits;
                }
                let found = self.look(&directory);
                if self.lost > 0 {
                    return Progress::Lost(std::mem::take(&mut self.lost));
                }
                match found {
                    Ok(Found::Back) => {}
                    Ok(Found::Nobody) => return Progress::Waits,
                    Ok(Found::Useless(failure)) => return self.end(Some(failure)),
                    Err(error) => {
                        tracing::debug!(%error, node = &*self.to, "a receiver that is gone is not looked for just now");
                        return Progress::Waits;
                    }
                }
            }
            match self.bring() {
                (_, left_out) if left_out > 0 => return Progress::CameBack(left_out),
                (Brought::All, _) => return self.done(),
                (Brought::Some, _) => return Progress::Waits,
                (Brought::Gap, _) => self.leave_drained(),
                (Brought::Failed, _) => {
                    let Stage::Back(Bringing { channel, .. }) = self.leave_stage() else { continue };
                    let failure = channel.failure().filter(|failure| *failure != Failure::Gone);
                    self.doubt(channel);
                    if failure.is_some() {
                        return self.end(failure);
                    }
                }
            }
        }
    }

    /// Keeps a message, too.
    pub(crate) fn keep(&mut self, message: Message<'_>) -> Pushed {
        if let Some((number, name)) = message.topic {
            self.backlog.name_topic(number, name);
        }
        let max = self.max_message();
        if message.bytes() > max {
            return Pushed::TooLarge { bytes: message.bytes(), max };
        }
        self.backlog.push(message)
    }

    /// Ends it: everything comes back.
    pub(crate) fn end(&mut self, failure: Option<Failure>) -> Progress {
        let mut messages = 0;
        match self.leave_stage() {
            // Its receiver still gets what is in the ring.
            Stage::Back(Bringing { mut channel, .. }) if failure == Some(Failure::NodeClosed) => {
                let account = channel.account();
                messages += account.queued;
                self.past.account += account.ended();
            }
            Stage::InDoubt(channel) | Stage::Back(Bringing { channel, .. }) => self.absorb(channel),
            Stage::Away => {}
        }
        messages += self.backlog.len() + std::mem::take(&mut self.lost);
        while let Some(kept) = self.backlog.pop() {
            self.past.came_back(self.backlog.returned(&self.to, kept));
        }
        let redelivered = self.brought.0;
        tracing::warn!(
            node = &*self.to,
            undelivered = messages,
            redelivered,
            "the wait for a receiver is over: what was kept comes back"
        );
        Progress::Over(Over { failure, incarnation: self.gone.as_ref().map(|gone| gone.incarnation), messages })
    }

    fn done(&mut self) -> Progress {
        let Stage::Back(Bringing { channel, .. }) = self.leave_stage() else { return Progress::Waits };
        let (messages, in_work) = self.brought;
        tracing::info!(node = &*self.to, messages, in_work, "everything that was kept is redelivered");
        Progress::Done(channel)
    }

    fn leave_stage(&mut self) -> Stage {
        let left = std::mem::replace(&mut self.stage, Stage::Away);
        if let Stage::Back(Bringing { brought: (messages, in_work), .. }) = &left {
            self.brought.0 += messages;
            self.brought.1 += in_work;
        }
        left
    }

    /// The receiver has hung up.
    fn doubt(&mut self, mut channel: OutboundChannel) {
        self.backlog.doubt(&mut channel);
        self.policy = channel.policy();
        // The wait starts when the receiver is first missed. Only a receiver that has made progress restarts it: one
        // that comes back and dies again and again must not prolong it for ever.
        if channel.account().processed > 0 {
            self.until = Instant::now().checked_add(self.limit);
        }
        self.gone = Some(channel.target().clone());
        self.stage = Stage::InDoubt(channel);
    }

    /// Takes what a receiver that has hung up has not processed, once that is clear. `false`: it is still in doubt.
    fn settle(&mut self, directory: &Descriptor) -> Result<bool, OsError> {
        let Stage::InDoubt(channel) = &mut self.stage else { return Ok(true) };
        // Ask the kernel first: once the receiver is gone, what it has processed no longer changes.
        let lives = lookup::is_listed(directory, channel.target())?;
        let is_done = !channel.may_be_read() || channel.is_drained();
        // Its answer, which may not have been seen yet, leads to how far it has read.
        if lives && !is_done || channel.awaits_answer() {
            return Ok(false);
        }
        if let Stage::InDoubt(channel) = self.leave_stage() {
            self.absorb(channel);
        }
        if lives {
            self.gone = None; // the same inbox may be connected to again
        }
        Ok(true)
    }

    /// Takes what a channel's receiver has not processed, ahead of everything else.
    fn absorb(&mut self, mut channel: OutboundChannel) {
        let Absorbed { kept, in_work, lost } = self.backlog.absorb(&mut channel);
        self.past.account += channel.account().moved(kept, lost);
        self.lost += lost;
        tracing::info!(
            node = &*channel.target().node,
            kept,
            in_work,
            lost,
            "what a receiver that is gone has not processed is kept for its return"
        );
        fault!("redeliver.absorbed");
    }

    /// Looks for the receiver's next incarnation and begins to connect to it.
    fn look(&mut self, directory: &Descriptor) -> Result<Found, OsError> {
        if !self.settle(directory)? {
            return Ok(Found::Nobody);
        }
        let found = match &self.subscription {
            None => match dial::find(&self.node, &self.to) {
                Ok(found) => found,
                Err(ConnectError::Closed { .. }) => return Ok(Found::Useless(Failure::NodeClosed)),
                Err(ConnectError::Os(error)) => return Err(error),
                Err(_) => None,
            },
            Some(former) => {
                let found = self.node.ask_view(|view| {
                    view.refresh()?;
                    Ok(view.successor(former).cloned())
                })?;
                let Some(next) = found else { return Ok(Found::Useless(Failure::NodeClosed)) };
                next.map(|next| {
                    let target = next.target.clone();
                    self.subscription = Some(next);
                    target
                })
            }
        };
        let is_next = |target: &Target| target.uid == self.uid && self.gone.as_ref() != Some(target);
        let Some(target) = found.filter(is_next) else { return Ok(Found::Nobody) };
        if target.policy == Policy::DropOldest {
            // Such an inbox would overwrite what was kept.
            let text = "it has returned as an inbox that overwrites old messages".to_owned();
            return Ok(Found::Useless(Failure::Refused { reason: Reason::Unknown as u32, text }));
        }
        let connected = match &self.direct {
            Some(direct) => dial::to_inbox(&self.node, &target, direct, self.backlog.first()),
            None => dial::to_target(&self.node, &target, self.backlog.first()),
        };
        match connected {
            Ok(channel) => {
                let (node, messages) = (&*self.to, self.backlog.len());
                tracing::debug!(parent: &self.span, node, messages, "a receiver is back: it gets what was kept");
                self.policy = channel.policy();
                self.stage = Stage::Back(Bringing::new(channel));
                Ok(Found::Back)
            }
            Err(ConnectError::Mismatch(mismatch)) => Ok(Found::Useless(Failure::Mismatch(mismatch))),
            Err(ConnectError::Os(error)) => Err(error),
            Err(_) => Ok(Found::Nobody),
        }
    }

    /// Delivers what is kept to the receiver. Also returns how many messages it does not take.
    fn bring(&mut self) -> (Brought, u64) {
        let Stage::Back(bringing) = &mut self.stage else { return (Brought::Failed, 0) };
        let mut left_out = Vec::new();
        let brought = bringing.bring(&mut self.backlog, self.subscription.as_deref(), &mut left_out);
        let messages = left_out.len() as u64;
        for kept in left_out {
            self.past.came_back(self.backlog.returned(&self.to, kept));
        }
        if messages > 0 {
            tracing::warn!(node = &*self.to, messages, "a receiver that is back no longer takes these messages");
        }
        (brought, messages)
    }

    /// Leaves a ring that is processed up to a gap. The next ring may lead to the same inbox.
    fn leave_drained(&mut self) {
        self.gone = None;
        self.looked = None;
        self.until = Instant::now().checked_add(self.limit);
        if let Stage::Back(Bringing { mut channel, .. }) = self.leave_stage() {
            self.past.account += channel.account().ended();
        }
    }

    /// Waits until more can be done, up to a deadline.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) {
        let earlier = |a: Option<Instant>, b| [a, b].into_iter().flatten().min();
        match &mut self.stage {
            Stage::Back(bringing) => bringing.wait(deadline),
            // Nothing reports that the kernel has dropped a lock, and it does so within moments.
            Stage::InDoubt(_) => pause(deadline),
            Stage::Away => {
                let until = earlier(earlier(deadline, self.until), Some(Instant::now() + LOOK_AGAIN));
                if let Err(error) = self.wait_for_return(until) {
                    tracing::debug!(%error, node = &*self.to, "a receiver that is gone is not looked for just now");
                    pause(deadline);
                }
            }
        }
    }

    /// Whether a task has to wait until more can be done. If so, it is woken then, or looks again after a while.
    pub(crate) fn is_awaited(&mut self, task: &Task<'_>) -> bool {
        match &mut self.stage {
            Stage::Back(bringing) => return bringing.is_awaited(task),
            Stage::InDoubt(_) => task.look_after(LOOK_EVERY),
            Stage::Away => {
                self.looked = None; // the next step must look again
                task.look_after(LOOK_AGAIN);
                if let Some(domain) = self.node.domain() {
                    let lookout = &self.node.process().lookout;
                    let waiting = self.waiting.get_or_insert_with(|| Waiting::begin(lookout, domain.path()));
                    task.watch(waiting);
                }
            }
        }
        true
    }

    fn wait_for_return(&mut self, until: Option<Instant>) -> Result<(), OsError> {
        let Some(domain) = self.node.domain() else { return Ok(()) };
        let node = self.node.clone();
        let look = || -> Result<Option<()>, OsError> {
            let Some(directory) = node.directory() else { return Ok(Some(())) };
            Ok(match self.look(&directory)? {
                Found::Nobody => None,
                Found::Back | Found::Useless(_) => Some(()),
            })
        };
        wait::wait_for(&node.process().lookout, domain.path(), until, look)?;
        self.looked = None; // the next step must look again
        Ok(())
    }

    /// A subscription has appeared that takes this one up again.
    pub(crate) fn follow(&mut self, next: Arc<Subscription>) {
        self.subscription = Some(next);
        self.looked = None;
    }

    /// The subscription that it leads to now.
    pub(crate) fn subscription(&self) -> Option<&Arc<Subscription>> {
        self.subscription.as_ref()
    }

    /// Whether the receiver should be back by now.
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether it is time to look for the receiver again.
    fn may_look(&mut self) -> bool {
        let now = Instant::now();
        let due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// Takes the account of the messages that are neither kept nor in a channel.
    pub(crate) fn take_past(&mut self) -> Past {
        std::mem::take(&mut self.past)
    }

    /// What happened to the messages. Those that are kept count as queued.
    pub(crate) fn account(&mut self) -> Account {
        let (kept, capacity) = (self.backlog.len(), self.backlog.capacity());
        let depth = self.backlog.bytes();
        let mut account = self.past.account;
        match &mut self.stage {
            Stage::InDoubt(channel) | Stage::Back(Bringing { channel, .. }) => account += channel.account(),
            Stage::Away => {}
        }
        let depth_max = depth;
        account +=
            Account { sent: kept, accepted: kept, queued: kept, depth, depth_max, capacity, ..Account::default() };
        account
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// The longest message that is taken, in bytes.
    pub(crate) fn max_message(&self) -> usize {
        match &self.stage {
            Stage::Back(Bringing { channel, .. }) => self.backlog.max_message().min(channel.max_message()),
            _ => self.backlog.max_message(),
        }
    }

    /// How many messages are kept.
    pub(crate) fn kept(&self) -> u64 {
        self.backlog.len()
    }

    /// Takes back what receivers are done with. What they have not processed is delivered again.
    pub(crate) fn reap(&mut self) {
        match &mut self.stage {
            Stage::InDoubt(channel) | Stage::Back(Bringing { channel, .. }) => channel.reap(Reap::Held),
            Stage::Away => {}
        }
    }

    /// A number that grows as the receiver makes progress.
    pub(crate) fn position(&self) -> u64 {
        self.backlog.first()
    }
}

/// What a look for the receiver found.
enum Found {
    Back,
    Nobody,
    /// It is there, but nothing can be delivered to it.
    Useless(Failure),
}

/// Sleeps for a moment.
fn pause(deadline: Option<Instant>) {
    let left = deadline.map_or(LOOK_EVERY, |deadline| deadline.saturating_duration_since(Instant::now()));
    thread::sleep(left.min(LOOK_EVERY));
}
