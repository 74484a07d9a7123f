//! Senders and publishers that several threads share, and waiting for several things at once.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use librpc::{Inbox, Node, SendError, WaitSet, WaitSetError};
use librpc_system_tests::orders::{connect, receive, send};
use librpc_system_tests::{Puppets, TestDomain, wait_until};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// Receives so many messages of eight threads, each of which counts its own, and asserts that each thread's come in order.
fn receive_in_order(inbox: &mut Inbox, messages: usize) {
    let mut next = [0_u32; 8];
    for _ in 0..messages {
        let message = inbox.recv_timeout(LONG).unwrap().expect("none is lost");
        let (thread, number) = message.payload().split_at(1);
        let expected = &mut next[usize::from(thread[0])];
        assert_eq!(number, expected.to_le_bytes());
        *expected += 1;
    }
    assert!(inbox.try_recv().unwrap().is_none());
}

fn body(thread: u8, number: u32) -> Vec<u8> {
    [&[thread][..], &number.to_le_bytes()].concat()
}

#[test]
fn eight_threads_share_a_sender_and_the_order_of_each_is_kept() {
    const EACH: u32 = 20_000;
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = there.inbox_builder().capacity(4096).open().unwrap();
    let sender = here.connect("sink").unwrap().into_shared();
    let threads: Vec<_> = (0..8_u8)
        .map(|thread| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for number in 0..EACH {
                    match number % 3 {
                        0 => sender.send_timeout(&body(thread, number), LONG).unwrap(),
                        _ => loop {
                            match sender.try_send(&body(thread, number)) {
                                Ok(()) => break,
                                Err(SendError::Full { .. }) => std::thread::yield_now(),
                                Err(error) => panic!("{error}"),
                            }
                        },
                    }
                }
            })
        })
        .collect();
    receive_in_order(&mut inbox, 8 * EACH as usize);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    sender.flush(LONG).unwrap();
    assert_eq!((sender.account().processed, sender.is_connected()), (u64::from(8 * EACH), true));
}

#[test]
fn eight_threads_share_a_publisher_and_the_order_of_each_is_kept() {
    const EACH: u32 = 5_000;
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inboxes = [there.subscribe("t").unwrap(), there.subscribe("*").unwrap()];
    let publisher = here.publisher("t").unwrap().into_shared();
    assert_eq!(publisher.subscribers().unwrap(), 2);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let publisher = publisher.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let receipt = publisher.publish(&body(thread, number)).unwrap();
                    assert_eq!((receipt.inboxes, receipt.pending, receipt.undelivered.len()), (2, 0, 0));
                }
            });
        }
        for inbox in &mut inboxes {
            scope.spawn(|| receive_in_order(inbox, 8 * EACH as usize));
        }
    });
    publisher.flush(LONG).unwrap();
    assert_eq!(publisher.account().processed, u64::from(2 * 8 * EACH));
    // Loans are filled without the lock.
    let mut loan = publisher.loan(100_000).unwrap();
    loan[..5].copy_from_slice(b"large");
    assert_eq!(publisher.publish_loan(loan).unwrap().inboxes, 2);
    assert_eq!(inboxes[0].recv_timeout(LONG).unwrap().unwrap().payload()[..5], *b"large");
    drop(inboxes);
    wait_until(|| publisher.subscribers().unwrap() == 0);
    assert_eq!(publisher.publish(b"nobody").unwrap().inboxes, 0);
}

/// Asserts that a set becomes quiet once everything was looked at: it may report something that turns out to be nothing.
fn is_quiet(set: &mut WaitSet, mut look: impl FnMut()) -> bool {
    (0..20).any(|_| {
        look();
        set.wait_timeout(SHORT).unwrap().is_empty()
    })
}

#[test]
fn a_set_reports_what_has_something_and_nothing_else() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let here = open(&domain, "robot");
    let (mut inbox, mut topic, server) =
        (here.inbox().unwrap(), here.subscribe("topic").unwrap(), here.serve("work").unwrap());
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut set = WaitSet::new().unwrap();
    assert!(set.is_empty() && set.wait_timeout(SHORT).unwrap().is_empty());
    set.add(1, &inbox).unwrap();
    set.add(2, &topic).unwrap();
    set.add(3, &server).unwrap();
    set.add_descriptor(4, &ours).unwrap();
    assert!(matches!(set.add(1, &topic), Err(WaitSetError::Taken { token: 1 })));
    assert_eq!(set.len(), 4);
    // At first, nothing is known.
    assert_eq!(set.try_wait().unwrap(), [1, 2]);
    assert!(is_quiet(&mut set, || assert!(inbox.try_recv().unwrap().is_none() && topic.try_recv().unwrap().is_none())));

    source.does(connect("robot"));
    source.does(send("robot", "one"));
    source.does(send("robot", "two"));
    assert_eq!(set.wait().unwrap(), [1]);
    assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), b"one");
    assert_eq!(set.wait().unwrap(), [1], "what is left is reported again");
    assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), b"two");
    assert!(is_quiet(&mut set, || assert!(inbox.try_recv().unwrap().is_none())));

    theirs.send(b"wake").unwrap();
    assert_eq!(set.wait().unwrap(), [4]);
    assert_eq!(set.wait().unwrap(), [4]);
    ours.recv(&mut [0; 8]).unwrap();
    assert!(set.wait_timeout(SHORT).unwrap().is_empty());

    let client = here.client("work").unwrap();
    let (first, second) = (client.start(b"1", LONG).unwrap(), client.start(b"2", LONG).unwrap());
    set.add(5, &first).unwrap();
    set.add(6, &second).unwrap();
    assert_eq!(set.wait().unwrap(), [3]);
    let requests = [server.try_recv().unwrap().unwrap(), server.recv_timeout(LONG).unwrap().unwrap()];
    assert!(set.wait_timeout(SHORT).unwrap().is_empty());
    let [one, two] = requests;
    two.reply(b"two").unwrap();
    assert_eq!(set.wait().unwrap(), [6]);
    assert_eq!(*second.wait().unwrap(), *b"two");
    assert!(set.wait_timeout(SHORT).unwrap().is_empty(), "a call that is over is not reported");
    one.reply(b"one").unwrap();
    assert_eq!(set.wait().unwrap(), [5]);
    assert_eq!(*first.wait().unwrap(), *b"one");

    // A call ends by itself, and a server is stopped.
    let mut late = client.start(b"late", SHORT).unwrap();
    assert!(set.remove(5) && !set.remove(5) && set.remove(6));
    set.add(5, &late).unwrap();
    let mut reported = BTreeMap::new();
    while !reported.contains_key(&5) {
        set.wait().unwrap().iter().for_each(|&token| *reported.entry(token).or_insert(0) += 1);
        server.try_recv().unwrap().into_iter().for_each(drop);
    }
    assert!(late.try_wait().unwrap().is_err());
    server.stop_handle().stop();
    assert_eq!(set.wait().unwrap(), [3]);

    // What is dropped is reported no more.
    drop((late, server, inbox));
    let _ = source.tries(send("robot", "three")); // it may not have noticed
    assert!(is_quiet(&mut set, || assert!(topic.try_recv().unwrap().is_none())));
    let _ = here.close(Duration::ZERO); // what the client said last, nobody processes
    assert_eq!(set.wait().unwrap(), [2]);
    assert!(topic.try_recv().is_err());
}

#[test]
fn each_of_a_hundred_busy_inboxes_among_a_thousand_gets_its_share() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "here"), open(&domain, "there"));
    let mut inboxes: Vec<Inbox> = (0..1000).map(|at| here.subscribe(&format!("topic/{at}")).unwrap()).collect();
    let mut set = WaitSet::new().unwrap();
    for (at, inbox) in inboxes.iter().enumerate() {
        set.add(at as u64, inbox).unwrap();
    }
    let mut outbox = there.outbox();
    let busy: Vec<_> =
        (0..100).map(|at: usize| (at * 10, outbox.topic(&format!("topic/{}", at * 10)).unwrap())).collect();
    for (at, topic) in &busy {
        assert_eq!(outbox.publish(*topic, b"first").unwrap().inboxes(), 1);
        assert_eq!(inboxes[*at].recv_timeout(LONG).unwrap().unwrap().payload(), b"first");
    }
    let mut taken: BTreeMap<usize, u32> = BTreeMap::new();
    for _ in 0..40 {
        for (_, topic) in &busy {
            while outbox.publish_timeout(*topic, &[0; 4000], Duration::ZERO).unwrap().inboxes() == 1
                && outbox.total().queued < 1000
            {}
        }
        for &token in set.wait().unwrap() {
            let at = token as usize;
            if inboxes[at].try_recv().unwrap().is_some() {
                *taken.entry(at).or_default() += 1;
            }
        }
    }
    let (least, most) = (taken.values().min().unwrap(), taken.values().max().unwrap());
    assert_eq!(taken.len(), 100, "only what has something: {taken:?}");
    assert!(*most - *least <= most / 5, "{least} to {most}");
    // Everything that is left is found, too.
    let begun = Instant::now();
    let mut left = outbox.total().accepted - 100 - taken.values().map(|&taken| u64::from(taken)).sum::<u64>();
    while left > 0 {
        assert!(begun.elapsed() < LONG, "{left} are missing");
        for &token in set.wait().unwrap() {
            while inboxes[token as usize].try_recv().unwrap().is_some() {
                left -= 1;
            }
        }
    }
}

#[test]
fn a_set_wakes_for_calls_that_another_thread_receives() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "server"), open(&domain, "client"));
    let (server, client) = (there.serve("work").unwrap(), here.client("work").unwrap());
    let serving = std::thread::spawn(move || {
        let requests: Vec<_> = (0..2).map(|_| server.recv_timeout(LONG).unwrap().unwrap()).collect();
        for request in requests {
            let reply = request.to_vec();
            request.reply(&reply).unwrap();
        }
        server
    });
    let watched = client.start(b"watched", LONG).unwrap();
    let mut set = WaitSet::new().unwrap();
    set.add(7, &watched).unwrap();
    let other = std::thread::spawn(move || client.call(b"other", LONG).unwrap().to_vec());
    assert_eq!(set.wait().unwrap(), [7]);
    assert_eq!(*watched.wait().unwrap(), *b"watched");
    assert_eq!(other.join().unwrap(), b"other");
    drop(serving.join().unwrap());
}

#[test]
fn a_puppet_that_is_killed_is_seen_by_a_set() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let mut sink = domain.receiver("sink");
    let here = open(&domain, "robot");
    let mut inbox = here.inbox().unwrap();
    let mut set = WaitSet::new().unwrap();
    set.add(1, &inbox).unwrap();
    source.does(connect("robot"));
    source.does(connect("sink"));
    source.does(send("sink", "hello"));
    assert_eq!(sink.does(receive()).text, "hello");
    let mut events = Vec::new();
    let mut source = Some(source);
    while events.len() < 2 {
        assert_eq!(set.wait_timeout(LONG).unwrap(), [1]);
        while let Some(event) = inbox.try_recv_event().unwrap() {
            events.push(format!("{event:?}"));
            if let Some(mut source) = source.take() {
                source.kill();
            }
        }
    }
    assert!(events[0].contains("SenderJoined") && events[1].contains("Died"), "{events:?}");
}

/// After a look that found nothing, the next one may take some of what there is. What is left is not announced again by its sender.
#[test]
fn a_set_reports_what_a_second_look_has_left() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "robot"), open(&domain, "source"));
    let mut inbox = here.inbox().unwrap();
    let mut set = WaitSet::new().unwrap();
    set.add(1, &inbox).unwrap();
    let mut sender = there.connect("robot").unwrap();
    sender.send(b"first").unwrap();
    assert_eq!(set.wait().unwrap(), [1]);
    assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), b"first");
    assert!(is_quiet(&mut set, || assert!(inbox.try_recv().unwrap().is_none())));
    sender.send(b"second").unwrap();
    sender.send(b"third").unwrap();
    assert_eq!(inbox.try_recv().unwrap().unwrap().payload(), b"second");
    assert_eq!(set.wait_timeout(LONG).unwrap(), [1]);
    assert_eq!(inbox.try_recv().unwrap().unwrap().payload(), b"third");
    // As is what a receive that waits has left.
    assert!(is_quiet(&mut set, || assert!(inbox.try_recv().unwrap().is_none())));
    sender.send(b"fourth").unwrap();
    sender.send(b"fifth").unwrap();
    assert_eq!(inbox.recv().unwrap().unwrap().payload(), b"fourth");
    assert_eq!(set.wait_timeout(LONG).unwrap(), [1]);
}

#[test]
fn a_set_keeps_nobody_alive() {
    let domain = TestDomain::new();
    let mut set = WaitSet::new().unwrap();
    {
        let here = open(&domain, "robot");
        let (inbox, server, client) =
            (here.inbox().unwrap(), here.serve("work").unwrap(), here.client("work").unwrap());
        let (call, parts) = (client.start(b"1", LONG).unwrap(), client.call_stream(b"2", LONG).unwrap());
        set.add(1, &inbox).unwrap();
        set.add(2, &server).unwrap();
        set.add(3, &call).unwrap();
        set.add(4, &parts).unwrap();
        assert!(!set.wait().unwrap().is_empty());
    }
    assert_eq!(set.len(), 4);
    assert!(!domain.path().exists(), "the node is gone, and with it its domain");
    assert!(set.wait_timeout(SHORT).unwrap().is_empty());
}

/// A set sleeps in its first thread; another one uses the inboxes, and drops them.
#[test]
fn inboxes_of_a_set_may_be_used_and_dropped_by_another_thread() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "robot"), open(&domain, "source"));
    let inboxes: Vec<Inbox> = (0..8).map(|at| here.subscribe(&format!("topic/{at}")).unwrap()).collect();
    let mut set = WaitSet::new().unwrap();
    for (at, inbox) in inboxes.iter().enumerate() {
        set.add(at as u64, inbox).unwrap();
    }
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    set.add_descriptor(100, &ours).unwrap();
    let using = std::thread::spawn(move || {
        for (at, mut inbox) in inboxes.into_iter().enumerate() {
            let mut publisher = there.publisher(&format!("topic/{at}")).unwrap();
            for _ in 0..50 {
                assert_eq!(publisher.publish(b"x").unwrap().inboxes(), 1);
                assert!(inbox.recv_timeout(LONG).unwrap().is_some());
            }
        }
        theirs.send(b"over").unwrap();
        theirs
    });
    while !set.wait_timeout(LONG).unwrap().contains(&100) {}
    drop(using.join().unwrap());
    ours.recv(&mut [0; 8]).unwrap();
    assert!(set.wait_timeout(SHORT).unwrap().iter().all(|&token| token == 100));
}
