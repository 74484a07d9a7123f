//! Callbacks that do everything that other threads may do: send, publish, subscribe, stop, drop, close.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use librpc::{CallbackError, CallbackHandle, InboxBuilder, Message, Node, RecvError};
use librpc_system_tests::TestDomain;

const LONG: Duration = Duration::from_secs(30);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn text(message: Message<'_>) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// Opens a callback that is given its own handle with its first message, and something to report to.
fn with_own_handle(
    inbox: InboxBuilder<'_>,
    mut callback: impl FnMut(Message<'_>, Option<CallbackHandle>, &Sender<String>) + Send + 'static,
) -> Receiver<String> {
    let (reports, reported) = channel();
    let handle = Arc::new(Mutex::new(None));
    let own = Arc::clone(&handle);
    let mut slot = handle.lock().unwrap(); // the callback waits until its handle is there
    let opened = inbox.callback(move |message| {
        let own = own.lock().unwrap().take();
        callback(message, own, &reports);
    });
    *slot = Some(opened.unwrap());
    reported
}

/// Sends two messages to a callback that ends with the first one, which it processes.
fn ends_with_the_first(
    mut callback: impl FnMut(Message<'_>, Option<CallbackHandle>, &Sender<String>) + Send + 'static,
) {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let (both_sent, are_both_sent) = channel::<()>();
    let callback = move |message: Message<'_>, own: Option<CallbackHandle>, reports: &Sender<String>| {
        let _ = are_both_sent.recv(); // an error, once they are
        callback(message, own, reports);
    };
    let reported = with_own_handle(receiver.inbox_builder(), callback);
    let mut sender = source.connect("receiver").unwrap();
    sender.send(b"1").unwrap();
    sender.send(b"2").unwrap();
    drop(both_sent);
    assert_eq!(reported.recv_timeout(LONG).as_deref(), Ok("1"));
    assert!(reported.recv().is_err(), "the thread has ended, and has dropped what it owned");
    let error = sender.flush(LONG).unwrap_err().to_string();
    assert!(error.starts_with("1 message was not processed"), "{error}");
}

#[test]
fn a_callback_may_drop_its_own_handle() {
    ends_with_the_first(|message, own, reports| {
        drop(own.expect("its handle"));
        reports.send(text(message)).unwrap();
    });
}

#[test]
fn a_callback_may_stop_itself() {
    ends_with_the_first(|message, own, reports| {
        own.expect("its handle").stop().expect("there is nothing to wait for");
        reports.send(text(message)).unwrap();
    });
}

#[test]
fn a_callback_may_own_its_own_handle() {
    let mut kept = None;
    let mut number = 0;
    ends_with_the_first(move |message, own, reports| {
        kept = kept.take().or(own);
        number += 1;
        assert!(number < 2, "its thread drops it with the callback, which panics here");
        reports.send(text(message)).unwrap();
    });
}

#[test]
fn a_callback_may_drop_the_handle_of_another_one() {
    let domain = TestDomain::new();
    let (receiver, other, source) = (open(&domain, "receiver"), open(&domain, "other"), open(&domain, "source"));
    let mut others = Some(other.inbox_builder().callback(|_| {}).unwrap());
    let (reports, reported) = channel();
    let callback = move |_: Message<'_>| {
        others.take().expect("it is called once").stop().unwrap();
        reports.send(()).unwrap();
    };
    let handle = receiver.inbox_builder().callback(callback).unwrap();
    let mut sender = source.connect("receiver").unwrap();
    sender.send(b"hello").unwrap();
    reported.recv_timeout(LONG).unwrap();
    sender.flush(LONG).unwrap();
    handle.stop().unwrap();
}

#[test]
fn a_callback_may_send_to_its_own_inbox_and_publish_to_others() {
    let domain = TestDomain::new();
    let (node, other) = (Arc::new(open(&domain, "node")), open(&domain, "other"));
    let (mut counts, own) = (other.subscribe("count/**").unwrap(), Arc::clone(&node));
    let callback = move |message: Message<'_>| {
        let left: u32 = text(message).parse().unwrap();
        let mut publisher = own.publisher(&format!("count/{left}")).unwrap();
        assert_eq!(publisher.publish(b"down").unwrap().inboxes(), 1);
        if left > 0 {
            own.connect("node").unwrap().send((left - 1).to_string().as_bytes()).unwrap();
        }
    };
    let handle = node.inbox_builder().callback(callback).unwrap();
    other.connect("node").unwrap().send(b"100").unwrap();
    for _ in 0..=100 {
        assert!(counts.recv_timeout(LONG).unwrap().is_some());
    }
    handle.stop().unwrap();
}

#[test]
fn a_callback_may_subscribe() {
    let domain = TestDomain::new();
    let (node, source) = (Arc::new(open(&domain, "node")), open(&domain, "source"));
    let (reports, reported) = channel();
    let own = Arc::clone(&node);
    let mut inner = Vec::new();
    let callback = move |message: Message<'_>| {
        let reports = reports.clone();
        let inbox = own.subscriber_builder([text(message)]);
        inner.push(inbox.callback(move |message| reports.send(text(message)).unwrap()).unwrap());
    };
    let handle = node.inbox_builder().callback(callback).unwrap();
    let mut sender = source.connect("node").unwrap();
    sender.send(b"a").unwrap();
    sender.flush(LONG).unwrap();
    assert_eq!(source.publisher("a").unwrap().publish(b"hello").unwrap().inboxes(), 1);
    assert_eq!(reported.recv_timeout(LONG).as_deref(), Ok("hello"));
    handle.stop().unwrap();
    assert!(reported.recv().is_err(), "the inner callback has ended with the outer one, which owned its handle");
}

#[test]
fn a_callback_may_close_its_node() {
    let domain = TestDomain::new();
    let (node, source) = (open(&domain, "node"), open(&domain, "source"));
    let (nodes, given) = channel::<Node>();
    let (reports, reported) = channel();
    let callback = move |_: Message<'_>| reports.send(given.recv().unwrap().close(LONG)).unwrap();
    let handle = node.inbox_builder().callback(callback).unwrap();
    nodes.send(node).unwrap();
    let mut sender = source.connect("node").unwrap();
    sender.send(b"hello").unwrap();
    assert_eq!(reported.recv_timeout(LONG).unwrap(), Ok(()));
    assert!(reported.recv().is_err(), "its thread has ended");
    assert!(matches!(handle.stop(), Err(CallbackError::Recv(RecvError::Closed { .. }))));
    drop(open(&domain, "node")); // the id is free
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

#[test]
fn a_callback_that_panics_when_it_is_dropped_is_reported() {
    let domain = TestDomain::new();
    let node = open(&domain, "node");
    let bomb = Bomb;
    let handle = node.inbox_builder().callback(move |_| _ = &bomb).unwrap();
    assert!(matches!(handle.stop(), Err(CallbackError::Panicked { text }) if text == "a bomb"));
}
