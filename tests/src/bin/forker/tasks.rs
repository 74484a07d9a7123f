//! Tasks, shared handles and wait sets, and their methods.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use futures_sink::Sink;
use librpc::{Inbox, Node, SharedPublisher, SharedSender, WaitSet};
use tokio::runtime::{Builder, Runtime};

use super::{Case, INBOX, LIMIT, OUTBOX, UNCONNECTED, case, went};

const CLIENT: &str = "this client belongs to the process that forked this one: open a node of its own here";
const SERVER: &str = "this server belongs to the process that forked this one: open a node of its own here";
const SET: &str = "this wait set belongs to the process that forked this one: make one here";
const NO_FILE: &str = "Bad file descriptor (os error 9)";

/// What the children inherit.
pub(super) struct Handles {
    sender: SharedSender,
    publisher: SharedPublisher,
    set: WaitSet,
    /// A task waits for it.
    awaited: Inbox,
    /// Runtimes wake their tasks.
    of_tokio: Inbox,
    of_smol: Inbox,
    /// Dropped after its inbox.
    tokio: Runtime,
}

/// How many inboxes the node has more.
pub(super) const INBOXES: usize = 3;

impl Handles {
    pub(super) fn new(node: &Node, inbox: &Inbox) -> Self {
        let (sender, publisher) = (node.connect("peer").unwrap(), node.publisher("topic").unwrap());
        let tokio = Builder::new_current_thread().enable_io().build().unwrap();
        let of_tokio = tokio.block_on(async { node.subscribe("tokio").unwrap().with_tokio() }).unwrap();
        let of_smol = node.subscribe("smol").unwrap().with_async_io().unwrap();
        let mut awaited = node.subscribe("awaited").unwrap();
        assert!(polled(awaited.recv_async()).is_none());
        let mut set = WaitSet::new().unwrap();
        set.add(1, inbox).unwrap();
        let publisher = publisher.into_shared();
        assert!(publisher.wait_for_event(LIMIT).unwrap().is_some());
        Self { sender: sender.into_shared(), publisher, set, awaited, of_tokio, of_smol, tokio }
    }

    /// What the children have done has not reached these.
    pub(super) fn go_on(&mut self, peer: &Node) {
        self.sender.flush(LIMIT).unwrap();
        assert_eq!(self.set.wait_timeout(LIMIT).unwrap(), [1]);
        let publish = |topic: &str| assert_eq!(peer.publisher(topic).unwrap().publish(b"x").unwrap().inboxes(), 1);
        publish("tokio");
        let Self { of_tokio, tokio, .. } = self;
        assert_eq!(tokio.block_on(of_tokio.recv_async()).unwrap().unwrap().payload(), b"x");
        for (topic, inbox) in [("smol", &mut self.of_smol), ("awaited", &mut self.awaited)] {
            let waiting = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| blocked(inbox.recv_async()).unwrap().unwrap().payload().to_vec());
                publish(topic);
                waiting.join().unwrap()
            });
            assert_eq!(waiting, b"x");
        }
    }
}

/// Polls a future once.
pub(super) fn polled<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn blocked<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Whether a future succeeds at once, or its error.
fn at_once<T, E: std::fmt::Display>(future: impl Future<Output = Result<T, E>>) -> String {
    polled(future).map_or_else(|| "it waits".into(), went)
}

fn first<T, E: std::fmt::Display>(mut stream: impl Stream<Item = Result<T, E>> + Unpin) -> String {
    match Pin::new(&mut stream).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(item)) => went(item),
        Poll::Ready(None) => "the end".into(),
        Poll::Pending => "it waits".into(),
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = receiving();
    cases.extend(sending());
    cases.extend(shared());
    cases
}

fn receiving() -> Vec<Case> {
    vec![
        case("Inbox::recv_async", INBOX, |mut h| at_once(h.inbox.recv_async())),
        case("Inbox::recv_async (one that a task waits for)", INBOX, |mut h| at_once(h.tasks.awaited.recv_async())),
        case("Inbox::recv_async (of tokio)", INBOX, |mut h| at_once(h.tasks.of_tokio.recv_async())),
        case("Inbox::recv_async (of smol)", INBOX, |mut h| at_once(h.tasks.of_smol.recv_async())),
        case("Inbox::recv_event_async", INBOX, |mut h| at_once(h.inbox.recv_event_async())),
        case("Inbox::recv_sample_async", INBOX, |mut h| at_once(h.inbox.recv_sample_async())),
        case("Inbox::stream", INBOX, |mut h| first(h.inbox.stream())),
        case("Inbox::sample_stream", INBOX, |mut h| first(h.inbox.sample_stream())),
        case("Inbox::with_tokio", NO_FILE, |h| {
            let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime of the child's own");
            let _entered = runtime.enter();
            went(h.inbox.with_tokio())
        }),
        case("Inbox::with_async_io", NO_FILE, |h| went(h.inbox.with_async_io())),
        case("Server::recv_async", INBOX, |h| at_once(h.calls.server.recv_async())),
        case("Server::stream", INBOX, |h| first(h.calls.server.stream())),
        case("WaitSet::new", "ok", |_| went(WaitSet::new())),
        case("WaitSet::add", SET, |mut h| went(h.tasks.set.add(2, &h.subscriber))),
        case("WaitSet::add_descriptor", SET, |mut h| went(h.tasks.set.add_descriptor(2, std::io::stdin()))),
        case("WaitSet::remove", "true", |mut h| h.tasks.set.remove(1).to_string()),
        case("WaitSet::len", "1", |h| h.tasks.set.len().to_string()),
        case("WaitSet::is_empty", "false", |h| h.tasks.set.is_empty().to_string()),
        case("WaitSet::wait", SET, |mut h| went(h.tasks.set.wait())),
        case("WaitSet::try_wait", SET, |mut h| went(h.tasks.set.try_wait())),
        case("WaitSet::wait_timeout", SET, |mut h| went(h.tasks.set.wait_timeout(LIMIT))),
    ]
}

fn sending() -> Vec<Case> {
    vec![
        case("Node::connect_async", UNCONNECTED, |h| at_once(h.node.connect_async("peer"))),
        case("Outbox::connect_async", UNCONNECTED, |mut h| at_once(h.outbox.connect_async("peer"))),
        case("Outbox::connect_timeout_async", UNCONNECTED, |mut h| {
            at_once(h.outbox.connect_timeout_async("quiet", LIMIT))
        }),
        case("Outbox::send_async", OUTBOX, |mut h| at_once(h.outbox.send_async(h.to, b"x"))),
        case("Outbox::send_timeout_async", OUTBOX, |mut h| at_once(h.outbox.send_timeout_async(h.to, b"x", LIMIT))),
        case("Outbox::publish_async", OUTBOX, |mut h| at_once(h.outbox.publish_async(h.topic, b"x"))),
        case("Outbox::publish_timeout_async", OUTBOX, |mut h| {
            at_once(h.outbox.publish_timeout_async(h.topic, b"x", LIMIT))
        }),
        case("Outbox::wait_for_subscriber_async", OUTBOX, |mut h| {
            at_once(h.outbox.wait_for_subscriber_async(h.topic, LIMIT))
        }),
        case("Outbox::flush_async", OUTBOX, |mut h| at_once(h.outbox.flush_async(LIMIT))),
        case("Sender::send_async", OUTBOX, |mut h| at_once(h.sender.send_async(b"x"))),
        case("Sender::flush_async", OUTBOX, |mut h| at_once(h.sender.flush_async(LIMIT))),
        case("Sender::disconnected_async", "gone", |mut h| {
            let mut gone = std::pin::pin!(h.sender.disconnected_async());
            let polled = gone.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if polled.is_ready() { "gone".into() } else { "pending".into() }
        }),
        case("Sender::sink", OUTBOX, |mut h| went(Pin::new(&mut h.sender.sink()).start_send(b"x"))),
        case("Publisher::publish_async", OUTBOX, |mut h| at_once(h.publisher.publish_async(b"x"))),
        case("Publisher::flush_async", OUTBOX, |mut h| at_once(h.publisher.flush_async(LIMIT))),
        case("Publisher::wait_for_subscriber_async", OUTBOX, |mut h| {
            at_once(h.publisher.wait_for_subscriber_async(LIMIT))
        }),
        case("Publisher::event_async", OUTBOX, |mut h| at_once(h.publisher.event_async())),
        case("Publisher::events", OUTBOX, |mut h| first(h.publisher.events())),
        case("Client::call_async", CLIENT, |h| at_once(h.calls.client.call_async(b"x", LIMIT))),
        case("Client::start_async", CLIENT, |h| at_once(h.calls.client.start_async(b"x", LIMIT))),
        case("Client::call_stream_async", CLIENT, |h| at_once(h.calls.client.call_stream_async(b"x", LIMIT))),
        case("Client::wait_for_server_async", CLIENT, |h| at_once(h.calls.client.wait_for_server_async(LIMIT))),
        case("Client::wait_for_server_at_async", CLIENT, |h| {
            at_once(h.calls.client.wait_for_server_at_async("peer", LIMIT))
        }),
        case("ReplyStream::send_async", SERVER, |mut h| at_once(h.calls.stream.send_async(b"z"))),
    ]
}

fn shared() -> Vec<Case> {
    vec![
        case("Sender::into_shared", OUTBOX, |h| went(h.sender.into_shared().send(b"x"))),
        case("SharedSender::send", OUTBOX, |h| went(h.tasks.sender.send(b"x"))),
        case("SharedSender::try_send", OUTBOX, |h| went(h.tasks.sender.try_send(b"x"))),
        case("SharedSender::send_timeout", OUTBOX, |h| went(h.tasks.sender.send_timeout(b"x", LIMIT))),
        case("SharedSender::loan", OUTBOX, |h| went(h.tasks.sender.loan(100_000))),
        case("SharedSender::send_loan", OUTBOX, |h| went(h.tasks.sender.send_loan(h.loan))),
        case("SharedSender::flush", OUTBOX, |h| went(h.tasks.sender.flush(LIMIT))),
        case("SharedSender::is_connected", "false", |h| h.tasks.sender.is_connected().to_string()),
        case("SharedSender::account", "true", |h| (h.tasks.sender.account() == librpc::Account::default()).to_string()),
        case("Publisher::into_shared", OUTBOX, |h| went(h.publisher.into_shared().publish(b"x"))),
        case("SharedPublisher::publish", OUTBOX, |h| went(h.tasks.publisher.publish(b"x"))),
        case("SharedPublisher::try_publish", OUTBOX, |h| went(h.tasks.publisher.try_publish(b"x"))),
        case("SharedPublisher::loan", OUTBOX, |h| went(h.tasks.publisher.loan(100_000))),
        case("SharedPublisher::publish_loan", OUTBOX, |h| went(h.tasks.publisher.publish_loan(h.loan))),
        case("SharedPublisher::flush", OUTBOX, |h| went(h.tasks.publisher.flush(LIMIT))),
        case("SharedPublisher::subscribers", OUTBOX, |h| went(h.tasks.publisher.subscribers())),
        case("SharedPublisher::try_event", OUTBOX, |h| went(h.tasks.publisher.try_event())),
        case("SharedPublisher::wait_for_event", OUTBOX, |h| went(h.tasks.publisher.wait_for_event(LIMIT))),
        case("SharedPublisher::event_async", OUTBOX, |h| at_once(h.tasks.publisher.event_async())),
        case("SharedPublisher::events", OUTBOX, |h| first(h.tasks.publisher.events())),
        case("SharedPublisher::account", "true", |h| {
            (h.tasks.publisher.account() == librpc::Account::default()).to_string()
        }),
        case("SharedPublisher::inboxes", "[]", |h| format!("{:?}", h.tasks.publisher.inboxes())),
    ]
}
