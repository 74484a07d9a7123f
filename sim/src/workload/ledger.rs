//! What the programs of a run have done, as they saw it, and whether that can be.
//!
//! Programs write here between two steps, so nothing is lost here when one of them is killed. A message is
//! noted before it is sent; whether it was accepted is added when the call has returned.

use std::collections::{BTreeMap, BTreeSet};

/// A message that a program wanted to send.
#[derive(Clone, Debug)]
pub struct Sent {
    pub to: To,
    /// The step at which the call began.
    pub begun: u64,
    /// `None`: the call has not returned, or has failed.
    pub accepted: Option<Accepted>,
}

/// What a call that has sent a message has returned.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// How many inboxes have it.
    pub inboxes: usize,
    /// How many will have it if their nodes answer.
    pub pending: usize,
    /// The nodes whose inboxes do not have it, as the call said. One without a name may be any.
    pub without: Vec<String>,
    pub ns: u64,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    Node(String),
    Topic(String),
    /// What an inbox may hear: every topic.
    AllTopics,
}

impl To {
    /// Whether an inbox that hears this gets what is sent there.
    pub fn includes(&self, sent: &Self) -> bool {
        self == sent || matches!((self, sent), (Self::AllTopics, Self::Topic(_)))
    }
}

/// An inbox, from its opening to its end.
#[derive(Clone, Debug)]
pub struct Life {
    pub node: String,
    pub hears: To,
    /// The step at which its opening had returned; `None`: it has not, or has failed.
    pub opened: Option<u64>,
    /// The step at which its end began; `None`: it was there to the end of the run, or was killed.
    pub closed: Option<u64>,
    /// It was there until nobody sent any more, and had heard everything.
    pub is_drained: bool,
    /// It may drop messages.
    pub lossy: bool,
}

/// A message that came.
#[derive(Clone, Debug)]
pub struct Got {
    pub message: Id,
    pub life: usize,
    pub redelivered: bool,
    pub ns: u64,
}

/// Names a message: its outbox and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub outbox: u32,
    pub number: u32,
}

impl Id {
    /// The message: its name, and more bytes that follow from it.
    pub fn payload(self, bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes.max(8));
        payload.extend(self.outbox.to_le_bytes());
        payload.extend(self.number.to_le_bytes());
        payload.extend((8..bytes).map(|at| (at as u32 ^ self.number.wrapping_mul(31)) as u8));
        payload
    }

    /// Whose message this is. `Err`: it is no message of ours.
    pub fn of(payload: &[u8]) -> Result<Self, String> {
        let word =
            |at: usize| payload.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("4 bytes")));
        let (Some(outbox), Some(number)) = (word(0), word(4)) else {
            return Err(format!("a message of {} bytes", payload.len()));
        };
        let id = Self { outbox, number };
        if payload == id.payload(payload.len()) { Ok(id) } else { Err(format!("message {id:?} with other bytes")) }
    }
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub struct Claims {
    /// Calls do not fail, and nobody is killed, stopped or held up: so nobody waits for longer than this.
    pub at_once_ns: Option<u64>,
    /// A message may come again, with its flag, to another incarnation.
    pub redelivery: bool,
}

/// What the programs of a run have done.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sent: BTreeMap<Id, Sent>,
    pub lives: Vec<Life>,
    pub got: Vec<Got>,
    /// Messages that a receiver has processed, where that matters.
    pub processed: BTreeSet<Id>,
    /// Those whose acknowledgement had returned.
    pub acknowledged: BTreeSet<Id>,
    /// Messages that came back to their senders.
    pub returned: BTreeSet<Id>,
    /// What is wrong already.
    pub wrong: Vec<String>,
    /// What is wrong if no call has failed, and nobody was killed or held up.
    pub wrong_without_faults: Vec<String>,
    outboxes: u32,
}

impl Ledger {
    /// A number for a new outbox.
    pub fn outbox(&mut self) -> u32 {
        self.outboxes += 1;
        self.outboxes
    }

    /// Whether everything can be so.
    pub fn judge(&self, claims: Claims) -> Result<(), String> {
        if let Some(wrong) = self.wrong.first() {
            return Err(wrong.clone());
        }
        self.judge_order(claims)?;
        match claims.redelivery {
            true => self.judge_redelivery()?,
            false => self.judge_loss()?,
        }
        self.judge_receipts()?;
        match claims.at_once_ns {
            Some(limit) => {
                self.wrong_without_faults.first().map_or(Ok(()), |wrong| Err(wrong.clone()))?;
                self.judge_delay(limit)
            }
            None => Ok(()),
        }
    }

    /// What one inbox hears of one outbox comes in order, and once.
    fn judge_order(&self, claims: Claims) -> Result<(), String> {
        let mut last: BTreeMap<(usize, u32), u32> = BTreeMap::new();
        let mut seen: BTreeSet<(Id, usize)> = BTreeSet::new();
        let mut heard_by_node: BTreeSet<(Id, &str)> = BTreeSet::new();
        for got in &self.got {
            let Got { message, life, redelivered, .. } = *got;
            let Some(sent) = self.sent.get(&message) else {
                return Err(format!("{message:?} came, and was never sent"));
            };
            let of = &self.lives[life];
            if !of.hears.includes(&sent.to) {
                return Err(format!("{message:?} to {:?} came to an inbox of {:?}", sent.to, of.hears));
            }
            let before = last.insert((life, message.outbox), message.number);
            if before.is_some_and(|before| before >= message.number) {
                let before = before.expect("there is one");
                return Err(format!("{message:?} came to inbox {life} of {:?} after number {before}", of.node));
            }
            if !seen.insert((message, life)) {
                return Err(format!("{message:?} came twice to inbox {life} of {:?}", of.node));
            }
            let again = !heard_by_node.insert((message, of.node.as_str()));
            let may_come_again = match sent.to {
                To::Node(_) => claims.redelivery && redelivered,
                // A node may have several subscriptions to a topic, unless they have a durable name.
                To::Topic(_) | To::AllTopics => !claims.redelivery || redelivered,
            };
            if again && !may_come_again {
                return Err(format!("{message:?} came again to {:?}, without its flag", of.node));
            }
        }
        Ok(())
    }

    /// What was accepted is processed at last, or came back.
    fn judge_redelivery(&self) -> Result<(), String> {
        for (&id, sent) in &self.sent {
            let is_out = sent.accepted.as_ref().is_some_and(|accepted| accepted.inboxes > 0);
            if is_out && !self.processed.contains(&id) && !self.returned.contains(&id) {
                return Err(format!("{id:?} was accepted, and neither processed nor returned"));
            }
        }
        Ok(())
    }

    /// What was accepted comes to every inbox that was there before, and to the end.
    fn judge_loss(&self) -> Result<(), String> {
        let came: BTreeSet<(Id, usize)> = self.got.iter().map(|got| (got.message, got.life)).collect();
        for (&id, sent) in &self.sent {
            let Some(accepted) = &sent.accepted else { continue };
            for (at, life) in self.lives.iter().enumerate() {
                let is_for_it = life.hears.includes(&sent.to)
                    && life.opened.is_some_and(|opened| opened < sent.begun)
                    && life.is_drained
                    && !life.lossy;
                // One that is still pending is lost with its sender.
                let was_told =
                    accepted.pending > 0 || accepted.without.iter().any(|node| node.is_empty() || *node == life.node);
                if is_for_it && !was_told && !came.contains(&(id, at)) {
                    let node = &life.node;
                    return Err(format!(
                        "{id:?} was accepted ({accepted:?}), and never came to inbox {at} of {node:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A receipt does not count more inboxes than there ever were. (One that was closed just now may be among them: its end
    /// is reported by a later call.)
    fn judge_receipts(&self) -> Result<(), String> {
        for (&id, sent) in &self.sent {
            let Some(accepted) = &sent.accepted else { continue };
            let could = self.lives.iter().filter(|life| life.hears.includes(&sent.to)).count();
            if matches!(sent.to, To::Topic(_)) && accepted.inboxes > could {
                return Err(format!("{id:?}: its receipt names {} inboxes, and there were {could}", accepted.inboxes));
            }
        }
        Ok(())
    }

    /// Nobody waits without need.
    fn judge_delay(&self, limit: u64) -> Result<(), String> {
        for got in &self.got {
            let Some(accepted) = &self.sent[&got.message].accepted else { continue };
            let delay = got.ns.saturating_sub(accepted.ns);
            if delay > limit && !got.redelivered {
                let (ms, node) = (delay / 1_000_000, &self.lives[got.life].node);
                return Err(format!("{:?} came to {node:?} {ms} ms after it was accepted", got.message));
            }
        }
        Ok(())
    }
}
