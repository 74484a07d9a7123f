//! Clients and servers that write what no honest one would: the channel ends, and nothing else happens.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Kind;

use crate::call::caller::{Arrived, Waiting, Work};
use crate::call::outgoing::{Outgoing, Said};
use crate::link::inbox_shared::InboxShared;
use crate::link::ledger::Limits;
use crate::name::Address;
use crate::policy::Policy;
use crate::receive::builder::InboxBuilder;
use crate::receive::inbox::{Heard, Inbox, Spoken};
use crate::receive::receiver::Until;
use crate::registry::target::Target;
use crate::registry::view::Subscription;
use crate::schema::{ListedSchema, Schema};
use crate::send::message::Call;
use crate::send::topics::TopicRoute;
use crate::sys::clock::Instant;
use crate::sys::process;
use crate::wire::{self, Caller, Credit};
use crate::{CallError, Client, Node, ReplyError, Request, Server};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

struct Scene {
    honest: Node,
    evil: Node,
}

impl Scene {
    fn new() -> Self {
        Self::with(Limits::default(), Limits::default())
    }

    /// With the limits of the honest node, and of the evil one.
    fn with(honest: Limits, evil: Limits) -> Self {
        let domain = testkit_domain();
        let open = |id: &str, limits| Node::builder(id).domain(domain.clone()).limits(limits).open().unwrap();
        Self { honest: open("honest", honest), evil: open("evil", evil) }
    }
}

/// A domain of the test's own. Its last node removes it.
fn testkit_domain() -> crate::Domain {
    use std::sync::atomic::{AtomicU32, Ordering};
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    crate::Domain::at(format!("/dev/shm/librpc_unit_{}_calls_{number}", std::process::id()))
}

/// One side of a call that says what it likes.
struct Liar {
    inbox: Inbox,
    out: Outgoing,
    way: TopicRoute,
}

impl Liar {
    /// Hears what is sent to this address, and speaks to an inbox of another node.
    fn new(node: &Node, address: Address, to: &Node, target: &InboxShared) -> Self {
        let inbox = InboxBuilder::new(node.owned(), Ok(address)).open().unwrap();
        Self::with(inbox, node, to, target)
    }

    fn with(inbox: Inbox, node: &Node, to: &Node, target: &InboxShared) -> Self {
        let mut out = Outgoing::new(node.shared().clone(), inbox.shared().clone());
        let target = Target {
            node: to.id().into(),
            incarnation: to.incarnation(),
            uid: process::uid(),
            inbox: target.number,
            address: Address::Replies,
            capacity: target.capacity,
            policy: Policy::Block,
            max_message: target.max_message,
            schemas: None,
        };
        let listed = Arc::new(Subscription::of_replies(target));
        let way = TopicRoute::new(out.routes.subscription_route(listed, &out.names));
        Self { inbox, out, way }
    }

    /// A client of the honest node's server.
    fn client(scene: &Scene) -> Self {
        let served = scene.honest.shared().inbox_list();
        let served = served.iter().find(|inbox| matches!(inbox.address, Address::Service(_))).unwrap();
        let liar = Self::new(&scene.evil, Address::Replies, &scene.honest, served);
        liar.inbox.shared().invite((scene.honest.id().into(), scene.honest.incarnation(), process::uid()));
        liar
    }

    /// Loses its channel of requests, and makes another one.
    fn connects_again(self, scene: &Scene) -> Self {
        let Self { inbox, out, .. } = self;
        drop(out);
        let served = scene.honest.shared().inbox_list();
        let served = served.iter().find(|inbox| matches!(inbox.address, Address::Service(_))).unwrap();
        Self::with(inbox, &scene.evil, &scene.honest, served)
    }

    fn caller(&self) -> Vec<u8> {
        let InboxShared { number, capacity, max_message, .. } = **self.inbox.shared();
        wire::encode(&says(number, capacity, max_message))
    }

    fn says(&mut self, kind: Kind, number: u64, payload: &[u8]) {
        let call = Call { kind, number, deadline: None, caller: None };
        let said = self.out.say(&mut self.way, call, payload, &OnceCell::new());
        assert!(matches!(said, Said::Yes), "{said:?}");
    }

    /// `false`: there is no room.
    fn tries(&mut self, kind: Kind, number: u64, payload: &[u8]) -> bool {
        let call = Call { kind, number, deadline: None, caller: None };
        matches!(self.out.say(&mut self.way, call, payload, &OnceCell::new()), Said::Yes)
    }

    /// The last record about this call, while a server looks.
    fn hears_of(&mut self, number: u64, server: &Server) -> Kind {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            let _ = server.try_recv().unwrap();
            if let Some(Heard::Record(spoken)) = self.inbox.hear(Until::Now).unwrap()
                && spoken.number == number
                && spoken.kind != Kind::Part
            {
                return spoken.kind;
            }
        }
        panic!("nothing is said of call {number}")
    }

    /// Whether the other side has ended the channel.
    fn is_expelled(&mut self, mut other: impl FnMut()) -> bool {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            other();
            if !self.out.routes.take_failed().is_empty() {
                return true;
            }
        }
        false
    }
}

/// Where a client without types takes replies.
fn says(inbox: u32, capacity: u64, max_message: u64) -> Caller {
    Caller { inbox, capacity, max_message, schemas: None, any: None }
}

fn serve(scene: &Scene) -> Server {
    scene.honest.serve("work").unwrap()
}

fn looks(server: &Server) -> impl FnMut() + '_ {
    || assert!(server.recv_timeout(Duration::from_millis(1)).unwrap().is_none(), "nothing is handed out")
}

#[test]
fn a_client_that_breaks_the_rules_is_expelled_and_others_are_served() {
    let scene = Scene::new();
    let server = serve(&scene);
    let large = wire::encode(&says(0, 12_345, 1));
    type Says = Vec<(Kind, u64, Option<Vec<u8>>)>; // `None`: where it takes replies
    let rules: [(&str, Says); 7] = [
        ("a request before it says where it takes replies", vec![(Kind::Request, 1, Some(b"x".to_vec()))]),
        ("where it takes replies, twice", vec![(Kind::Caller, 0, None), (Kind::Caller, 0, None)]),
        ("garbage as where it takes replies", vec![(Kind::Caller, 0, Some(vec![0xff; 9]))]),
        ("a ring that cannot be mapped", vec![(Kind::Caller, 0, Some(large))]),
        ("garbage as credit", vec![(Kind::Caller, 0, None), (Kind::Credit, 1, Some(vec![0xff; 9]))]),
        ("a reply", vec![(Kind::Caller, 0, None), (Kind::Reply, 1, Some(b"x".to_vec()))]),
        ("a message", vec![(Kind::Message, 1, Some(b"x".to_vec()))]),
    ];
    for (what, says) in rules {
        let mut liar = Liar::client(&scene);
        for (kind, number, payload) in says {
            let payload = payload.unwrap_or_else(|| liar.caller());
            liar.says(kind, number, &payload);
        }
        assert!(liar.is_expelled(looks(&server)), "{what}");
    }
    let mut liar = Liar::client(&scene);
    let caller = liar.caller();
    liar.says(Kind::Caller, 0, &caller);
    liar.says(Kind::Request, 7, b"once");
    let held: Request = server.recv_timeout(LONG).unwrap().unwrap();
    liar.says(Kind::Request, 7, b"twice");
    assert!(liar.is_expelled(looks(&server)), "a number that is in use");
    drop(held);
    let client = scene.evil.client("work").unwrap();
    let call = client.start(b"x", LONG).unwrap();
    server.recv_timeout(LONG).unwrap().unwrap().reply(b"y").unwrap();
    assert_eq!(*call.wait().unwrap(), *b"y");
}

/// The list of inboxes says of what types a service is, so an honest client of others does not come.
#[test]
fn a_client_of_other_types_is_expelled() {
    let schema = |text: &str| text.parse::<Schema>().unwrap();
    let long = schema("A/json").with_definition(&[7; 10_000]);
    let listed = |types: &[&str]| Some(types.iter().map(|text| ListedSchema::from(&schema(text))).collect::<Vec<_>>());
    let invalid = ListedSchema { name: "x".repeat(5000), ..ListedSchema::from(&schema("A/json")) };
    for (is_typed, schemas, any, is_taken) in [
        (true, listed(&["A/json", "B/json"]), None, true),
        (true, listed(&["A/json", "B/json", "C/json"]), None, true), // a later version may have more to say
        (true, None, Some(true), true),
        (true, listed(&["C/json", "C/json"]), Some(true), true),
        (true, None, None, false),
        (true, None, Some(false), false),
        (true, listed(&[]), None, false),
        (true, listed(&["B/json", "A/json"]), None, false),
        (true, listed(&["A/json", "C/json"]), None, false),
        (true, listed(&["C/json", "B/json"]), None, false),
        (true, listed(&["A/cdr", "B/json"]), None, false),
        (true, listed(&["A/json/0000000000000001", "B/json/0000000000000002"]), None, true), // the server has no hash
        (true, Some(vec![ListedSchema::from(&long); 2]), None, false),
        (true, Some(vec![invalid.clone()]), None, false),
        (false, Some(vec![invalid]), None, false),
        (false, listed(&["A/json", "B/json"]), None, false), // nobody knows of what type the replies are
        (false, listed(&[]), None, true),
        (false, None, None, true),
    ] {
        let scene = Scene::new();
        let builder = scene.honest.server_builder("work");
        let server = if is_typed { builder.schemas(schema("A/json"), schema("B/json")) } else { builder };
        let server = server.open().unwrap();
        let mut liar = Liar::client(&scene);
        let InboxShared { number, capacity, max_message, .. } = **liar.inbox.shared();
        let what = format!("{schemas:?} {any:?}");
        let caller = Caller { schemas, any, ..says(number, capacity, max_message) };
        liar.says(Kind::Caller, 0, &wire::encode(&caller));
        liar.says(Kind::Request, 1, b"x");
        match is_taken {
            true => assert!(server.recv_timeout(LONG).unwrap().is_some(), "{what}"),
            false => assert!(liar.is_expelled(looks(&server)), "{what}"),
        }
    }
}

/// A notice about types is no call. If it ended the look for one, nothing would say that a request has come, too.
#[test]
fn a_client_of_other_types_hides_no_request() {
    let scene = Scene::new();
    let server = serve(&scene);
    let inbox = scene.honest.shared().inbox_list().into_iter().next().unwrap();
    let (client, schema) = (scene.evil.client("work").unwrap(), "A/json".parse::<Schema>().unwrap());
    let others = scene.evil.client_builder("work").schemas(schema.clone(), schema).open().unwrap();
    let first = client.start(b"first", LONG).unwrap();
    server.recv_timeout(LONG).unwrap().unwrap().reply(b"y").unwrap();
    assert_eq!(*first.wait().unwrap(), *b"y");
    // A channel that has slept is not looked at before anything else.
    assert!(server.recv_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert!(matches!(others.call(b"x", LONG), Err(CallError::Mismatch { .. })));
    while inbox.denials_after(0).is_empty() {
        std::thread::yield_now();
    }
    let second = client.start(b"second", LONG).unwrap();
    let Some(request) = server.try_recv().unwrap() else { panic!("there is a request") };
    request.reply(b"z").unwrap();
    assert_eq!(*second.wait().unwrap(), *b"z");
}

#[test]
fn a_client_without_an_inbox_for_replies_is_expelled() {
    let scene = Scene::new();
    let server = serve(&scene);
    let mut liar = Liar::client(&scene);
    let nowhere = wire::encode(&says(999, 1 << 18, 1));
    liar.says(Kind::Caller, 0, &nowhere);
    liar.says(Kind::Request, 0, b"x");
    assert!(liar.is_expelled(looks(&server)));
    assert_eq!(server.in_flight(), 0);
}

#[test]
fn a_request_that_was_cancelled_counts_until_the_program_lets_go_of_it() {
    const LIMIT: u64 = 5;
    let scene = Scene::new();
    let server = scene.honest.server_builder("work").max_per_client(LIMIT as usize).open().unwrap();
    let mut liar = Liar::client(&scene);
    let caller = liar.caller();
    liar.says(Kind::Caller, 0, &caller);
    let mut held = Vec::new();
    for number in 0..LIMIT {
        liar.says(Kind::Request, number, b"x");
        held.push(server.recv_timeout(LONG).unwrap().unwrap());
        liar.says(Kind::Cancel, number, b"");
    }
    liar.says(Kind::Request, LIMIT, b"one too many");
    assert_eq!(liar.hears_of(LIMIT, &server), Kind::Failure, "it is refused");
    assert_eq!(server.in_flight(), 0, "nobody waits for them");
    held.truncate(4);
    // A number that was used before is another request's now.
    liar.says(Kind::Request, 0, b"again");
    let again = server.recv_timeout(LONG).unwrap().unwrap();
    held.remove(0).reply(b"to the first one").unwrap();
    assert_eq!(server.in_flight(), 1, "that answers nobody");
    again.reply(b"to the second one").unwrap();
    assert_eq!(liar.hears_of(0, &server), Kind::Reply);
    drop((held, scene));
}

#[test]
fn a_client_that_connects_again_is_answered_once_its_first_channel_is_forgotten() {
    let scene = Scene::new();
    let server = serve(&scene);
    let mut liar = Liar::client(&scene);
    let caller = liar.caller();
    let mut held = Vec::new();
    for number in [1, 2] {
        if number == 2 {
            liar = liar.connects_again(&scene);
        }
        liar.says(Kind::Caller, 0, &caller);
        liar.says(Kind::Request, number, b"x");
        held.push(server.recv_timeout(LONG).unwrap().unwrap());
    }
    // Nothing more is heard over the first channel, nor to be said of what came over it.
    held.remove(0).reply(b"y").unwrap();
    assert_eq!(liar.hears_of(1, &server), Kind::Reply);
    for _ in 0..3 {
        looks(&server)();
    }
    held.remove(0).reply(b"y").unwrap();
    assert_eq!(liar.hears_of(2, &server), Kind::Reply);
}

#[test]
fn what_waits_for_a_client_that_reads_nothing_is_bounded() {
    let scene = Scene::new();
    let server = scene.honest.server_builder("work").max_per_client(1).open().unwrap();
    let mut liar = Liar::client(&scene);
    let caller = liar.caller();
    liar.says(Kind::Caller, 0, &caller);
    liar.says(Kind::Request, 0, b"x");
    let held = server.recv_timeout(LONG).unwrap().unwrap();
    // Each of these is refused, and the refusals wait: 68 MiB of them, and no more.
    let mut last = 0;
    let is_expelled = (1..10_000_000).any(|number| {
        last = number;
        while !liar.tries(Kind::Request, number, b"") {
            assert!(server.try_recv().unwrap().is_none(), "nothing is handed out");
            if !liar.out.routes.take_failed().is_empty() {
                return true;
            }
        }
        false
    });
    // Those that are in its ring count, too: each has 64 bytes, and more.
    let most = (68 << 20) / Waiting::bytes(0) as u64 + liar.inbox.shared().capacity / 64;
    assert!(is_expelled && last <= most, "{last} refusals");
    drop(held);
}

#[test]
fn requests_that_no_answer_can_reach_have_one_budget_per_user_and_take_no_places() {
    const BYTES: usize = 30_000;
    const BUDGET: u64 = 7;
    let each = (BYTES + size_of::<Arrived>() + size_of::<Work>()) as u64;
    // Its listener takes no connection: so it never attaches a channel of replies.
    let limits = Limits::default().waiting_bytes_per_user(BUDGET * each);
    let scene = Scene::with(limits, Limits::default().handshakes_per_user(0));
    let server = scene.honest.server_builder("work").max_in_flight(1).open().unwrap();
    let client = scene.honest.client("work").unwrap();
    let call = client.start(b"x", LONG).unwrap();
    server.recv_timeout(LONG).unwrap().unwrap().reply(b"y").unwrap();
    assert_eq!(*call.wait().unwrap(), *b"y");
    let mut liars: Vec<Liar> = (0..3).map(|_| Liar::client(&scene)).collect();
    for liar in &mut liars {
        let caller = liar.caller();
        liar.says(Kind::Caller, 0, &caller);
        (0..4).for_each(|number| liar.says(Kind::Request, number, &[7; BYTES]));
    }
    let begun = || scene.honest.stats().calls.iter().map(|calls| calls.calls).sum::<u64>();
    let deadline = Instant::now() + LONG;
    while begun() < 2 + 12 {
        // both sides have counted the first one
        assert!(Instant::now() < deadline && server.try_recv().unwrap().is_none(), "nothing is handed out");
    }
    assert_eq!(server.in_flight() as u64, BUDGET, "the others are refused");
    // They take nobody's place.
    let mut calls = [client.start(b"x", LONG).unwrap(), client.start(b"one too many", LONG).unwrap()];
    let request = server.recv_timeout(LONG).unwrap().unwrap();
    let refused = loop {
        assert!(server.try_recv().unwrap().is_none());
        if let Some(answer) = calls[1].try_wait() {
            break answer.unwrap_err().to_string();
        }
    };
    assert!(refused.ends_with("1 request is in flight, the limit of the server"), "{refused}");
    request.reply(b"y").unwrap();
    assert_eq!(*calls[0].wait_timeout(LONG).unwrap().unwrap(), *b"y");
    drop((calls, liars, scene.evil));
    while server.in_flight() > 0 {
        assert!(Instant::now() < deadline && server.try_recv().unwrap().is_none(), "nothing is handed out");
    }
    let sending = &scene.honest.shared().sending;
    assert!(sending.waiting(process::uid(), BUDGET * each).is_some(), "everything comes back");
}

#[test]
fn a_user_whose_clients_read_nothing_learns_which_answers_are_dropped() {
    const BYTES: usize = 60_000;
    const BUDGET: usize = 3;
    let limit = (BUDGET * Waiting::bytes(BYTES)) as u64;
    let scene = Scene::with(Limits::default().waiting_bytes_per_user(limit), Limits::default());
    let server = serve(&scene);
    let mut liars: Vec<Liar> = (0..2).map(|_| Liar::client(&scene)).collect();
    for liar in &mut liars {
        let caller = liar.caller();
        liar.says(Kind::Caller, 0, &caller);
        liar.says(Kind::Request, 0, b"x");
        server.recv_timeout(LONG).unwrap().unwrap().reply(b"y").unwrap();
    }
    let mut dropped = Vec::new();
    for liar in &mut liars {
        let in_ring = liar.inbox.shared().capacity as usize / BYTES;
        for number in 0..(in_ring + BUDGET) as u64 {
            liar.says(Kind::Request, number, b"x");
            let reply = server.recv_timeout(LONG).unwrap().unwrap().reply(&[7; BYTES]);
            dropped.extend(reply.err());
        }
    }
    // The first one has it all.
    let uid = process::uid();
    assert_eq!(dropped.len(), BUDGET, "{dropped:?}");
    let expected = format!(
        "more than {limit} bytes would wait for the clients of uid {uid} that do not read their replies: this one to node \"evil\" was \
         dropped (Limits::waiting_bytes_per_user)"
    );
    assert!(dropped.iter().all(|error| error.to_string() == expected), "{dropped:?}");
    // What is lost is said: once the client reads.
    let last = (liars[1].inbox.shared().capacity as usize / BYTES + BUDGET) as u64 - 1;
    assert_eq!(liars[1].hears_of(last, &server), Kind::Failure);
    // The other one lets go of what waits for it.
    liars.remove(0);
    let sending = scene.honest.shared().sending.clone();
    let deadline = Instant::now() + LONG;
    while sending.waiting(uid, limit).is_none() {
        assert!(Instant::now() < deadline && server.try_recv().unwrap().is_none(), "nothing is handed out");
    }
}

#[test]
fn an_answer_that_fails_while_it_waits_for_room_is_counted_once() {
    let scene = Scene::new();
    let server = serve(&scene);
    let mut liar = Liar::client(&scene);
    let InboxShared { number: inbox, capacity, .. } = **liar.inbox.shared();
    liar.says(Kind::Caller, 0, &wire::encode(&says(inbox, capacity, 1000)));
    for number in 0..2 {
        liar.says(Kind::Request, number, b"x");
    }
    let mut stream = server.recv_timeout(LONG).unwrap().unwrap().stream();
    let other = server.recv_timeout(LONG).unwrap().unwrap();
    liar.says(Kind::Credit, 0, &wire::encode(&Credit { parts: u32::MAX }));
    let parts = capacity / 1000 + 2; // the last ones wait for room
    (0..parts).for_each(|_| stream.send(&[7; 1000]).unwrap());
    other.reply(&[7; 2000]).unwrap();
    assert_eq!(liar.hears_of(1, &server), Kind::Failure, "it is longer than the client takes");
    stream.finish().unwrap();
    liar.says(Kind::Request, 2, b"x");
    server.recv_timeout(LONG).unwrap().unwrap().reply(b"y").unwrap();
    assert_eq!(liar.hears_of(2, &server), Kind::Reply);
}

#[test]
fn a_client_learns_that_a_reply_is_too_long_even_if_it_takes_no_text() {
    let scene = Scene::new();
    let server = serve(&scene);
    let client = scene.evil.client_builder("work").max_reply(20).open().unwrap();
    for is_failure in [false, true] {
        let call = client.start(b"x", LONG).unwrap();
        let request = server.recv_timeout(LONG).unwrap().unwrap();
        match is_failure {
            true => request.fail(5, "a text of more than 20 bytes").unwrap(),
            false => assert!(matches!(request.reply(&[7; 100]), Err(ReplyError::TooLarge { bytes: 100, max: 20, .. }))),
        }
        let code = if is_failure { 5 } else { 0 };
        let failed = call.wait();
        assert!(matches!(failed, Err(CallError::Failed { code: found, .. }) if found == code), "{failed:?}");
    }
    // One that takes less than the shortest failure is heard no more.
    let mut liar = Liar::client(&scene);
    let InboxShared { number: inbox, capacity, .. } = **liar.inbox.shared();
    liar.says(Kind::Caller, 0, &wire::encode(&says(inbox, capacity, 3)));
    liar.says(Kind::Request, 0, b"x");
    let request = server.recv_timeout(LONG).unwrap().unwrap();
    assert!(matches!(request.reply(&[7; 100]), Err(ReplyError::TooLarge { .. })));
    assert!(liar.is_expelled(looks(&server)));
}

#[test]
fn a_long_text_of_a_failure_is_cut_off() {
    let scene = Scene::new();
    let server = serve(&scene);
    let client = scene.evil.client("work").unwrap();
    let call = client.start(b"x", LONG).unwrap();
    server.recv_timeout(LONG).unwrap().unwrap().fail(7, &"\u{10348}".repeat(30_000)).unwrap();
    match call.wait() {
        Err(CallError::Failed { code: 7, message, .. }) => {
            assert_eq!(message.chars().count(), wire::Failure::TEXT_CHARS);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn large_parts_that_nobody_reads_hold_up_no_other_call() {
    let scene = Scene::new();
    let server = serve(&scene);
    let client = scene.evil.client("work").unwrap();
    let held: Vec<_> = (0..40).map(|_| client.call_stream(b"x", LONG).unwrap()).collect();
    let mut streams = Vec::new();
    for _ in &held {
        let mut stream = server.recv_timeout(LONG).unwrap().unwrap().stream();
        // More of them than an inbox keeps in their sender's memory.
        (0..16).for_each(|_| stream.send(&[7; 70_000]).unwrap());
        streams.push(stream);
    }
    let call = client.start(b"x", LONG).unwrap();
    server.recv_timeout(LONG).unwrap().unwrap().reply(b"y").unwrap();
    let stop = server.stop_handle();
    std::thread::scope(|scope| {
        scope.spawn(|| server.recv().unwrap()); // it sends what waited for room
        let reply = call.wait();
        let parts: Vec<_> = held.into_iter().map(|mut parts| parts.next().unwrap()).collect();
        stop.stop();
        assert_eq!(*reply.unwrap(), *b"y");
        assert!(parts.into_iter().all(|part| *part.unwrap() == [7; 70_000]));
    });
}

#[test]
fn what_is_said_of_no_request_changes_nothing() {
    let scene = Scene::new();
    let server = serve(&scene);
    let mut liar = Liar::client(&scene);
    let caller = liar.caller();
    liar.says(Kind::Caller, 0, &caller);
    liar.says(Kind::Cancel, 5, b"");
    liar.says(Kind::Credit, 5, &wire::encode(&Credit { parts: u32::MAX }));
    liar.says(Kind::Request, 5, b"x");
    let mut stream = server.recv_timeout(LONG).unwrap().unwrap().stream();
    for _ in 0..3 {
        liar.says(Kind::Credit, 5, &wire::encode(&Credit { parts: u32::MAX }));
    }
    for _ in 0..100 {
        stream.send(b"part").unwrap();
    }
    assert_eq!(server.in_flight(), 1);
    liar.says(Kind::Cancel, 5, b"");
    let deadline = Instant::now() + LONG;
    while !stream.is_cancelled() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(server.in_flight(), 0);
}

/// A server that takes a request, and says what it likes.
fn evil_server(scene: &Scene, client: &Client, is_stream: bool) -> (Liar, u64, Box<dyn FnOnce() -> CallError>) {
    let address = Address::Service("work".into());
    let replies = scene.honest.shared().inbox_list();
    let replies = replies.iter().find(|inbox| inbox.address == Address::Replies).unwrap().clone();
    let mut liar = Liar::new(&scene.evil, address, &scene.honest, &replies);
    let answer: Box<dyn FnOnce() -> CallError> = if is_stream {
        let mut parts = client.call_stream(b"x", LONG).unwrap();
        Box::new(move || parts.find_map(Result::err).unwrap())
    } else {
        let call = client.start(b"x", LONG).unwrap();
        Box::new(move || call.wait().unwrap_err())
    };
    let number = loop {
        if let Some(Heard::Record(spoken)) = liar.inbox.hear(Until::Deadline(Instant::now() + LONG)).unwrap()
            && spoken.kind == Kind::Request
        {
            break spoken.number;
        }
    };
    (liar, number, answer)
}

/// It has read the request, and may answer it, although it has no channel of replies yet.
#[test]
fn a_call_does_not_end_because_its_server_has_lost_the_connection() {
    let scene = Scene::new();
    let client = scene.honest.client("work").unwrap();
    let replies = scene.honest.shared().inbox_list();
    let replies = replies.iter().find(|inbox| inbox.address == Address::Replies).unwrap().clone();
    let mut server = Liar::new(&scene.evil, Address::Service("work".into()), &scene.honest, &replies);
    let mut call = client.start(b"x", LONG).unwrap();
    let hear = |inbox: &mut Inbox| inbox.hear(Until::Deadline(Instant::now() + LONG)).unwrap();
    let number = loop {
        if let Some(Heard::Record(Spoken { kind: Kind::Request, number, .. })) = hear(&mut server.inbox) {
            break number;
        }
    };
    assert!(server.inbox.hear(Until::Now).unwrap().is_none(), "it is processed");
    server.inbox.shared().shut();
    // It counts as dying for a while, and then as alive.
    for _ in 0..400 {
        let ended = call.wait_timeout(Duration::from_millis(1));
        assert!(ended.is_none(), "{ended:?}");
    }
    server.says(Kind::Reply, number, b"y");
    assert_eq!(*call.wait().unwrap(), *b"y");
}

#[test]
fn a_server_that_breaks_the_rules_is_expelled() {
    let endless = wire::encode(&wire::Failure { cause: 0, code: 0, text: "x".repeat(60_000) });
    for (what, kind, payload, times, is_stream) in [
        ("more parts than there is credit for", Kind::Part, b"x".to_vec(), 17, true),
        ("garbage as a failure", Kind::Failure, vec![0xff; 9], 1, false),
        ("a failure without end", Kind::Failure, endless, 1, false),
        ("a request", Kind::Request, b"x".to_vec(), 1, false),
    ] {
        let scene = Scene::new();
        let client = scene.honest.client("work").unwrap();
        let (mut liar, number, answer) = evil_server(&scene, &client, is_stream);
        for _ in 0..times {
            liar.says(kind, number, &payload);
        }
        // The client receives while it waits for something else.
        let other = client.start(b"y", LONG).unwrap();
        let mut other = Some(other);
        let expelled = liar.is_expelled(|| {
            let _ = other.as_mut().unwrap().wait_timeout(Duration::from_millis(1));
        });
        assert!(expelled, "{what}");
        other.take();
        let error = answer();
        assert!(matches!(error, CallError::Mismatch { .. }), "{what}: {error}");
    }
}

#[test]
fn an_answer_to_another_request_is_ignored() {
    let scene = Scene::new();
    let client = scene.honest.client("work").unwrap();
    let (mut liar, number, answer) = evil_server(&scene, &client, false);
    liar.says(Kind::Reply, number + 100, b"x");
    liar.says(Kind::End, number + 100, b"");
    liar.says(Kind::End, number, b"");
    assert!(matches!(answer(), CallError::Mismatch { .. }), "an end without a reply");
}

#[test]
fn a_node_that_was_not_called_cannot_answer() {
    let scene = Scene::new();
    let client = scene.honest.client("work").unwrap();
    let replies = scene.honest.shared().inbox_list();
    let replies = replies.iter().find(|inbox| inbox.address == Address::Replies).unwrap().clone();
    let mut liar = Liar::new(&scene.evil, Address::Node, &scene.honest, &replies);
    liar.tries(Kind::Reply, 1, b"x"); // the refusal may come first
    assert!(liar.is_expelled(std::thread::yield_now), "it is refused");
    assert!(matches!(client.call(b"x", SHORT), Err(CallError::NoServer { .. })));
}
