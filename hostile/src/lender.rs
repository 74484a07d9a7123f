//! A hostile sender of large payloads: it hands memories over as an honest one does, and then lies about what is where, and
//! writes what the victim is reading.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use librpc::fuzzing as forge;
use librpc_ring::{Kind, Lent, MemoryMut};

use crate::attacker::Attacker;
use crate::mapping::{CAPACITY, PAYLOADS_BYTES, RING_BYTES, Words, payloads, ring, seals};
use crate::records::{HAS_CORRELATION, HAS_TOPIC, LENT, Records};
use crate::socket::{receive, send};

/// Fewer records than a ring takes: none overwrites one that is not read.
const MOST_RECORDS: u64 = CAPACITY / 64;

/// A memory that the victim maps.
pub(crate) struct Memory {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    words: Words,
    /// `None`: the attacker has hung up.
    socket: Option<OwnedFd>,
}

impl Attacker {
    pub(crate) fn lender(&mut self) -> anyhow::Result<()> {
        self.inbox = Some(0); // it takes messages without a topic
        let (words, fd) = ring(RING_BYTES, seals(), None)?;
        let Some(_connection) = self.attached(&fd)? else { return Ok(()) };
        let mut memories = Vec::new();
        for number in 0..1 + self.random.below(3) {
            memories.extend(self.lend(number)?);
        }
        if self.random.once_in(8) {
            // One memory more than a channel may have, and then some.
            for number in 100..170 {
                memories.extend(self.lend(number)?);
            }
        }
        if memories.is_empty() {
            return Ok(());
        }
        let mut records = Records::new(words);
        let lie_at = self.random.below(400);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) && records.number() < MOST_RECORDS {
            let chosen = self.random.below(memories.len() as u64) as usize;
            let memory = &mut memories[chosen];
            let honest = Lent { segment: memory.number, offset: 0, bytes: memory.bytes };
            match records.number() < lie_at {
                true => records.commit(Kind::Message, LENT, &encoded(&honest), Lent::BYTES as u64),
                false => self.lie(&mut records, honest),
            }
            for _ in 0..500 {
                memory.words.store(self.random.below(memory.bytes / 8) as usize, self.random.next(), Ordering::Relaxed);
            }
            if self.random.once_in(40) {
                memory.socket = None; // records name it all the same
            }
            if let Some(socket) = &memory.socket
                && self.random.once_in(40)
            {
                let _ = send(socket, b"anything", &[]); // nothing is due there
            }
        }
        Ok(())
    }

    /// Hands a memory over, on the channel that was attached last. `None`: it was refused.
    pub(crate) fn lend(&mut self, number: u64) -> anyhow::Result<Option<Memory>> {
        let bytes = PAYLOADS_BYTES << self.random.below(5);
        let (words, fd) = payloads(bytes, seals(), 0..bytes)?;
        let message = forge::write_lend(self.victim(), self.inbox.unwrap_or(0), (self.connection, 0), (number, bytes));
        let socket = self.connect()?;
        let answer = |expected| receive(&socket).is_some_and(|answer| answer.get(1) == Some(&expected));
        if !self.is_private && (send(&socket, &message, &[]).is_err() || !answer(4)) {
            return Ok(None);
        }
        let _ = send(&socket, &message, &[fd.as_fd()]);
        let is_lent = answer(5);
        self.lent += u64::from(is_lent);
        Ok(is_lent.then_some(Memory { number, bytes, words, socket: Some(socket) }))
    }

    /// A record that no honest sender writes, or not there.
    fn lie(&mut self, records: &mut Records, honest: Lent) {
        let random = &mut self.random;
        let size = honest.bytes;
        let place = match random.below(8) {
            0 => Lent { segment: random.odd(), ..honest },
            1 => Lent { offset: random.below(size), ..honest },
            2 => Lent { offset: size + 8 * random.below(100), bytes: random.below(10), ..honest },
            3 => Lent { offset: 8 * random.below(size / 8), bytes: random.below(2 * size), ..honest },
            4 => Lent { bytes: random.odd(), ..honest },
            5 => Lent { offset: random.odd() & !7, bytes: random.odd(), ..honest },
            6 => Lent { offset: size - 8, bytes: random.below(17), ..honest },
            _ => honest,
        };
        let words = encoded(&place);
        match random.below(8) {
            // The place is too short, too long, or missing.
            0 => records.commit(Kind::Message, LENT, &words, random.below(25)),
            1 => records.commit(Kind::Message, LENT, &[words.as_slice(), &[7; 5]].concat(), 64),
            2 => records.commit(Kind::Message, LENT, &[], 0),
            // A declaration, and a message on a topic that was not declared.
            3 => records.commit(Kind::Topic, LENT | HAS_TOPIC, &[&[1], words.as_slice()].concat(), 24),
            4 => records.commit(Kind::Message, LENT | HAS_TOPIC, &[&[9], words.as_slice()].concat(), 24),
            5 => records.commit(Kind::Reply, LENT | HAS_CORRELATION, &[&[9], words.as_slice()].concat(), 24),
            _ => records.commit(Kind::Message, LENT, &words, Lent::BYTES as u64),
        }
    }
}

fn encoded(place: &Lent) -> [u64; 3] {
    [place.segment, place.offset, place.bytes]
}
