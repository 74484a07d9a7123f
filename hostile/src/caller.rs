//! A hostile client: it connects to the victim's service, and says of its calls what it likes. Its replies it reads, or not.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use librpc::fuzzing as forge;
use librpc_ring::{Kind, Lent, Mapped, ReadOnly};
use testkit::Random;

use crate::attacker::Attacker;
use crate::doors::mutate;
use crate::holder::{Habit, Taken};
use crate::lender::Memory;
use crate::mapping::{CAPACITY, RING_BYTES, ring, seals};
use crate::records::Records;
use crate::script::samples;
use crate::socket::{Answer, answer, send};

/// The number of the victim's service.
pub(crate) const SERVICE: u32 = 2;
const ROUND: Duration = Duration::from_millis(300);
/// How many channels it opens in a round, one after the other.
const CHANNELS: u64 = 6;
/// How long it waits for room.
const NO_ROOM: Duration = Duration::from_millis(40);
/// How many of its calls it remembers.
const REMEMBERED: u64 = 64;

/// What the victim acknowledges.
pub(crate) type Acks = Mapped<ReadOnly, Arc<()>>;

/// What it says on one channel.
struct Saying {
    records: Records,
    /// The number of the last request.
    last: u64,
    /// One record in this many is one that no honest client writes.
    lies: u64,
    /// A memory for payloads that it has handed over.
    memory: Option<Memory>,
}

impl Attacker {
    pub(crate) fn caller(&mut self) -> anyhow::Result<()> {
        self.inbox = Some(SERVICE);
        let listener = self.listen()?;
        let (habit, mut taken, begun) = (self.habit(), Taken::default(), Instant::now());
        for _ in 0..CHANNELS {
            self.converse(&listener, &habit, &mut taken, begun)?;
        }
        self.restore()
    }

    /// Says what it likes on a new channel, until the victim has enough of it.
    fn converse(&mut self, listener: &OwnedFd, habit: &Habit, taken: &mut Taken, begun: Instant) -> anyhow::Result<()> {
        let (words, fd) = ring(RING_BYTES, seals(), None)?;
        let Some((socket, acks)) = self.attached_with_acks(&fd)? else { return Ok(()) };
        let memory = if self.random.once_in(3) { self.lend(7)? } else { None };
        let lies = [u64::MAX, 1000, 100, 10][self.random.below(4) as usize];
        let mut saying = Saying { records: Records::new(words), last: self.random.below(3), lies, memory };
        let inbox = 10 + self.random.below(3); // it takes replies in any inbox
        match self.random.below(9) {
            0 => {}
            8 => {
                let types =
                    [&["A/json", "B/json"][..], &["x", ""], &[], &["A/json"; 200]][self.random.below(4) as usize];
                let typed = forge::write_typed_caller(inbox as u32, CAPACITY, 1 << 20, types);
                saying.records.say(Kind::Caller, None, None, &typed);
            }
            1 => saying.introduce([self.random.odd(), self.random.odd(), self.random.odd()]),
            2 => saying.introduce([inbox, 1 << (9 + self.random.below(24)), 1 << self.random.below(31)]),
            _ => saying.introduce([inbox, CAPACITY, 1 << 20]),
        }
        let mut room = Instant::now();
        while begun.elapsed() < ROUND && room.elapsed() < NO_ROOM && !is_ended(&socket) {
            self.take_in(listener, 100_000, taken)?;
            taken.channels.iter().for_each(|channel| self.claim(habit, channel));
            for _ in 0..self.random.below(100) {
                if saying.records.has_room(&acks) {
                    saying.say(&mut self.random);
                    room = Instant::now();
                }
            }
            let _ = send(&socket, &(1u64 << 32).to_le_bytes(), &[]);
        }
        Ok(())
    }

    /// As [`Attacker::attached`], with what the victim acknowledges.
    pub(crate) fn attached_with_acks(&mut self, ring: &OwnedFd) -> anyhow::Result<Option<(OwnedFd, Acks)>> {
        let Some((socket, descriptors)) = self.attach_ring(ring)? else { return Ok(None) };
        let [acks] = descriptors.as_slice() else { return Ok(None) };
        let acks = crate::mapping::view(acks, librpc_ring::layout::ACK_BYTES as u64)?;
        Ok(Some((socket, acks)))
    }
}

/// Whether the victim has hung up, or reads the ring no more.
pub(crate) fn is_ended(socket: &OwnedFd) -> bool {
    match answer(socket) {
        Answer::NotYet => false,
        Answer::HungUp => true,
        Answer::Is(bytes) => bytes[4] == 2,
    }
}

impl Saying {
    /// Says where it takes replies: the inbox, its capacity, its longest message.
    fn introduce(&mut self, [inbox, capacity, max_message]: [u64; 3]) {
        self.records.say(Kind::Caller, None, None, &forge::write_caller(inbox as u32, capacity, max_message));
    }

    fn say(&mut self, random: &mut Random) {
        if random.once_in(self.lies) {
            return self.lie(random);
        }
        let known = self.last.saturating_sub(random.below(REMEMBERED));
        let number = if random.once_in(8) { random.odd() } else { known };
        match random.below(12) {
            0..=6 => self.request(random),
            7..=9 => self.records.say(Kind::Cancel, Some(number), None, &[]),
            _ => {
                let parts = [0, 1, 16, u32::MAX][random.below(4) as usize];
                self.records.say(Kind::Credit, Some(number), None, &forge::write_credit(parts));
            }
        }
    }

    /// A request with a number that is new. Its first byte says what the victim does with it.
    fn request(&mut self, random: &mut Random) {
        self.last += 1;
        let deadline = [None, Some(0), Some(u64::MAX), Some(random.odd())][random.below(4) as usize];
        let bytes = if random.once_in(64) { random.below(60_000) } else { random.below(64) };
        let mut payload = vec![random.next() as u8; bytes as usize];
        payload.extend(random.next().to_le_bytes());
        match &self.memory {
            Some(Memory { number, bytes, .. }) if random.once_in(4) => {
                let place = Lent { segment: *number, offset: 0, bytes: *bytes };
                self.records.say_lent(Kind::Request, self.last, place);
            }
            _ => self.records.say(Kind::Request, Some(self.last), deadline, &payload),
        }
    }

    /// A record that no honest client writes.
    fn lie(&mut self, random: &mut Random) {
        let number = Some(self.last);
        let some = random.next().to_le_bytes();
        let kind = Kind::ALL[random.below(Kind::ALL.len() as u64) as usize];
        match random.below(9) {
            0 => self.records.say(kind, None, None, &some),
            1 => self.records.say(kind, number, None, &vec![0x9f; random.below(60_000) as usize]),
            2 => self.introduce([0, CAPACITY, random.odd()]),
            3 => {
                self.records.say(Kind::Request, number, None, &some);
                self.records.say(Kind::Request, number, None, &some);
            }
            4 => {
                let (kind, mut payload) = match random.below(3) {
                    0 => (Kind::Caller, forge::write_caller(0, CAPACITY, 1 << 20)),
                    1 => (Kind::Credit, forge::write_credit(16)),
                    _ => (Kind::Failure, forge::write_failure(0, 0, "no".into())),
                };
                mutate(random, &mut payload, &samples());
                payload.truncate(8192);
                self.records.say(kind, number, None, &payload);
            }
            5 => self.records.say_lent(kind, self.last, Lent { segment: 7, offset: random.odd(), bytes: random.odd() }),
            6 => {
                let bytes = self.memory.as_ref().map_or(64, |memory| memory.bytes);
                self.records.say_lent(kind, self.last, Lent { segment: 7, offset: 0, bytes });
            }
            7 => self.records.say(kind, Some(random.odd()), Some(random.odd()), &some),
            _ => self.records.say(kind, number, None, &some),
        }
    }
}
