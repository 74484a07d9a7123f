//! A hostile server: it lists the service that the honest pair serves, takes the victim's calls, and answers them as it likes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use librpc::fuzzing as forge;
use librpc_ring::layout::ack;
use librpc_ring::{Kind, Lent, Mapped, MemoryMut, ReadOnly};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketFlags;
use testkit::Random;

use crate::attacker::Attacker;
use crate::caller::is_ended;
use crate::doors::mutate;
use crate::holder::Channel;
use crate::mapping::{RING_BYTES, ring, seals};
use crate::records::{Reading, Records};
use crate::script::samples;
use crate::socket::{receive_all, send};

const ROUND: Duration = Duration::from_millis(500);
/// How many channels of replies it opens in a round.
const CHANNELS: u32 = 12;

/// A client, as it comes: its requests, and where it takes replies.
struct Caller {
    channel: Channel,
    reading: Reading,
    is_victim: bool,
    inbox: Option<u32>,
    /// The numbers of its calls.
    calls: Vec<u64>,
    replies: Option<Replies>,
}

/// A channel on which it answers.
struct Replies {
    socket: OwnedFd,
    acks: Mapped<ReadOnly, Arc<()>>,
    records: Records,
    /// The number of the memory for payloads that it has handed over, and its length.
    memory: Option<(u64, u64)>,
}

impl Attacker {
    pub(crate) fn server(&mut self) -> anyhow::Result<()> {
        let listener = self.listen_for_calls()?;
        let (mut callers, mut opened) = (Vec::new(), 0);
        let honesty = self.random.below(4);
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            let mut ready = [PollFd::new(&listener, PollFlags::IN)];
            if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }))? > 0 {
                let socket = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
                match receive_all(&socket) {
                    Some((bytes, _)) if bytes[0] == 0xd9 => self.answer_lend(socket, &mut Vec::new())?,
                    Some((bytes, descriptors)) => {
                        let is_victim = bytes.windows(6).any(|word| word == b"victim");
                        let channel = self.attach(socket, descriptors, callers.len() as u32)?;
                        callers.extend(channel.map(|channel| Caller::new(channel, is_victim)));
                    }
                    None => {}
                }
            }
            for caller in &mut callers {
                self.serve(caller, honesty, &mut opened)?;
            }
        }
        self.restore()
    }

    /// Takes what has come, and answers.
    fn serve(&mut self, caller: &mut Caller, honesty: u64, opened: &mut u32) -> anyhow::Result<()> {
        let news = caller.take(self.random.once_in(16));
        let Some(inbox) = caller.inbox.filter(|_| caller.is_victim) else { return Ok(()) };
        if caller.replies.as_ref().is_none_or(|replies| is_ended(&replies.socket)) && *opened < CHANNELS {
            *opened += 1;
            let (words, fd) = ring(RING_BYTES, seals(), None)?;
            self.inbox = Some(inbox);
            caller.replies = match self.attached_with_acks(&fd)? {
                None => None,
                Some((socket, acks)) => {
                    let memory = if self.random.once_in(2) { self.lend(7)? } else { None };
                    let memory = memory.map(|memory| (memory.number, memory.bytes));
                    Some(Replies { socket, acks, records: Records::new(words), memory })
                }
            };
        }
        let Some(replies) = &mut caller.replies else { return Ok(()) };
        for number in news {
            let old = caller.calls[self.random.below(caller.calls.len() as u64) as usize];
            match self.random.below(4) < honesty {
                true => replies.say(Kind::Reply, number, b"an answer"),
                false => replies.answer(&mut self.random, number, old),
            }
        }
        if self.random.once_in(64) {
            caller.replies = None; // it hangs up
        } else {
            let _ = send(&replies.socket, &(1u64 << 32).to_le_bytes(), &[]);
        }
        Ok(())
    }
}

impl Caller {
    fn new(channel: Channel, is_victim: bool) -> Self {
        let reading = Reading::new(channel.bytes);
        Self { channel, reading, is_victim, inbox: None, calls: Vec::new(), replies: None }
    }

    /// Reads its records. Returns the numbers of new calls.
    fn take(&mut self, is_lazy: bool) -> Vec<u64> {
        let mut news = Vec::new();
        while let Some((kind, number, payload)) = self.reading.next(&self.channel.records) {
            match number {
                _ if kind == Kind::Caller as u64 => self.inbox = forge::read_caller(&payload),
                Some(number) if kind == Kind::Request as u64 => news.push(number),
                _ => {}
            }
        }
        self.calls.extend(&news);
        if !is_lazy {
            for word in [ack::TAKEN, ack::CONSUMED] {
                // Release: as an honest receiver.
                self.channel.acks.store(word, self.reading.position, Ordering::Release);
            }
        }
        news
    }
}

impl Replies {
    fn say(&mut self, kind: Kind, number: u64, payload: &[u8]) {
        if self.records.has_room(&self.acks) {
            self.records.say(kind, Some(number), None, payload);
        }
    }

    /// Answers a call in a way that no honest server does.
    fn answer(&mut self, random: &mut Random, number: u64, old: u64) {
        let stranger = if random.once_in(2) { old } else { random.odd() };
        let failure = |random: &mut Random, chars: usize| {
            forge::write_failure(random.below(9) as u32, random.next() as i32, "\x1b[2J\u{10348}".repeat(chars))
        };
        match random.below(18) {
            0 => (0..2).for_each(|_| self.say(Kind::Reply, number, b"twice")),
            1 => self.say(Kind::Reply, stranger, b"to nobody"),
            2 => (0..random.below(40)).for_each(|_| self.say(Kind::Part, number, b"a part")),
            3 => {
                (0..random.below(17)).for_each(|_| self.say(Kind::Part, number, b"a part"));
                self.say(Kind::End, number, b"");
                self.say(Kind::End, number, b"");
            }
            4 => self.say(Kind::End, number, b"anything"),
            5 => self.say(Kind::Failure, number, &failure(random, 1)),
            6 => self.say(Kind::Failure, number, &failure(random, 7000)),
            7 => {
                let mut payload = failure(random, 2);
                mutate(random, &mut payload, &samples());
                payload.truncate(8192);
                self.say(Kind::Failure, number, &payload);
            }
            8 => self.say(Kind::ALL[random.below(Kind::ALL.len() as u64) as usize], number, b"anything"),
            9 => self.say(Kind::Part, stranger, b"of nothing"),
            10 => {
                self.say(Kind::Part, number, b"a part");
                self.say(Kind::Reply, number, b"and a reply");
            }
            11 => {
                self.say(Kind::Part, number, b"a part");
                self.say(Kind::Failure, number, &failure(random, 1));
                self.say(Kind::Part, number, b"another one");
            }
            12 if self.records.has_room(&self.acks) => self.records.say(Kind::Reply, None, None, b"of no call"),
            13 if self.records.has_room(&self.acks) => {
                let kind = [Kind::Reply, Kind::Part, Kind::Failure, Kind::End][random.below(4) as usize];
                let (segment, bytes) = self.memory.unwrap_or((7, 64));
                self.records.say_lent(kind, number, Lent { segment, offset: 0, bytes });
            }
            14 if self.records.has_room(&self.acks) => {
                let place = Lent { segment: 7, offset: random.odd(), bytes: random.odd() };
                self.records.say_lent(Kind::Reply, number, place);
            }
            15 => self.say(Kind::Reply, number, &vec![7; random.below(60_000) as usize]),
            _ => {} // no answer
        }
    }
}
