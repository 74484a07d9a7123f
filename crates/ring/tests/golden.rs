//! The byte layout of version 3, pinned. If a test here fails, rings of this build and of released builds no longer understand
//! each other: raise `layout::VERSION`, or revert the change.

mod plain;

use librpc_ring::layout::{self, ack, data};
use librpc_ring::{Consumer, Corrupt, Head, Kind, Lent, Mode, Producer, release, stop_waiting, wait_for_receiver};

use plain::Plain;

const CAPACITY: u64 = 1024;

/// The words of the ring from this position on.
fn ring_words<const N: usize>(data: &Plain, position: usize) -> [u64; N] {
    std::array::from_fn(|word| data.cell(data::RING + position / 8 + word).get())
}

/// The words that are not zero, with their indexes.
fn written(memory: &Plain, words: usize) -> Vec<(usize, u64)> {
    (0..words).map(|word| (word, memory.cell(word).get())).filter(|(_, value)| *value != 0).collect()
}

#[test]
fn constants() {
    assert_eq!(layout::DATA_MAGIC.to_le_bytes(), *b"LRPCDATA");
    assert_eq!(layout::ACK_MAGIC.to_le_bytes(), *b"LRPC_ACK");
    assert_eq!((layout::DATA_MAGIC, layout::ACK_MAGIC), (0x4154_4144_4350_524c, 0x4b43_415f_4350_524c));
    assert_eq!((layout::VERSION, layout::WORD), (3, 8));
    assert_eq!((layout::HEADER_BYTES, layout::ACK_BYTES), (65_536, 8192));
    assert_eq!((layout::MODE_LOSSLESS, layout::MODE_LATEST), (0, 1));
    assert_eq!((layout::MIN_CAPACITY, layout::MAX_CAPACITY), (512, 1 << 30));
    assert_eq!(layout::RECORD_OVERHEAD, 64);
}

#[test]
fn word_indexes() {
    assert_eq!([data::MAGIC, data::VERSION, data::CAPACITY, data::MODE], [0, 1, 2, 3]);
    assert_eq!([data::FIRST, data::WAITING, data::CLOSED, data::INTENT, data::MARK], [4, 8, 9, 16, 17]);
    assert_eq!([data::COMMITTED, data::SEQUENCE, data::BYTES, data::DROPPED], [24, 25, 26, 27]);
    assert_eq!([data::RETURNED, data::BLOCKED_NS, data::DEPTH_MAX, data::LAST_SENT], [28, 29, 30, 31]);
    assert_eq!([data::TURNED_AWAY, data::TOO_LARGE, data::NO_ROOM, data::NO_MEMORY], [32, 33, 34, 35]);
    assert_eq!(data::RING, 8192);
    assert_eq!([ack::MAGIC, ack::VERSION], [0, 1]);
    assert_eq!([ack::CONSUMED, ack::TAKEN, ack::ARMED], [8, 9, 16]);
    assert_eq!([ack::RECEIVED, ack::PROCESSED, ack::MISSED, ack::BYTES_RECEIVED], [24, 25, 26, 27]);
    assert_eq!([ack::LAST_RECEIVED, ack::LATENCY_SUM, ack::LATENCY_MAX], [28, 32, 33]);
    assert_eq!([ack::HISTOGRAM, ack::BUCKETS], [40, 464]);
    assert_eq!([ack::HOLDS_USED, ack::HOLDS, ack::HOLD_WORDS], [10, 512, 512]);
}

#[test]
fn limits() {
    let limits = |capacity, mode| (layout::max_record_bytes(capacity, mode), layout::max_payload_bytes(capacity, mode));
    assert_eq!(limits(layout::MIN_CAPACITY, Mode::Lossless), (128, 64));
    assert_eq!(limits(CAPACITY, Mode::Lossless), (256, 192));
    assert_eq!(limits(256 * 1024, Mode::Lossless), (65_536, 65_472));
    assert_eq!(limits(layout::MAX_CAPACITY, Mode::Lossless), (268_435_456, 268_435_392));
    assert_eq!(limits(layout::MIN_CAPACITY, Mode::Latest), (64, 0));
    assert_eq!(limits(CAPACITY, Mode::Latest), (128, 64));
    assert_eq!(limits(256 * 1024, Mode::Latest), (32_768, 32_704));
    assert_eq!(layout::max_payload_bytes(64, Mode::Lossless), 0);
    assert_eq!(layout::max_payload_bytes(64, Mode::Latest), 0);
    let valid = [0, 256, 512, 600, 4096, 1 << 30, 1 << 31].map(layout::is_valid_capacity);
    assert_eq!(valid, [false, false, true, false, true, true, false]);
}

#[test]
fn headers() {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    let words = data::RING + CAPACITY as usize / 8;
    let mut sender = Producer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless);
    assert_eq!(written(&data, words), [(0, 0x4154_4144_4350_524c), (1, 3), (2, 0x400)]);
    let mut receiver = Consumer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless).unwrap();
    assert_eq!(written(&ack, 512), [(0, 0x4b43_415f_4350_524c), (1, 3)]);

    sender.push(Head::MESSAGE, b"12345678").unwrap();
    sender.push(Head::MESSAGE, b"").unwrap();
    wait_for_receiver(&data, &ack, 7);
    sender.close();
    assert_eq!(written(&data, data::RING)[3..], [(8, 7), (9, 1), (24, 0x28), (25, 2), (26, 8), (30, 0x18)]);
    stop_waiting(&data);
    assert_eq!(data.cell(8).get(), 0);

    receiver.pop(&mut Vec::new()).unwrap().unwrap();
    receiver.consume();
    receiver.pop(&mut Vec::new()).unwrap().unwrap();
    receiver.arm();
    assert_eq!(written(&ack, 512)[2..], [(8, 0x18), (9, 0x28), (16, 1), (24, 2), (25, 1), (27, 8)]);
}

/// The error names both versions, so that the user knows which side to update.
#[test]
fn another_version_is_refused_by_name() {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    Producer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless);
    data.cell(data::VERSION).set(1);
    let corrupt = Consumer::new(data, ack, CAPACITY, Mode::Lossless).unwrap_err();
    assert_eq!(corrupt, Corrupt::Version { found: 1, expected: 3 });
    assert_eq!(corrupt.to_string(), "the sender's memory has layout version 1, this receiver reads version 3");
}

#[test]
fn records() {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    let mut sender = Producer::new(data.clone(), ack, CAPACITY, Mode::Lossless);
    let mut at = 0;
    let mut push = |head, payload: &[u8]| {
        sender.push(head, payload).unwrap();
        std::mem::replace(&mut at, sender.committed() as usize)
    };
    // Commit word: lap (16 bits) | flags (8) | kind (8) | payload length (32). A zero word follows each record.

    let position = push(Head::MESSAGE, b"");
    assert_eq!(ring_words(&data, position), [0x0000_0001_0000_0000, 0, 0]);

    let position = push(Head::MESSAGE, b"hello, world");
    let hello = [0x0000_0001_0000_000c, 1, 0x7720_2c6f_6c6c_6568, 0x646c_726f, 0];
    assert_eq!(ring_words(&data, position), hello);

    let position = push(Head { topic: Some(9), ..Head::of(Kind::Topic) }, b"a/topic");
    assert_eq!(ring_words(&data, position), [0x0000_0202_0000_0007, 2, 9, 0x0063_6970_6f74_2f61, 0]);

    let position = push(Head { time: Some(0x1111), ..Head::MESSAGE }, b"");
    assert_eq!(ring_words(&data, position), [0x0000_0101_0000_0000, 2, 0x1111, 0]);

    let position = push(Head { correlation: Some(0x3333), ..Head::of(Kind::Request) }, b"");
    assert_eq!(ring_words(&data, position), [0x0000_0403_0000_0000, 3, 0x3333, 0]);

    let position = push(Head { redelivered: true, ..Head::MESSAGE }, b"");
    assert_eq!(ring_words(&data, position), [0x0000_0801_0000_0000, 4, 0]);

    let all = Head {
        lent: false,
        time: Some(0x1111),
        topic: Some(0x2222),
        correlation: Some(0x3333),
        deadline: None,
        redelivered: true,
        past: false,
        kind: Kind::Reply,
    };
    let position = push(all, &[0xab; 9]);
    let words = [0x0000_0f04_0000_0009, 5, 0x1111, 0x2222, 0x3333, 0xabab_abab_abab_abab, 0xab, 0];
    assert_eq!(ring_words(&data, position), words);

    let position = push(Head { deadline: Some(0x4444), ..all }, b"");
    assert_eq!(ring_words(&data, position), [0x0000_2f04_0000_0000, 6, 0x1111, 0x2222, 0x3333, 0x4444, 0]);

    let position = push(Head { past: true, ..Head::MESSAGE }, b"");
    assert_eq!(ring_words(&data, position), [0x0000_4001_0000_0000, 7, 0]);
    for (kind, number) in [(5, 8), (6, 9), (7, 10), (8, 11), (9, 11), (10, 11)] {
        let position = push(Head::of(Kind::ALL[kind - 1]), b"");
        assert_eq!(ring_words(&data, position), [(kind as u64) << 32, number, 0]);
    }
}

/// In place of its payload, a record says where that is: the flag is 0x10. A hold is the number of the message plus 1.
#[test]
fn lent_payloads() {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    let mut sender = Producer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless);
    let mut receiver = Consumer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless).unwrap();
    let lent = Lent { segment: 0x1111, offset: 0x2222, bytes: 0x3333 };
    sender.push_lent(Head::MESSAGE, &lent).unwrap();
    assert_eq!(ring_words(&data, 0), [0x0000_1001_0000_0018, 0, 0x1111, 0x2222, 0x3333, 0]);
    let all = Head {
        time: Some(0x4444),
        topic: Some(0x5555),
        correlation: Some(0x6666),
        redelivered: true,
        ..Head::of(Kind::Reply)
    };
    sender.push_lent(all, &lent).unwrap();
    let words = [0x0000_1f04_0000_0018, 1, 0x4444, 0x5555, 0x6666, 0x1111, 0x2222, 0x3333, 0];
    assert_eq!(ring_words(&data, 40), words);
    assert_eq!(data.cell(data::BYTES).get(), 0x6666, "the payloads' own lengths");

    let holds = || [ack.cell(10).get(), ack.cell(512).get(), ack.cell(513).get(), ack.cell(514).get()];
    assert_eq!(holds(), [0, 0, 0, 0]);
    receiver.pop(&mut Vec::new()).unwrap();
    assert_eq!(holds(), [1, 1, 0, 0]);
    assert_eq!(receiver.keep(), Some(1));
    assert_eq!(holds(), [2, 0, 1, 0]);
    receiver.pop(&mut Vec::new()).unwrap();
    assert_eq!(holds(), [2, 2, 1, 0]);
    assert_eq!(receiver.keep(), Some(2));
    assert_eq!(holds(), [3, 0, 1, 2]);
    release(&ack, 1);
    assert_eq!(holds(), [3, 0, 0, 2]);
    assert_eq!(ack.cell(ack::BYTES_RECEIVED).get(), 0x6666);
}

/// Chunks of 128 bytes are announced before they are written, and the first record of each one is marked.
#[test]
fn latest() {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    let mut sender = Producer::new(data.clone(), ack.clone(), CAPACITY, Mode::Latest);
    let mut receiver = Consumer::new(data.clone(), ack.clone(), CAPACITY, Mode::Latest).unwrap();
    assert_eq!(written(&data, data::RING), [(0, 0x4154_4144_4350_524c), (1, 3), (2, 0x400), (3, 1)]);

    let mut push = |bytes: usize| {
        sender.push(Head::MESSAGE, &vec![0xee; bytes]).unwrap();
        [data::INTENT, data::MARK].map(|word| data.cell(word).get())
    };
    assert_eq!(push(48), [128, 0]);
    assert_eq!(push(32), [128, 0], "ends at 112, its zero word at 120");
    assert_eq!(push(0), [256, 0], "ends at 128, its zero word in the next chunk");
    assert_eq!(push(0), [256, 128]);
    assert_eq!(push(0), [256, 128]);
    for position in [160, 240, 320, 400, 480, 560, 640, 720, 800, 880] {
        push(64);
        let end = position + 80 + 8;
        assert_eq!(data.cell(data::INTENT).get(), u64::next_multiple_of(end, 128));
    }
    assert_eq!(push(64), [1152, 960], "at 960, overwrites the first chunk");
    let mut copy = Vec::new();
    let record = receiver.pop(&mut copy).unwrap().unwrap();
    assert_eq!((record.sequence, record.missed, copy.len()), (15, 15, 64));
    receiver.consume();
    let line = [(8, 0x410), (9, 0x410), (24, 1), (25, 1), (26, 15), (27, 64)];
    assert_eq!(written(&ack, 512)[2..], line);
}

/// A record at the end of the ring continues at its beginning, and the next one carries the next lap.
#[test]
fn laps() {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    let mut sender = Producer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless);
    let mut receiver = Consumer::new(data.clone(), ack, CAPACITY, Mode::Lossless).unwrap();
    let mut push_and_take = |payload: &[u8]| {
        sender.push(Head::MESSAGE, payload).unwrap();
        receiver.pop(&mut Vec::new()).unwrap().unwrap();
        receiver.consume();
    };
    for bytes in [184, 184, 184, 184, 192] {
        push_and_take(&vec![0xee; bytes]);
    }
    // At 1008, two words before the end. It ends at 16.
    push_and_take(b"12345678abcdefgh");
    assert_eq!(ring_words(&data, 1008), [0x0000_0001_0000_0010, 5]);
    assert_eq!(ring_words(&data, 0), [0x3837_3635_3433_3231, 0x6867_6665_6463_6261, 0]);
    push_and_take(b"");
    assert_eq!(ring_words(&data, 16), [0x0001_0001_0000_0000, 6, 0]);
}
