//! Calls whose time is up, and cancelled ones.

use std::time::Duration;

use librpc::CallError;
use librpc_system_tests::{TestDomain, wait_until};

use crate::{LONG, SHORT, next, pair};

#[test]
fn a_server_that_never_answers_costs_the_time_limit_and_no_more() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let error = client.call(b"x", SHORT).unwrap_err();
    assert_eq!(error.to_string(), "service \"work\" has not answered within 50ms");
    assert!(server.try_recv().unwrap().is_none(), "nobody waits for it any more");
    let mut call = client.start(b"y", LONG).unwrap();
    let request = next(&server);
    assert!(call.try_wait().is_none() && call.wait_timeout(SHORT).is_none() && !request.is_cancelled());
    assert!(request.time_left().is_some_and(|left| left > LONG / 2));
    request.reply(b"z").unwrap();
    assert_eq!(*call.wait_timeout(LONG).unwrap().unwrap(), *b"z");
}

#[test]
fn a_cancelled_call_is_seen_by_its_server_and_nothing_is_delivered() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let call = client.start(b"x", LONG).unwrap();
    let request = next(&server);
    assert!(!request.is_cancelled());
    drop(call);
    wait_until(|| request.is_cancelled());
    assert_eq!(server.in_flight(), 0);
    request.reply(b"too late").unwrap();
    drop(client.start(b"given up", LONG).unwrap());
    let call = client.start(b"y", LONG).unwrap();
    let request = std::iter::repeat_with(|| next(&server)).find(|request| **request == *b"y").unwrap();
    request.reply(b"z").unwrap();
    assert_eq!(*call.wait().unwrap(), *b"z");
}

/// The server sees that the time is up before its client does. That it drops the request then is no failure of its own.
#[test]
fn a_request_that_is_dropped_when_its_time_is_up_was_too_late() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let stop = server.stop_handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(request) = server.recv().unwrap() {
                wait_until(|| request.time_left() == Some(Duration::ZERO));
            }
        });
        for _ in 0..20 {
            let late = client.call(b"x", Duration::from_millis(2));
            assert!(matches!(late, Err(CallError::Deadline { .. })), "{late:?}");
        }
        stop.stop();
    });
}
