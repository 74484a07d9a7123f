//! Inboxes in other event loops: a descriptor is readable as long as something is left, for loops that are told of the state and for those that
//! are told of changes, however the inbox waits.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use librpc::{Inbox, Node, Sender, Wait};
use librpc_system_tests::TestDomain;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};

const LONG: Duration = Duration::from_secs(60);
const BURSTS: usize = 20;
const BURST: usize = 3;

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn is_readable(fd: impl AsFd) -> bool {
    waits(fd, Some(Timespec { tv_sec: 0, tv_nsec: 0 }))
}

/// `false`: the time is up.
fn waits(fd: impl AsFd, limit: Option<Timespec>) -> bool {
    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], limit.as_ref()).unwrap() == 1
}

/// Runs a loop for each way of waiting, with an inbox that gets bursts of messages.
fn with_bursts(mut run: impl FnMut(&mut Inbox)) {
    for wait in [Wait::Block, Wait::Adaptive, Wait::Spin] {
        let domain = TestDomain::new();
        let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
        let mut inbox = sink.inbox_builder().wait(wait).open().unwrap();
        let mut sender = source.connect("sink").unwrap();
        let sending = std::thread::spawn(move || {
            for _ in 0..BURSTS {
                (0..BURST).for_each(|_| sender.send(b"hello").unwrap());
                sender.flush(LONG).unwrap();
            }
        });
        run(&mut inbox);
        sending.join().unwrap();
    }
}

fn limit() -> Option<Timespec> {
    Some(Timespec { tv_sec: LONG.as_secs() as i64, tv_nsec: 0 })
}

#[test]
fn a_loop_may_take_one_message_each_time_it_is_told_of_the_state() {
    with_bursts(|inbox| {
        for taken in 0..BURSTS * BURST {
            while inbox.try_recv().unwrap().is_none() {
                assert!(waits(&*inbox, limit()), "{taken} messages, and then no more");
            }
        }
        inbox.ack();
    });
}

#[test]
fn a_loop_takes_at_most_one_message_for_each_wait() {
    with_bursts(|inbox| {
        let mut taken = 0;
        while taken < BURSTS * BURST {
            assert!(waits(&*inbox, limit()), "{taken} messages, and then no more");
            taken += usize::from(inbox.try_recv().unwrap().is_some());
        }
        inbox.ack();
    });
}

#[test]
fn a_loop_that_is_told_of_changes_takes_messages_until_there_are_none() {
    with_bursts(|inbox| {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&set, &*inbox, EventData::new_u64(1), EventFlags::IN | EventFlags::ET).unwrap();
        let (mut ready, mut taken) = (Vec::with_capacity(1), 0);
        while taken < BURSTS * BURST {
            ready.clear();
            epoll::wait(&set, spare_capacity(&mut ready), limit().as_ref()).unwrap();
            assert!(!ready.is_empty(), "{taken} messages, and then no more");
            while inbox.try_recv().unwrap().is_some() {
                taken += 1;
            }
        }
    });
}

#[test]
fn mio_waits_for_an_inbox_by_its_number() {
    with_bursts(|inbox| {
        let (mut poll, mut events) = (mio::Poll::new().unwrap(), mio::Events::with_capacity(1));
        let number = inbox.as_raw_fd();
        let mut source = mio::unix::SourceFd(&number);
        poll.registry().register(&mut source, mio::Token(1), mio::Interest::READABLE).unwrap();
        let mut taken = 0;
        while taken < BURSTS * BURST {
            poll.poll(&mut events, Some(LONG)).unwrap();
            assert!(!events.is_empty(), "{taken} messages, and then no more");
            while inbox.try_recv().unwrap().is_some() {
                taken += 1;
            }
        }
    });
}

/// What a receive that waits leaves is announced as well.
#[test]
fn a_loop_is_told_of_what_other_receives_have_left() {
    with_bursts(|inbox| {
        let mut taken = 0;
        while taken < BURSTS * BURST {
            assert!(waits(&*inbox, limit()), "{taken} messages, and then no more");
            taken += usize::from(match taken % 3 {
                0 => inbox.recv_timeout(Duration::ZERO).unwrap().is_some(),
                1 => {
                    inbox.recv_event_timeout(Duration::from_micros(1)).unwrap().is_some_and(|event| is_message(&event))
                }
                _ => inbox.try_recv_sample().unwrap().is_some(),
            });
        }
        inbox.ack();
    });
}

fn is_message(event: &librpc::Event<'_>) -> bool {
    matches!(event, librpc::Event::Message(_))
}

#[test]
fn a_descriptor_is_not_readable_once_nothing_is_left() {
    for wait in [Wait::Block, Wait::Adaptive, Wait::Spin] {
        let domain = TestDomain::new();
        let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
        let mut inbox = sink.inbox_builder().wait(wait).open().unwrap();
        let mut sender: Sender = source.connect("sink").unwrap();
        for _ in 0..100 {
            (0..BURST).for_each(|_| sender.send(b"hello").unwrap());
            let begun = Instant::now();
            while !is_readable(&inbox) {
                assert!(begun.elapsed() < LONG, "{wait:?}: not readable");
            }
            let mut taken = 0;
            while taken < BURST {
                assert!(is_readable(&inbox), "{wait:?}: {taken} of {BURST} taken");
                taken += usize::from(inbox.try_recv().unwrap().is_some());
            }
            assert!(is_readable(&inbox), "{wait:?}: nobody has seen yet that there is no more");
            assert!(inbox.try_recv().unwrap().is_none());
            // A bell may come late, once: then there is nothing to be taken.
            let begun = Instant::now();
            while is_readable(&inbox) {
                assert!(inbox.try_recv().unwrap().is_none());
                assert!(begun.elapsed() < LONG, "{wait:?}: readable, and nothing is left");
            }
        }
    }
}

#[test]
fn a_stopped_inbox_leaves_its_descriptor_unreadable() {
    let domain = TestDomain::new();
    let sink = open(&domain, "sink");
    let mut inbox = sink.inbox().unwrap();
    let stop = inbox.stop_handle();
    assert!(is_readable(&inbox));
    assert!(inbox.try_recv().unwrap().is_none());
    assert!(!is_readable(&inbox));
    stop.stop();
    assert!(is_readable(&inbox));
    assert!(inbox.try_recv().unwrap().is_none());
    assert!(!is_readable(&inbox));
}

/// A loop that does not know that its inbox is stopped is not woken for each sender that goes on, or goes.
#[test]
fn what_senders_do_leaves_the_descriptor_of_a_stopped_inbox_unreadable() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox().unwrap();
    let mut sender: Sender = source.connect("sink").unwrap();
    sender.send(b"hello").unwrap();
    assert!(inbox.recv_timeout(LONG).unwrap().is_some());
    assert!(inbox.try_recv().unwrap().is_none() && is_readable(&inbox));
    assert!(inbox.try_recv().unwrap().is_none() && !is_readable(&inbox));
    inbox.stop_handle().stop();
    sender.send(b"nobody takes it").unwrap();
    assert!(inbox.try_recv().unwrap().is_none());
    assert!(!is_readable(&inbox), "for a message");
    sender.send(b"neither this").unwrap();
    drop(sender);
    source.close(Duration::ZERO).ok();
    assert!(inbox.try_recv().unwrap().is_none());
    assert!(!is_readable(&inbox), "for a sender that is gone");
}
