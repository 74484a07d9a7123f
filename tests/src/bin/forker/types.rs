//! Handles of types, and their methods.

use librpc::shape::Describer;
use librpc::{
    DecodeError, EncodeError, Encoding, Node, Plain, Schema, Shape, TypedClient, TypedInbox, TypedMessage,
    TypedPending, TypedPublisher, TypedReplies, TypedReply, TypedReplyStream, TypedRequest, TypedSample, TypedSender,
    TypedServer,
};

use super::tasks::polled;
use super::{CLOSED, Case, INBOX, LIMIT, OUTBOX, UNCONNECTED, case, said, went};

const CLIENT: &str = "this client belongs to the process that forked this one: open a node of its own here";
const SERVER: &str = "this server belongs to the process that forked this one: open a node of its own here";

type Number = Plain<u64>;

/// What the children inherit.
pub(super) struct Handles {
    inbox: TypedInbox<Number>,
    publisher: TypedPublisher<Number>,
    sender: TypedSender<Number>,
    message: TypedMessage<'static, Number>,
    sample: TypedSample<Number>,
    client: TypedClient<Number, Number>,
    pending: TypedPending<Number>,
    replies: TypedReplies<Number>,
    reply: TypedReply<Number>,
    server: TypedServer<Number, Number>,
    request: TypedRequest<Number, Number>,
    stream: TypedReplyStream<Number>,
    /// Of the other side.
    _theirs: (TypedServer<Number, Number>, Vec<TypedPending<Number>>),
}

/// How many inboxes the node has more.
pub(super) const INBOXES: usize = 4;

impl Handles {
    pub(super) fn new(node: &Node, peer: &Node) -> Self {
        let mut inbox = node.subscriber_of::<Number>("typed").unwrap();
        let held: &'static mut TypedInbox<Number> = Box::leak(Box::new(node.subscriber_of("typed").unwrap()));
        assert_eq!(peer.publisher_of::<Number>("typed").unwrap().publish(&7).unwrap().inboxes(), 2);
        let message = held.recv().unwrap().expect("nobody stops it");
        let sample = inbox.recv_sample().unwrap().expect("nobody stops it");
        let theirs = peer.serve_of::<Number, Number>("typed/theirs").unwrap();
        let client = node.client_of::<Number, Number>("typed/theirs").unwrap();
        let first = client.start(&1, LIMIT).unwrap();
        theirs.recv().unwrap().expect("nobody stops it").reply(&2).unwrap();
        let reply = first.wait().unwrap();
        let (pending, replies) = (client.start(&3, LIMIT).unwrap(), client.call_stream(&4, LIMIT).unwrap());
        let server = node.serve_of::<Number, Number>("typed/ours").unwrap();
        let caller = peer.client_of::<Number, Number>("typed/ours").unwrap();
        let calls = (0..2).map(|number| caller.start(&number, LIMIT).unwrap()).collect();
        let request = server.recv().unwrap().expect("nobody stops it");
        let stream = server.recv().unwrap().expect("nobody stops it").stream();
        let publisher = node.publisher_of::<Number>("typed/out").unwrap();
        let sender = node.connect_of::<Number>("peer").unwrap();
        let _theirs = (theirs, calls);
        Self {
            inbox,
            publisher,
            sender,
            message,
            sample,
            client,
            pending,
            replies,
            reply,
            server,
            request,
            stream,
            _theirs,
        }
    }

    /// What the children have done has not reached these.
    pub(super) fn go_on(&mut self, peer: &Node) {
        assert_eq!(peer.publisher_of::<Number>("typed").unwrap().publish(&8).unwrap().inboxes(), 2);
        let message = self.inbox.recv_timeout(LIMIT).unwrap().expect("no child has taken it");
        assert_eq!(message.value(), Ok(&8));
        assert_eq!(self.server.in_flight(), 2);
        self.stream.send(&5).unwrap();
        self.publisher.flush(LIMIT).unwrap();
        assert!(self.sender.is_connected() && self.sender.sent() == 0);
        assert!(self.client.call(&6, std::time::Duration::ZERO).is_err());
    }
}

fn schema() -> Schema {
    Schema::new("T", Encoding::Json).expect("a name")
}

fn value<E: std::fmt::Display>(value: Result<&u64, E>) -> String {
    said(value)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = topics();
    cases.extend(to_nodes());
    cases.extend(calls());
    cases.extend(values());
    cases
}

fn topics() -> Vec<Case> {
    vec![
        case("Node::subscriber_of", CLOSED, |h| went(h.node.subscriber_of::<Number>("a"))),
        case("Node::publisher_of", OUTBOX, |h| went(h.node.publisher_of::<Number>("a").expect("a topic").publish(&1))),
        case("InboxBuilder::schema", CLOSED, |h| went(h.node.subscriber_builder(["a"]).schema(schema()).open())),
        case("InboxBuilder::open_of", CLOSED, |h| went(h.node.subscriber_builder(["a"]).open_of::<Number>())),
        case("PublisherBuilder::schema", OUTBOX, |h| {
            went(h.node.publisher_builder("a").schema(schema()).open().expect("a topic").publish(b"x"))
        }),
        case("PublisherBuilder::open_of", OUTBOX, |h| {
            went(h.node.publisher_builder("a").open_of::<Number>().expect("a topic").publish(&1))
        }),
        case("TypedInbox::recv", INBOX, |mut h| went(h.types.inbox.recv())),
        case("TypedInbox::try_recv", INBOX, |mut h| went(h.types.inbox.try_recv())),
        case("TypedInbox::recv_timeout", INBOX, |mut h| went(h.types.inbox.recv_timeout(LIMIT))),
        case("TypedInbox::recv_async", INBOX, |mut h| {
            polled(h.types.inbox.recv_async()).map_or_else(|| "nothing".into(), went)
        }),
        case("TypedInbox::recv_sample", INBOX, |mut h| went(h.types.inbox.recv_sample())),
        case("TypedMessage::value", "7", |h| value(h.types.message.value())),
        case("Message::schema", "Some(\"u64\")", |h| {
            format!("{:?}", h.types.message.schema().map(|schema| schema.name()))
        }),
        case("Message::schema (of bytes)", "None", |h| format!("{:?}", h.message.schema())),
        case("TypedSample::value", "7", |h| value(h.types.sample.value())),
        case("TypedSample::into_inner", "8", |h| h.types.sample.into_inner().len().to_string()),
        case("TypedPublisher::publish", OUTBOX, |mut h| went(h.types.publisher.publish(&1))),
        case("TypedPublisher::try_publish", OUTBOX, |mut h| went(h.types.publisher.try_publish(&1))),
        case("TypedPublisher::publish_timeout", OUTBOX, |mut h| went(h.types.publisher.publish_timeout(&1, LIMIT))),
        case("TypedPublisher::publish_async", OUTBOX, |mut h| {
            polled(h.types.publisher.publish_async(&1)).map_or_else(|| "nothing".into(), went)
        }),
        case("Publisher::mismatches", "[]", |mut h| format!("{:?}", h.types.publisher.mismatches())),
        case("Outbox::mismatches", "[]", |h| format!("{:?}", h.outbox.mismatches(h.topic))),
        case("Outbox::typed_topic", "ok", |mut h| went(h.outbox.typed_topic("typed", schema()))),
        case("Outbox::typed_topic (and a publish)", OUTBOX, |mut h| {
            let topic = h.outbox.typed_topic("typed", schema()).expect("a topic");
            went(h.outbox.publish(topic, b"x"))
        }),
    ]
}

fn to_nodes() -> Vec<Case> {
    vec![
        case("Node::inbox_of", CLOSED, |h| went(h.node.inbox_of::<Number>())),
        case("InboxBuilder::schema (of a node)", CLOSED, |h| went(h.node.inbox_builder().schema(schema()).open())),
        case("Node::connect_of", UNCONNECTED, |h| went(h.node.connect_of::<Number>("peer"))),
        case("Node::sender_builder", UNCONNECTED, |h| went(h.node.sender_builder("peer").open())),
        case("SenderBuilder::open", UNCONNECTED, |h| went(h.node.sender_builder("nobody").open())),
        case("SenderBuilder::schema", UNCONNECTED, |h| went(h.node.sender_builder("peer").schema(schema()).open())),
        case("SenderBuilder::wait", UNCONNECTED, |h| went(h.node.sender_builder("nobody").wait(LIMIT).open())),
        case("SenderBuilder::open_of", UNCONNECTED, |h| went(h.node.sender_builder("peer").open_of::<Number>())),
        case("SenderBuilder::open_async", UNCONNECTED, |h| {
            polled(h.node.sender_builder("peer").open_async()).map_or_else(|| "nothing".into(), went)
        }),
        case("SenderBuilder::open_of_async", UNCONNECTED, |h| {
            polled(h.node.sender_builder("peer").open_of_async::<Number>()).map_or_else(|| "nothing".into(), went)
        }),
        case("Outbox::typed_connect", UNCONNECTED, |mut h| went(h.outbox.typed_connect("peer", schema(), LIMIT))),
        case("TypedSender::send", OUTBOX, |mut h| went(h.types.sender.send(&1))),
        case("TypedSender::try_send", OUTBOX, |mut h| went(h.types.sender.try_send(&1))),
        case("TypedSender::send_timeout", OUTBOX, |mut h| went(h.types.sender.send_timeout(&1, LIMIT))),
        case("TypedSender::send_async", OUTBOX, |mut h| {
            polled(h.types.sender.send_async(&1)).map_or_else(|| "nothing".into(), went)
        }),
    ]
}

fn calls() -> Vec<Case> {
    vec![
        case("Node::serve_of", CLOSED, |h| went(h.node.serve_of::<Number, Number>("a"))),
        case("Node::client_of", CLOSED, |h| went(h.node.client_of::<Number, Number>("a"))),
        case("ServerBuilder::schemas", CLOSED, |h| went(h.node.server_builder("a").schemas(schema(), schema()).open())),
        case("ServerBuilder::open_of", CLOSED, |h| went(h.node.server_builder("a").open_of::<Number, Number>())),
        case("ClientBuilder::schemas", CLOSED, |h| went(h.node.client_builder("a").schemas(schema(), schema()).open())),
        case("ClientBuilder::any_types", CLOSED, |h| went(h.node.client_builder("a").any_types().open())),
        case("ClientBuilder::open_of", CLOSED, |h| went(h.node.client_builder("a").open_of::<Number, Number>())),
        case("TypedClient::call", CLIENT, |h| went(h.types.client.call(&1, LIMIT))),
        case("TypedClient::start", CLIENT, |h| went(h.types.client.start(&1, LIMIT))),
        case("TypedClient::call_stream", CLIENT, |h| went(h.types.client.call_stream(&1, LIMIT))),
        case("TypedClient::call_async", CLIENT, |h| {
            polled(h.types.client.call_async(&1, LIMIT)).map_or_else(|| "nothing".into(), went)
        }),
        case("TypedPending::wait", CLIENT, |h| went(h.types.pending.wait())),
        case("TypedPending::into_inner", CLIENT, |h| went(h.types.pending.into_inner().wait())),
        case("TypedReply::value", "2", |h| value(h.types.reply.value())),
        case("TypedReplies::next", CLIENT, |mut h| h.types.replies.next().map_or_else(|| "nothing".into(), went)),
        case("TypedReplies::into_inner", CLIENT, |h| {
            h.types.replies.into_inner().next().map_or_else(|| "nothing".into(), went)
        }),
        case("TypedServer::recv", INBOX, |h| went(h.types.server.recv())),
        case("TypedServer::try_recv", INBOX, |h| went(h.types.server.try_recv())),
        case("TypedServer::recv_timeout", INBOX, |h| went(h.types.server.recv_timeout(LIMIT))),
        case("TypedServer::recv_async", INBOX, |h| {
            polled(h.types.server.recv_async()).map_or_else(|| "nothing".into(), went)
        }),
        case("TypedRequest::value", "0", |h| value(h.types.request.value())),
        case("TypedRequest::reply", SERVER, |h| went(h.types.request.reply(&1))),
        case("TypedRequest::stream", SERVER, |h| went(h.types.request.stream().finish())),
        case("TypedRequest::into_inner", SERVER, |h| went(h.types.request.into_inner().fail(1, "z"))),
        case("TypedReplyStream::send", SERVER, |mut h| went(h.types.stream.send(&1))),
        case("TypedReplyStream::finish", SERVER, |h| went(h.types.stream.finish())),
        case("TypedReplyStream::into_inner", SERVER, |h| went(h.types.stream.into_inner().fail(1, "z"))),
    ]
}

/// A mere value is the same in a child.
fn values() -> Vec<Case> {
    vec![
        case("Schema::new", "T/json", |_| schema().to_string()),
        case("Schema::with_hash", "T/json/0000000000000007", |_| schema().with_hash(7).to_string()),
        case("Schema::with_definition", "T/json", |_| schema().with_definition(b"x").to_string()),
        case("Schema::name", "T", |_| schema().name().to_owned()),
        case("Schema::encoding", "json", |_| schema().encoding().to_string()),
        case("Schema::hash", "None", |_| format!("{:?}", schema().hash())),
        case("Schema::definition", "None", |_| format!("{:?}", schema().definition())),
        case("Schema::matches", "true", |_| schema().matches(&schema().with_hash(7)).to_string()),
        case("Shape::name", "[u8]", |_| described().name()),
        case("Shape::encode", "true", |_| (!described().encode().is_empty()).to_string()),
        case("Shape::decode", "true", |_| (Shape::decode(&described().encode()) == Some(described())).to_string()),
        case("Describer::named", "[u8]", |_| {
            Describer::default().named::<u8>("T", |describer| describer.field::<[u8]>(None, 0).shape).name()
        }),
        case("Describer::structure", "S", |_| Describer::default().structure("S", (1, 1), Vec::new()).name()),
        case("Describer::field", "Some(\"x\")", |_| {
            format!("{:?}", Describer::default().field::<u8>(Some("x"), 0).name)
        }),
        case("Describer::enumeration", "E", |_| Describer::default().enumeration("E", Vec::new()).name()),
        case("EncodeError::new", "no", |_| EncodeError::new("no").why.to_string()),
        case("DecodeError::new", "3", |_| DecodeError::new(b"abc", "no").bytes.to_string()),
    ]
}

fn described() -> Shape {
    Describer::default().field::<Vec<u8>>(None, 0).shape
}
