//! What a puppet can be told to do: one function for each order, and the values to compare the answers with.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::DeserializeOwned;

pub use crate::command::{Account, Event, InChild, Message, Open, OpenInbox, Published};
use crate::command::{Command, InboxCommand, NodeCommand, ProcessCommand, SenderCommand, TopicsCommand};

/// A limit that no test reaches.
pub const LONG: Duration = Duration::from_secs(60);

/// A duration in milliseconds.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// An order to a puppet.
pub trait Order {
    /// The answer once it is done.
    type Answer: DeserializeOwned;

    /// The order as the puppet reads it.
    fn command(self) -> Command;
}

/// An order without options.
#[derive(Debug)]
pub struct Simple<Answer>(Command, PhantomData<Answer>);

impl<Answer: DeserializeOwned> Order for Simple<Answer> {
    type Answer = Answer;

    fn command(self) -> Command {
        self.0
    }
}

// The node.

/// Opens a node in the puppet's domain.
pub fn open(id: &str) -> Open {
    Open { id: id.into(), ..Open::default() }
}

impl Order for Open {
    type Answer = ();

    fn command(self) -> Command {
        Command::Node(NodeCommand::Open(self))
    }
}

fn node<Answer>(command: NodeCommand) -> Simple<Answer> {
    Simple(Command::Node(command), PhantomData)
}

/// Drops all other handles, then closes the node.
pub fn close(limit: Duration) -> Simple<()> {
    node(NodeCommand::Close { limit })
}

/// Closes the node while its other handles are still there.
pub fn close_alone(limit: Duration) -> Simple<()> {
    node(NodeCommand::CloseAlone { limit })
}

/// Drops all handles.
pub fn leave() -> Simple<()> {
    node(NodeCommand::Leave)
}

/// Opens a node and drops it, again and again.
pub fn open_and_leave(id: &str, times: u64) -> Simple<()> {
    node(NodeCommand::OpenAndLeave { id: id.into(), times })
}

// Inboxes: the node's own, and subscriptions by a name that only the puppet knows.

/// Opens the node's own inbox.
pub fn inbox() -> OpenInbox {
    OpenInbox::default()
}

/// Subscribes to patterns, which commas separate.
pub fn subscribe(name: &str, patterns: &str) -> OpenInbox {
    let patterns = patterns.split(',').map(str::to_owned).collect();
    OpenInbox { name: Some(name.into()), patterns, ..OpenInbox::default() }
}

impl Order for OpenInbox {
    type Answer = ();

    fn command(self) -> Command {
        Command::Inbox(self.name.clone(), InboxCommand::Open(self))
    }
}

fn own<Answer>(command: InboxCommand) -> Simple<Answer> {
    Simple(Command::Inbox(None, command), PhantomData)
}

fn subscription<Answer>(name: &str, command: InboxCommand) -> Simple<Answer> {
    Simple(Command::Inbox(Some(name.into()), command), PhantomData)
}

/// Drops the node's own inbox.
pub fn drop_inbox() -> Simple<()> {
    own(InboxCommand::Drop)
}

/// Receives a message from the node's own inbox. An error if none comes within 30 s.
pub fn receive() -> Simple<Message> {
    own(InboxCommand::Receive)
}

/// Receives a message from the node's own inbox, if there is one.
pub fn try_receive() -> Simple<Option<Message>> {
    own(InboxCommand::TryReceive)
}

/// Receives one message for each number, with exactly that number as its text.
pub fn receive_numbers(numbers: RangeInclusive<u64>) -> Simple<()> {
    own(InboxCommand::ReceiveNumbers(numbers))
}

/// Acknowledges what was received.
pub fn acknowledge() -> Simple<()> {
    own(InboxCommand::Acknowledge)
}

/// The next event of the node's own inbox. An error if none comes within 30 s.
pub fn next_event() -> Simple<Event> {
    own(InboxCommand::NextEvent)
}

/// Ends a subscription.
pub fn unsubscribe(name: &str) -> Simple<()> {
    subscription(name, InboxCommand::Drop)
}

/// Receives a message of a subscription. An error if none comes within 30 s.
pub fn receive_from(name: &str) -> Simple<Message> {
    subscription(name, InboxCommand::Receive)
}

/// Receives this many messages of a subscription, and asserts that there are no more: how many came on each topic from
/// each node (`node:topic`).
pub fn collect_from(name: &str, count: u64) -> Simple<BTreeMap<String, u64>> {
    subscription(name, InboxCommand::Collect { count })
}

/// Receives the numbers of a subscription up to this one. Returns how many came, and how many were missed.
pub fn receive_until(name: &str, last: u64) -> Simple<(u64, u64)> {
    subscription(name, InboxCommand::ReceiveUntil { last })
}

/// Receives this many messages of a subscription as samples, which the puppet holds until its end.
pub fn hold(name: &str, count: usize) -> Simple<()> {
    subscription(name, InboxCommand::Hold { count })
}

/// The next event of a subscription. An error if none comes within 30 s.
pub fn next_event_of(name: &str) -> Simple<Event> {
    subscription(name, InboxCommand::NextEvent)
}

/// The topics that the node's subscriptions may not read, including this subscription.
pub fn denied(name: &str) -> Simple<Vec<String>> {
    subscription(name, InboxCommand::Denied)
}

/// Receives a message of a subscription, if there is one.
pub fn try_receive_from(name: &str) -> Simple<Option<Message>> {
    subscription(name, InboxCommand::TryReceive)
}

/// The event that a message with this text came.
pub fn message(from: &str, text: &str) -> Event {
    Event::Message(from.into(), text.into())
}

/// The event that a sender has joined.
pub fn joined(node: &str) -> Event {
    Event::Joined(node.into())
}

/// The event that a sender was closed.
pub fn closed(node: &str) -> Event {
    Event::Left(node.into(), "Closed".into())
}

/// The event that a sender has died.
pub fn died(node: &str) -> Event {
    Event::Left(node.into(), "Died".into())
}

// Senders, by the node that they send to.

fn sender<Answer>(to: &str, command: SenderCommand) -> Simple<Answer> {
    Simple(Command::Sender(to.into(), command), PhantomData)
}

/// Connects a sender, as `Node::connect` does.
pub fn connect(to: &str) -> Simple<()> {
    sender(to, SenderCommand::Connect { limit: None })
}

/// Connects a sender, and waits at most this long for the node.
pub fn connect_within(to: &str, limit: Duration) -> Simple<()> {
    sender(to, SenderCommand::Connect { limit: Some(limit) })
}

/// Makes a sender without waiting for the node's answer.
pub fn try_connect(to: &str) -> Simple<()> {
    sender(to, SenderCommand::TryConnect)
}

/// Sets how long a send waits for room.
pub fn set_timeout(to: &str, limit: Duration) -> Simple<()> {
    sender(to, SenderCommand::SetLimit(limit))
}

/// Makes the sender wait this long for the return of a receiver that is gone.
pub fn set_redelivery(to: &str, limit: Duration) -> Simple<()> {
    sender(to, SenderCommand::SetRedelivery(limit))
}

/// Sends a message.
pub fn send(to: &str, text: impl Into<String>) -> Simple<()> {
    sender(to, SenderCommand::Send { text: text.into() })
}

/// Sends one message for each number, with the number as its text.
pub fn send_numbers(to: &str, numbers: RangeInclusive<u64>) -> Simple<()> {
    sender(to, SenderCommand::SendNumbers(numbers))
}

/// Sends messages of this size until one is not accepted at once. Returns how many were accepted.
pub fn fill(to: &str, bytes: usize) -> Simple<u64> {
    sender(to, SenderCommand::Fill { bytes })
}

/// Waits until everything is processed.
pub fn flush(to: &str, limit: Duration) -> Simple<()> {
    sender(to, SenderCommand::Flush { limit })
}

/// How many messages were sent, and how many of them are processed.
pub fn progress(to: &str) -> Simple<(u64, u64)> {
    sender(to, SenderCommand::Progress)
}

/// What happened to the messages of a sender.
pub fn account(to: &str) -> Simple<Account> {
    sender(to, SenderCommand::Account)
}

/// Takes the messages that came back, each as `number:text`, and `!` if it was in work.
pub fn take_returned(to: &str) -> Simple<Vec<String>> {
    sender(to, SenderCommand::TakeReturned)
}

/// Drops a sender.
pub fn drop_sender(to: &str) -> Simple<()> {
    sender(to, SenderCommand::Drop)
}

// Topics, which share one outbox.

fn topics<Answer>(command: TopicsCommand) -> Simple<Answer> {
    Simple(Command::Topics(command), PhantomData)
}

/// Sets how long a publish waits for full inboxes.
pub fn set_publish_limit(limit: Duration) -> Simple<()> {
    topics(TopicsCommand::SetLimit(limit))
}

/// Makes publishes wait this long for the return of a durable subscription that is gone.
pub fn set_topic_redelivery(limit: Duration) -> Simple<()> {
    topics(TopicsCommand::SetRedelivery(limit))
}

/// Publishes a message.
pub fn publish(topic: &str, text: impl Into<String>) -> Simple<Published> {
    topics(TopicsCommand::Publish { topic: topic.into(), text: text.into() })
}

/// The answer of a publish that has reached this many inboxes, and missed no inbox.
pub fn reached(inboxes: usize) -> Published {
    Published { inboxes, pending: 0, undelivered: Vec::new() }
}

/// The answer of a publish whose message is pending for this many inboxes, and has reached no inbox yet.
pub fn pending(inboxes: usize) -> Published {
    Published { pending: inboxes, ..reached(0) }
}

/// The answer of a publish that has reached this many inboxes, and missed one for this reason.
pub fn reached_all_but_one(inboxes: usize, reason: &str) -> Published {
    Published { undelivered: vec![reason.into()], ..reached(inboxes) }
}

/// Publishes one message for each number. Returns how many got into an inbox, and how many did not.
pub fn publish_numbers(topic: &str, numbers: RangeInclusive<u64>) -> Simple<(u64, u64)> {
    publish_long_numbers(topic, numbers, 0)
}

/// The same, with as many zeros before each number as it needs to be this long.
pub fn publish_long_numbers(topic: &str, numbers: RangeInclusive<u64>, bytes: usize) -> Simple<(u64, u64)> {
    topics(TopicsCommand::PublishNumbers { topic: topic.into(), numbers, bytes })
}

/// Takes memory for a message of this length, and gives it back.
pub fn loan(topic: &str, bytes: usize) -> Simple<()> {
    topics(TopicsCommand::Loan { topic: topic.into(), bytes })
}

/// How many subscriptions want a topic.
pub fn subscribers(topic: &str) -> Simple<usize> {
    topics(TopicsCommand::Subscribers { topic: topic.into() })
}

/// Waits until everything that was published is processed.
pub fn flush_topics(limit: Duration) -> Simple<()> {
    topics(TopicsCommand::Flush { limit })
}

/// What happened to everything that was published.
pub fn topics_account() -> Simple<Account> {
    topics(TopicsCommand::Account)
}

// The process.

fn process<Answer>(command: ProcessCommand) -> Simple<Answer> {
    Simple(Command::Process(command), PhantomData)
}

/// How many descriptors the process has open.
pub fn descriptors() -> Simple<u64> {
    process(ProcessCommand::Descriptors)
}

/// Limits the descriptors of the process to those that it has, and this many more.
pub fn limit_descriptors(spare: u64) -> Simple<()> {
    process(ProcessCommand::LimitDescriptors { spare })
}

/// Allows the process plenty of descriptors again.
pub fn unlimit_descriptors() -> Simple<()> {
    process(ProcessCommand::UnlimitDescriptors)
}

/// Forks. The child tries to send to this node and to receive, drops all that it has inherited, and lives on.
pub fn fork(to: &str) -> Simple<InChild> {
    process(ProcessCommand::Fork { to: to.into() })
}
