//! What senders declare, also what no honest one would, and what that costs.

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

fn direct(wanted: Option<&str>, ledger: &Arc<Ledger>) -> Names {
    Names::new(Address::Node, wanted.map(schema), ledger.names(1))
}

#[test]
fn what_is_sent_to_a_node_is_of_one_type_which_its_inbox_wants() {
    let (declared, message) = (head(Kind::Topic, None), head(Kind::Message, None));
    let learn = |names: &mut Names, text: &str| names.learn(&declared, &declaration("", &schema(text)));
    let mut names = direct(Some("A/json/0000000000000001"), &ledger(u64::MAX));
    assert!(!names.is_expected(&message), "it has not said what it sends");
    let not = |theirs: Option<&str>| Err(NotLearned::Mismatch { topic: "".into(), theirs: theirs.map(schema) });
    assert_eq!(names.learn(&message, b"a message"), not(None));
    for other in ["B/json", "A/cdr", "A/json/0000000000000002"] {
        assert_eq!(learn(&mut names, other), not(Some(other)));
        assert!(!names.is_expected(&message) && names.schema_of(None).is_none());
    }
    assert_eq!(learn(&mut names, "A/json"), Ok(true));
    assert_eq!(learn(&mut names, "A/json"), Ok(false), "again");
    assert!(names.is_expected(&message));
    assert_eq!(names.schema_of(None).map(|known| (**known).clone()), Some(schema("A/json")));
    assert!(matches!(learn(&mut names, "A/json/0000000000000001"), Err(NotLearned::Corrupt(_))), "another one");

    let mut names = direct(None, &ledger(u64::MAX));
    assert!(names.is_expected(&message), "it takes everything");
    assert_eq!(learn(&mut names, "B/cdr"), Ok(true));
    assert!(names.is_expected(&message) && names.schema_of(None).is_some());
    assert!(!names.is_expected(&head(Kind::Message, Some(1))));
}

#[test]
fn a_declaration_for_no_topic_is_checked_and_paid_for() {
    let declared = head(Kind::Topic, None);
    let whole = declaration("", &schema("A/json").with_definition(&[7; MAX_DEFINITION_BYTES]));
    let longer = [&whole[..], &vec![0; MAX_DEFINITION_BYTES * 2]].concat();
    for bad in [&b""[..], b"a", b"\0", b"\0no CBOR", &declaration("a", &schema("A/json")), &longer] {
        let mut names = direct(None, &ledger(u64::MAX));
        assert!(matches!(names.learn(&declared, bad), Err(NotLearned::Corrupt(_))), "{} bytes", bad.len());
    }
    for (head, what) in [
        (head(Kind::Topic, Some(1)), &whole),
        (head(Kind::Topic, Some(1)), &b"a".to_vec()),
        (head(Kind::Reply, None), &whole),
    ] {
        let mut names = direct(None, &ledger(u64::MAX));
        assert!(matches!(names.learn(&head, what), Err(NotLearned::Corrupt(_))), "{head:?}");
    }
    assert!(wanting("**", &ledger(u64::MAX), 1).learn(&declared, &whole).is_err(), "a subscription has topics");
    let ledger = ledger(MAX_DEFINITION_BYTES as u64 + 2000);
    let mut names = direct(None, &ledger);
    assert_eq!(names.learn(&declared, &whole), Ok(true));
    let second = direct(None, &ledger).learn(&declared, &whole);
    assert!(matches!(second, Err(NotLearned::TooMuch(_))), "its user has paid for one: {second:?}");
    drop(names);
    assert!(ledger.is_settled());
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
