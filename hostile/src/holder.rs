//! A hostile receiver of large payloads: it holds what it likes, and answers a memory's hand-over as it likes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use librpc::fuzzing as forge;
use librpc_ring::layout::{ACK_BYTES, HEADER_BYTES, ack, data};
use librpc_ring::{Mapped, Memory, MemoryMut, ReadOnly};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketFlags;

use crate::attacker::Attacker;
use crate::mapping::{CAPACITY, Words, memory, seals, view};
use crate::socket::{receive_all, send};

/// How many hold words there are.
const HOLDS: u64 = ack::HOLD_WORDS as u64;

/// A channel on which the victim sends.
pub(crate) struct Channel {
    socket: OwnedFd,
    ring: u32,
    pub(crate) acks: Words,
    pub(crate) records: Mapped<ReadOnly, Arc<()>>,
    /// The length of that memory.
    pub(crate) bytes: u64,
}

/// What it does in one round.
pub(crate) struct Habit {
    holds: u64,
    consumes: u64,
}

/// The channels and the memories that it has taken.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) channels: Vec<Channel>,
    memories: Vec<OwnedFd>,
}

impl Attacker {
    /// Opens an inbox that accepts large payloads, and keeps them.
    pub(crate) fn holder(&mut self) -> anyhow::Result<()> {
        let listener = self.listen()?;
        let habit = self.habit();
        let mut taken = Taken::default();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            self.take_in(&listener, 1_000_000, &mut taken)?;
            taken.channels.iter().for_each(|channel| self.claim(&habit, channel));
        }
        self.restore()
    }

    pub(crate) fn habit(&mut self) -> Habit {
        Habit { holds: self.random.below(4), consumes: self.random.below(4) }
    }

    /// Waits this many ns for somebody who connects, and takes what comes with it. Now and then it hangs up on a memory, while it reads.
    pub(crate) fn take_in(&mut self, listener: &OwnedFd, wait_ns: i64, taken: &mut Taken) -> anyhow::Result<()> {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: wait_ns }))? > 0 {
            let socket = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?;
            match receive_all(&socket) {
                // The first byte of a tag: a memory is handed over.
                Some((bytes, _)) if bytes[0] == 0xd9 => self.answer_lend(socket, &mut taken.memories)?,
                Some((_, descriptors)) => {
                    let number = taken.channels.len() as u32;
                    taken.channels.extend(self.attach(socket, descriptors, number)?);
                }
                None => {}
            }
        }
        if !taken.memories.is_empty() && self.random.once_in(50) {
            taken.memories.swap_remove(self.random.below(taken.memories.len() as u64) as usize);
        }
        Ok(())
    }

    /// Takes the victim's ring; `None` if it sends none.
    pub(crate) fn attach(
        &mut self,
        socket: OwnedFd,
        mut descriptors: Vec<OwnedFd>,
        ring: u32,
    ) -> anyhow::Result<Option<Channel>> {
        if !self.is_private {
            let _ = send(&socket, &forge::write_terms(CAPACITY, 0), &[]);
            descriptors = receive_all(&socket).map(|(_, descriptors)| descriptors).unwrap_or_default();
        }
        let [ring_memory] = descriptors.as_slice() else { return Ok(None) };
        let bytes = rustix::fs::fstat(ring_memory)?.st_size as u64;
        anyhow::ensure!(bytes > HEADER_BYTES as u64, "the ring is empty");
        let records = view(ring_memory, bytes)?;
        let (acks, fd) = memory(ACK_BYTES as u64, seals())?;
        let _ = send(&socket, &forge::write_attached(ring), &[fd.as_fd()]);
        self.attached += 1;
        Ok(Some(Channel { socket, ring, acks, records, bytes }))
    }

    pub(crate) fn answer_lend(&mut self, socket: OwnedFd, memories: &mut Vec<OwnedFd>) -> anyhow::Result<()> {
        let answer = self.random.below(16);
        if !self.is_private && answer != 4 {
            let _ = send(&socket, &forge::write_ready(), &[]);
            receive_all(&socket);
        }
        let (ready, lent) = (forge::write_ready(), forge::write_lent());
        let stranger: OwnedFd = std::fs::File::open("/dev/null")?.into();
        let says = |bytes: &[u8]| {
            let _ = send(&socket, bytes, &[]);
        };
        let says_with_it = |bytes: &[u8]| {
            let _ = send(&socket, bytes, &[stranger.as_fd()]);
        };
        match answer {
            0 => {} // it never answers
            1 => says(&vec![0x9f; 1 + self.random.below(5000) as usize]),
            2 => says(&forge::write_refusal(self.random.below(12) as u32, "\x1b[2J".repeat(300))),
            3 => (0..20).for_each(|_| says(&lent)),
            // Without having seen the memory, or what is not due in a private domain.
            4 => says(if self.random.once_in(2) { &lent } else { &ready }),
            5 => says_with_it(&lent),
            6 => {
                says(&lent);
                says_with_it(b"anything");
            }
            7 => return Ok(()), // it hangs up
            _ => says(&lent),
        }
        self.lent += 1;
        memories.push(socket);
        Ok(())
    }

    /// Writes what it consumes and holds.
    pub(crate) fn claim(&mut self, habit: &Habit, channel: &Channel) {
        let Channel { socket, ring, acks, records, .. } = channel;
        let random = &mut self.random;
        // Acquire, Release: as an honest receiver, where it claims what is true.
        let committed = records.load(data::COMMITTED, Ordering::Acquire);
        let messages = records.load(data::SEQUENCE, Ordering::Acquire);
        let store = |word: usize, value: u64| acks.store(word, value, Ordering::Release);
        match habit.holds {
            // The latest messages, always.
            0 => (0..HOLDS).for_each(|hold| store(ack::HOLDS + hold as usize, messages.saturating_sub(hold))),
            // The first ones, for ever.
            1 => (0..HOLDS).for_each(|hold| store(ack::HOLDS + hold as usize, hold + 1)),
            2 => (0..20).for_each(|_| store(ack::HOLDS + random.below(HOLDS) as usize, random.below(messages + 2))),
            _ => (0..20).for_each(|_| store(ack::HOLDS + random.below(HOLDS) as usize, random.odd())),
        }
        store(ack::HOLDS_USED, if random.once_in(4) { random.odd() } else { HOLDS });
        match habit.consumes {
            0 => {}
            1 | 2 => {
                store(ack::TAKEN, committed);
                store(ack::CONSUMED, committed);
            }
            _ if random.once_in(100) => store(ack::CONSUMED, committed.wrapping_add(8 * random.below(CAPACITY))),
            _ => store(ack::CONSUMED, committed),
        }
        if random.once_in(4) {
            let bell = ((1 + random.below(3)) << 32 | u64::from(*ring)).to_le_bytes();
            let _ = send(socket, &bell, &[]);
        }
    }
}
