use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_sink::Sink;
use librpc::{ConnectError, FlushError, Policy, Rate, SendError};
use librpc_system_tests::orders::receive;
use librpc_system_tests::{Puppets, TestDomain};

use crate::{Executor, LONG, open, polled};

#[test]
fn a_future_that_is_dropped_has_sent_its_message_or_not() {
    for executor in Executor::ALL {
        let domain = TestDomain::new();
        let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
        let mut inbox = there.inbox_builder().capacity(4096).open().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let receiving = std::thread::spawn({
            let is_over = is_over.clone();
            move || {
                let mut expected = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    while let Some(message) = inbox.recv_timeout(Duration::from_millis(5)).unwrap() {
                        assert_eq!(message.payload(), expected.to_le_bytes(), "none is lost, none is doubled");
                        expected += 1;
                    }
                }
                expected
            }
        });
        let mut sender = here.connect("sink").unwrap();
        let mut random = fastrand::Rng::with_seed(9);
        let (mut number, mut dropped) = (0_u64, 0);
        executor.run(async {
            while dropped < 2_000 {
                let payload = number.to_le_bytes();
                match polled(random.u32(..2), sender.send_async(&payload)).await {
                    Some(sent) => {
                        sent.unwrap();
                        number += 1;
                    }
                    None => dropped += 1,
                }
            }
            sender.flush_async(LONG).await.unwrap();
        });
        assert_eq!(sender.account().accepted, number);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(receiving.join().unwrap(), number, "{executor:?}");
    }
}

#[test]
fn a_publication_waits_for_the_slow_ones_in_a_task() {
    for executor in Executor::ALL {
        let domain = TestDomain::new();
        let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
        let subscribe = || there.subscriber_builder(["numbers"]).capacity(4096).open().unwrap();
        let receive = |mut inbox: librpc::Inbox| {
            move || {
                for number in 0..3_000_u64 {
                    let message = inbox.recv_timeout(LONG).unwrap().unwrap();
                    assert_eq!(message.payload(), number.to_le_bytes());
                }
            }
        };
        let receiving = [std::thread::spawn(receive(subscribe())), std::thread::spawn(receive(subscribe()))];
        let mut publisher = here.publisher("numbers").unwrap();
        publisher.set_timeout(LONG);
        executor.run(async {
            for number in 0..3_000_u64 {
                let receipt = publisher.publish_async(&number.to_le_bytes()).await.unwrap();
                assert_eq!((receipt.inboxes(), receipt.pending()), (2, 0), "{:?}", receipt.undelivered());
            }
            publisher.flush_async(LONG).await.unwrap();
        });
        assert_eq!(publisher.account().processed, 6_000);
        receiving.into_iter().for_each(|receiving| receiving.join().unwrap());
    }
}

/// What a dropped publication has not delivered is delivered by no later one.
#[test]
fn a_publication_that_is_dropped_ends() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut full = there.subscriber_builder(["t"]).capacity(4096).open().unwrap();
    let mut free = there.subscriber_builder(["t"]).policy(Policy::DropOldest).open().unwrap();
    let mut publisher = here.publisher("t").unwrap();
    assert_eq!(publisher.publish(b"first").unwrap().inboxes(), 2);
    for inbox in [&mut full, &mut free] {
        assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), b"first");
    }
    let long = [0; 900]; // it goes into the ring: a longer one also waits for its memory to be mapped
    while publisher.try_publish(&long).unwrap().inboxes() == 2 {}
    publisher.set_timeout(LONG);
    assert!(pollster::block_on(polled(0, publisher.publish_async(&[1; 900]))).is_none());
    while full.try_recv().unwrap().is_some_and(|message| message.payload() == long) {}
    assert_eq!(publisher.publish(b"after").unwrap().inboxes(), 2);
    assert_eq!(full.recv_timeout(LONG).unwrap().unwrap().payload(), b"after");
    while free.recv_timeout(LONG).unwrap().unwrap().payload() != b"after" {}
}

#[test]
fn limits_of_time_and_rate_hold_in_a_task() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = there.inbox_builder().capacity(4096).open().unwrap();
    let mut sender = here.connect("sink").unwrap();
    sender.set_timeout(Duration::from_millis(20));
    pollster::block_on(async {
        let error = loop {
            if let Err(error) = sender.send_async(&[0; 500]).await {
                break error;
            }
        };
        assert!(matches!(error, SendError::Full { .. }), "{error}");
        let error = sender.flush_async(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, FlushError::TimedOut { unprocessed: 1.. }), "{error}");
    });
    while inbox.try_recv().unwrap().is_some() {}
    sender.limit_rate(Some(Rate::messages(100.try_into().unwrap(), 10.try_into().unwrap())));
    sender.set_timeout(LONG);
    let begun = std::time::Instant::now();
    pollster::block_on(async {
        for _ in 0..30 {
            sender.send_async(b"paced").await.unwrap();
        }
    });
    // The first ones may go at once.
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[test]
fn a_task_notices_that_its_receiver_is_gone() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let here = open(&domain, "source");
    pollster::block_on(async {
        let mut sender = here.connect_async("sink").await.unwrap();
        sender.set_timeout(LONG);
        sender.send_async(b"lost").await.unwrap();
        let flushing = std::thread::spawn(move || sink.kill());
        let error = sender.flush_async(LONG).await.unwrap_err();
        assert!(matches!(error, FlushError::Lost { lost: 1, .. }), "{error}");
        flushing.join().unwrap();
        let error = sender.send_async(b"later").await.unwrap_err();
        assert!(matches!(error, SendError::ReceiverGone { .. }), "{error}");
    });
}

#[test]
fn redelivery_goes_on_in_a_task() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let here = open(&domain, "source");
    let mut sender = here.connect("sink").unwrap();
    sender.set_redelivery(Some(LONG));
    pollster::block_on(sender.send_async(b"kept")).unwrap();
    sink.kill();
    let returning = std::thread::spawn({
        let path = domain.path().to_owned();
        move || {
            let node = librpc::Node::builder("sink").domain(librpc::Domain::at(path)).open().unwrap();
            let mut inbox = node.inbox().unwrap();
            assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), b"kept");
            assert!(inbox.recv_timeout(Duration::from_millis(1)).unwrap().is_none()); // processed
        }
    });
    pollster::block_on(sender.flush_async(LONG)).unwrap();
    returning.join().unwrap();
}

#[test]
fn a_task_waits_for_a_node_and_for_a_subscription() {
    for executor in Executor::ALL {
        let domain = TestDomain::new();
        let here = open(&domain, "source");
        let mut publisher = here.publisher("topic").unwrap();
        executor.run(async {
            assert!(!publisher.wait_for_subscriber_async(Duration::from_millis(20)).await.unwrap());
            let mut outbox = here.outbox();
            let error = outbox.connect_timeout_async("sink", Duration::from_millis(20)).await.unwrap_err();
            assert!(matches!(error, ConnectError::NotFound { .. }), "{error}");
        });
        let appearing = std::thread::spawn({
            let path = domain.path().to_owned();
            move || {
                let node = librpc::Node::builder("sink").domain(librpc::Domain::at(path)).open().unwrap();
                let (inbox, subscription) = (node.inbox().unwrap(), node.subscribe("topic").unwrap());
                (node, inbox, subscription)
            }
        });
        let sender = executor.run(async {
            assert!(publisher.wait_for_subscriber_async(LONG).await.unwrap());
            here.connect_async("sink").await.unwrap()
        });
        assert!(sender.is_connected());
        drop(appearing.join().unwrap());
    }
}

#[test]
fn a_task_waits_for_a_receiver_that_is_stopped() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    sink.stop();
    let here = open(&domain, "source");
    // It is there, but does not answer: the sender is pending.
    let mut sender = pollster::block_on(here.connect_async("sink")).unwrap();
    pollster::block_on(sender.send_async(b"for later")).unwrap();
    assert!(pollster::block_on(sender.flush_async(Duration::from_millis(20))).is_err());
    sink.go_on();
    assert_eq!(sink.does(receive()).text, "for later");
}

#[test]
fn a_sink_sends_what_it_takes() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = there.inbox_builder().capacity(4096).open().unwrap();
    let receiving = std::thread::spawn(move || {
        for number in 0..5_000_u32 {
            assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), number.to_le_bytes());
        }
        assert!(inbox.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    });
    let mut sender = here.connect("sink").unwrap();
    sender.set_timeout(LONG);
    pollster::block_on(async {
        {
            let mut sink = sender.sink();
            for number in 0..5_000_u32 {
                std::future::poll_fn(|context| Pin::new(&mut sink).poll_ready(context)).await.unwrap();
                Pin::new(&mut sink).start_send(number.to_le_bytes()).unwrap();
            }
            std::future::poll_fn(|context| Pin::new(&mut sink).poll_close(context)).await.unwrap();
        }
        sender.flush_async(LONG).await.unwrap();
    });
    receiving.join().unwrap();
}

#[test]
fn a_closed_node_wakes_the_task_that_sends() {
    let domain = TestDomain::new();
    let sink = domain.receiver("sink");
    let here = open(&domain, "source");
    let mut sender = here.connect("sink").unwrap();
    sender.set_timeout(LONG);
    sink.stop();
    let closing = std::thread::spawn(move || here.close(Duration::ZERO));
    let error = pollster::block_on(async {
        loop {
            if let Err(error) = sender.send_async(&[0; 10_000]).await {
                break error;
            }
        }
    });
    assert!(matches!(error, SendError::Closed { .. }), "{error}");
    let _ = closing.join().unwrap(); // the messages are not processed
    sink.go_on();
}
