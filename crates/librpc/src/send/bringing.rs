//! Delivering what was kept to a receiver that is back, in a fresh ring that continues the numbers.

use std::collections::BTreeSet;

use crate::fault::fault;
use crate::registry::view::Subscription;
use crate::send::account::Account;
use crate::send::backlog::{Backlog, Kept, Payload};
use crate::send::channel::{OutboundChannel, Pushed, WaitsFor, topic_declaration};
use crate::send::returned::Returned;
use crate::send::task::Task;
use crate::sys::clock::Instant;

/// A channel to a receiver that is back.
#[derive(Debug)]
pub(crate) struct Bringing {
    pub(crate) channel: OutboundChannel,
    /// The topics that were declared on it.
    declared: BTreeSet<u64>,
    /// What the oldest message waits for.
    waits_for: WaitsFor,
    /// How many messages were delivered again, and how many of them had been in work.
    pub(crate) brought: (u64, u64),
}

/// How far this has got.
pub(crate) enum Brought {
    All,
    /// There is no room for more, or the receiver must first process what it has.
    Some,
    /// Everything ahead of a message that was left out is processed. What follows it needs another ring.
    Gap,
    /// The receiver is gone again, or refuses.
    Failed,
}

impl Bringing {
    pub(crate) fn new(channel: OutboundChannel) -> Self {
        Self { channel, declared: BTreeSet::new(), waits_for: WaitsFor::Room(0), brought: (0, 0) }
    }

    /// Writes kept messages into the ring while there is room, oldest first. A message goes to `left_out` if the
    /// receiver no longer wants its topic, may no longer read it, or takes only shorter messages now. The numbers of a
    /// ring have no gaps, so what follows such a message needs another ring, and must wait until this ring is
    /// processed.
    pub(crate) fn bring(
        &mut self,
        backlog: &mut Backlog,
        to: Option<&Subscription>,
        left_out: &mut Vec<Kept>,
    ) -> Brought {
        while let Some(kept) = backlog.front() {
            let topic = kept.head.topic.zip(backlog.topic(&kept.head));
            let is_wanted = to.is_none_or(|to| topic.is_some_and(|(_, name)| to.takes(name.name(), name.schema())));
            if !is_wanted || kept.payload_bytes() > self.channel.max_message() {
                left_out.extend(backlog.pop());
                continue;
            }
            if kept.sequence != self.channel.sequence() {
                return self.at_gap();
            }
            let undeclared = topic.filter(|(number, _)| !self.declared.contains(number));
            let pushed = match undeclared {
                Some((number, name)) => {
                    let declaration = self.channel.declaration(name);
                    let may_declare = self.channel.may_declare(name.name());
                    may_declare
                        .map_or_else(|not| not, |()| self.channel.declare(topic_declaration(number), declaration))
                }
                None => match &kept.payload {
                    Payload::Copy(bytes) => self.channel.push(kept.head, bytes),
                    Payload::Slot(slot) => match self.channel.prepare_slot(slot) {
                        Ok(()) => self.channel.push_slot(kept.head, slot),
                        Err(not_prepared) => not_prepared,
                    },
                },
            };
            match (pushed, undeclared) {
                (Pushed::Yes, Some((number, _))) => drop(self.declared.insert(number)),
                (Pushed::Yes, None) => {
                    self.brought.0 += 1;
                    self.brought.1 += u64::from(kept.head.redelivered);
                    drop(backlog.pop());
                    fault!("redeliver.brought");
                }
                (Pushed::Full { room_at }, _) => return self.waits_for(WaitsFor::Room(room_at)),
                (Pushed::Denied, _) => left_out.extend(backlog.pop()),
                // This waits for an answer.
                (Pushed::Unsent, _) => return self.waits_for(WaitsFor::Room(0)),
                (Pushed::Unlent, _) => return self.waits_for(WaitsFor::Lending),
                (Pushed::Held, _) => return self.waits_for(WaitsFor::Release),
                // Its ring is shorter now.
                (Pushed::NeedsSlot, _) => {
                    if let Err(error) = backlog.move_first_to_slot() {
                        tracing::warn!(%error, "a message that is kept needs a slot, and gets none");
                        left_out.extend(backlog.pop());
                    }
                }
                (Pushed::NotLent(..), _) => left_out.extend(backlog.pop()),
                (Pushed::TooLarge { .. } | Pushed::Failed, _) => return Brought::Failed,
            }
        }
        if self.channel.sequence() == backlog.next() { Brought::All } else { self.at_gap() }
    }

    fn waits_for(&mut self, what: WaitsFor) -> Brought {
        self.waits_for = what;
        Brought::Some
    }

    /// The number of the next message does not continue the ring's numbers.
    fn at_gap(&mut self) -> Brought {
        self.waits_for = WaitsFor::All;
        match (self.channel.is_drained(), self.channel.is_connected()) {
            (true, _) => Brought::Gap,
            (false, true) => Brought::Some,
            (false, false) => Brought::Failed,
        }
    }

    /// Whether a task has to wait until there is. If so, it is woken then.
    pub(crate) fn is_awaited(&mut self, task: &Task<'_>) -> bool {
        self.channel.is_awaited(self.waits_for, task)
    }

    /// Waits until there is room for more or the ring is processed, up to a deadline.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) {
        self.channel.wait(self.waits_for, deadline);
    }
}

/// What happened to the messages that are no longer kept, and not in a channel.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) account: Account,
    /// Those that came back.
    pub(crate) returned: Vec<Returned>,
}

impl Past {
    pub(crate) fn came_back(&mut self, returned: Returned) {
        self.account.sent += 1;
        self.account.accepted += 1;
        self.account.returned += 1;
        self.returned.push(returned);
    }
}
