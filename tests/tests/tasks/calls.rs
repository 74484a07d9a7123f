use std::collections::BTreeSet;
use std::time::Duration;

use librpc::CallError;
use librpc_system_tests::TestDomain;

use crate::{Executor, LONG, next, open, polled};

#[test]
fn servers_and_clients_run_in_tasks() {
    for executor in Executor::ALL {
        let domain = TestDomain::new();
        let (there, here) = (open(&domain, "server"), open(&domain, "client"));
        let client = here.client("echo").unwrap();
        executor.run(async { assert!(!client.wait_for_server_async(Duration::from_millis(10)).await.unwrap()) });
        let server = std::thread::spawn(move || (there.serve("echo").unwrap(), there));
        executor.run(async { assert!(client.wait_for_server_async(LONG).await.unwrap()) });
        let (server, _there) = server.join().unwrap();
        let stop = server.stop_handle();
        let serving = std::thread::spawn(move || {
            executor.run(async {
                let mut served = 0_u32;
                while let Some(request) = server.recv_async().await.unwrap() {
                    served += 1;
                    if request.starts_with(b"parts") {
                        let mut parts = request.stream();
                        for part in 0..100_u8 {
                            parts.send_async(&[part]).await.unwrap();
                        }
                        parts.finish().unwrap();
                    } else {
                        let reply = request.to_vec();
                        request.reply(&reply).unwrap();
                    }
                }
                served
            })
        });
        executor.run(async {
            for number in 0..500_u32 {
                let reply = client.call_async(&number.to_le_bytes(), LONG).await.unwrap();
                assert_eq!(*reply, number.to_le_bytes());
            }
            let mut parts = client.call_stream_async(b"parts", LONG).await.unwrap();
            for part in 0..100_u8 {
                assert_eq!(*next(&mut parts).await.unwrap().unwrap(), [part]);
            }
            assert!(next(&mut parts).await.is_none());
        });
        stop.stop();
        assert_eq!(serving.join().unwrap(), 501);
    }
}

/// Several tasks wait for one server's requests, and futures that are dropped take none along.
#[test]
fn a_server_may_have_several_tasks() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "server"), open(&domain, "client"));
    let server = std::sync::Arc::new(there.serve("work").unwrap());
    let stop = server.stop_handle();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let server = server.clone();
            runtime.spawn(async move {
                loop {
                    let Some(received) = polled(2, server.recv_async()).await else { continue };
                    let Some(request) = received.unwrap() else { return };
                    let reply = request.to_vec();
                    request.reply(&reply).unwrap();
                }
            })
        })
        .collect();
    let client = here.client("work").unwrap();
    let answers: BTreeSet<u32> = runtime.block_on(async {
        let mut pending = Vec::new();
        for number in 0..200_u32 {
            pending.push(client.start_async(&number.to_le_bytes(), LONG).await.unwrap());
        }
        let mut answers = BTreeSet::new();
        for call in pending {
            answers.insert(u32::from_le_bytes(call.await.unwrap().to_vec().try_into().unwrap()));
        }
        answers
    });
    assert_eq!(answers, (0..200).collect());
    stop.stop();
    runtime.block_on(async {
        for worker in workers {
            worker.await.unwrap();
        }
    });
}

#[test]
fn a_call_in_a_task_waits_for_room_within_its_limit() {
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "server"), open(&domain, "client"));
    let server = there.server_builder("slow").capacity(4096).open().unwrap();
    let client = here.client("slow").unwrap();
    pollster::block_on(async {
        let (mut pending, limit) = (Vec::new(), Duration::from_millis(50));
        let error = loop {
            match client.start_async(&[0; 900], limit).await {
                Ok(call) => pending.push(call),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, CallError::Deadline { .. }), "{error}");
        for call in pending {
            let error = call.await.unwrap_err();
            assert!(matches!(error, CallError::Deadline { .. }), "{error}");
        }
    });
    drop(server);
    let error = pollster::block_on(client.call_async(b"gone", LONG)).unwrap_err();
    assert!(matches!(error, CallError::NoServer { .. } | CallError::ServerDied { taken: false, .. }), "{error}");
}

/// One look takes a bounded number of replies. If more are there, the task looks again at once.
#[test]
fn a_reply_behind_thousands_of_others_is_found() {
    const CALLS: usize = 3_000;
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "server"), open(&domain, "client"));
    let server = there.server_builder("echo").max_per_client(CALLS).capacity(1 << 20).open().unwrap();
    let client = here.client_builder("echo").max_in_flight(CALLS).capacity(1 << 20).open().unwrap();
    let mut calls: Vec<_> = (0..CALLS).map(|number| client.start(&number.to_le_bytes(), LONG).unwrap()).collect();
    for _ in 0..CALLS {
        let request = server.recv_timeout(LONG).unwrap().unwrap();
        let reply = request.to_vec();
        request.reply(&reply).unwrap();
    }
    let last = calls.pop().unwrap();
    assert_eq!(*pollster::block_on(last).unwrap(), (CALLS - 1).to_le_bytes());
}
