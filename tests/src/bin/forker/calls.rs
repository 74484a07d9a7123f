//! The handles of calls, and their methods.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use librpc::{
    Admission, CallError, CallFailure, CallOptions, CallStats, Client, Domain, Node, Pending, Replies, Reply,
    ReplyStream, Request, Server, Wait,
};

use super::{CLOSED, Case, INBOX, LIMIT, case, went};

const CLIENT: &str = "this client belongs to the process that forked this one: open a node of its own here";
const SERVER: &str = "this server belongs to the process that forked this one: open a node of its own here";

/// What the children inherit.
pub(super) struct Handles {
    pub(super) server: Server,
    pub(super) client: Client,
    pending: Pending,
    replies: Replies,
    reply: Reply,
    request: Request,
    pub(super) stream: ReplyStream,
    /// Of the server.
    counted: CallStats,
}

impl Handles {
    /// Two nodes that call each other.
    pub(super) fn new(node: &Node, peer: &Node) -> Self {
        let (server, theirs) = (node.serve("ours").unwrap(), peer.serve("theirs").unwrap());
        let (client, caller) = (node.client("theirs").unwrap(), peer.client("ours").unwrap());
        let first = client.start(b"first", LIMIT).unwrap();
        theirs.recv().unwrap().expect("nobody stops it").reply(b"reply").unwrap();
        let reply = first.wait().unwrap();
        let (pending, replies) = (client.start(b"x", LIMIT).unwrap(), client.call_stream(b"x", LIMIT).unwrap());
        let held: Vec<Pending> = (0..2).map(|_| caller.start(b"y", LIMIT).unwrap()).collect();
        let request = server.recv().unwrap().expect("nobody stops it");
        let stream = server.recv().unwrap().expect("nobody stops it").stream();
        std::mem::forget((theirs, caller, held));
        let counted = node.stats().calls.into_iter().find(|calls| &*calls.service == "ours").expect("it is served");
        Self { server, client, pending, replies, reply, request, stream, counted }
    }

    /// What the children have done has not reached these.
    pub(super) fn go_on(&mut self) {
        assert!(self.pending.try_wait().is_none() && self.replies.try_next().is_none());
        assert!(!self.request.is_cancelled() && !self.stream.is_cancelled());
        assert_eq!(self.server.in_flight(), 2);
        self.stream.send(b"part").unwrap();
        assert!(matches!(self.client.call(b"x", std::time::Duration::ZERO), Err(CallError::Deadline { .. })));
    }
}

fn options() -> CallOptions {
    CallOptions::new(LIMIT)
}

fn opened(domain: &Domain) -> String {
    went(Node::builder("child").domain(domain.clone()).callers("**", Admission::nobody()).open())
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("NodeBuilder::callers", "ok", |h| opened(&h.domain)),
        case("Node::serve", CLOSED, |h| went(h.node.serve("a"))),
        case("Node::server_builder", CLOSED, |h| went(h.node.server_builder("a").open())),
        case("Node::client", CLOSED, |h| went(h.node.client("a"))),
        case("Node::client_builder", CLOSED, |h| went(h.node.client_builder("a").open())),
        case("ServerBuilder::max_in_flight", CLOSED, |h| went(h.node.server_builder("a").max_in_flight(1).open())),
        case("ServerBuilder::max_per_client", CLOSED, |h| went(h.node.server_builder("a").max_per_client(1).open())),
        case("ServerBuilder::max_request", CLOSED, |h| went(h.node.server_builder("a").max_request(1).open())),
        case("ServerBuilder::capacity", CLOSED, |h| went(h.node.server_builder("a").capacity(65_536).open())),
        case("ServerBuilder::wait", CLOSED, |h| went(h.node.server_builder("a").wait(Wait::Block).open())),
        case("ServerBuilder::open", CLOSED, |h| went(h.node.server_builder("a").open())),
        case("ClientBuilder::max_in_flight", CLOSED, |h| went(h.node.client_builder("a").max_in_flight(1).open())),
        case("ClientBuilder::max_reply", CLOSED, |h| went(h.node.client_builder("a").max_reply(1).open())),
        case("ClientBuilder::capacity", CLOSED, |h| went(h.node.client_builder("a").capacity(65_536).open())),
        case("ClientBuilder::wait", CLOSED, |h| went(h.node.client_builder("a").wait(Wait::Block).open())),
        case("ClientBuilder::open", CLOSED, |h| went(h.node.client_builder("a").open())),
        case("CallOptions::new", "false", |_| options().idempotent.to_string()),
        case("CallOptions::idempotent", "true", |_| options().idempotent(true).idempotent.to_string()),
        case("CallOptions::to", "Some(\"a\")", |_| format!("{:?}", options().to("a").to)),
        case("Client::service", "theirs", |h| h.calls.client.service().to_owned()),
        case("Client::call", CLIENT, |h| went(h.calls.client.call(b"x", LIMIT))),
        case("Client::start", CLIENT, |h| went(h.calls.client.start(b"x", LIMIT))),
        case("Client::call_stream", CLIENT, |h| went(h.calls.client.call_stream(b"x", LIMIT))),
        case("Client::call_all", CLIENT, |h| went(h.calls.client.call_all(b"x", LIMIT))),
        case("Client::servers", CLIENT, |h| went(h.calls.client.servers())),
        case("Client::wait_for_server", CLIENT, |h| went(h.calls.client.wait_for_server(LIMIT))),
        case("Pending::wait", CLIENT, |h| went(h.calls.pending.wait())),
        case("Pending::try_wait", CLIENT, |mut h| h.calls.pending.try_wait().map_or_else(|| "nothing".into(), went)),
        case("Pending::wait_timeout", CLIENT, |mut h| {
            h.calls.pending.wait_timeout(LIMIT).map_or_else(|| "nothing".into(), went)
        }),
        case("Pending::cancel_handle", "ok", |h| {
            h.calls.pending.cancel_handle().cancel();
            "ok".into()
        }),
        case("CancelHandle::cancel", "ok", |h| {
            h.calls.replies.cancel_handle().cancel();
            "ok".into()
        }),
        case("Replies::cancel_handle", "ok", |h| {
            h.calls.replies.cancel_handle().cancel();
            "ok".into()
        }),
        case("Future for Pending", CLIENT, |mut h| {
            let mut context = Context::from_waker(Waker::noop());
            match Pin::new(&mut h.calls.pending).poll(&mut context) {
                Poll::Ready(answer) => went(answer),
                Poll::Pending => "nothing".into(),
            }
        }),
        case("CallFailure::name", "busy", |_| CallFailure::Busy.name().to_owned()),
        case("CallFailures::of", "0", |h| h.calls.counted.failures.of(CallFailure::Busy).to_string()),
        case("CallFailures::total", "0", |h| h.calls.counted.failures.total().to_string()),
        case("CallFailures::iter", "10", |h| h.calls.counted.failures.iter().count().to_string()),
        case("CallStats::in_flight", "2", |h| h.calls.counted.in_flight().to_string()),
        case("Replies::try_next", CLIENT, |mut h| h.calls.replies.try_next().map_or_else(|| "nothing".into(), went)),
        case("Replies::next_timeout", CLIENT, |mut h| {
            h.calls.replies.next_timeout(LIMIT).map_or_else(|| "nothing".into(), went)
        }),
        case("Replies::is_over", "false", |h| h.calls.replies.is_over().to_string()),
        case("Reply::server", "peer", |h| h.calls.reply.server().to_owned()),
        case("Reply::sample", "5", |h| h.calls.reply.sample().len().to_string()),
        case("Reply::into_sample", "5", |h| h.calls.reply.into_sample().len().to_string()),
        case("Server::service", "ours", |h| h.calls.server.service().to_owned()),
        case("Server::recv", INBOX, |h| went(h.calls.server.recv())),
        case("Server::try_recv", INBOX, |h| went(h.calls.server.try_recv())),
        case("Server::recv_timeout", INBOX, |h| went(h.calls.server.recv_timeout(LIMIT))),
        case("Server::in_flight", "0", |h| h.calls.server.in_flight().to_string()),
        case("Server::stop_handle", "ok", |h| {
            h.calls.server.stop_handle().stop();
            "ok".into()
        }),
        case("Request::client", "peer", |h| h.calls.request.client().to_owned()),
        case("Request::peer", "peer", |h| h.calls.request.peer().node.to_string()),
        case("Request::sample", "1", |h| h.calls.request.sample().len().to_string()),
        case("Request::time_left", "true", |h| h.calls.request.time_left().is_some().to_string()),
        case("Request::is_cancelled", "false", |h| h.calls.request.is_cancelled().to_string()),
        case("Request::reply", SERVER, |h| went(h.calls.request.reply(b"z"))),
        case("Request::fail", SERVER, |h| went(h.calls.request.fail(1, "z"))),
        case("Request::unimplemented", SERVER, |h| went(h.calls.request.unimplemented("z"))),
        case("Request::stream", SERVER, |h| went(h.calls.request.stream().finish())),
        case("ReplyStream::send", SERVER, |mut h| went(h.calls.stream.send(b"z"))),
        case("ReplyStream::try_send", SERVER, |mut h| went(h.calls.stream.try_send(b"z"))),
        case("ReplyStream::is_cancelled", "false", |h| h.calls.stream.is_cancelled().to_string()),
        case("ReplyStream::time_left", "true", |h| h.calls.stream.time_left().is_some().to_string()),
        case("ReplyStream::finish", SERVER, |h| went(h.calls.stream.finish())),
        case("ReplyStream::fail", SERVER, |h| went(h.calls.stream.fail(1, "z"))),
    ]
}
