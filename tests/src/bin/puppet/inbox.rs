//! The node's own inbox, and subscriptions.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::RangeInclusive;

use librpc::{Acknowledge, Inbox, Policy, Wait};
use librpc_system_tests::command::{Event, InboxCommand, Message, OpenInbox};

use crate::{Outcome, PATIENCE, Puppet, answer, done, text};

impl Puppet {
    pub(crate) fn obey_about_inbox(&mut self, name: Option<String>, command: InboxCommand) -> Outcome {
        match command {
            InboxCommand::Open(open) => {
                let inbox = self.open_inbox(open)?;
                self.inboxes.insert(name, inbox);
                return done();
            }
            InboxCommand::Drop => {
                self.inboxes.remove(&name);
                return done();
            }
            _ => {}
        }
        let inbox = self.inboxes.get_mut(&name).ok_or("no such inbox is open")?;
        match command {
            InboxCommand::Open(_) | InboxCommand::Drop => unreachable!("done above"),
            InboxCommand::Receive => answer(receive(inbox)?),
            InboxCommand::TryReceive => answer(inbox.try_recv()?.as_ref().map(copy)),
            InboxCommand::ReceiveNumbers(numbers) => receive_numbers(inbox, numbers),
            InboxCommand::ReceiveUntil { last } => receive_until(inbox, last),
            InboxCommand::Collect { count } => collect(inbox, count),
            InboxCommand::Hold { count } => {
                for _ in 0..count {
                    self.held.push(inbox.recv_sample_timeout(PATIENCE)?.ok_or("no message came")?);
                }
                inbox.ack();
                done()
            }
            InboxCommand::Acknowledge => {
                inbox.ack();
                done()
            }
            InboxCommand::NextEvent => next_event(inbox),
            InboxCommand::Denied => answer(self.denied()?),
        }
    }

    /// The topics that the node's subscriptions may not read.
    fn denied(&self) -> Result<Vec<String>, &'static str> {
        Ok(self.node()?.stats().denials.into_iter().map(|denial| denial.text.to_string()).collect())
    }

    fn open_inbox(&self, open: OpenInbox) -> Result<Inbox, Box<dyn Error>> {
        let OpenInbox { name, patterns, capacity, max_message, drop_newest, latest, explicit, block, durable, own } =
            open;
        let mut builder = match name {
            None => self.node()?.inbox_builder(),
            Some(_) => self.node()?.subscriber_builder(patterns).receive_own(own),
        };
        if let Some(bytes) = capacity {
            builder = builder.capacity(bytes);
        }
        if let Some(bytes) = max_message {
            builder = builder.max_message(bytes);
        }
        if let Some(name) = durable {
            builder = builder.durable(&name);
        }
        if drop_newest {
            builder = builder.policy(Policy::DropNewest);
        }
        if latest {
            builder = builder.policy(Policy::DropOldest);
        }
        if explicit {
            builder = builder.acknowledge(Acknowledge::Explicit);
        }
        if block {
            builder = builder.wait(Wait::Block);
        }
        Ok(builder.open()?)
    }
}

fn copy(message: &librpc::Message<'_>) -> Message {
    Message {
        from: message.sender().into(),
        topic: message.topic().unwrap_or_default().into(),
        number: message.sequence(),
        text: text(message.payload()),
        missed: message.missed(),
        is_redelivered: message.is_redelivered(),
    }
}

fn receive(inbox: &mut Inbox) -> Result<Message, Box<dyn Error>> {
    let message = inbox.recv_timeout(PATIENCE)?.ok_or("no message came")?;
    Ok(copy(&message))
}

fn receive_numbers(inbox: &mut Inbox, numbers: RangeInclusive<u64>) -> Outcome {
    for number in numbers {
        let message = receive(inbox)?;
        if message.text != number.to_string() {
            return Err(format!("{:?} came instead of {number}", message.text).into());
        }
    }
    done()
}

fn receive_until(inbox: &mut Inbox, last: u64) -> Outcome {
    let (mut received, mut missed, mut before) = (0u64, 0u64, 0u64);
    loop {
        let message = receive(inbox)?;
        let number: u64 = message.text.parse()?;
        if number != before + message.missed + 1 {
            return Err(format!("{number} came after {before}, with {} missed", message.missed).into());
        }
        (before, received, missed) = (number, received + 1, missed + message.missed);
        if number == last {
            return answer((received, missed));
        }
    }
}

fn collect(inbox: &mut Inbox, count: u64) -> Outcome {
    let mut counts = BTreeMap::<String, u64>::new();
    for number in 0..count {
        let message = receive(inbox).map_err(|error| format!("{error} after {number}: {counts:?}"))?;
        *counts.entry(format!("{}:{}", message.from, message.topic)).or_default() += 1;
    }
    if let Some(message) = inbox.try_recv()? {
        return Err(format!("one message too many: {message:?}").into());
    }
    answer(counts)
}

fn next_event(inbox: &mut Inbox) -> Outcome {
    answer(match inbox.recv_event_timeout(PATIENCE)?.ok_or("nothing happened")? {
        librpc::Event::Message(message) => Event::Message(message.sender().into(), text(message.payload())),
        librpc::Event::SenderJoined(peer) => Event::Joined(peer.node.to_string()),
        librpc::Event::Denied(denial) => Event::Denied(denial.by.to_string(), denial.topic.to_string()),
        librpc::Event::SenderLeft(peer, departure) => Event::Left(peer.node.to_string(), format!("{departure:?}")),
        other => Event::Other(format!("{other:?}")),
    })
}
