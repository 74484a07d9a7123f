//! Tasks that wait for calls, in any executor.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use librpc::{CallError, Pending, Reply, Request};
use librpc_system_tests::{TestDomain, wait_until};

use crate::{LONG, SHORT, next, open, pair};

/// Runs a future on this thread, which sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let (mut context, mut future) = (Context::from_waker(&waker), std::pin::pin!(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// All of these, in the order in which they were begun.
async fn all(pending: Vec<Pending>) -> Vec<Result<Reply, CallError>> {
    let mut pending: Vec<_> = pending.into_iter().map(Some).collect();
    let mut done: Vec<_> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (pending, done) in pending.iter_mut().zip(&mut done) {
            if let Some(call) = pending
                && let Poll::Ready(answer) = std::pin::Pin::new(call).poll(context)
            {
                (*pending, *done) = (None, Some(answer));
            }
        }
        if pending.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[test]
fn tasks_wait_for_calls_without_a_thread_beside_threads_that_wait() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "server"), open(&domain, "client"));
    let server = there.server_builder("work").max_per_client(300).open().unwrap();
    let client = here.client_builder("work").max_in_flight(300).open().unwrap();
    let serving = std::thread::spawn(move || {
        // Every second call, and the other ones after them.
        let mut held = Vec::new();
        let echo = |request: Request| {
            let reply = request.to_vec();
            request.reply(&reply).unwrap();
        };
        for number in 0..600 {
            let request = next(&server);
            if number % 2 == 0 {
                held.push(request)
            } else {
                echo(request)
            }
            if held.len() == 50 {
                held.drain(..).rev().for_each(echo);
            }
        }
        held.into_iter().for_each(echo);
        server
    });
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let client = &client;
            scope.spawn(move || {
                let body = |call: u8| [thread, call];
                let begin = |call| client.start(&body(call), LONG).unwrap();
                // One thread waits in turn, the others run tasks.
                for round in 0..2 {
                    let calls = (round * 100..round * 100 + 100).map(begin).collect::<Vec<_>>();
                    let answers = match thread {
                        0 => calls.into_iter().map(Pending::wait).collect(),
                        _ => block_on(all(calls)),
                    };
                    for (call, answer) in (round * 100..).zip(answers) {
                        assert_eq!(*answer.unwrap(), body(call));
                    }
                }
            });
        }
    });
    let server = serving.join().unwrap();
    // What ends a call in another way wakes its task, too.
    let late = block_on(client.start(b"late", SHORT).unwrap()).unwrap_err();
    assert!(matches!(late, CallError::Deadline { .. }), "{late}");
    let cancelled = client.start(b"cancelled", LONG).unwrap();
    let cancel = cancelled.cancel_handle();
    let cancelling = std::thread::spawn(move || cancel.cancel());
    let cancelled = block_on(cancelled).unwrap_err();
    assert!(matches!(cancelled, CallError::Cancelled { .. }), "{cancelled}");
    cancelling.join().unwrap();
    let mut dropped = client.start(b"dropped", LONG).unwrap();
    assert!(std::pin::Pin::new(&mut dropped).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(dropped);
    wait_until(|| server.try_recv().unwrap().is_none_or(|request| request.is_cancelled()));
    let gone = client.start(b"gone", LONG).unwrap();
    let request = loop {
        let request = next(&server);
        if *request == *b"gone" {
            break request;
        }
    };
    let dying = std::thread::spawn(move || drop((request, server, there)));
    let gone = block_on(gone).unwrap_err();
    assert!(matches!(gone, CallError::Failed { .. } | CallError::ServerDied { .. }), "{gone}");
    dying.join().unwrap();
}

#[test]
fn a_task_takes_the_parts_of_a_reply_as_they_come() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let serving = std::thread::spawn(move || {
        let mut parts = next(&server).stream();
        (0..100_u8).for_each(|part| parts.send(&[part]).unwrap());
        parts.finish().unwrap();
    });
    let mut replies = client.call_stream(b"count", LONG).unwrap();
    for part in 0..100 {
        let taken = block_on(std::future::poll_fn(|context| std::pin::Pin::new(&mut replies).poll_next(context)));
        assert_eq!(*taken.unwrap().unwrap(), [part]);
    }
    let end = block_on(std::future::poll_fn(|context| std::pin::Pin::new(&mut replies).poll_next(context)));
    assert!(end.is_none() && replies.is_over());
    serving.join().unwrap();
}
