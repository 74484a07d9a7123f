//! Calls: requests, replies, streams, and what becomes of them when a side is slow, stopped, or dies.

mod counts; // what clients and servers count
mod lack; //   calls without descriptors, room, or files
mod late; //   calls whose time is up, and cancelled ones
mod tasks; //  tasks that wait for calls, in any executor

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use librpc::{Admission, CallError, CallOptions, Client, Node, Pending, ReplyError, Request, Server};
use librpc_system_tests::{Process, TestDomain, program, wait_until};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);
const MIB: usize = 1 << 20;

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn pair(domain: &TestDomain) -> (Node, Server, Node, Client) {
    let (here, there) = (open(domain, "client"), open(domain, "server"));
    let (server, client) = (there.serve("work").unwrap(), here.client("work").unwrap());
    (there, server, here, client)
}

#[track_caller]
fn next(server: &Server) -> Request {
    server.recv_timeout(LONG).expect("it receives").expect("a request comes")
}

/// A server process of the service `work`, and the file to which it appends.
struct ServerProcess {
    process: Process,
    log: PathBuf,
}

impl ServerProcess {
    fn start(domain: &TestDomain, id: &str) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("librpc_service_{}_{number}.log", std::process::id()));
        let mut command = program("service");
        command.arg(domain.path()).arg(id).arg(&log);
        let mut process = Process::start(&mut command).expect("the program is built with the tests");
        assert_eq!(process.says(LONG).expect("it starts").as_deref(), Some("ready"));
        Self { process, log }
    }

    fn logged(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = std::fs::remove_file(&self.log);
    }
}

#[test]
fn a_request_of_any_size_is_answered() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let serving = std::thread::spawn(move || {
        while let Some(request) = server.recv().unwrap() {
            let reply: Vec<u8> = request.iter().rev().copied().collect();
            let is_last = request.is_empty();
            request.reply(&reply).unwrap();
            if is_last {
                return;
            }
        }
    });
    for bytes in [1, 100, 65_472, 65_473, 3 * MIB, 0] {
        let request: Vec<u8> = (0..bytes).map(|at| (at * 7) as u8).collect();
        let reply = client.call(&request, LONG).unwrap();
        assert!(reply.iter().eq(request.iter().rev()), "{bytes} bytes");
        assert_eq!(reply.server(), "server");
    }
    serving.join().unwrap();
}

/// Ten seconds after its last use. A server that waits sees to that by itself, a client with its next call.
#[test]
fn the_memory_of_large_requests_and_replies_is_given_back() {
    let domain = TestDomain::new();
    let (there, server, here, client) = pair(&domain);
    let stop = server.stop_handle();
    let serving = std::thread::spawn(move || {
        while let Some(request) = server.recv().unwrap() {
            let reply = request.to_vec();
            request.reply(&reply).unwrap();
        }
    });
    let payload_bytes = |node: &Node| node.stats().payload_bytes;
    let reply = client.call(&[7; MIB], LONG).unwrap();
    assert!(payload_bytes(&here) >= MIB as u64 && payload_bytes(&there) >= MIB as u64);
    drop(reply);
    // A client is done with a reply once it has received something after it.
    client.call(b"short", LONG).unwrap();
    wait_until(|| payload_bytes(&there) == 0);
    wait_until(|| {
        client.call(b"short", LONG).unwrap();
        payload_bytes(&here) == 0
    });
    // It is made again when it is needed.
    assert_eq!(*client.call(&[8; MIB], LONG).unwrap(), [8; MIB]);
    stop.stop();
    serving.join().unwrap();
}

#[test]
fn requests_are_answered_in_any_order_from_any_thread() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let calls: Vec<Pending> = (0..100u32).map(|number| client.start(&number.to_le_bytes(), LONG).unwrap()).collect();
    let mut requests: Vec<Request> = (0..100).map(|_| next(&server)).collect();
    assert_eq!(server.in_flight(), 100);
    fastrand::shuffle(&mut requests);
    std::thread::scope(|scope| {
        while !requests.is_empty() {
            let mine = requests.split_off(requests.len() - 25);
            scope.spawn(move || {
                mine.into_iter().for_each(|request| {
                    let number = u32::from_le_bytes(request[..].try_into().unwrap());
                    request.reply(&(number * 3).to_le_bytes()).unwrap();
                })
            });
        }
    });
    // The replies are taken in the order in which the calls were made, and from several threads.
    let numbered: Vec<(u32, Pending)> = (0..).zip(calls).collect();
    std::thread::scope(|scope| {
        for (number, call) in numbered {
            scope.spawn(move || assert_eq!(*call.wait().unwrap(), (number * 3).to_le_bytes()));
        }
    });
    assert_eq!(server.in_flight(), 0);
}

#[test]
fn without_a_server_a_call_fails_at_once_and_a_client_can_wait_for_one() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "client"), open(&domain, "server"));
    let client = here.client("work").unwrap();
    let error = client.call(b"x", LONG).unwrap_err();
    assert_eq!(error.to_string(), "nobody serves \"work\"");
    assert!(!client.wait_for_server(SHORT).unwrap());
    let _other = there.serve("other").unwrap();
    assert!(matches!(client.call(b"x", LONG), Err(CallError::NoServer { .. })));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.wait_for_server(LONG));
        let server = there.serve("work").unwrap();
        assert!(waiting.join().unwrap().unwrap());
        assert_eq!(client.servers().unwrap(), ["server".into()]);
        let call = client.start(b"x", LONG).unwrap();
        next(&server).reply(b"y").unwrap();
        assert_eq!(*call.wait().unwrap(), *b"y");
        drop(server);
    });
    let ended = client.call(b"x", LONG).unwrap_err();
    assert!(matches!(ended, CallError::NoServer { .. } | CallError::ServerDied { taken: false, .. }), "{ended}");
    let error = client.call(b"x", CallOptions::new(LONG).to("elsewhere")).unwrap_err();
    assert_eq!(error.to_string(), "nobody serves \"work\" on node \"elsewhere\"");
}

#[test]
fn a_request_that_is_dropped_or_fails_is_a_clear_error() {
    let domain = TestDomain::new();
    let mut server = ServerProcess::start(&domain, "server");
    let here = open(&domain, "client");
    let client = here.client("work").unwrap();
    let fails = |request: &str| client.call(request.as_bytes(), LONG).unwrap_err().to_string();
    let of = "service \"work\" of node \"server\"";
    assert_eq!(fails("drop"), format!("{of} has failed (0): the server dropped the request unanswered"));
    assert_eq!(fails("panic"), format!("{of} has failed (0): the server panicked over the request"));
    assert_eq!(fails("fail 7 no such route"), format!("{of} has failed (7): no such route"));
    assert_eq!(fails("unimplemented"), format!("{of} does not know this request: no such request"));
    assert_eq!(fails("parts 3 10"), format!("{of} answers in parts: call_stream takes them"));
    assert_eq!(*client.call(b"echo hello", LONG).unwrap(), *b"hello", "it goes on");
    server.process.kill().unwrap();
}

#[test]
fn a_reply_over_the_clients_limit_fails_on_both_sides() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "client"), open(&domain, "server"));
    let server = there.server_builder("work").max_request(1000).open().unwrap();
    let client = here.client_builder("work").max_reply(100).open().unwrap();
    let call = client.start(b"x", LONG).unwrap();
    let error = next(&server).reply(&[0; 101]).unwrap_err();
    assert_eq!(error.to_string(), "a reply of 101 bytes exceeds the limit of node \"client\", 100 bytes");
    assert!(matches!(error, ReplyError::TooLarge { bytes: 101, max: 100, .. }));
    let error = call.wait().unwrap_err().to_string();
    assert!(error.contains("the reply of 101 bytes exceeds the client's limit of 100 bytes"), "{error}");
    let error = client.call(&[0; 1001], LONG).unwrap_err().to_string();
    assert!(error.contains("1001 bytes exceeds the limit of node \"server\", 1000 bytes"), "{error}");
}

#[test]
fn a_reply_comes_in_parts_and_a_stream_that_nobody_reads_holds_up_no_other() {
    let domain = TestDomain::new();
    let server = ServerProcess::start(&domain, "server");
    let here = open(&domain, "client");
    let client = here.client("work").unwrap();
    let parts: Vec<u64> = client
        .call_stream(b"parts 1000 8", LONG)
        .unwrap()
        .map(|part| u64::from_le_bytes(part.unwrap()[..].try_into().unwrap()))
        .collect();
    assert!(parts.into_iter().eq(0..1000));
    let mut unread = client.call_stream(b"parts 1000000 60000", LONG).unwrap();
    for number in 0..200u32 {
        let request = format!("echo {number}");
        assert_eq!(*client.call(request.as_bytes(), LONG).unwrap(), *number.to_string().as_bytes());
    }
    assert_eq!(unread.next().unwrap().unwrap()[..8], 0u64.to_le_bytes());
    assert_eq!(unread.next_timeout(LONG).unwrap().unwrap()[..8], 1u64.to_le_bytes());
    drop(unread);
    let mut replies = client.call_stream(b"fail 3 early", LONG).unwrap();
    assert!(matches!(replies.next(), Some(Err(CallError::Failed { code: 3, .. }))));
    assert!(replies.next().is_none() && replies.is_over());
    let mut one = client.call_stream(b"echo a unary reply is one part", LONG).unwrap();
    assert_eq!(*one.next().unwrap().unwrap(), *b"a unary reply is one part");
    assert!(one.next().is_none());
    drop(server);
}

#[test]
fn a_part_waits_for_its_client_and_a_cancelled_stream_ends() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let mut replies = client.call_stream(b"x", LONG).unwrap();
    let mut stream = next(&server).stream();
    let sent = (0..100).take_while(|_| stream.try_send(b"part").unwrap()).count();
    assert_eq!(sent, 16, "as many as a client takes ahead");
    assert_eq!((0..8).filter(|_| replies.next().unwrap().is_ok()).count(), 8);
    // If its channel was not attached yet, a client says with its next look what it has taken.
    let mut other = client.start(b"other", LONG).unwrap();
    wait_until(|| other.try_wait().is_none() && stream.try_send(b"part").unwrap());
    drop((replies, other));
    wait_until(|| stream.is_cancelled());
    assert!(matches!(stream.send(b"part"), Err(ReplyError::Cancelled { .. })));
    let mut replies = client.call_stream(b"x", SHORT).unwrap();
    let mut stream = std::iter::repeat_with(|| next(&server)).find(|request| **request == *b"x").unwrap().stream();
    let error = loop {
        if let Err(error) = stream.send(b"part") {
            break error;
        }
    };
    assert!(matches!(error, ReplyError::Deadline { .. } | ReplyError::Cancelled { .. }), "{error}");
    assert_eq!(replies.by_ref().filter(|part| matches!(part, Err(CallError::Deadline { .. }))).count(), 1);
}

#[test]
fn requests_beyond_the_limits_fail_at_once() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "client"), open(&domain, "server"));
    let server = there.server_builder("work").max_in_flight(3).max_per_client(2).open().unwrap();
    let clients: Vec<Client> = (0..2).map(|_| here.client_builder("work").max_in_flight(4).open().unwrap()).collect();
    let begin = |at: usize| clients[at].start(b"x", LONG).unwrap();
    for at in 0..2 {
        let call = begin(at);
        next(&server).reply(b"its channel of replies is attached").unwrap();
        call.wait().unwrap();
    }
    let of_first = [begin(0), begin(0), begin(0)];
    let _first: Vec<Request> = (0..2).map(|_| next(&server)).collect();
    assert!(server.try_recv().unwrap().is_none());
    let of_second = [begin(1), begin(1)];
    let _second = next(&server);
    assert!(server.try_recv().unwrap().is_none());
    let outcome = |mut call: Pending| match call.wait_timeout(SHORT) {
        None => "open".to_owned(),
        Some(error) => error.unwrap_err().to_string(),
    };
    let busy = "service \"work\" is busy: node \"server\": ";
    assert_eq!(
        of_first.map(outcome),
        [
            "open".to_owned(),
            "open".to_owned(),
            format!("{busy}2 requests of this client are in flight, the limit of the server"),
        ]
    );
    assert_eq!(
        of_second.map(outcome),
        ["open".to_owned(), format!("{busy}3 requests are in flight, the limit of the server")]
    );
    let calls: Vec<Pending> = (0..4).map(|_| begin(0)).collect();
    let error = clients[0].call(b"x", LONG).unwrap_err().to_string();
    assert_eq!(error, "service \"work\" is busy: 4 calls of this client are in flight, its limit");
    drop(calls);
}

#[test]
fn a_call_goes_to_the_server_with_the_fewest_requests() {
    let domain = TestDomain::new();
    let here = open(&domain, "client");
    let nodes: Vec<Node> = (0..3).map(|number| open(&domain, &format!("server-{number}"))).collect();
    let servers: Vec<Server> = nodes.iter().map(|node| node.serve("work").unwrap()).collect();
    let client = here.client("work").unwrap();
    let calls: Vec<Pending> = (0..9).map(|_| client.start(b"x", LONG).unwrap()).collect();
    let requests: Vec<Vec<Request>> = servers.iter().map(|server| (0..3).map(|_| next(server)).collect()).collect();
    assert!(servers.iter().all(|server| server.try_recv().unwrap().is_none()));
    let mut requests = requests.into_iter();
    requests.next().unwrap().into_iter().for_each(|request| request.reply(b"y").unwrap());
    assert_eq!(
        calls.into_iter().filter_map(|mut call| call.wait_timeout(SHORT)).filter(|reply| reply.is_ok()).count(),
        3
    );
    let to_2 = client.start(b"z", CallOptions::new(LONG).to("server-2")).unwrap();
    while *next(&servers[2]) != *b"z" {}
    drop(to_2);
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(move || {
                loop {
                    let request = next(server);
                    if *request == *b"all" {
                        return request.reply(b"here").unwrap();
                    }
                }
            });
        }
        let mut replies = client.call_all(b"all", LONG).unwrap();
        replies.sort_by_key(|answer| answer.node.clone());
        let nodes: Vec<&str> = replies.iter().map(|answer| &*answer.node).collect();
        assert_eq!(nodes, ["server-0", "server-1", "server-2"]);
        assert!(replies.iter().all(|answer| answer.reply.as_ref().is_ok_and(|reply| reply.server() == &*answer.node)));
    });
}

#[test]
fn a_request_that_a_dead_server_had_taken_comes_back_and_one_that_it_had_not_goes_to_another() {
    let domain = TestDomain::new();
    let here = open(&domain, "client");
    let client = here.client("work").unwrap();
    let first = ServerProcess::start(&domain, "server-1");
    // Over a channel that is attached, a request is handed out as soon as it is taken, and is in work until the next one.
    assert_eq!(*client.call(b"echo warm", LONG).unwrap(), *b"warm");
    let taken = client.call(b"die", LONG).unwrap_err();
    assert!(matches!(&taken, CallError::ServerDied { taken: true, .. }), "{taken}");
    drop(first);
    let mut first = ServerProcess::start(&domain, "server-1");
    assert_eq!(*client.call(b"echo warm", LONG).unwrap(), *b"warm");
    first.process.stop().unwrap();
    let calls: Vec<Pending> =
        (0..20).map(|number| client.start(format!("log {number}").as_bytes(), LONG).unwrap()).collect();
    first.process.kill().unwrap();
    let untaken: Vec<String> = calls.into_iter().map(|call| call.wait().unwrap_err().to_string()).collect();
    let expected = "the server of \"work\", node \"server-1\", is gone: it had not taken the request";
    assert!(untaken.iter().all(|error| error == expected), "{untaken:?}");
    assert_eq!(first.logged(), [""; 0]);
    drop(first);
    let mut first = ServerProcess::start(&domain, "server-1");
    assert_eq!(*client.call(b"echo warm", LONG).unwrap(), *b"warm");
    first.process.stop().unwrap();
    let calls: Vec<Pending> =
        (0..20).map(|number| client.start(format!("log {number}").as_bytes(), LONG).unwrap()).collect();
    let second = ServerProcess::start(&domain, "server-2");
    first.process.kill().unwrap();
    let replies: Vec<String> = calls
        .into_iter()
        .map(|call| call.wait().map(|reply| String::from_utf8(reply.to_vec()).unwrap()))
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(replies.iter().enumerate().all(|(number, reply)| *reply == number.to_string()), "{replies:?}");
    assert_eq!(second.logged().len(), 20, "each once");
}

#[test]
fn an_idempotent_request_is_carried_out_by_another_server() {
    let domain = TestDomain::new();
    let here = open(&domain, "client");
    let client = here.client("work").unwrap();
    let mut first = ServerProcess::start(&domain, "server-1");
    let call = client.start(b"hold", CallOptions::new(LONG).idempotent(true)).unwrap();
    let once = client.start(b"hold", LONG).unwrap();
    assert_eq!(*client.call(b"echo both are taken", LONG).unwrap(), *b"both are taken");
    let there = open(&domain, "server-2");
    let second = there.serve("work").unwrap();
    first.process.kill().unwrap();
    assert!(matches!(once.wait(), Err(CallError::ServerDied { taken: true, .. })));
    next(&second).reply(b"done").unwrap();
    assert_eq!(*call.wait().unwrap(), *b"done");
}

#[test]
fn what_a_server_answered_before_it_died_arrives() {
    let domain = TestDomain::new();
    let here = open(&domain, "client");
    let client = here.client("work").unwrap();
    for round in 0..20 {
        let _server = ServerProcess::start(&domain, "server");
        let answered = client.start(b"echo first", LONG).unwrap();
        let died = client.start(b"die", LONG).unwrap();
        assert!(matches!(died.wait(), Err(CallError::ServerDied { taken: true, .. })), "round {round}");
        assert_eq!(*answered.wait().unwrap(), *b"first", "round {round}");
    }
}

#[test]
fn the_requests_of_a_client_that_dies_are_cancelled() {
    let domain = TestDomain::new();
    let there = open(&domain, "server");
    let server = there.serve("work").unwrap();
    let here = open(&domain, "client");
    let client = here.client("work").unwrap();
    let call = client.start(b"x", LONG).unwrap();
    let request = next(&server);
    drop((call, client, here));
    wait_until(|| request.is_cancelled());
    assert_eq!(server.in_flight(), 0);
    request.reply(b"nobody reads this").unwrap();
}

#[test]
fn a_server_that_ends_answers_what_it_has_handed_out_and_leaves_the_rest() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let calls: Vec<Pending> = (0..3).map(|_| client.start(b"x", LONG).unwrap()).collect();
    let request = next(&server);
    assert!(!request.is_cancelled(), "it takes in the others");
    drop(server);
    request.reply(b"y").unwrap();
    let outcomes: Vec<bool> = calls
        .into_iter()
        .map(|call| match call.wait() {
            Ok(reply) => *reply == *b"y",
            Err(CallError::ServerDied { taken: false, .. }) => false,
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(outcomes, [true, false, false]);
}

#[test]
fn a_client_that_reads_nothing_holds_up_neither_its_server_nor_others() {
    let domain = TestDomain::new();
    let (there, server, here, client) = pair(&domain);
    let (_there, other) = (there, here.client("work").unwrap());
    let calls: Vec<Pending> = (0..100).map(|_| client.start(b"x", LONG).unwrap()).collect();
    for _ in 0..100 {
        next(&server).reply(&[7; 60_000]).unwrap(); // its ring has room for four of them
    }
    let call = other.start(b"y", LONG).unwrap();
    next(&server).reply(b"z").unwrap();
    assert_eq!(*call.wait().unwrap(), *b"z");
    let serving = std::thread::spawn(move || server.recv_timeout(LONG).unwrap().map(|request| request.reply(b"last")));
    assert!(calls.into_iter().all(|call| *call.wait().unwrap() == [7; 60_000]), "the rest comes once there is room");
    assert_eq!(*client.call(b"last", LONG).unwrap(), *b"last");
    serving.join().unwrap();
}

#[test]
fn several_threads_call_and_serve_at_once() {
    let domain = TestDomain::new();
    let (_there, server, _here, client) = pair(&domain);
    let server = Arc::new(server);
    let stop = server.stop_handle();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let server = server.clone();
            scope.spawn(move || {
                while let Some(request) = server.recv().unwrap() {
                    let doubled = u64::from_le_bytes(request[..].try_into().unwrap()) * 2;
                    request.reply(&doubled.to_le_bytes()).unwrap();
                }
            });
        }
        let callers: Vec<_> = (0..4u64)
            .map(|caller| {
                let client = client.clone();
                scope.spawn(move || {
                    for number in 0..500 {
                        let number = caller << 32 | number;
                        assert_eq!(*client.call(&number.to_le_bytes(), LONG).unwrap(), (number * 2).to_le_bytes());
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        stop.stop();
    });
}

#[test]
fn a_handler_that_calls_its_own_server_runs_into_its_time_limit() {
    let domain = TestDomain::new();
    let (there, server, _here, client) = pair(&domain);
    let call = client.start(b"x", LONG).unwrap();
    let request = next(&server);
    let again = there.client("work").unwrap();
    assert!(matches!(again.call(b"y", SHORT), Err(CallError::Deadline { .. })));
    request.reply(b"z").unwrap();
    assert_eq!(*call.wait().unwrap(), *b"z");
}

#[test]
fn an_entry_says_who_may_call_a_service() {
    let domain = TestDomain::new();
    let here = open(&domain, "client");
    let builder = Node::builder("server").domain(domain.domain());
    let there = builder.callers("secret/**", Admission::nobody()).open().unwrap();
    let (secret, plain) = (there.serve("secret/door").unwrap(), there.serve("plain").unwrap());
    let error = here.client("secret/door").unwrap().call(b"x", LONG).unwrap_err();
    assert!(matches!(&error, CallError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("not call service \"secret/door\""), "{error}");
    let client = here.client("plain").unwrap();
    let call = client.start(b"x", LONG).unwrap();
    next(&plain).reply(b"y").unwrap();
    assert_eq!(*call.wait().unwrap(), *b"y");
    assert!(secret.try_recv().unwrap().is_none());
}

#[test]
fn each_call_ends_once_while_its_servers_are_killed_and_none_runs_twice() {
    const CALLERS: u64 = 4;
    let calls: u64 = std::env::var("CALLS").ok().map_or(400, |calls| calls.parse().expect("a number"));
    let domain = TestDomain::new();
    let mut servers: Vec<ServerProcess> =
        (0..2).map(|number| ServerProcess::start(&domain, &format!("server-{number}"))).collect();
    let here = open(&domain, "client");
    let client = here.client("work").unwrap();
    let (mut answered, mut died, mut untaken) = (Vec::new(), 0, 0);
    let mut logs: HashMap<String, u32> = HashMap::new();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let client = client.clone();
                scope.spawn(move || {
                    let each = |number: u64| {
                        let number = (caller * calls + number).to_string();
                        let request = format!("log {number}");
                        let outcome = client.call(request.as_bytes(), LONG);
                        (number, outcome)
                    };
                    (0..calls).map(each).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut at = 0;
        while callers.iter().any(|caller| !caller.is_finished()) {
            servers[at].process.kill().unwrap();
            for number in servers[at].logged() {
                *logs.entry(number).or_default() += 1;
            }
            let id = format!("server-{at}");
            servers[at] = ServerProcess::start(&domain, &id);
            at = 1 - at;
        }
        for (number, outcome) in callers.into_iter().flat_map(|caller| caller.join().unwrap()) {
            match outcome {
                Ok(reply) => {
                    assert_eq!(*reply, *number.as_bytes());
                    answered.push(number);
                }
                Err(CallError::ServerDied { taken: true, .. }) => died += 1,
                Err(CallError::ServerDied { taken: false, .. } | CallError::NoServer { .. }) => {
                    untaken += 1;
                    logs.entry(number).or_default();
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    for server in &servers {
        for number in server.logged() {
            *logs.entry(number).or_default() += 1;
        }
    }
    assert!(logs.values().all(|&times| times <= 1), "none runs twice");
    assert!(answered.iter().all(|number| logs[number] == 1), "what was answered was carried out");
    assert_eq!(answered.len() as u64 + died + untaken, CALLERS * calls);
}
