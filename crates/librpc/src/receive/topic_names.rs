//! The names of the topic numbers on one channel, as its sender declared them, and the type of what is sent to a node itself. Each
//! declaration is checked once.
//!
//! The names are stored in one text, and a number's entry says where. Entries are in pages, so a single high number costs one
//! page. Invariant: all memory that a declaration takes is on the account of the sender's user before it is allocated.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use librpc_ring::{Head, Kind};

use crate::link::ledger::{Charge, OverLimit};
use crate::name::Address;
use crate::schema::{ListedSchema, MAX_DEFINITION_BYTES, Schema, is_readable, text_of};
use crate::stats::channels::SHOWN_TOPICS;
use crate::text;
use crate::topic::{MAX_TOPIC_BYTES, MAX_TOPICS, check_topic};
use crate::wire;

/// The most bytes of names on one channel.
const MAX_TEXT: usize = 8 << 20;
/// Entries of a page.
const PAGE: usize = 64;
/// The longest declaration, in bytes: a name, and a type with its definition, of which later versions may say more.
const MAX_DECLARATION: usize = 2 * MAX_DEFINITION_BYTES;
/// What a topic's type costs in addition to the type itself, which is kept once for all topics of it. For the first one, the tables begin.
const TYPED_OVERHEAD: usize = 64;
const FIRST_TYPED_OVERHEAD: usize = 512;
/// What a name that is shown in statistics costs in addition to its bytes.
const SHOWN_OVERHEAD: usize = 48;

/// Where a name is: its offset in the text in the high 24 bits, its length in the low 8. 0: the number is not declared
/// yet.
type Entry = u32;

const _: () = assert!(MAX_TEXT <= 1 << 24 && MAX_TOPIC_BYTES < 1 << 8);

type Page = [Entry; PAGE];

/// The topics of one channel, by their numbers.
pub(crate) struct Names {
    /// What the inbox receives.
    address: Address,
    text: String,
    pages: Vec<Option<Box<Page>>>,
    names: usize,
    /// The name that was last shared.
    shared: Option<(u64, Arc<str>)>,
    /// What the messages must be; `None`: anything.
    wanted: Option<Schema>,
    /// Whether messages without a topic are expected: the inbox is a node's own, and takes everything, or they are of its type.
    takes_direct: bool,
    /// Their type, as the sender says.
    direct: Option<Arc<Schema>>,
    /// The types of topics, and which topic is of which.
    schemas: HashSet<Arc<Schema>>,
    typed: BTreeMap<u64, Arc<Schema>>,
    charge: Charge,
}

/// Why a declaration was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotLearned {
    /// No honest sender would send it to this inbox.
    Corrupt(String),
    /// There are more names than the channel, or the sender's user, may have.
    TooMuch(String),
    /// The topic, or what is sent without one, is of another type than the inbox wants, which an honest sender knows.
    Mismatch { topic: Arc<str>, theirs: Option<Schema> },
}

impl Names {
    /// No topics yet. This charge pays for what will be declared.
    pub(crate) fn new(address: Address, wanted: Option<Schema>, charge: Charge) -> Self {
        Self {
            takes_direct: address == Address::Node && wanted.is_none(),
            address,
            text: String::new(),
            pages: Vec::new(),
            names: 0,
            shared: None,
            wanted,
            direct: None,
            schemas: HashSet::new(),
            typed: BTreeMap::new(),
            charge,
        }
    }

    #[inline(always)]
    fn entry(&self, number: u64) -> Option<Entry> {
        let number = usize::try_from(number).ok()?;
        let page = self.pages.get(number / PAGE)?.as_ref()?;
        Some(page[number % PAGE]).filter(|&entry| entry != 0)
    }

    fn get(&self, number: u64) -> Option<&str> {
        let entry = self.entry(number)? as usize;
        let (offset, bytes) = (entry >> 8, entry & 0xff);
        Some(&self.text[offset..offset + bytes])
    }

    /// The topic of this number.
    pub(crate) fn of(&self, number: Option<u64>) -> Option<&str> {
        self.get(number?)
    }

    /// The type of the topic of this number, or of messages without one, as their sender says.
    pub(crate) fn schema_of(&self, number: Option<u64>) -> Option<&Arc<Schema>> {
        match number {
            Some(number) => self.typed.get(&number),
            None => self.direct.as_ref(),
        }
    }

    /// The same, to be kept.
    pub(crate) fn shared(&mut self, number: Option<u64>) -> Option<Arc<str>> {
        let number = number?;
        match &self.shared {
            Some((known, name)) if *known == number => Some(name.clone()),
            _ => {
                let name: Arc<str> = self.get(number)?.into();
                self.shared = Some((number, name.clone()));
                Some(name)
            }
        }
    }

    /// Whether a record is what the inbox receives: a message, or what belongs to a call.
    pub(crate) fn is_expected(&self, head: &Head) -> bool {
        match (head.kind, &self.address) {
            (Kind::Message, _) => self.has(head.topic),
            (Kind::Request | Kind::Cancel | Kind::Credit, Address::Service(_)) => head.correlation.is_some(),
            (Kind::Caller, Address::Service(_)) => true,
            (Kind::Reply | Kind::Part | Kind::End | Kind::Failure, Address::Replies) => head.correlation.is_some(),
            _ => false,
        }
    }

    /// Whether the inbox receives messages of this topic, or of none, as far as was declared. (An inbox without patterns knows no topic.)
    #[inline(always)]
    pub(crate) fn has(&self, topic: Option<u64>) -> bool {
        match topic {
            Some(number) => self.entry(number).is_some(),
            None => self.takes_direct,
        }
    }

    /// Takes a declaration. Returns whether it is new.
    #[cold]
    pub(crate) fn learn(&mut self, head: &Head, what: &[u8]) -> Result<bool, NotLearned> {
        let corrupt = |why: String| Err(NotLearned::Corrupt(why));
        let (number, patterns) = match (head.kind, head.topic, &self.address) {
            (Kind::Topic, Some(number), Address::Topics(patterns)) => (number, patterns),
            (Kind::Topic, None, Address::Node) => return self.learn_direct(what),
            // The list of inboxes says that it takes messages of a type only.
            (Kind::Message, None, Address::Node) => {
                return Err(NotLearned::Mismatch { topic: "".into(), theirs: None });
            }
            _ => return corrupt(format!("it sends an unexpected record, {head:?}")),
        };
        let Some(index) = usize::try_from(number).ok().filter(|&index| index < MAX_TOPICS) else {
            return corrupt(format!("it gives a topic the number {number}; the limit is {MAX_TOPICS}"));
        };
        let (name, schema) = split(what);
        // Before anything is made of it.
        if name.len() > MAX_TOPIC_BYTES || what.len() > MAX_DECLARATION {
            return corrupt(format!(
                "it declares a topic in {}, {} of them its name",
                text::bytes(what.len()),
                name.len()
            ));
        }
        let schema = schema.map(read).transpose()?;
        if let Some(known) = self.get(number) {
            let of = self.schema_of(Some(number)).map(|schema| &**schema);
            if known.as_bytes() == name && of == schema.as_ref() {
                return Ok(false);
            }
            let (name, of, then) = (String::from_utf8_lossy(name), text_of(of), text_of(schema.as_ref()));
            return corrupt(format!("it declares topic {number} as {known:?} {of}, then as {name:?} {then}"));
        }
        let Ok(name) = str::from_utf8(name) else {
            return corrupt("it declares a topic that is not text".into());
        };
        if let Err(bad) = check_topic(name) {
            return corrupt(bad.to_string());
        }
        if !patterns.iter().any(|pattern| pattern.matches(name)) {
            return corrupt(format!("it declares topic {name:?}, which this inbox did not subscribe to"));
        }
        if !is_readable(schema.as_ref(), self.wanted.as_ref()) {
            return Err(NotLearned::Mismatch { topic: name.into(), theirs: schema });
        }
        if let Some(schema) = schema {
            let schema = self.kept(schema)?;
            self.typed.insert(number, schema);
        }
        self.add(index, name)?;
        Ok(true)
    }

    /// Takes the type of messages without a topic. Returns whether it is new.
    fn learn_direct(&mut self, what: &[u8]) -> Result<bool, NotLearned> {
        let corrupt = |why: String| Err(NotLearned::Corrupt(why));
        let (b"", Some(schema)) = split(what) else {
            return corrupt("it declares a topic without a number".into());
        };
        if what.len() > MAX_DECLARATION {
            return corrupt(format!("it declares its type in {} bytes", what.len()));
        }
        let schema = read(schema)?;
        if let Some(known) = &self.direct {
            return match **known == schema {
                true => Ok(false),
                false => corrupt(format!("it says that it sends what is of type {known}, then of type {schema}")),
            };
        }
        if !is_readable(Some(&schema), self.wanted.as_ref()) {
            return Err(NotLearned::Mismatch { topic: "".into(), theirs: Some(schema) });
        }
        self.direct = Some(self.kept(schema)?);
        self.takes_direct = true;
        Ok(true)
    }

    /// A type, paid for, and kept once.
    fn kept(&mut self, schema: Schema) -> Result<Arc<Schema>, NotLearned> {
        let known = self.schemas.get(&schema).cloned();
        let first = if self.schemas.is_empty() { FIRST_TYPED_OVERHEAD } else { 0 };
        let cost = TYPED_OVERHEAD + first + if known.is_none() { schema.bytes() } else { 0 };
        self.charge.add_names(cost as u64).map_err(too_much)?;
        Ok(known.unwrap_or_else(|| {
            let new = Arc::new(schema);
            self.schemas.insert(new.clone());
            new
        }))
    }

    fn add(&mut self, index: usize, name: &str) -> Result<(), NotLearned> {
        let (page, offset) = (index / PAGE, self.text.len());
        let end = offset + name.len();
        if end > MAX_TEXT {
            return Err(NotLearned::TooMuch(format!("its topics' names take more than {MAX_TEXT} bytes")));
        }
        let mut cost = 0;
        let capacity = if end <= self.text.capacity() { self.text.capacity() } else { end.next_power_of_two() };
        cost += capacity - self.text.capacity();
        let pages = self.pages.len().max(page + 1);
        cost += (pages - self.pages.len()) * size_of::<Option<Box<Page>>>();
        if self.pages.get(page).is_none_or(Option::is_none) {
            cost += size_of::<Page>();
        }
        if self.names < SHOWN_TOPICS {
            cost += name.len() + SHOWN_OVERHEAD;
        }
        self.charge.add_names(cost as u64).map_err(too_much)?;
        self.text.reserve_exact(capacity - offset);
        self.text.push_str(name);
        self.pages.reserve_exact(pages - self.pages.len());
        self.pages.resize_with(pages, || None);
        self.pages[page].get_or_insert_with(|| Box::new([0; PAGE]))[index % PAGE] = (offset << 8 | name.len()) as Entry;
        self.names += 1;
        Ok(())
    }
}

/// A type as it is declared, checked.
fn read(bytes: &[u8]) -> Result<Schema, NotLearned> {
    let listed = wire::decode::<ListedSchema>(bytes).map_err(|bad| NotLearned::Corrupt(bad.to_string()))?;
    Schema::try_from(listed).map_err(|bad| NotLearned::Corrupt(bad.to_string()))
}

/// A topic's declaration: its name, and its type if it has one.
pub(crate) fn split(what: &[u8]) -> (&[u8], Option<&[u8]>) {
    match what.iter().position(|byte| *byte == 0) {
        Some(end) => (&what[..end], Some(&what[end + 1..])),
        None => (what, None),
    }
}

fn too_much(OverLimit { uid, limit }: OverLimit) -> NotLearned {
    NotLearned::TooMuch(format!(
        "the topics that uid {uid} has declared here take more than {limit} bytes (Limits::topic_bytes_per_user)"
    ))
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.names)
    }
}

#[cfg(test)]
mod tests;
