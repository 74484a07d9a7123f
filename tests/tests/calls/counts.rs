//! What clients and servers count.

use librpc::{CallFailure, CallSide, Node};
use librpc_system_tests::{TestDomain, wait_until};

use crate::{LONG, SHORT, next, open, pair};

/// What a node's only client, or server, has counted: calls, answers, and failures of these kinds.
fn counted<const N: usize>(node: &Node, kinds: [CallFailure; N]) -> (u64, u64, [u64; N]) {
    let stats = node.stats();
    let [calls] = &stats.calls[..] else { panic!("not one side: {:?}", stats.calls) };
    (calls.calls, calls.answered, kinds.map(|kind| calls.failures.of(kind)))
}

#[test]
fn each_call_is_counted_once_by_its_client_and_its_server() {
    use CallFailure::{Busy, Cancelled, Deadline, Failed, NoServer, Unimplemented};
    let domain = TestDomain::new();
    let (there, here) = (open(&domain, "server"), open(&domain, "client"));
    let client = here.client("work").unwrap();
    client.call(b"", LONG).unwrap_err();
    let server = there.server_builder("work").max_in_flight(1).open().unwrap();
    let start = |limit| client.start(b"x", limit).unwrap();
    for answer in 0..4 {
        let pending = start(LONG);
        let request = next(&server);
        match answer {
            0 => request.reply(b"").unwrap(),
            1 => request.fail(7, "no").unwrap(),
            2 => request.unimplemented("what").unwrap(),
            _ => drop(request),
        }
        assert_eq!(pending.wait().is_ok(), answer == 0);
    }
    // One that is given up, one that is too late, and one too many.
    let pending = start(LONG);
    let request = next(&server);
    drop(pending);
    wait_until(|| request.is_cancelled());
    request.reply(b"nobody waits").unwrap();
    start(SHORT).wait().unwrap_err();
    assert!(server.try_recv().unwrap().is_none());
    let busy = start(LONG);
    let over = start(LONG);
    let request = next(&server);
    assert!(server.try_recv().unwrap().is_none(), "one too many is refused as it comes");
    over.wait().unwrap_err();
    assert_eq!((here.stats().calls[0].in_flight(), there.stats().calls[0].in_flight()), (1, 1));
    request.reply(b"").unwrap();
    busy.wait().unwrap();
    let of_client = counted(&here, [NoServer, Failed, Unimplemented, Cancelled, Deadline, Busy]);
    assert_eq!(of_client, (9, 2, [1, 2, 1, 1, 1, 1]));
    // A server sees no more of a call whose client waits no longer: it was cancelled, or nobody had received it in time.
    let (calls, answered, [failed, unimplemented, cancelled, late, over]) =
        counted(&there, [Failed, Unimplemented, Cancelled, Deadline, Busy]);
    assert_eq!((calls, answered, failed, unimplemented, cancelled + late, over), (8, 2, 2, 1, 2, 1));
    let seen = domain.domain().observe(LONG).unwrap();
    let seen: Vec<_> = seen.iter().flat_map(|node| &node.stats.as_ref().unwrap().calls).collect();
    let sides: Vec<_> = seen.iter().map(|calls| (calls.side, calls.calls, calls.in_flight())).collect();
    assert_eq!(sides, [(CallSide::Client, 9, 0), (CallSide::Server, 8, 0)], "the same from outside");
    assert!(seen.iter().all(|calls| calls.latency.count() > 0 && calls.open == 1));
    drop(client);
    assert_eq!((here.stats().calls[0].open, here.stats().calls[0].calls), (0, 9), "it is remembered");
}

#[test]
fn a_call_that_another_thread_cancels_ends_its_wait_and_its_server_learns_it() {
    let domain = TestDomain::new();
    let (_there, server, here, client) = pair(&domain);
    let pending = client.start(b"x", LONG).unwrap();
    let (cancel, request) = (pending.cancel_handle(), next(&server));
    let waiting = std::thread::spawn(move || pending.wait());
    cancel.cancel();
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the call of \"work\" was cancelled");
    wait_until(|| request.is_cancelled());
    cancel.cancel();
    assert_eq!(counted(&here, [CallFailure::Cancelled]), (1, 0, [1]));
}
