//! A process that makes every handle of the library, and forks once for each public method. The child calls the method
//! on the inherited handle. It prints a line for each: the method, what the child got, and what it should have got.

mod calls; // the handles of calls
mod history; // a publisher that the background thread shares
mod stamps; // stamps, and what errors are about
mod tasks; // tasks, shared handles and wait sets
mod types; // handles of types

use std::fmt::{Debug, Display};
use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use librpc::{
    Acknowledge, Admission, CallbackHandle, Destination, Domain, Inbox, Kernel, Limits, Loan, Message, Node, Observer,
    Outbox, Pattern, Policy, Publisher, Rate, Receipt, Rule, Sample, SendError, Sender, StopHandle, Subscriber, Topic,
    Totals, Wait,
};
use rustix::event::{PollFd, PollFlags, Timespec};

const LIMIT: Duration = Duration::from_secs(20);
/// A child that takes longer hangs.
const PATIENCE_S: u32 = 30;

const CLOSED: &str = "node \"parent\" is closed, or was opened before a fork";
const UNCONNECTED: &str = "the sending node \"parent\" is closed, or was opened before a fork";
const OUTBOX: &str = "this outbox belongs to the process that forked this one: open a node of its own here";
const INBOX: &str = "this inbox belongs to the process that forked this one: open a node of its own here";

/// What the children inherit.
struct Handles {
    domain: Domain,
    node: Node,
    /// A node that has never published, and never looked for subscriptions.
    quiet: Node,
    inbox: Inbox,
    subscriber: Subscriber,
    callback: CallbackHandle,
    stop: StopHandle,
    sender: Sender,
    publisher: Publisher,
    outbox: Outbox,
    to: Destination,
    topic: Topic,
    observer: Observer,
    message: Message<'static>,
    receipt: Receipt<'static>,
    sample: Sample,
    loan: Loan,
    calls: calls::Handles,
    tasks: tasks::Handles,
    history: history::Handles,
    stamps: stamps::Handles,
    types: types::Handles,
}

struct Case {
    method: &'static str,
    expected: &'static str,
    call: fn(Handles) -> String,
}

fn case(method: &'static str, expected: &'static str, call: fn(Handles) -> String) -> Case {
    Case { method, expected, call }
}

/// What a call has returned, or its error.
fn said<T: Debug, E: Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
}

/// Whether a call has succeeded, or its error.
fn went<T, E: Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".into())
}

fn rate() -> Rate {
    Rate::messages(NonZeroU32::MIN, NonZeroU32::MIN)
}

fn open(domain: &Domain, id: &str) -> Node {
    Node::builder(id).domain(domain.clone()).open().expect(id)
}

fn cases() -> Vec<Case> {
    let mut cases = nodes();
    cases.extend(inboxes());
    cases.extend(outboxes());
    cases.extend(faces());
    cases.extend(values());
    cases.extend(calls::cases());
    cases.extend(tasks::cases());
    cases.extend(history::cases());
    cases.extend(stamps::cases());
    cases.extend(types::cases());
    cases
}

fn nodes() -> Vec<Case> {
    vec![
        case("Node::open", "ok", |_| went(Node::open("child"))),
        case("Node::builder", "ok", |h| went(Node::builder("child").domain(h.domain.clone()).open())),
        case("NodeBuilder::domain", "ok", |h| went(Node::builder("child").domain(h.domain.clone()).open())),
        case("NodeBuilder::admit", "ok", |h| {
            went(Node::builder("child").domain(h.domain.clone()).admit(Admission::nobody()).open())
        }),
        case("NodeBuilder::readers", "ok", |h| {
            went(Node::builder("child").domain(h.domain.clone()).readers("**", Admission::nobody()).open())
        }),
        case("NodeBuilder::limits", "ok", |h| {
            went(Node::builder("child").domain(h.domain.clone()).limits(Limits::default()).open())
        }),
        case("NodeBuilder::open", "the parent has 1 message more", |h| {
            let node = Node::builder("child").domain(h.domain.clone()).open().expect("a node of the child's own");
            let mut sender = node.connect("peer").expect("the parent answers");
            sender.send(b"from the child's own node").expect("it is connected");
            "the parent has 1 message more".into()
        }),
        case("Node::id", "parent", |h| h.node.id().to_owned()),
        case("Node::incarnation", "true", |h| (h.node.incarnation() != h.quiet.incarnation()).to_string()),
        case("Node::inbox", CLOSED, |h| went(h.node.inbox())),
        case("Node::inbox_builder", CLOSED, |h| went(h.node.inbox_builder().open())),
        case("Node::subscribe", CLOSED, |h| went(h.node.subscribe("a/*"))),
        case("Node::subscriber_builder", CLOSED, |h| went(h.node.subscriber_builder(["a/*"]).open())),
        case("Node::publisher", "ok", |h| went(h.node.publisher("a/b"))),
        case("Node::outbox", OUTBOX, |h| went(h.node.outbox().flush(LIMIT))),
        case("Node::connect", UNCONNECTED, |h| went(h.node.connect("peer"))),
        case("Node::try_connect", UNCONNECTED, |h| went(h.node.try_connect("peer"))),
        case("Node::connect_timeout", UNCONNECTED, |h| went(h.node.connect_timeout("peer", LIMIT))),
        case("Node::stats", "0 inboxes, 0 outgoing", |h| {
            let stats = h.node.stats();
            format!("{} inboxes, {} outgoing", stats.inboxes.len(), stats.outgoing.len())
        }),
        case("Node::close", "()", |h| said(h.node.close(LIMIT))),
        case("Domain::observe", "3 nodes answer", |h| {
            let observed = h.domain.observe(LIMIT).expect("the domain is there");
            format!("{} nodes answer", observed.iter().filter(|observed| observed.stats.is_ok()).count())
        }),
        case("Observer::new", "ok", |h| went(Observer::new(h.domain.clone()).probe(LIMIT))),
        case("Observer::look", "3 nodes answer", |mut h| {
            let observed = h.observer.look(LIMIT).expect("the domain is there");
            format!("{} nodes answer", observed.iter().filter(|observed| observed.stats.is_ok()).count())
        }),
        case("Observer::probe", "3 nodes answer", |mut h| {
            let observed = h.observer.probe(LIMIT).expect("the domain is there");
            format!("{} nodes answer", observed.iter().filter(|observed| observed.stats.is_ok()).count())
        }),
        case("Domain::nodes", "3", |h| said(h.domain.nodes().map(|nodes| nodes.len()))),
        case("Domain::strange_files", "[]", |h| said(h.domain.strange_files())),
        case("Domain::clean", "[]", |h| said(h.domain.clean())),
        case("Domain::leftovers", "ok", |h| went(h.domain.leftovers())),
        case("Domain::from_env", "true", |h| (Domain::from_env().path() == h.domain.path()).to_string()),
        case("Domain::parse", "/x/y", |_| Domain::parse("/x/y").path().display().to_string()),
        case("Domain::at", "/x/y", |_| Domain::at("/x/y").path().display().to_string()),
        case("Domain::shared_with_group", "Some(7)", |_| {
            format!("{:?}", Domain::at("/x").shared_with_group(7).group())
        }),
        case("Domain::path", "true", |h| h.domain.path().exists().to_string()),
        case("Domain::group", "None", |h| format!("{:?}", h.domain.group())),
    ]
}

fn inboxes() -> Vec<Case> {
    vec![
        case("InboxBuilder::capacity", CLOSED, |h| went(h.node.inbox_builder().capacity(65_536).open())),
        case("InboxBuilder::max_message", CLOSED, |h| went(h.node.inbox_builder().max_message(1).open())),
        case("InboxBuilder::trust_publishers", CLOSED, |h| {
            // SAFETY: no inbox is opened.
            #[allow(unsafe_code)]
            let builder = unsafe { h.node.inbox_builder().trust_publishers() };
            went(builder.open())
        }),
        case("InboxBuilder::policy", CLOSED, |h| went(h.node.inbox_builder().policy(Policy::DropOldest).open())),
        case("InboxBuilder::keep_last", CLOSED, |h| went(h.node.subscriber_builder(["a"]).keep_last(1).open())),
        case("InboxBuilder::receive_own", CLOSED, |h| went(h.node.inbox_builder().receive_own(true).open())),
        case("InboxBuilder::durable", CLOSED, |h| went(h.node.inbox_builder().durable("name").open())),
        case("InboxBuilder::wait", CLOSED, |h| went(h.node.inbox_builder().wait(Wait::Block).open())),
        case("InboxBuilder::acknowledge", CLOSED, |h| {
            went(h.node.inbox_builder().acknowledge(Acknowledge::Explicit).open())
        }),
        case("InboxBuilder::open", CLOSED, |h| went(h.node.subscriber_builder(["a", "b"]).open())),
        case("InboxBuilder::callback", CLOSED, |h| went(h.node.subscriber_builder(["a"]).callback(|_| {}))),
        case("CallbackHandle::stop", INBOX, |h| said(h.callback.stop())),
        case("Inbox::recv", INBOX, |mut h| went(h.inbox.recv())),
        case("Inbox::recv (a subscription)", INBOX, |mut h| went(h.subscriber.recv())),
        case("Inbox::try_recv", INBOX, |mut h| went(h.inbox.try_recv())),
        case("Inbox::recv_timeout", INBOX, |mut h| went(h.inbox.recv_timeout(LIMIT))),
        case("Inbox::recv_at_hand", "None", |mut h| format!("{:?}", h.inbox.recv_at_hand())),
        case("Inbox::received", "peer", |h| h.inbox.received().sender().to_owned()),
        case("Inbox::recv_sample", INBOX, |mut h| went(h.inbox.recv_sample())),
        case("Inbox::try_recv_sample", INBOX, |mut h| went(h.inbox.try_recv_sample())),
        case("Inbox::recv_sample_timeout", INBOX, |mut h| went(h.inbox.recv_sample_timeout(LIMIT))),
        case("Sample::sender", "peer", |h| h.sample.sender().to_owned()),
        case("Sample::peer", "peer", |h| h.sample.peer().node.to_string()),
        case("Sample::topic", "None", |h| format!("{:?}", h.sample.topic())),
        case("Sample::sequence", "0", |h| h.sample.sequence().to_string()),
        case("Sample::missed", "0", |h| h.sample.missed().to_string()),
        case("Sample::is_redelivered", "false", |h| h.sample.is_redelivered().to_string()),
        case("Sample::is_lent", "true", |h| h.sample.is_lent().to_string()),
        case("Sample::len", "0", |h| h.sample.len().to_string()),
        case("Sample::is_empty", "true", |h| h.sample.is_empty().to_string()),
        case("Sample::as_ptr", "1", |h| h.sample.as_ptr().addr().to_string()), // dangling
        case("Sample::payload", "None", |h| format!("{:?}", h.sample.payload())),
        case("Sample::copy_to", "ok", |h| {
            h.sample.copy_to(0, &mut []);
            "ok".into()
        }),
        case("Sample::to_vec", "[]", |h| format!("{:?}", h.sample.to_vec())),
        case("Sample::slice", "Err(Untrusted)", |h| format!("{:?}", h.sample.slice::<u64>())),
        case("Sample::to_vec_of", "Ok([])", |h| format!("{:?}", h.sample.to_vec_of::<u64>())),
        case("Sample::view", "0", |h| h.sample.view().len().to_string()),
        case("View::len", "0", |h| h.sample.view().len().to_string()),
        case("View::is_empty", "true", |h| h.sample.view().is_empty().to_string()),
        case("View::get", "None", |h| format!("{:?}", h.sample.view().get(0))),
        case("View::read", "None", |h| format!("{:?}", h.sample.view().read::<u64>(0))),
        case("View::array", "None", |h| format!("{:?}", h.sample.view().array::<4>(0))),
        case("Sample::drop", "ok", |h| {
            drop(h.sample);
            "ok".into()
        }),
        case("Inbox::recv_event", INBOX, |mut h| went(h.inbox.recv_event())),
        case("Inbox::recv_latest", INBOX, |mut h| went(h.inbox.recv_latest())),
        case("Inbox::try_recv_latest", INBOX, |mut h| went(h.inbox.try_recv_latest())),
        case("Inbox::recv_latest_timeout", INBOX, |mut h| went(h.inbox.recv_latest_timeout(LIMIT))),
        case("Inbox::try_recv_event", INBOX, |mut h| went(h.inbox.try_recv_event())),
        case("Inbox::recv_event_timeout", INBOX, |mut h| went(h.inbox.recv_event_timeout(LIMIT))),
        case("Inbox::iter", INBOX, |mut h| went(h.inbox.iter().next().expect("an error is not the end"))),
        case("Inbox::ack", "ok", |mut h| {
            h.inbox.ack();
            "ok".into()
        }),
        case("Inbox::stop_handle", INBOX, |mut h| {
            h.inbox.stop_handle().stop();
            went(h.inbox.recv())
        }),
        case("Inbox::as_fd", "no open file", |h| {
            // Whatever the child opens, the number must not refer to it.
            let _opened: Vec<_> = (0..64).map(|_| std::fs::File::open("/dev/null").expect("it opens")).collect();
            let mut fds = [PollFd::new(&h.inbox, PollFlags::IN)];
            let polled = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            match (polled, fds[0].revents()) {
                (Ok(1), PollFlags::NVAL) => "no open file".into(),
                other => format!("{other:?} for {:?}", h.inbox.as_fd()),
            }
        }),
        case("StopHandle::stop", "ok", |h| {
            h.stop.stop();
            "ok".into()
        }),
        case("Message::sender", "peer", |h| h.message.sender().to_owned()),
        case("Message::peer", "peer", |h| h.message.peer().node.to_string()),
        case("Message::payload", "before the fork", |h| String::from_utf8_lossy(h.message.payload()).into_owned()),
        case("Message::topic", "held", |h| h.message.topic().unwrap_or_default().to_owned()),
        case("Message::missed", "0", |h| h.message.missed().to_string()),
        case("Message::sequence", "0", |h| h.message.sequence().to_string()),
        case("Message::is_redelivered", "false", |h| h.message.is_redelivered().to_string()),
        case("OwnedMessage::sender", "peer", |h| h.message.to_owned().sender().to_owned()),
        case("Message::to_owned", "held", |h| h.message.to_owned().topic.unwrap_or_default().to_string()),
    ]
}

fn outboxes() -> Vec<Case> {
    vec![
        case("Outbox::connect", UNCONNECTED, |mut h| went(h.outbox.connect("peer"))),
        case("Outbox::try_connect", UNCONNECTED, |mut h| went(h.outbox.try_connect("peer"))),
        case("Outbox::connect_timeout", UNCONNECTED, |mut h| went(h.outbox.connect_timeout("quiet", LIMIT))),
        case("Outbox::limit_rate", OUTBOX, |mut h| {
            h.outbox.limit_rate(h.to, Some(rate()));
            went(h.outbox.send(h.to, b"x"))
        }),
        case("Outbox::send", OUTBOX, |mut h| went(h.outbox.send(h.to, b"x"))),
        case("Outbox::try_send", OUTBOX, |mut h| went(h.outbox.try_send(h.to, b"x"))),
        case("Outbox::loan", OUTBOX, |mut h| went(h.outbox.loan(h.to, 100_000))),
        case("Outbox::loan_uninit", OUTBOX, |mut h| went(h.outbox.loan_uninit(h.topic, 100_000))),
        case("Outbox::loan_slice", OUTBOX, |mut h| went(h.outbox.loan_slice::<f32>(h.topic, 100_000))),
        case("Outbox::send_loan", OUTBOX, |mut h| went(h.outbox.send_loan(h.to, h.loan, LIMIT))),
        case("Outbox::publish_loan", OUTBOX, |mut h| went(h.outbox.publish_loan(h.topic, h.loan, LIMIT))),
        case("Loan::deref", "0", |mut h| {
            h.loan.fill(1);
            h.loan.len().to_string()
        }),
        case("Loan::into_slice", "Ok(LoanSlice(0 values))", |h| format!("{:?}", h.loan.into_slice::<u8>())),
        case("Outbox::send_timeout", OUTBOX, |mut h| went(h.outbox.send_timeout(h.to, b"x", LIMIT))),
        case("Outbox::flush", OUTBOX, |mut h| went(h.outbox.flush(LIMIT))),
        case("Outbox::max_message", OUTBOX, |mut h| said(h.outbox.max_message(h.to))),
        case("Outbox::is_connected", "false", |h| h.outbox.is_connected(h.to).to_string()),
        case("Outbox::account", "true", |mut h| (h.outbox.account(h.to) == librpc::Account::default()).to_string()),
        case("Outbox::inboxes", "[]", |mut h| format!("{:?}", h.outbox.inboxes())),
        case("Outbox::set_high_water", "ok", |mut h| {
            h.outbox.set_high_water(Some(0.5));
            "ok".into()
        }),
        case("Outbox::next_high_water_change", "None", |mut h| format!("{:?}", h.outbox.next_high_water_change())),
        case("Outbox::total", "true", |mut h| (h.outbox.total() == librpc::Account::default()).to_string()),
        case("Outbox::topic", "ok", |mut h| went(h.outbox.topic("new"))),
        case("Outbox::limit_topic_rate", OUTBOX, |mut h| {
            h.outbox.limit_topic_rate(h.topic, Some(rate()));
            went(h.outbox.publish(h.topic, b"x"))
        }),
        case("Outbox::publish", OUTBOX, |mut h| went(h.outbox.publish(h.topic, b"x"))),
        case("Outbox::try_publish", OUTBOX, |mut h| went(h.outbox.try_publish(h.topic, b"x"))),
        case("Outbox::publish_timeout", OUTBOX, |mut h| went(h.outbox.publish_timeout(h.topic, b"x", LIMIT))),
        case("Outbox::subscribers", OUTBOX, |mut h| went(h.outbox.subscribers(h.topic))),
        case("Outbox::wait_for_subscriber", OUTBOX, |mut h| went(h.outbox.wait_for_subscriber(h.topic, LIMIT))),
        case("Outbox::max_topic_message", OUTBOX, |mut h| said(h.outbox.max_topic_message(h.topic))),
        case("Outbox::set_redelivery", OUTBOX, |mut h| {
            h.outbox.set_redelivery(Some(LIMIT));
            went(h.outbox.flush(LIMIT))
        }),
        case("Outbox::take_returned", OUTBOX, |mut h| said(h.outbox.take_returned())),
        case("Receipt::inboxes", "1", |h| h.receipt.inboxes().to_string()),
        case("Receipt::pending", "0", |h| h.receipt.pending().to_string()),
        case("Receipt::undelivered", "0", |h| h.receipt.undelivered().len().to_string()),
        case("SendError::undelivered", "0", |_| SendError::Forked.undelivered().to_string()),
    ]
}

fn faces() -> Vec<Case> {
    vec![
        case("Publisher::set_timeout", OUTBOX, |mut h| {
            h.publisher.set_timeout(LIMIT);
            went(h.publisher.publish(b"x"))
        }),
        case("Publisher::publish_timeout", OUTBOX, |mut h| went(h.publisher.publish_timeout(b"x", LIMIT))),
        case("Publisher::loan", OUTBOX, |mut h| went(h.publisher.loan(100_000))),
        case("Publisher::loan_uninit", OUTBOX, |mut h| went(h.publisher.loan_uninit(100_000))),
        case("Publisher::loan_slice", OUTBOX, |mut h| went(h.publisher.loan_slice::<u64>(100_000))),
        case("Publisher::publish_loan", OUTBOX, |mut h| went(h.publisher.publish_loan(h.loan))),
        case("Publisher::publish", OUTBOX, |mut h| went(h.publisher.publish(b"x"))),
        case("Publisher::publish (made in the child)", OUTBOX, |h| {
            went(h.node.publisher("topic").expect("a topic").publish(b"x"))
        }),
        case("Publisher::publish (made in the child, of a node that never published)", OUTBOX, |h| {
            let _opened: Vec<_> = (0..64).map(|_| std::fs::File::open("/dev/null").expect("it opens")).collect();
            went(h.quiet.publisher("topic").expect("a topic").publish(b"x"))
        }),
        case("Publisher::try_publish", OUTBOX, |mut h| went(h.publisher.try_publish(b"x"))),
        case("Publisher::flush", OUTBOX, |mut h| went(h.publisher.flush(LIMIT))),
        case("Publisher::subscribers", OUTBOX, |mut h| went(h.publisher.subscribers())),
        case("Publisher::subscribers (made in the child)", OUTBOX, |h| {
            went(h.node.publisher("topic").expect("a topic").subscribers())
        }),
        case("Publisher::wait_for_subscriber", OUTBOX, |mut h| went(h.publisher.wait_for_subscriber(LIMIT))),
        case("Publisher::wait_for_subscriber (made in the child)", OUTBOX, |h| {
            went(h.quiet.publisher("topic").expect("a topic").wait_for_subscriber(LIMIT))
        }),
        case("Publisher::limit_rate", OUTBOX, |mut h| {
            h.publisher.limit_rate(Some(rate()));
            went(h.publisher.publish(b"x"))
        }),
        case("Publisher::max_message", OUTBOX, |mut h| said(h.publisher.max_message())),
        case("Publisher::account", "true", |mut h| (h.publisher.account() == librpc::Account::default()).to_string()),
        case("Publisher::set_high_water", "ok", |mut h| {
            h.publisher.set_high_water(Some(0.5));
            "ok".into()
        }),
        case("Publisher::next_high_water_change", "None", |mut h| {
            format!("{:?}", h.publisher.next_high_water_change())
        }),
        case("Publisher::inboxes", "[]", |mut h| format!("{:?}", h.publisher.inboxes())),
        case("Publisher::set_redelivery", OUTBOX, |mut h| {
            h.publisher.set_redelivery(None);
            went(h.publisher.flush(LIMIT))
        }),
        case("Publisher::take_returned", OUTBOX, |mut h| said(h.publisher.take_returned())),
        case("Sender::set_timeout", OUTBOX, |mut h| {
            h.sender.set_timeout(LIMIT);
            went(h.sender.send(b"x"))
        }),
        case("Sender::send_timeout", OUTBOX, |mut h| went(h.sender.send_timeout(b"x", LIMIT))),
        case("Sender::loan", OUTBOX, |mut h| went(h.sender.loan(100_000))),
        case("Sender::loan_uninit", OUTBOX, |mut h| went(h.sender.loan_uninit(100_000))),
        case("Sender::loan_slice", OUTBOX, |mut h| went(h.sender.loan_slice::<u64>(100_000))),
        case("Sender::send_loan", OUTBOX, |mut h| went(h.sender.send_loan(h.loan))),
        case("Sender::send", OUTBOX, |mut h| went(h.sender.send(b"x"))),
        case("Sender::try_send", OUTBOX, |mut h| went(h.sender.try_send(b"x"))),
        case("Sender::flush", OUTBOX, |mut h| went(h.sender.flush(LIMIT))),
        case("Sender::max_message", OUTBOX, |mut h| said(h.sender.max_message())),
        case("Sender::is_connected", "false", |h| h.sender.is_connected().to_string()),
        case("Sender::limit_rate", OUTBOX, |mut h| {
            h.sender.limit_rate(Some(rate()));
            went(h.sender.send(b"x"))
        }),
        case("Sender::sent", "0", |mut h| h.sender.sent().to_string()),
        case("Sender::acknowledged", "0", |mut h| h.sender.acknowledged().to_string()),
        case("Sender::account", "true", |mut h| (h.sender.account() == librpc::Account::default()).to_string()),
        case("Sender::set_high_water", "ok", |mut h| {
            h.sender.set_high_water(Some(0.5));
            h.sender.set_high_water(None);
            "ok".into()
        }),
        case("Sender::next_high_water_change", "None", |mut h| format!("{:?}", h.sender.next_high_water_change())),
        case("Sender::set_redelivery", OUTBOX, |mut h| {
            h.sender.set_redelivery(Some(LIMIT));
            went(h.sender.flush(LIMIT))
        }),
        case("Sender::take_returned", OUTBOX, |mut h| said(h.sender.take_returned())),
        case("Debug (of every handle)", "ok", |h| {
            let handles = format!("{:?}{:?}{:?}{:?}", h.node, h.inbox, h.callback, h.stop);
            let text = format!("{handles}{:?}{:?}{:?}{:?}", h.sender, h.publisher, h.outbox, h.observer);
            if text.contains("parent") { "ok".into() } else { text }
        }),
    ]
}

/// A mere value is the same in a child.
fn values() -> Vec<Case> {
    vec![
        case("Admission::same_user", "ok", |_| debug(Admission::same_user())),
        case("Admission::nobody", "ok", |_| debug(Admission::nobody())),
        case("Admission::uid", "ok", |_| debug(Admission::nobody().uid(1))),
        case("Admission::gid", "ok", |_| debug(Admission::nobody().gid(1))),
        case("Admission::pid", "ok", |_| debug(Admission::nobody().pid(1))),
        case("Admission::executable", "ok", |_| debug(Admission::nobody().executable("/x"))),
        case("Admission::all_of", "ok", |_| debug(Admission::nobody().all_of([Rule::SameUser]))),
        case("Limits::handshakes_per_user", "ok", |_| debug(Limits::default().handshakes_per_user(1))),
        case("Limits::channels_per_user", "ok", |_| debug(Limits::default().channels_per_user(1))),
        case("Limits::mapped_bytes_per_user", "ok", |_| debug(Limits::default().mapped_bytes_per_user(1))),
        case("Limits::topic_bytes_per_user", "ok", |_| debug(Limits::default().topic_bytes_per_user(1))),
        case("Limits::decisions_per_user", "ok", |_| debug(Limits::default().decisions_per_user(1))),
        case("Limits::decisions", "ok", |_| debug(Limits::default().decisions(1))),
        case("Limits::waiting_bytes_per_user", "ok", |_| debug(Limits::default().waiting_bytes_per_user(1))),
        case("Limits::payload_bytes", "ok", |_| debug(Limits::default().payload_bytes(1))),
        case("Limits::handshake_timeout", "ok", |_| debug(Limits::default().handshake_timeout(LIMIT))),
        case("Admission::function", "ok", |_| debug(Admission::nobody().function(|_| true))),
        case("Rate::messages", "ok", |_| debug(rate())),
        case("Rate::bytes", "ok", |_| debug(Rate::bytes(NonZeroU32::MIN, NonZeroU32::MIN))),
        case("Rate::and_bytes", "ok", |_| debug(rate().and_bytes(NonZeroU32::MIN, NonZeroU32::MIN))),
        case("Rate::or_fail", "ok", |_| debug(rate().or_fail())),
        case("Totals::add", "0", |h| {
            let mut totals = Totals::default();
            h.node.stats().outgoing.iter().for_each(|channel| totals.add(channel));
            totals.channels.to_string()
        }),
        case("Kernel::probe", "ok", |_| debug(Kernel::probe())),
        case("Pattern::as_str", "a/*", |_| "a/*".parse::<Pattern>().expect("a pattern").as_str().to_owned()),
        case("Pattern::matches", "true", |_| "a/*".parse::<Pattern>().expect("a pattern").matches("a/b").to_string()),
    ]
}

fn debug(value: impl Debug) -> String {
    if format!("{value:?}").is_empty() { "nothing".into() } else { "ok".into() }
}

fn main() {
    let domain = Domain::from_env();
    let peer = open(&domain, "peer");
    let (mut peers_inbox, mut peers_topics) = (peer.inbox().unwrap(), peer.subscribe("topic").unwrap());

    // A message and a receipt that are held while the process forks.
    let node = open(&domain, "parent");
    let held: &'static mut Inbox = Box::leak(Box::new(node.subscribe("held").unwrap()));
    assert_eq!(peer.publisher("held").unwrap().publish(b"before the fork").unwrap().inboxes(), 1);
    let message = held.recv().unwrap().expect("nobody stops it");
    let publisher: &'static mut Publisher = Box::leak(Box::new(node.publisher("topic").unwrap()));
    let receipt = publisher.publish(b"held").unwrap();

    let (mut inbox, subscriber) = (node.inbox().unwrap(), node.subscribe("subscribed").unwrap());
    let callback = node.subscriber_builder(["called"]).callback(|_| {}).unwrap();
    let (stop, mut sender) = (inbox.stop_handle(), node.connect("peer").unwrap());
    sender.send(b"sent").unwrap();
    let mut publisher = node.publisher("topic").unwrap();
    assert_eq!(publisher.publish(b"published").unwrap().inboxes(), 1);
    let mut outbox = node.outbox();
    let (to, topic) = (outbox.connect("peer").unwrap(), outbox.topic("topic").unwrap());
    outbox.send(to, b"sent").unwrap();
    assert_eq!(outbox.publish(topic, b"published").unwrap().inboxes(), 1);
    peer.connect("parent").unwrap().send(&[7; 100_000]).unwrap();
    let sample = inbox.recv_sample().unwrap().expect("nobody stops it");
    assert!(sample.is_lent());
    let loan = outbox.loan(to, 100_000).unwrap();
    let mut observer = Observer::new(domain.clone());
    observer.look(LIMIT).unwrap();
    let quiet = open(&domain, "quiet");
    let calls = calls::Handles::new(&node, &peer);
    let tasks = tasks::Handles::new(&node, &inbox);
    let history = history::Handles::new(&node);
    let stamps = stamps::Handles::new(&node);
    let types = types::Handles::new(&node, &peer);
    let mut handles = Handles {
        domain,
        node,
        quiet,
        inbox,
        subscriber,
        callback,
        stop,
        sender,
        publisher,
        outbox,
        to,
        topic,
        observer,
        message,
        receipt,
        sample,
        loan,
        calls,
        tasks,
        history,
        stamps,
        types,
    };

    for Case { method, expected, call } in cases() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        // SAFETY: the child is a copy of this thread alone, uses what the library promises to forked children, and ends here.
        #[allow(unsafe_code)]
        let child = unsafe { libc::fork() };
        if child == 0 {
            in_child(call, handles, writer);
        }
        drop(writer);
        let mut got = String::new();
        reader.read_to_string(&mut got).expect("what the child says is text");
        println!("{method}\t{}\t{expected}", ended(child).unwrap_or(got));
    }

    // The parent's handles are unchanged: except for one message, nothing that the children did has reached it.
    let Handles { node, inbox, sender, publisher, outbox, callback, observer, calls, tasks, types, .. } = &mut handles;
    calls.go_on();
    tasks.go_on(&peer);
    types.go_on(&peer);
    sender.send(b"sent after").unwrap();
    assert_eq!(publisher.publish(b"published after").unwrap().inboxes(), 1);
    assert_eq!(hear(&mut peers_inbox, 4), ["from the child's own node", "sent", "sent", "sent after"]);
    assert_eq!(hear(&mut peers_topics, 4), ["held", "published", "published", "published after"]);
    sender.flush(LIMIT).unwrap();
    publisher.flush(LIMIT).unwrap();
    outbox.flush(LIMIT).unwrap();
    assert_eq!((sender.sent(), outbox.total().accepted, publisher.account().accepted), (2, 2, 2));
    assert_eq!((outbox.inboxes().len(), node.stats().inboxes.len()), (2, 6 + tasks::INBOXES + types::INBOXES));
    peer.connect("parent").unwrap().send(b"to the parent").unwrap();
    assert!(inbox.recv_timeout(LIMIT).unwrap().is_some(), "no child has stopped it");
    assert!(format!("{callback:?}").contains("Some"), "its thread runs");
    assert!(observer.look(LIMIT).unwrap().iter().all(|observed| observed.stats.is_ok()));
    println!("the parent goes on\tok\tok");
}

/// The messages that arrived, sorted by text: exactly this many.
fn hear(inbox: &mut Inbox, messages: usize) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.len() < messages {
        let message = inbox.recv_timeout(LIMIT).unwrap().expect("it was sent");
        heard.push(String::from_utf8_lossy(message.payload()).into_owned());
    }
    inbox.ack();
    assert!(inbox.try_recv().unwrap().is_none(), "nothing else was sent");
    heard.sort();
    heard
}

/// Calls a method, prints what it got, and drops everything.
fn in_child(call: fn(Handles) -> String, handles: Handles, mut writer: std::io::PipeWriter) -> ! {
    // SAFETY: sets an alarm clock, which ends a child that hangs.
    #[allow(unsafe_code)]
    unsafe {
        libc::alarm(PATIENCE_S);
    }
    let got = std::panic::catch_unwind(AssertUnwindSafe(|| call(handles))).unwrap_or_else(|_| "a panic".into());
    writer.write_all(got.as_bytes()).expect("the parent reads it");
    drop(writer);
    // SAFETY: ends the child without running what belongs to the parent.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(0)
    }
}

/// How a child ended, if not well.
fn ended(child: i32) -> Option<String> {
    let mut status = 0;
    // SAFETY: waits for a child of this process, and fills an int.
    #[allow(unsafe_code)]
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child, "the child can be waited for");
    (status != 0).then(|| match libc::WTERMSIG(status) {
        libc::SIGALRM => "it hangs".to_owned(),
        signal => format!("it is killed by signal {signal}"),
    })
}
