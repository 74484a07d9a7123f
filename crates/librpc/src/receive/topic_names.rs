//! The names of the topic numbers on one channel, as its sender declared them. Each declaration is checked once.
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
    /// The topic is of another type than the inbox wants, which an honest sender knows.
    Mismatch { topic: Arc<str>, theirs: Option<Schema> },
}

impl Names {
    /// No topics yet. This charge pays for what will be declared.
    pub(crate) fn new(address: Address, wanted: Option<Schema>, charge: Charge) -> Self {
        let (text, pages, schemas) = (String::new(), Vec::new(), HashSet::new());
        Self { address, text, pages, names: 0, shared: None, wanted, schemas, typed: BTreeMap::new(), charge }
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

    /// The type of the topic of this number, as its sender says.
    pub(crate) fn schema_of(&self, number: Option<u64>) -> Option<&Arc<Schema>> {
        self.typed.get(&number?)
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

    /// Whether the inbox receives messages of this topic, or of none. (An inbox without patterns knows no topic.)
    #[inline(always)]
    pub(crate) fn has(&self, topic: Option<u64>) -> bool {
        match topic {
            Some(number) => self.entry(number).is_some(),
            None => matches!(self.address, Address::Node),
        }
    }

    /// Takes a declaration. Returns whether it is new.
    #[cold]
    pub(crate) fn learn(&mut self, head: &Head, what: &[u8]) -> Result<bool, NotLearned> {
        let corrupt = |why: String| Err(NotLearned::Corrupt(why));
        let (Kind::Topic, Some(number), Address::Topics(patterns)) = (head.kind, head.topic, &self.address) else {
            return corrupt(format!("it sends an unexpected record, {head:?}"));
        };
        let Some(index) = usize::try_from(number).ok().filter(|&index| index < MAX_TOPICS) else {
            return corrupt(format!("it gives a topic the number {number}; the limit is {MAX_TOPICS}"));
        };
        let (name, schema) = split(what);
        // Before anything is made of it.
        if name.len() > MAX_TOPIC_BYTES || what.len() > MAX_DECLARATION {
            return corrupt(format!("it declares a topic in {} bytes, {} of them its name", what.len(), name.len()));
        }
        let schema = match schema.map(|bytes| wire::decode::<ListedSchema>(bytes).map(Schema::try_from)) {
            Some(Ok(Ok(schema))) => Some(schema),
            Some(Ok(Err(bad))) => return corrupt(bad.to_string()),
            Some(Err(bad)) => return corrupt(bad.to_string()),
            None => None,
        };
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
            self.note(number, schema)?;
        }
        self.add(index, name)?;
        Ok(true)
    }

    /// Notes the type of a topic.
    fn note(&mut self, number: u64, schema: Schema) -> Result<(), NotLearned> {
        let known = self.schemas.get(&schema).cloned();
        let first = if self.typed.is_empty() { FIRST_TYPED_OVERHEAD } else { 0 };
        let cost = TYPED_OVERHEAD + first + if known.is_none() { schema.bytes() } else { 0 };
        self.charge.add_names(cost as u64).map_err(too_much)?;
        let schema = known.unwrap_or_else(|| {
            let new = Arc::new(schema);
            self.schemas.insert(new.clone());
            new
        });
        self.typed.insert(number, schema);
        Ok(())
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
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::link::ledger::{Ledger, Limits};

    /// No topics, on a channel of an inbox that wants what matches this pattern.
    fn wanting(pattern: &str, ledger: &Arc<Ledger>, uid: u32) -> Names {
        Names::new(Address::Topics([pattern.parse().unwrap()].into()), None, ledger.names(uid))
    }

    fn ledger(topic_bytes_per_user: u64) -> Arc<Ledger> {
        Ledger::new(Limits { topic_bytes_per_user, ..Limits::default() })
    }

    fn head(kind: Kind, topic: Option<u64>) -> Head {
        Head { topic, ..Head::of(kind) }
    }

    #[test]
    fn a_number_means_what_was_declared() {
        let mut names = wanting("a/*", &ledger(u64::MAX), 1);
        let (declared, message) = (head(Kind::Topic, Some(7)), head(Kind::Message, Some(7)));
        assert!(!names.is_expected(&message), "not declared yet");
        assert_eq!(names.learn(&declared, b"a/b"), Ok(true));
        assert_eq!(names.learn(&declared, b"a/b"), Ok(false), "again");
        assert!(names.is_expected(&message));
        assert_eq!(names.of(message.topic), Some("a/b"));
        assert!(!names.is_expected(&head(Kind::Message, None)), "without a topic");
        let for_node = Names::new(Address::Node, None, ledger(u64::MAX).names(1));
        assert!(for_node.is_expected(&head(Kind::Message, None)));
        assert!(!for_node.is_expected(&message));
    }

    #[test]
    fn what_no_honest_sender_declares_is_refused() {
        let mut names = wanting("a/*", &ledger(u64::MAX), 1);
        assert_eq!(names.learn(&head(Kind::Topic, Some(1)), b"a/b"), Ok(true));
        for (head, name) in [
            (head(Kind::Topic, Some(1)), &b"a/c"[..]),
            (head(Kind::Topic, Some(2)), b"b"),
            (head(Kind::Topic, Some(2)), b"a/*"),
            (head(Kind::Topic, Some(2)), b"a/\xff"),
            (head(Kind::Topic, Some(MAX_TOPICS as u64)), b"a/b"),
            (head(Kind::Topic, Some(u64::MAX)), b"a/b"),
            (head(Kind::Topic, None), b"a/b"),
            (head(Kind::Reply, Some(2)), b"a/b"),
            (head(Kind::Message, Some(3)), b"hello"),
        ] {
            let learned = names.learn(&head, name);
            assert!(matches!(learned, Err(NotLearned::Corrupt(_))), "{head:?} {name:?}: {learned:?}");
        }
        let mut for_node = Names::new(Address::Node, None, ledger(u64::MAX).names(1));
        assert!(for_node.learn(&head(Kind::Topic, Some(1)), b"a/b").is_err());
    }

    /// Declares topics of the longest name with these numbers, until one is refused.
    fn declare_all(names: &mut Names, numbers: impl Iterator<Item = u64>) -> (u64, Option<NotLearned>) {
        let mut learned = 0;
        for number in numbers {
            let name = format!("{number:0>MAX_TOPIC_BYTES$}");
            match names.learn(&head(Kind::Topic, Some(number)), name.as_bytes()) {
                Ok(is_new) => learned += u64::from(is_new),
                Err(why) => return (learned, Some(why)),
            }
            assert_eq!(names.of(Some(number)), Some(&*name));
        }
        (learned, None)
    }

    /// The bytes that are allocated for names, without those for statistics.
    fn allocated(names: &Names) -> usize {
        let pages = names.pages.iter().flatten().count() * size_of::<Page>();
        names.text.capacity() + names.pages.capacity() * size_of::<Option<Box<Page>>>() + pages
    }

    #[test]
    fn all_memory_is_on_the_users_account_before_it_is_allocated() {
        let ledger = ledger(100_000);
        // One after another, and as far from each other as possible.
        for step in [1, PAGE as u64] {
            let mut names = wanting("**", &ledger, 7);
            let (learned, why) = declare_all(&mut names, (0..MAX_TOPICS as u64).step_by(step as usize));
            let Some(NotLearned::TooMuch(why)) = why else { panic!("{learned} were taken: {why:?}") };
            assert_eq!(
                why,
                "the topics that uid 7 has declared here take more than 100000 bytes (Limits::topic_bytes_per_user)"
            );
            assert!(allocated(&names) <= 100_000, "{} bytes for {learned} topics", allocated(&names));
            assert!(learned >= 100, "{learned}");
            let mut others = wanting("**", &ledger, 8);
            assert_eq!(declare_all(&mut others, 0..50), (50, None), "another user's account");
        }
        assert!(ledger.is_settled(), "everything comes back");
    }

    #[test]
    fn a_lone_declaration_of_the_highest_number_costs_next_to_nothing() {
        let mut names = wanting("**", &ledger(10_000), 1);
        assert_eq!(declare_all(&mut names, [MAX_TOPICS as u64 - 1].into_iter()), (1, None));
        assert!(allocated(&names) < 10_000, "{}", allocated(&names));
    }

    #[test]
    fn a_channel_has_a_bounded_number_of_bytes_of_names() {
        let mut names = wanting("**", &ledger(u64::MAX), 1);
        let (learned, why) = declare_all(&mut names, 0..MAX_TOPICS as u64);
        assert_eq!(learned, (MAX_TEXT / MAX_TOPIC_BYTES) as u64);
        let why_not = "its topics' names take more than 8388608 bytes".to_owned();
        assert_eq!(why, Some(NotLearned::TooMuch(why_not)));
    }

    #[test]
    fn an_outbox_with_all_its_topics_is_taken() {
        let mut names = wanting("**", &ledger(u64::MAX), 1);
        for number in 0..MAX_TOPICS as u64 {
            let name = format!("a topic of one hundred and twenty bytes, which is more than is usual, {number:050}");
            assert_eq!(names.learn(&head(Kind::Topic, Some(number)), name.as_bytes()), Ok(true));
        }
    }

    fn schema(text: &str) -> Schema {
        text.parse().unwrap()
    }

    /// The declaration of a topic of a type, as its publisher writes it.
    fn declaration(name: &str, schema: &Schema) -> Vec<u8> {
        [name.as_bytes(), &[0], &wire::encode(&ListedSchema::from(schema))].concat()
    }

    fn typed(wanted: &str) -> Names {
        Names::new(Address::Topics(["**".parse().unwrap()].into()), Some(schema(wanted)), ledger(u64::MAX).names(1))
    }

    #[test]
    fn a_topic_of_another_type_is_no_topic_of_this_inbox() {
        let mut names = typed("A/json/0000000000000001");
        let learn = |names: &mut Names, number, text: &str| {
            names.learn(&head(Kind::Topic, Some(number)), &declaration("a", &schema(text)))
        };
        for (number, other) in [(1, "B/json"), (2, "A/cdr"), (3, "A/json/0000000000000002")] {
            let not = NotLearned::Mismatch { topic: "a".into(), theirs: Some(schema(other)) };
            assert_eq!(learn(&mut names, number, other), Err(not));
            assert!(!names.has(Some(number)) && names.schema_of(Some(number)).is_none());
        }
        let bytes = names.learn(&head(Kind::Topic, Some(4)), b"a");
        assert_eq!(bytes, Err(NotLearned::Mismatch { topic: "a".into(), theirs: None }));
        assert!(!names.has(Some(4)));
        for (number, same) in [(5, "A/json"), (6, "A/json/0000000000000001")] {
            assert_eq!(learn(&mut names, number, same), Ok(true));
            assert_eq!(**names.schema_of(Some(number)).unwrap(), schema(same));
        }
    }

    #[test]
    fn a_topic_has_one_type_however_often_it_is_declared() {
        let (a, b) = (schema("A/json"), schema("B/json"));
        let whole = a.clone().with_definition(b"what it is made of");
        let mut names = wanting("**", &ledger(u64::MAX), 1);
        let declared = head(Kind::Topic, Some(1));
        assert_eq!(names.learn(&declared, &declaration("a", &a)), Ok(true));
        assert_eq!(names.learn(&declared, &declaration("a", &a)), Ok(false), "again");
        let others = [declaration("a", &b), declaration("a", &whole), declaration("b", &a), b"a".to_vec()];
        for other in &others {
            let learned = names.learn(&declared, other);
            assert!(matches!(learned, Err(NotLearned::Corrupt(_))), "{other:?}: {learned:?}");
        }
        assert_eq!(**names.schema_of(Some(1)).unwrap(), a);
        assert_eq!(names.learn(&head(Kind::Topic, Some(2)), b"a"), Ok(true));
        assert!(names.learn(&head(Kind::Topic, Some(2)), &declaration("a", &a)).is_err(), "it had none");
    }

    #[test]
    fn a_type_that_is_none_is_refused() {
        let listed = |name: &str, definition: usize| {
            let (name, definition) = (name.to_owned(), Some(vec![7; definition]));
            wire::encode(&ListedSchema { name, encoding: 3, hash: None, definition })
        };
        let bad = [
            vec![],
            b"no CBOR".to_vec(),
            vec![0xff],
            vec![0xa0],       // without a name
            vec![0x9f; 4096], // nested without end
            vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            listed("", 0),
            listed("\u{1b}\n", 0), // of control characters alone
            listed(&"x".repeat(129), 0),
            listed("A", 2 * MAX_DEFINITION_BYTES), // longer than any declaration
            listed(&"x".repeat(1 << 20), 0),
            listed("A", 0)[..4].to_vec(),
        ];
        for bad in &bad {
            let mut names = wanting("**", &ledger(u64::MAX), 1);
            let learned = names.learn(&head(Kind::Topic, Some(1)), &[b"a\0", &bad[..]].concat());
            let Err(NotLearned::Corrupt(why)) = learned else { panic!("{learned:?}") };
            assert!(why.len() < 1000, "{} bytes of reason", why.len());
            assert!(!names.has(Some(1)));
        }
        let mut names = wanting("**", &ledger(u64::MAX), 1);
        for name in [vec![b'x'; 256], vec![b'x'; 1 << 20]] {
            let learned = names.learn(&head(Kind::Topic, Some(1)), &name);
            let Err(NotLearned::Corrupt(why)) = learned else { panic!("{learned:?}") };
            assert!(why.len() < 1000, "{} bytes of reason", why.len());
        }
        let longest = listed(&"x".repeat(128), MAX_DEFINITION_BYTES);
        let learned = names.learn(&head(Kind::Topic, Some(1)), &[&[b'x'; 255][..], b"\0", &longest].concat());
        assert_eq!(learned, Ok(true), "the longest one");
        assert_eq!(names.schema_of(Some(1)).unwrap().definition().unwrap().len(), MAX_DEFINITION_BYTES);
        // What a later version says of a type is not understood, and does no harm.
        let later = [b"a\0".to_vec(), vec![0xa3, 0, 0x61, b'A', 1, 3, 24, 99, 0x61, b'?']].concat();
        assert_eq!(names.learn(&head(Kind::Topic, Some(2)), &later), Ok(true));
    }

    /// The bytes that are allocated for types, at least.
    fn allocated_for_types(names: &Names) -> usize {
        let of = |schema: &Arc<Schema>| {
            size_of::<Schema>() + schema.name().len() + schema.definition().map_or(0, <[u8]>::len) + 48
        };
        // A leaf of a B-tree is half full, and holds 11 entries.
        let leaves = names.typed.len().div_ceil(6) * (11 * 16 + 16);
        let table = names.schemas.capacity() * 9 * 8 / 7;
        names.schemas.iter().map(of).sum::<usize>() + leaves + table
    }

    #[test]
    fn all_memory_of_types_is_on_the_users_account_before_it_is_allocated() {
        const LIMIT: u64 = 200_000;
        let ledger = ledger(LIMIT);
        let definitions: [fn(usize) -> usize; 3] = [|_| 0, |_| MAX_DEFINITION_BYTES, |number| number % 1000];
        for definition in definitions {
            // Each topic of a type of its own, and all of the same.
            for is_same in [false, true] {
                let mut names = wanting("**", &ledger, 7);
                let mut learned = 0;
                let why = loop {
                    let of = if is_same { 1 } else { learned };
                    let schema = schema(&format!("T{of}/json")).with_definition(&vec![7; definition(of)]);
                    let what = declaration(&format!("t{learned}"), &schema);
                    match names.learn(&head(Kind::Topic, Some(learned as u64)), &what) {
                        Ok(true) => learned += 1,
                        other => break other,
                    }
                };
                assert!(matches!(why, Err(NotLearned::TooMuch(_))), "{learned} were taken: {why:?}");
                let allocated = allocated(&names) + allocated_for_types(&names);
                assert!(allocated as u64 <= LIMIT, "{allocated} bytes for {learned} topics");
                assert!(learned >= LIMIT as usize / (MAX_DEFINITION_BYTES + 1000), "{learned}");
                assert!(!is_same || learned > 500, "a type is kept once: {learned}");
            }
        }
        assert!(ledger.is_settled(), "everything comes back");
    }

    /// Looking for a known type does not take longer the more there are.
    #[test]
    fn an_outbox_whose_topics_are_each_of_a_type_of_its_own_is_taken() {
        let mut names = wanting("**", &ledger(u64::MAX), 1);
        for number in 0..MAX_TOPICS as u64 {
            let what = declaration(&format!("t{number}"), &schema(&format!("T/json/{number:016x}")));
            assert_eq!(names.learn(&head(Kind::Topic, Some(number)), &what), Ok(true));
        }
        assert_eq!(names.schema_of(Some(7)).unwrap().hash(), Some(7));
    }
}
