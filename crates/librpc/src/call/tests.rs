//! Clients and servers that write what no honest one would: the channel ends, and nothing else happens.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Kind;

use crate::call::outgoing::{Outgoing, Said};
use crate::link::inbox_shared::InboxShared;
use crate::name::Address;
use crate::policy::Policy;
use crate::receive::builder::InboxBuilder;
use crate::receive::inbox::{Heard, Inbox};
use crate::receive::receiver::Until;
use crate::registry::target::Target;
use crate::registry::view::Subscription;
use crate::send::message::Call;
use crate::send::topics::TopicRoute;
use crate::sys::clock::Instant;
use crate::sys::process;
use crate::wire::{self, Caller, Credit};
use crate::{CallError, Client, Node, Request, Server};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

struct Scene {
    honest: Node,
    evil: Node,
}

impl Scene {
    fn new() -> Self {
        let domain = testkit_domain();
        let open = |id: &str| Node::builder(id).domain(domain.clone()).open().unwrap();
        Self { honest: open("honest"), evil: open("evil") }
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

    fn caller(&self) -> Vec<u8> {
        let InboxShared { number, capacity, max_message, .. } = **self.inbox.shared();
        wire::encode(&Caller { inbox: number, capacity, max_message })
    }

    fn says(&mut self, kind: Kind, number: u64, payload: &[u8]) {
        let call = Call { kind, number, deadline: None, caller: None };
        let said = self.out.say(&mut self.way, call, payload, &OnceCell::new());
        assert!(matches!(said, Said::Yes), "{said:?}");
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
    let large = wire::encode(&Caller { inbox: 0, capacity: 12_345, max_message: 1 });
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
            && spoken.head.kind == Kind::Request
        {
            break spoken.head.correlation.unwrap();
        }
    };
    (liar, number, answer)
}

#[test]
fn a_server_that_breaks_the_rules_is_expelled() {
    for (what, kind, payload, times, is_stream) in [
        ("more parts than there is credit for", Kind::Part, b"x".to_vec(), 17, true),
        ("garbage as a failure", Kind::Failure, vec![0xff; 9], 1, false),
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
    liar.says(Kind::Reply, 1, b"x");
    assert!(liar.is_expelled(std::thread::yield_now), "it is refused");
    assert!(matches!(client.call(b"x", SHORT), Err(CallError::NoServer { .. })));
}
