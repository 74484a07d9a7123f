//! The decoders of other processes' bytes, for a fuzzer, without sockets and files.
//!
//! Each returns whether it accepted the bytes. This asserts that accepted bytes equal what the library would write
//! itself.

use librpc_ring::{Head, Kind};
use minicbor::{Decode, Encode};

use crate::link::bell::Bell;
use crate::link::ledger::{Ledger, Limits};
use crate::name::{Address, Incarnation, check_node_id};
use crate::receive::topic_names::{Names, split};
use crate::registry::layout::{LISTS_OFFSET, NodeHeader, SELECT_OFFSET, Select};
use crate::registry::node_file::{self, NodeFile};
use crate::registry::target::{MAX_SCHEMAS, Target};
use crate::registry::view::Subscription;
use crate::schema::{CallSchemas, ListedSchema, MAX_DEFINITION_BYTES, MAX_TYPE_NAME_BYTES, Schema, is_readable};
use crate::send::topic_name::TopicName;
use crate::shape::{Describer, Shape};
use crate::sys::OsError;
use crate::topic::{MAX_PATTERNS, MAX_TOPICS, Pattern, check_topic};
use crate::wire::Reason;
use crate::wire::{
    self, Answer, Attached, Caller, Credit, Data, Deny, Failure, Hello, Lend, ListedAddress, ListedInbox, PROTOCOL,
    Refusal, Terms, Typed,
};

/// Decodes bytes. Returns whether an honest peer could have sent them.
pub type Door = fn(&[u8]) -> bool;

/// Where bytes come in.
pub const DOORS: [(&str, Door); 13] = [
    ("hello", hello),
    ("answer", answer),
    ("data", data),
    ("node file", node_file),
    ("bell", bell),
    ("topics", topics),
    ("deny", deny),
    ("lend", lend),
    ("caller", caller),
    ("credit", |bytes| decode::<Credit>(bytes).is_some()),
    ("failure", |bytes| decode::<Failure>(bytes).is_some()),
    ("schema", |bytes| decode::<ListedSchema>(bytes).is_some_and(|listed| checked(listed).is_some())),
    ("shape", shape),
];

fn decode<T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = wire::decode(bytes).ok()?;
    let again = wire::decode::<T>(&wire::encode(&message)).expect("what was decoded can be encoded");
    assert_eq!(again, message);
    Some(message)
}

/// A type, as a stranger says it, once it is checked.
fn checked(listed: ListedSchema) -> Option<Schema> {
    let schema = Schema::try_from(listed).ok()?;
    assert!(!schema.name().is_empty() && schema.name().len() <= MAX_TYPE_NAME_BYTES);
    assert!(!schema.to_string().contains(char::is_control));
    assert!(schema.definition().is_none_or(|definition| definition.len() <= MAX_DEFINITION_BYTES));
    assert!(schema.matches(&schema) && is_readable(Some(&schema), None) && !is_readable(None, Some(&schema)));
    assert_eq!(Schema::try_from(ListedSchema::from(&schema)).as_ref(), Ok(&schema), "it is as before");
    schema.definition().map(shape);
    Some(schema)
}

/// A definition.
fn shape(bytes: &[u8]) -> bool {
    let Some(shape) = Shape::decode(bytes) else { return false };
    let _ = shape.name();
    assert_eq!(Shape::decode(&shape.encode()).as_ref(), Some(&shape));
    true
}

fn caller(bytes: &[u8]) -> bool {
    let Some(Caller { schemas, any, .. }) = decode::<Caller>(bytes) else { return false };
    let schemas = schemas.unwrap_or_default().into_iter().map(checked).collect::<Option<Vec<_>>>();
    let Some(schemas) = schemas else { return false };
    let client = CallSchemas::listed(&schemas, any == Some(true));
    assert_eq!(CallSchemas::difference(&client, &CallSchemas { any: false, ..client.clone() }), None, "with its like");
    true
}

fn hello(bytes: &[u8]) -> bool {
    decode::<Hello>(bytes).is_some_and(|hello| check_node_id(&hello.node).is_ok())
}

fn answer(bytes: &[u8]) -> bool {
    match decode::<Answer>(bytes) {
        Some(Answer::Refusal(refusal)) => Reason::from_number(refusal.reason) != Reason::Unknown,
        Some(_) => true,
        None => false,
    }
}

fn deny(bytes: &[u8]) -> bool {
    let is_type = |listed: Option<ListedSchema>| listed.is_none_or(|listed| checked(listed).is_some());
    let is_honest = |deny: Deny| {
        let is_mismatch = deny.mismatch.is_some();
        let are_types = deny.mismatch.is_none_or(|typed| is_type(typed.schema) && is_type(typed.wanted));
        let is_direct = deny.topic.is_empty() && is_mismatch;
        check_node_id(&deny.node).is_ok() && (is_direct || check_topic(&deny.topic).is_ok()) && are_types
    };
    let is_taken = decode::<Deny>(bytes).is_some_and(is_honest);
    assert!(!is_taken || Deny::is_one(bytes), "it is told from the other first messages");
    is_taken
}

fn lend(bytes: &[u8]) -> bool {
    let is_taken = decode::<Lend>(bytes).is_some();
    assert!(!is_taken || Lend::is_one(bytes), "it is told from the other first messages");
    assert!(!is_taken || !Deny::is_one(bytes) && decode::<Hello>(bytes).is_none(), "it is nothing else");
    is_taken
}

fn data(bytes: &[u8]) -> bool {
    decode::<Data>(bytes).is_some()
}

fn bell(bytes: &[u8]) -> bool {
    Bell::decode(bytes).is_some()
}

/// The bytes of a `.node` file. The first byte after its end, if there is one, says how often the file changes while it
/// is read, as its owner could make it change.
fn node_file(bytes: &[u8]) -> bool {
    let mut reads = 0;
    let pread = |into: &mut [u8], offset: u64| -> Result<usize, OsError> {
        reads += 1;
        assert!(reads <= 300, "bounded work");
        let from = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        let read = into.len().min(bytes.len() - from);
        into[..read].copy_from_slice(&bytes[from..from + read]);
        if bytes.len() % 64 == 63 && offset == 0 && into.len() > SELECT_OFFSET as usize {
            into[SELECT_OFFSET as usize + 6] ^= reads as u8; // truncated, and written without pause
        }
        Ok(read)
    };
    let Ok((header, inboxes, _)) = node_file::parse("n", pread) else { return false };
    let file = NodeFile::of_stranger(Incarnation::from_bytes(header.incarnation), header.pid, inboxes);
    for inbox in &file.inboxes {
        if let Ok(target) = Target::new("n".into(), &file, inbox, Address::Node) {
            assert!(librpc_ring::layout::is_valid_capacity(target.capacity));
            assert!(target.schemas.is_none_or(|schemas| schemas.len() <= MAX_SCHEMAS));
        }
        if let Some(subscription) = Subscription::listed("n", &file, inbox, 0) {
            assert!(subscription.patterns.len() <= MAX_PATTERNS);
            subscription.takes("a/b/c/d/e/f/a/b/c", None);
        }
    }
    true
}

/// Declarations: each a byte for the kind, two for the number, one for the length (in bytes, or in units of 16), then what is declared: to
/// inboxes that want a type, and to those that take everything.
fn topics(bytes: &[u8]) -> bool {
    let wanted = schema().short();
    let patterns: Vec<Pattern> = ["a/*", "b/**"].iter().map(|text| text.parse().expect("a pattern")).collect();
    let takes = |address: Address| {
        let typed = declare(bytes, address.clone(), Some(&wanted));
        let untyped = declare(bytes, address, None);
        assert!(!typed || untyped, "who takes everything takes that, too");
        untyped
    };
    let is_direct = takes(Address::Node);
    takes(Address::Topics(patterns.into())) || is_direct
}

fn declare(mut bytes: &[u8], address: Address, wanted: Option<&Schema>) -> bool {
    let charge = Ledger::new(Limits::default()).names(0);
    let is_direct = address == Address::Node;
    let mut names = Names::new(address, wanted.cloned(), charge);
    let mut taken = false;
    while let [kind, low, high, length, rest @ ..] = bytes {
        let length = usize::from(*length) << if kind & 4 == 0 { 0 } else { 4 };
        let (what, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        let kinds = [Kind::Topic, Kind::Message, Kind::Request, Kind::Reply];
        let number = u64::from(*low) | u64::from(*high) << (8 + 8 * (kind >> 6));
        let topic = (kind & 8 == 0).then_some(number);
        let head = Head { topic, ..Head::of(kinds[*kind as usize % 4]) };
        if names.learn(&head, what).is_ok() {
            taken = true;
            assert!(
                head.kind == Kind::Topic && topic.is_none() == is_direct && (is_direct || number < MAX_TOPICS as u64)
            );
            let message = Head { topic, ..Head::MESSAGE };
            let (name, typed) = split(what);
            assert!(names.is_expected(&message) && names.of(topic).unwrap_or_default().as_bytes() == name);
            let known = names.schema_of(topic).map(|schema| &**schema);
            assert!(known.is_some() == typed.is_some() && is_readable(known, wanted));
            assert_eq!(names.learn(&head, what), Ok(false), "again");
        }
        let takes_bytes = is_direct && names.is_expected(&Head::MESSAGE);
        assert!(!takes_bytes || taken || wanted.is_none(), "nothing that fits was declared");
        names.is_expected(&head);
    }
    taken
}

fn schema() -> Schema {
    let schema = "Pose/json/0123456789abcdef".parse::<Schema>().expect("a schema");
    schema.with_definition(&honest_shape().encode())
}

fn honest_shape() -> Shape {
    let mut describer = Describer::default();
    let fields = vec![
        describer.field::<Vec<(u8, String)>>(Some("x"), 0),
        describer.field::<[Option<f64>; 3]>(None, 0),
        describer.field::<std::collections::BTreeMap<u16, std::time::Duration>>(Some("y"), 0),
    ];
    let inner = describer.enumeration("Kind", vec![("A", vec![]), ("B", fields.clone())]);
    let again = describer.named::<u8>("Pose", |describer| describer.structure("Inner", (1, 1), fields));
    Shape::Tuple(vec![inner, again, Shape::Again("Pose".into())])
}

/// The declaration of a topic of a type, as its publisher writes it, with its length in units of 16. Without a name: of what is sent to
/// a node.
fn write_declaration(number: u8, name: &str, schema: &Schema) -> Vec<u8> {
    let topic = TopicName::new(name.into(), Some(schema.clone()));
    let what = topic.declaration(true, MAX_DEFINITION_BYTES);
    let units = what.len().div_ceil(16);
    let kind = if name.is_empty() { 12 } else { 4 };
    let mut bytes = vec![kind, number, 0, units as u8];
    bytes.extend_from_slice(what);
    bytes.resize(4 + 16 * units, 0xf6); // what follows an item is not read
    bytes
}

/// What an honest peer would write, for each door: the seeds that a fuzzer mutates.
pub fn samples() -> Vec<(usize, Vec<u8>)> {
    let (incarnation, target) = ([0x11; 16], [0x22; 16]);
    let hello = |connection, opens, data| write_hello("camera", (incarnation, target), 3, (connection, opens), data);
    let refusal = |reason: Reason| Answer::Refusal(Refusal { reason: reason as u32, text: "no".into() });
    let schema = schema();
    let listed = |number, address, durable| ListedInbox {
        number,
        address,
        capacity: 4096,
        policy: 0,
        own: true,
        durable,
        history: Some(3),
        schemas: Some(vec![(&schema).into()]),
        max_message: None,
    };
    let patterns = ListedAddress::Patterns(vec!["a/**/b".into(), "*".into()]);
    let lists = [
        vec![],
        vec![listed(1, ListedAddress::Node, None)],
        vec![listed(1, patterns, Some("d".into())), listed(2, ListedAddress::Service("s".into()), None)],
    ];
    let file = |list: &Vec<ListedInbox>| {
        let list = wire::encode(list);
        let select = Select::new(1, LISTS_OFFSET, list.len());
        let header = NodeHeader { incarnation, pid: 5, uid: 6, opened_ns: 7, select };
        let mut bytes = header.encode().to_vec();
        bytes.resize(LISTS_OFFSET as usize, 0);
        bytes.extend(list);
        bytes
    };
    let mut samples = vec![
        (0, hello(1, true, None)),
        (0, hello(u64::MAX, false, Some((4096, 0)))),
        (1, wire::encode(&Answer::Terms(Terms { version: 2, features: 0, capacity: 262_144, policy: 0 }))),
        (1, wire::encode(&Answer::Attached(Attached { ring: 2, features: 0 }))),
        (1, wire::encode(&refusal(Reason::Busy))),
        (1, wire::encode(&refusal(Reason::Restarted))),
        (2, wire::encode(&Data { capacity: 4096, policy: 0 })),
        (4, vec![5, 0, 0, 0, 1, 0, 0, 0]),
        (6, wire::encode(&honest_deny(incarnation, target))),
        (1, write_ready()),
        (1, write_lent()),
        (8, write_caller(3, 4096, 1 << 20)),
        (9, write_credit(16)),
        (10, write_failure(0, -1, "no".into())),
        (7, write_lend(target, 3, (u64::MAX, 0), (0x77, 4096))),
        (5, b"\0\x01\0\x03a/b\0\x02\0\x03b/c\0\x01\0\x03a/b".to_vec()),
        (5, [write_declaration(1, "a/b", &schema), write_declaration(2, "b/c", &schema.short())].concat()),
        (5, [write_declaration(0, "", &schema), write_declaration(0, "", &schema)].concat()),
        (6, wire::encode(&Deny { mismatch: Some(mismatched()), ..honest_deny(incarnation, target) })),
        (
            6,
            wire::encode(&Deny {
                topic: String::new(),
                mismatch: Some(mismatched()),
                ..honest_deny(incarnation, target)
            }),
        ),
        (8, write_typed_caller(3, 4096, 1 << 20, &["Pose/json", "Goal/json/0123456789abcdef"])),
        (11, wire::encode(&ListedSchema::from(&schema))),
        (12, honest_shape().encode()),
    ];
    samples.extend(lists.iter().map(|list| (3, file(list))));
    samples
}

fn honest_deny(incarnation: [u8; 16], target: [u8; 16]) -> Deny {
    let (node, topic, text) = ("camera".into(), "a/b".into(), "node \"camera\" does not let uid 5 read it".into());
    let (lowest, highest, mismatch) = (PROTOCOL, PROTOCOL, None);
    Deny { lowest, highest, node, incarnation, target, inbox: 3, topic, text, mismatch }
}

/// What a sender to a node itself declares: a type of this name, with a definition of as many bytes.
pub fn write_direct_type(name: &str, definition: usize) -> Vec<u8> {
    let definition = Some(vec![7; definition]);
    [&[0][..], &wire::encode(&ListedSchema { definition, ..named(name) })].concat()
}

fn mismatched() -> Typed {
    let listed = |text: &str| Some((&text.parse::<Schema>().expect("a schema")).into());
    Typed { schema: listed("Pose/json/0123456789abcdef"), wanted: listed("Goal/json") }
}

/// A type by its name, valid or not, in JSON.
fn named(name: &str) -> ListedSchema {
    ListedSchema { name: name.to_owned(), encoding: 3, hash: None, definition: None }
}

/// What a publisher, or a client, says of a topic, or of a service, that is of another type than an inbox wants: what it is (an empty
/// name: bytes without a type), and what is wanted.
pub fn write_mismatch(
    node: &str,
    (incarnation, target): ([u8; 16], [u8; 16]),
    inbox: u32,
    topic: &str,
    (schema, wanted): (&str, &str),
) -> Vec<u8> {
    let listed = |name: &str| Some(named(name)).filter(|_| !name.is_empty());
    let mismatch = Some(Typed { schema: listed(schema), wanted: listed(wanted) });
    let (node, topic) = (node.to_owned(), topic.to_owned());
    wire::encode(&Deny { node, inbox, topic, mismatch, ..honest_deny(incarnation, target) })
}

/// A hello, as an honest sender would write it: the two incarnations, the connection and whether this opens it, and the
/// memory that comes along (capacity, policy).
pub fn write_hello(
    node: &str,
    (incarnation, target): ([u8; 16], [u8; 16]),
    inbox: u32,
    (connection, opens): (u64, bool),
    data: Option<(u64, u32)>,
) -> Vec<u8> {
    let node = node.to_owned();
    let data = data.map(|(capacity, policy)| Data { capacity, policy });
    let (lowest, highest, features) = (PROTOCOL, PROTOCOL, 0);
    wire::encode(&Hello { lowest, highest, features, node, incarnation, target, inbox, connection, opens, data })
}

/// The message that the data memory comes with.
pub fn write_data(capacity: u64, policy: u32) -> Vec<u8> {
    wire::encode(&Data { capacity, policy })
}

/// A receiver's terms.
pub fn write_terms(capacity: u64, policy: u32) -> Vec<u8> {
    wire::encode(&Answer::Terms(Terms { version: 2, features: 0, capacity, policy }))
}

/// The message that the ack memory comes with.
pub fn write_attached(ring: u32) -> Vec<u8> {
    wire::encode(&Answer::Attached(Attached { ring, features: 0 }))
}

/// The hand-over of a memory for payloads: to which incarnation and inbox, over which channel (its connection, and its ring there),
/// and the memory (its number, and its length in bytes).
pub fn write_lend(
    target: [u8; 16],
    inbox: u32,
    (connection, ring): (u64, u32),
    (segment, bytes): (u64, u64),
) -> Vec<u8> {
    wire::encode(&Lend { lowest: PROTOCOL, highest: PROTOCOL, target, inbox, connection, ring, segment, bytes })
}

/// A receiver's answer: the memory may be sent.
pub fn write_ready() -> Vec<u8> {
    wire::encode(&Answer::Ready)
}

/// A receiver's answer: the memory is mapped.
pub fn write_lent() -> Vec<u8> {
    wire::encode(&Answer::Lent)
}

/// A refusal.
pub fn write_refusal(reason: u32, text: String) -> Vec<u8> {
    wire::encode(&Answer::Refusal(Refusal { reason, text }))
}

/// A list of `inboxes` inboxes: the node's own, then subscriptions with these patterns each, which want these types.
pub fn write_list(inboxes: u32, patterns: &[String], capacity: u64, types: &[String]) -> Vec<u8> {
    let listed = |number| {
        let address = match number {
            0 => ListedAddress::Node,
            _ => ListedAddress::Patterns(patterns.to_vec()),
        };
        ListedInbox {
            number,
            address,
            capacity,
            policy: 0,
            own: false,
            durable: None,
            max_message: None,
            history: None,
            schemas: Some(types.iter().map(|name| named(name)).collect()).filter(|_| !types.is_empty()),
        }
    };
    wire::encode(&(0..inboxes).map(listed).collect::<Vec<_>>())
}

/// A list of two inboxes: the node's own, and that of a service.
pub fn write_service(service: &str, capacity: u64) -> Vec<u8> {
    let listed = |(number, address)| {
        let (own, durable, max_message, history, schemas) = (false, None, None, None, None);
        ListedInbox { number, address, capacity, policy: 0, own, durable, max_message, history, schemas }
    };
    let inboxes = [(0, ListedAddress::Node), (1, ListedAddress::Service(service.to_owned()))];
    wire::encode(&inboxes.map(listed).to_vec())
}

/// Where a client takes replies: the inbox, its capacity, and its longest message.
pub fn write_caller(inbox: u32, capacity: u64, max_message: u64) -> Vec<u8> {
    wire::encode(&Caller { inbox, capacity, max_message, schemas: None, any: None })
}

/// The same, with the types of its requests and of its replies, as texts.
pub fn write_typed_caller(inbox: u32, capacity: u64, max_message: u64, types: &[&str]) -> Vec<u8> {
    let schemas =
        types.iter().map(|text| text.parse::<Schema>().map_or_else(|_| named(text), |schema| (&schema).into()));
    wire::encode(&Caller { inbox, capacity, max_message, schemas: Some(schemas.collect()), any: None })
}

/// The inbox in which a client takes replies.
pub fn read_caller(bytes: &[u8]) -> Option<u32> {
    wire::decode::<Caller>(bytes).ok().map(|caller| caller.inbox)
}

/// How many more parts a client takes.
pub fn write_credit(parts: u32) -> Vec<u8> {
    wire::encode(&Credit { parts })
}

/// Why there is no reply.
pub fn write_failure(cause: u32, code: i32, text: String) -> Vec<u8> {
    wire::encode(&Failure { cause, code, text })
}

/// The selecting word of a node's file.
pub fn select(sequence: u64, bytes: usize) -> u64 {
    Select::new(sequence, LISTS_OFFSET, bytes).0
}
