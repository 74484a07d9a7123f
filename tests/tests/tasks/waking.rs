use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use librpc::{CallError, ConnectError, FlushError, PublishError};
use librpc_system_tests::{Puppets, TestDomain, wait_until};

use crate::{LONG, open};

/// Counts how often it is called, and panics if it is to.
#[derive(Default)]
struct Counted {
    calls: AtomicU32,
    panics: bool,
}

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "this test's waker panics");
    }
}

impl Counted {
    fn new(panics: bool) -> (Arc<Self>, Waker) {
        let counted = Arc::new(Self { calls: AtomicU32::new(0), panics });
        (counted.clone(), counted.into())
    }

    fn was_called(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > 0
    }
}

/// Polls once, and asserts that it waits.
macro_rules! waits {
    ($future:expr, $waker:expr) => {
        assert!($future.poll(&mut Context::from_waker($waker)).is_pending())
    };
}

#[test]
fn a_waker_that_panics_keeps_no_other_task_from_being_woken() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "source"), open(&domain, "sink"));
    let (mut first, mut second) = (here.subscribe("first").unwrap(), here.subscribe("second").unwrap());
    let ((panicking, its), (other, others)) = (Counted::new(true), Counted::new(false));
    waits!(pin!(first.recv_async()), &its);
    waits!(pin!(second.recv_async()), &others);
    assert_eq!(there.publisher("first").unwrap().publish(b"1").unwrap().inboxes(), 1);
    wait_until(|| panicking.was_called());
    assert_eq!(there.publisher("second").unwrap().publish(b"2").unwrap().inboxes(), 1);
    wait_until(|| other.was_called());
    assert_eq!(second.try_recv().unwrap().unwrap().payload(), b"2");
}

#[test]
fn the_task_that_has_polled_last_is_woken() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = here.inbox().unwrap();
    let ((_, former), (last, lasts)) = (Counted::new(false), Counted::new(false));
    let mut future = pin!(inbox.recv_async());
    waits!(future.as_mut(), &former);
    waits!(future.as_mut(), &lasts);
    there.connect("sink").unwrap().send(b"x").unwrap();
    wait_until(|| last.was_called());
    let Poll::Ready(message) = future.poll(&mut Context::from_waker(&lasts)) else { panic!("it was woken") };
    assert_eq!(message.unwrap().unwrap().payload(), b"x");
}

/// A task's later limit does not hide the earlier one of the next task.
#[test]
fn an_earlier_limit_replaces_a_later_one() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "sink"), open(&domain, "source"));
    let _inbox = there.inbox().unwrap();
    let mut sender = here.connect("sink").unwrap();
    sender.send(b"not processed").unwrap();
    let (_, waker) = Counted::new(false);
    waits!(pin!(sender.flush_async(LONG)), &waker);
    let error = pollster::block_on(sender.flush_async(Duration::from_millis(20))).unwrap_err();
    assert!(matches!(error, FlushError::TimedOut { unprocessed: 1 }), "{error}");
}

#[test]
fn a_closed_node_wakes_the_tasks_that_wait_for_others() {
    let domain = TestDomain::new();
    let _other = domain.node("other"); // the domain stays
    let here = open(&domain, "here");
    let (mut outbox, mut publisher, client) = (here.outbox(), here.publisher("t").unwrap(), here.client("s").unwrap());
    let [(connects, connecting), (publishes, publishing), (calls, calling)] = [0; 3].map(|_| Counted::new(false));
    let mut connect = pin!(outbox.connect_async("nobody"));
    let mut subscriber = pin!(publisher.wait_for_subscriber_async(LONG));
    let mut server = pin!(client.wait_for_server_async(LONG));
    waits!(connect.as_mut(), &connecting);
    waits!(subscriber.as_mut(), &publishing);
    waits!(server.as_mut(), &calling);
    here.close(Duration::ZERO).unwrap();
    wait_until(|| connects.was_called() && publishes.was_called() && calls.was_called());
    // It is woken when the node's file goes, and perhaps once more before.
    let connected = pollster::block_on(connect);
    assert!(matches!(connected, Err(ConnectError::Closed { .. })), "{connected:?}");
    assert!(matches!(pollster::block_on(subscriber), Err(PublishError::Closed { .. })));
    assert!(matches!(pollster::block_on(server), Err(CallError::Closed { .. })));
}
