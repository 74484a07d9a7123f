use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use librpc::{Departure, Event, Inbox, Policy, RecvError};
use librpc_system_tests::{Puppets, TestDomain, wait_until};

use crate::{Executor, LONG, next, open, polled};

/// How many futures are made and dropped, in each executor. `TASKS_DROPPED=1000000` for the long run.
fn drops() -> u64 {
    std::env::var("TASKS_DROPPED").map_or(20_000, |drops| drops.parse().expect("a number"))
}

/// Receives numbered messages until this many futures were dropped, and checks that each comes once, in order.
async fn receive_and_drop(inbox: &mut Inbox, drops: u64, seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut expected, mut dropped) = (0, 0);
    while dropped < drops {
        // Dropped before its first poll, after some polls, or never.
        let received = match random.u32(..4) {
            0 => {
                drop(inbox.recv_async());
                None
            }
            1 => polled(0, inbox.recv_async()).await.map(|message| message.unwrap().unwrap().to_owned()),
            2 => polled(random.u32(..3), inbox.recv_sample_async())
                .await
                .map(|sample| {
                    let sample = sample.unwrap().unwrap();
                    assert_eq!(sample.len(), 8);
                    assert_eq!(sample.to_vec(), u64::to_le_bytes(expected));
                    expected += 1;
                    None
                })
                .unwrap_or(None),
            _ => Some(inbox.recv_async().await.unwrap().unwrap().to_owned()),
        };
        match received {
            Some(message) => {
                assert_eq!(*message.payload, u64::to_le_bytes(expected));
                expected += 1;
            }
            None => dropped += 1,
        }
    }
    expected
}

#[test]
fn a_future_that_is_dropped_loses_no_message() {
    for executor in Executor::ALL {
        let domain = TestDomain::new();
        let (there, here) = (open(&domain, "source"), open(&domain, "sink"));
        let mut inbox = here.inbox_builder().capacity(4096).open().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let sending = std::thread::spawn({
            let (is_over, mut sender) = (is_over.clone(), there.connect("sink").unwrap());
            move || {
                let mut number = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    match sender.send_timeout(&number.to_le_bytes(), std::time::Duration::from_millis(10)) {
                        Ok(()) => number += 1,
                        Err(error) => assert!(matches!(error, librpc::SendError::Full { .. }), "{error}"),
                    }
                    if number.is_multiple_of(97) {
                        std::thread::yield_now(); // sometimes there is nothing
                    }
                }
                number
            }
        });
        let received = executor.run(receive_and_drop(&mut inbox, drops(), 7));
        is_over.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap();
        let mut rest = received;
        while let Some(message) = inbox.try_recv().unwrap() {
            assert_eq!(message.payload(), u64::to_le_bytes(rest));
            rest += 1;
        }
        assert_eq!(rest, sent, "{executor:?}");
    }
}

/// Each message is sent only once the task sleeps, so each needs a wake-up.
async fn ping(inbox: &mut Inbox, replies: std::sync::mpsc::Sender<u8>) {
    for number in 0..100 {
        let message = inbox.recv_async().await.unwrap().unwrap();
        assert_eq!(message.payload(), [number]);
        replies.send(number).unwrap();
    }
}

#[test]
fn a_task_that_sleeps_is_woken_by_each_message_also_by_its_own_runtime() {
    for executor in Executor::ALL {
        for has_runtime in [false, true] {
            let domain = TestDomain::new();
            let (there, here) = (open(&domain, "source"), open(&domain, "sink"));
            let inbox = here.inbox().unwrap();
            let mut sender = there.connect("sink").unwrap();
            let (reply, replies) = std::sync::mpsc::channel();
            let sending = std::thread::spawn(move || {
                for number in 0..100 {
                    sender.send(&[number]).unwrap();
                    assert_eq!(replies.recv_timeout(LONG).unwrap(), number);
                }
            });
            executor.run(async move {
                let mut inbox = match executor {
                    _ if !has_runtime => inbox,
                    Executor::Pollster | Executor::Smol => inbox.with_async_io().unwrap(),
                    Executor::Tokio | Executor::TokioOneThread => inbox.with_tokio().unwrap(),
                };
                ping(&mut inbox, reply).await;
            });
            sending.join().unwrap();
        }
    }
}

#[test]
fn a_task_sees_senders_come_and_go_and_what_they_have_sent() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let here = open(&domain, "sink");
    let mut inbox = here.inbox().unwrap();
    use librpc_system_tests::orders::{connect, send};
    source.does(connect("sink"));
    source.does(send("sink", "hello"));
    pollster::block_on(async {
        let Event::SenderJoined(peer) = inbox.recv_event_async().await.unwrap().unwrap() else { panic!("it joins") };
        assert_eq!(&*peer.node, "source");
        let Event::Message(message) = inbox.recv_event_async().await.unwrap().unwrap() else { panic!("it sends") };
        assert_eq!(message.payload(), b"hello");
    });
    let killing = std::thread::spawn(move || source.kill());
    pollster::block_on(async {
        let Event::SenderLeft(_, departure) = inbox.recv_event_async().await.unwrap().unwrap() else {
            panic!("it dies")
        };
        assert_eq!(departure, Departure::Died);
    });
    killing.join().unwrap();
}

#[test]
fn a_stop_and_the_end_of_the_node_wake_a_task() {
    for executor in Executor::ALL {
        let domain = TestDomain::new();
        let (first, second) = (open(&domain, "first"), open(&domain, "second"));
        let (mut stopped, mut closed) = (first.inbox().unwrap(), second.inbox().unwrap());
        let stop = stopped.stop_handle();
        let ending = std::thread::spawn(move || {
            stop.stop();
            second.close(LONG).unwrap();
        });
        executor.run(async {
            assert!(stopped.recv_async().await.unwrap().is_none());
            assert!(next(&mut stopped.stream()).await.is_none());
            let error = closed.recv_async().await.unwrap_err();
            assert!(matches!(error, RecvError::Closed { .. }), "{error}");
        });
        ending.join().unwrap();
    }
}

#[test]
fn streams_give_each_message_once() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = here.subscriber_builder(["numbers"]).policy(Policy::Block).open().unwrap();
    let mut publisher = there.publisher("numbers").unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..1000_u32 {
            let bytes = if number % 100 == 99 { 100_000 } else { 4 };
            let mut payload = vec![0; bytes];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            assert_eq!(publisher.publish(&payload).unwrap().inboxes(), 1);
        }
        publisher.flush(LONG).unwrap();
    });
    pollster::block_on(async {
        for number in 0..500_u32 {
            let message = next(&mut inbox.stream()).await.unwrap().unwrap();
            assert_eq!((&message.payload[..4], message.topic.as_deref()), (&number.to_le_bytes()[..], Some("numbers")));
        }
        let mut held = Vec::new();
        {
            let mut samples = inbox.sample_stream();
            for number in 500..1000_u32 {
                let sample = next(&mut samples).await.unwrap().unwrap();
                assert_eq!(sample.to_vec()[..4], number.to_le_bytes());
                held.push(sample);
            }
        }
        inbox.ack();
    });
    sending.join().unwrap();
}

#[test]
fn a_thread_and_a_task_may_take_turns() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = here.inbox().unwrap();
    let mut sender = there.connect("sink").unwrap();
    assert!(pollster::block_on(polled(0, inbox.recv_async())).is_none());
    for number in 0..200_u8 {
        sender.send(&[number]).unwrap();
        let message = match number % 2 {
            0 => inbox.recv_timeout(LONG).unwrap(),
            _ => pollster::block_on(inbox.recv_async()).unwrap(),
        };
        assert_eq!(message.unwrap().payload(), [number]);
    }
    wait_until(|| inbox.try_recv().unwrap().is_none());
}
