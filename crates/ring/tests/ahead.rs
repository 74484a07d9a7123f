//! A look at what is still to come, compared with a list, and over memory that a liar has written.

mod plain;
#[allow(dead_code, reason = "only the ring is needed")]
mod reference;

use librpc_ring::layout::data;
use librpc_ring::{Head, Kind, MemoryMut, Mode};
use proptest::collection::vec;
use proptest::prelude::*;

use reference::{capacity, ring};

/// A topic, whether it is only declared, and how long its payload is.
fn record() -> impl Strategy<Value = (Option<u64>, bool, usize)> {
    (proptest::option::of(1..4u64), proptest::bool::weighted(0.1), 0..100usize)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Lossless), Just(Mode::Latest)]
}

proptest! {
    #[test]
    fn a_look_ahead_counts_what_follows(
        capacity in capacity(),
        mode in mode(),
        records in vec(record(), 0..200),
        popped in 0..200usize,
        topic in proptest::option::of(1..4u64),
        messages in 0..5usize,
    ) {
        let (mut sender, mut receiver, ..) = ring(capacity, mode);
        let (mut sent, mut used) = (Vec::new(), 0);
        for (topic, is_declared, bytes) in records {
            let kind = if is_declared { Kind::Topic } else { Kind::Message };
            let head = Head { topic, ..Head::of(kind) };
            used += head.record_bytes(bytes);
            // Without an overtaken receiver, what is there is the list.
            if used > capacity / 2 || sender.push(head, &vec![7; bytes]).is_err() {
                break;
            }
            sent.push((topic, is_declared));
        }
        let popped = popped.min(sent.len());
        for _ in 0..popped {
            prop_assert!(receiver.pop(&mut Vec::new()).unwrap().is_some());
        }
        let ahead = sent[popped..].iter().filter(|(of, is_declared)| !is_declared && *of == topic).count();
        let look = receiver.ahead(messages, topic);
        prop_assert_eq!(look.is_followed, ahead >= messages);
        prop_assert!(look.records as usize <= sent.len() - popped);
        prop_assert_eq!(receiver.pop(&mut Vec::new()).unwrap().is_some(), popped < sent.len());
    }

    #[test]
    fn a_look_ahead_over_anything_ends_and_takes_nothing(
        capacity in capacity(),
        mode in mode(),
        words in vec((any::<prop::sample::Index>(), any::<u64>(), 0..3u8), 0..200),
        messages in 0..5usize,
    ) {
        let (mut sender, mut receiver, memory, _) = ring(capacity, mode);
        while sender.push(Head::MESSAGE, &[7; 20]).is_ok() && sender.committed() < capacity / 2 {}
        let before = receiver.counters();
        for (at, value, lie) in words {
            let word = data::RING + at.index(capacity as usize / 8);
            memory.put(word, match lie {
                0 => value,
                1 => value & 0xffff | 1 << 32,
                _ => value & 0xffff,
            });
            receiver.ahead(messages, None);
        }
        prop_assert_eq!(receiver.counters(), before);
        let _ = receiver.pop(&mut Vec::new());
    }
}

/// Its sender has announced to overwrite what follows, and has not yet done so: the words that are read may be of different times.
#[test]
fn an_overtaken_receiver_knows_nothing_of_what_follows() {
    let (mut sender, receiver, memory, _) = ring(4096, Mode::Latest);
    for _ in 0..3 {
        sender.push(Head::MESSAGE, &[7; 20]).unwrap();
    }
    assert!(receiver.ahead(3, None).is_followed);
    memory.put(data::INTENT, 4096 + 8);
    assert!(!receiver.ahead(3, None).is_followed);
}
