//! The decoders of other processes' bytes, for a fuzzer, without sockets and files.
//!
//! Each returns whether it accepted the bytes. This asserts that accepted bytes equal what the library would write
//! itself.

use librpc_ring::{Head, Kind};
use minicbor::{Decode, Encode};

use crate::link::bell::Bell;
use crate::link::ledger::{Ledger, Limits};
use crate::name::{Address, Incarnation, check_node_id};
use crate::receive::topic_names::Names;
use crate::registry::layout::{LISTS_OFFSET, NodeHeader, SELECT_OFFSET, Select};
use crate::registry::node_file::{self, NodeFile};
use crate::registry::target::Target;
use crate::registry::view::Subscription;
use crate::sys::OsError;
use crate::topic::{MAX_PATTERNS, MAX_TOPICS, Pattern, check_topic};
use crate::wire::Reason;
use crate::wire::{
    self, Answer, Attached, Caller, Credit, Data, Deny, Failure, Hello, Lend, ListedAddress, ListedInbox, PROTOCOL,
    Refusal, Terms,
};

/// Decodes bytes. Returns whether an honest peer could have sent them.
pub type Door = fn(&[u8]) -> bool;

/// Where bytes come in.
pub const DOORS: [(&str, Door); 11] = [
    ("hello", hello),
    ("answer", answer),
    ("data", data),
    ("node file", node_file),
    ("bell", bell),
    ("topics", topics),
    ("deny", deny),
    ("lend", lend),
    ("caller", |bytes| decode::<Caller>(bytes).is_some()),
    ("credit", |bytes| decode::<Credit>(bytes).is_some()),
    ("failure", |bytes| decode::<Failure>(bytes).is_some()),
];

fn decode<T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = wire::decode(bytes).ok()?;
    let again = wire::decode::<T>(&wire::encode(&message)).expect("what was decoded can be encoded");
    assert_eq!(again, message);
    Some(message)
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
    let is_honest = |deny: Deny| check_node_id(&deny.node).is_ok() && check_topic(&deny.topic).is_ok();
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
        }
        if let Some(subscription) = Subscription::listed("n", &file, inbox, 0) {
            assert!(subscription.patterns.len() <= MAX_PATTERNS);
            subscription.wants("a/b/c/d/e/f/a/b/c");
        }
    }
    true
}

/// Declarations: each a byte for the kind, two for the number, one for the length, then the name.
fn topics(mut bytes: &[u8]) -> bool {
    let patterns: Vec<Pattern> = ["a/*", "b/**"].iter().map(|text| text.parse().expect("a pattern")).collect();
    let mut names = Names::new(Address::Topics(patterns.into()), None, Ledger::new(Limits::default()).names(0));
    let mut taken = false;
    while let [kind, low, high, length, rest @ ..] = bytes {
        let (name, rest) = rest.split_at((*length as usize).min(rest.len()));
        bytes = rest;
        let kinds = [Kind::Topic, Kind::Message, Kind::Request, Kind::Reply];
        let number = u64::from(*low) | u64::from(*high) << (8 + 8 * (kind >> 6));
        let head = Head { topic: Some(number), ..Head::of(kinds[*kind as usize % 4]) };
        if names.learn(&head, name).is_ok() {
            taken = true;
            assert!(head.kind == Kind::Topic && number < MAX_TOPICS as u64);
            let message = Head { topic: Some(number), ..Head::MESSAGE };
            assert!(
                names.is_expected(&message) && names.of(message.topic).is_some_and(|known| known.as_bytes() == name)
            );
        }
        names.is_expected(&head);
    }
    taken
}

/// What an honest peer would write, for each door: the seeds that a fuzzer mutates.
pub fn samples() -> Vec<(usize, Vec<u8>)> {
    let (incarnation, target) = ([0x11; 16], [0x22; 16]);
    let hello = |connection, opens, data| write_hello("camera", (incarnation, target), 3, (connection, opens), data);
    let refusal = |reason: Reason| Answer::Refusal(Refusal { reason: reason as u32, text: "no".into() });
    let schema = "Pose/json/0123456789abcdef".parse::<Schema>().expect("a schema").with_definition(b"\x82\x00\x81\x00");
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
    ];
    samples.extend(lists.iter().map(|list| (3, file(list))));
    samples
}

fn honest_deny(incarnation: [u8; 16], target: [u8; 16]) -> Deny {
    let (node, topic, text) = ("camera".into(), "a/b".into(), "node \"camera\" does not let uid 5 read it".into());
    Deny { lowest: PROTOCOL, highest: PROTOCOL, node, incarnation, target, inbox: 3, topic, text, mismatch: None }
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

/// A list of `inboxes` inboxes: the node's own, then subscriptions with these patterns each.
pub fn write_list(inboxes: u32, patterns: &[String], capacity: u64) -> Vec<u8> {
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
            schemas: None,
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
