//! What a hostile peer sends in one handshake: the messages of an honest one, with spoilt fields, lengths, order,
//! descriptors and end. All of it follows from the number of the handshake.
//!
//! The messages are encoded here instead of by the library, so that keys may be missing, doubled, in any order and of
//! any type.

use std::collections::VecDeque;

use librpc::fuzzing as forge;
use minicbor::Encoder;
use minicbor::data::Tag;
use testkit::Random;

use crate::doors::mutate;
use crate::mapping::{CAPACITY, PAYLOADS_BYTES};

/// The version of the handshake.
const PROTOCOL: u64 = 2;

/// The next step of a handshake.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends bytes, with descriptors by their indexes in the offer.
    Send(Vec<u8>, Vec<usize>),
    /// Waits for the answer.
    Await,
    /// Closes its sending side.
    HalfClose,
}

/// What an attacker knows.
pub(crate) struct Facts {
    pub(crate) incarnation: [u8; 16],
    pub(crate) victim: [u8; 16],
    pub(crate) honest: [u8; 16],
    /// The numbers of its connections to the victim.
    pub(crate) connections: VecDeque<u64>,
    /// The numbers of those that it keeps.
    pub(crate) kept: VecDeque<u64>,
    /// How many descriptors it can offer. The first is a valid ring, the second a valid memory for payloads.
    pub(crate) offers: u64,
    /// Whether the domain is private: there the ring comes with the hello.
    pub(crate) is_private: bool,
}

/// How many of its connections an attacker keeps.
pub(crate) const KEPT_AT_MOST: u64 = 16;
const RING: usize = 0;
const PAYLOADS: usize = 1;
/// The tag of a message that hands over a memory for payloads.
const LEND: u64 = 40_002;

/// A handshake.
pub(crate) struct Script {
    pub(crate) steps: VecDeque<Step>,
    /// The number of the connection that it opens or adds a ring to.
    pub(crate) connection: u64,
}

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    Bool(bool),
    Nothing,
    List(Vec<Value>),
    /// A map with the keys 0, 1, 2, ...
    Map(Vec<Value>),
}

/// A message: a map with numbered keys, or an array; some have a tag.
#[derive(Clone, Debug)]
struct Draft {
    tag: Option<u64>,
    is_map: bool,
    fields: Vec<(u64, Value)>,
}

impl Draft {
    fn of(is_map: bool, values: impl IntoIterator<Item = Value>) -> Self {
        Self { tag: None, is_map, fields: (0..).zip(values).collect() }
    }

    /// A hello that opens a connection, or adds a ring to one.
    fn hello(random: &mut Random, facts: &Facts, connection: u64, has_data: bool) -> Self {
        use Value::{Bool, Bytes, Map, Nothing, Number, Text};
        let is_known = facts.connections.contains(&connection);
        Self::of(
            true,
            [
                Number(PROTOCOL),
                Number(PROTOCOL),
                Number(random.below(2)),
                Text("evil".into()),
                Bytes(facts.incarnation.into()),
                Bytes(facts.victim.into()),
                Number(inbox_of(connection)),
                Number(connection),
                Bool(is_known == random.once_in(16)),
                if has_data { Map(data().into()) } else { Nothing },
            ],
        )
    }

    /// The hand-over of a memory for payloads, on a channel that may be there.
    fn lend(random: &mut Random, facts: &Facts) -> Self {
        use Value::{Bytes, Number};
        let kept = facts.kept.get(random.below(KEPT_AT_MOST) as usize).copied();
        let connection = kept.or_else(|| facts.kept.front().copied()).unwrap_or_else(|| random.next());
        // Some numbers come twice.
        let segment = if random.once_in(2) { random.below(100) } else { random.next() };
        let values = [
            Number(PROTOCOL),
            Number(PROTOCOL),
            Bytes(facts.victim.into()),
            Number(inbox_of(connection)),
            Number(connection),
            Number(0),
            Number(segment),
            Number(PAYLOADS_BYTES),
        ];
        Self { tag: Some(LEND), ..Self::of(true, values) }
    }

    fn observe(random: &mut Random, facts: &Facts, is_first: bool) -> Self {
        use Value::{Bytes, List, Number};
        let mut values = vec![Number(PROTOCOL), Number(PROTOCOL), Bytes(facts.victim.into())];
        if !is_first {
            let place = [random.below(3), random.below(4), random.odd(), 0].map(Number);
            values.push(List(place.into()));
        }
        Self::of(false, values)
    }

    /// Changes one field.
    fn spoil(&mut self, random: &mut Random, facts: &Facts) {
        if self.fields.is_empty() {
            return;
        }
        let at = random.below(self.fields.len() as u64) as usize;
        match random.below(16) {
            0 => drop(self.fields.remove(at)),
            1 => self.fields.push(self.fields[at].clone()),
            2 => {
                let other = random.below(self.fields.len() as u64) as usize;
                self.fields.swap(at, other);
            }
            3 => self.fields[at].0 = random.odd(),
            4 => self.fields[at].1 = any(random),
            5 => self.fields.push((10 + random.below(300), any(random))),
            6 => self.is_map = !self.is_map,
            7 => self.tag = [None, Some(LEND), Some(LEND - 1), Some(random.odd())][random.below(4) as usize],
            _ => spoil(&mut self.fields[at].1, random, facts),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(96));
        if let Some(tag) = self.tag {
            encoder.tag(Tag::new(tag)).expect("a vector takes every byte");
        }
        let begun = match self.is_map {
            true => encoder.map(self.fields.len() as u64),
            false => encoder.array(self.fields.len() as u64),
        };
        begun.expect("a vector takes every byte");
        for (key, value) in &self.fields {
            if self.is_map {
                encoder.u64(*key).expect("a vector takes every byte");
            }
            write(&mut encoder, value);
        }
        encoder.into_writer()
    }
}

/// To which of the victim's inboxes a connection leads: its own, or its subscription.
fn inbox_of(connection: u64) -> u64 {
    u64::from(connection.is_multiple_of(3))
}

/// The description of a valid ring.
fn data() -> [Value; 2] {
    [Value::Number(CAPACITY), Value::Number(0)]
}

fn write(encoder: &mut Encoder<Vec<u8>>, value: &Value) {
    let written = match value {
        Value::Number(number) => encoder.u64(*number),
        Value::Text(text) => encoder.str(text),
        Value::Bytes(bytes) => encoder.bytes(bytes),
        Value::Bool(bool) => encoder.bool(*bool),
        Value::Nothing => encoder.null(),
        Value::List(values) => encoder.array(values.len() as u64),
        Value::Map(values) => encoder.map(values.len() as u64),
    };
    written.expect("a vector takes every byte");
    if let Value::List(values) | Value::Map(values) = value {
        for (key, item) in (0..).zip(values) {
            if matches!(value, Value::Map(_)) {
                encoder.u64(key).expect("a vector takes every byte");
            }
            write(encoder, item);
        }
    }
}

fn any(random: &mut Random) -> Value {
    match random.below(6) {
        0 => Value::Number(random.odd()),
        1 => Value::Text(name(random)),
        2 => Value::Bytes(vec![random.next() as u8; random.below(40) as usize]),
        3 => Value::Nothing,
        4 => Value::Bool(random.once_in(2)),
        _ => (0..random.below(60)).fold(Value::Number(0), |inner, _| Value::List(vec![inner])),
    }
}

fn name(random: &mut Random) -> String {
    let names = ["victim", "honest", "evil", "nobody", "", ".", "..", "a/b", "../victim", "\u{1b}[2J", "\0", ".hidden"];
    match random.below(names.len() as u64 + 2) as usize {
        at if at < names.len() => names[at].into(),
        at if at == names.len() => "n".repeat(random.below(600) as usize),
        _ => "\u{10348}".repeat(random.below(80) as usize),
    }
}

fn spoil(value: &mut Value, random: &mut Random, facts: &Facts) {
    match value {
        Value::Number(number) => {
            *number = match random.below(4) {
                0 => number.wrapping_add(1),
                1 => number.wrapping_sub(1),
                2 => *number ^ 1 << random.below(64),
                _ => random.odd(),
            }
        }
        Value::Text(text) => *text = name(random),
        Value::Bytes(bytes) => match random.below(5) {
            0 => *bytes = facts.honest.into(),
            1 => *bytes = facts.incarnation.into(),
            2 => bytes.truncate(random.below(17) as usize),
            3 => bytes.extend_from_slice(&random.next().to_le_bytes()),
            _ => {
                let at = random.below(bytes.len().max(1) as u64) as usize;
                bytes
                    .get_mut(at..)
                    .and_then(<[u8]>::first_mut)
                    .into_iter()
                    .for_each(|byte| *byte ^= 1 << random.below(8));
            }
        },
        Value::Bool(bool) => *bool = !*bool,
        Value::Nothing => *value = any(random),
        Value::List(values) | Value::Map(values) => match values.len() as u64 {
            0 => {}
            length => spoil(&mut values[random.below(length) as usize], random, facts),
        },
    }
}

fn bell(random: &mut Random) -> Vec<u8> {
    (random.below(4) << 32 | random.below(3)).to_le_bytes().into()
}

/// What a handshake is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Connects,
    Observes,
    /// It hands over a memory for payloads.
    Lends,
}

/// The handshake that follows from these random numbers.
pub(crate) fn write_script(random: &mut Random, facts: &Facts, samples: &[(usize, Vec<u8>)]) -> Script {
    let what = match random.below(12) {
        0 => What::Observes,
        1..=3 => What::Lends,
        _ => What::Connects,
    };
    let connection = facts.connections.get(random.below(64) as usize).copied().unwrap_or_else(|| random.next());
    // The memory comes with the first message, or after the terms.
    let comes_early = facts.is_private != random.once_in(8);
    let mut drafts = match (what, comes_early) {
        (What::Observes, _) => vec![Draft::observe(random, facts, true), Draft::observe(random, facts, false)],
        (What::Lends, true) => vec![Draft::lend(random, facts)],
        (What::Lends, false) => vec![Draft::lend(random, facts); 2],
        (What::Connects, true) => vec![Draft::hello(random, facts, connection, true)],
        (What::Connects, false) => vec![Draft::hello(random, facts, connection, false), Draft::of(true, data())],
    };
    // A quarter of the drafts stay honest; the others go wrong early or late.
    let changes = [0, 0, 1, 1, 1, 2, 2, 4][random.below(8) as usize];
    for _ in 0..changes {
        let at = random.below(drafts.len() as u64) as usize;
        drafts[at].spoil(random, facts);
    }
    let mut messages: Vec<(Vec<u8>, Vec<usize>)> = drafts.iter().map(|draft| (draft.encode(), Vec::new())).collect();
    if what != What::Observes {
        let honest = if what == What::Lends { PAYLOADS } else { RING };
        messages[usize::from(!comes_early)].1 = match random.below(16) {
            0..=9 => vec![honest],
            _ => {
                let count = [0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 17, 253][random.below(12) as usize];
                let one = random.below(facts.offers) as usize;
                let same = random.once_in(2);
                (0..count).map(|_| if same { one } else { random.below(facts.offers) as usize }).collect()
            }
        };
    }
    // Bytes, lengths, and descriptors where there should be none.
    for (bytes, descriptors) in &mut messages {
        if random.once_in(12) {
            mutate(random, bytes, samples);
            bytes.truncate(8192);
        }
        match random.below(256) {
            0..=3 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
            4 => bytes.resize(random.below(70_000) as usize, random.next() as u8),
            5 | 6 => bytes.resize(4095 + random.below(3) as usize, 0),
            7..=9 => *descriptors = vec![random.below(facts.offers) as usize; 1 + random.below(3) as usize],
            10 => *bytes = bell(random),
            11 => *bytes = samples[random.below(samples.len() as u64) as usize].1.clone(),
            _ => {}
        }
    }
    // The order.
    match random.below(64) {
        0 => messages.reverse(),
        1 => messages.insert(1, messages[0].clone()),
        2 => messages.extend_from_within(messages.len() - 1..),
        3 => drop(messages.remove(0)),
        4 => messages.insert(random.below(messages.len() as u64 + 1) as usize, (bell(random), Vec::new())),
        5 => messages.push((Draft::hello(random, facts, connection, true).encode(), vec![RING])),
        6 => messages.push((Draft::observe(random, facts, true).encode(), Vec::new())),
        8 => messages.push((Draft::lend(random, facts).encode(), vec![PAYLOADS])),
        9 => messages.insert(0, (Draft::lend(random, facts).encode(), vec![PAYLOADS])),
        7 => messages.extend((0..random.below(40)).map(|_| (bell(random), vec![RING])).collect::<Vec<_>>()),
        _ => {}
    }
    // Some do not wait for answers.
    let waits = !random.once_in(8);
    let mut script = VecDeque::with_capacity(2 * messages.len());
    for (bytes, descriptors) in messages {
        script.push_back(Step::Send(bytes, descriptors));
        if waits {
            script.push_back(Step::Await);
        }
    }
    // Bells after the end, and hang-ups at each step.
    if random.once_in(8) {
        script.extend((0..random.below(6)).map(|_| Step::Send(bell(random), Vec::new())));
    }
    match random.below(32) {
        0..=3 => script.truncate(random.below(script.len() as u64 + 1) as usize),
        4 => script.insert(random.below(script.len() as u64 + 1) as usize, Step::HalfClose),
        // Silence until the victim hangs up.
        5 if random.once_in(16) => {
            script.truncate(random.below(3) as usize);
            script.push_back(Step::Await);
        }
        _ => {}
    }
    Script { steps: script, connection }
}

/// Sample messages of the library, to be spliced in.
pub(crate) fn samples() -> Vec<(usize, Vec<u8>)> {
    forge::samples()
}
