//! Attacks with what the attacker owns: its node's file, and its node's socket.

use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use librpc::fuzzing as forge;
use librpc_ring::MemoryMut;
use librpc_ring::layout::{ACK_BYTES, ack};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::SealFlags;
use rustix::net::{SocketAddrUnix, SocketFlags};
use testkit::socket_of;

use crate::attacker::Attacker;
use crate::honest::SERVICE;
use crate::mapping::{CAPACITY, memory, seals};
use crate::socket::{receive, send, socket};

impl Attacker {
    /// Makes the file honest again.
    fn restore_file(&mut self) -> anyhow::Result<()> {
        self.file.set_len(4096)?;
        self.file.write_all_at(&self.honest_front, 0)?;
        Ok(())
    }

    /// Spoils its own file while others read it: publishers, the listener, programs that list the domain.
    pub(crate) fn spoil_file(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let patterns: Vec<String> = (0..200).map(|n| format!("**/{n}/**/p/**/*")).collect();
        let types: Vec<String> = match self.random.below(3) {
            0 => (0..self.random.below(500)).map(|n| format!("T{n}")).collect(),
            1 => vec!["x".repeat(self.random.below(100_000) as usize); 3],
            _ => vec!["\u{1b}[2J".into(), String::new(), "A".into()],
        };
        let types = [types, vec!["A".into()]].concat();
        while begun.elapsed() < Duration::from_millis(100) {
            match self.random.below(6) {
                0 => self.file.set_len(self.random.below(5000))?,
                1 => {
                    let at = self.random.below(200);
                    self.file.write_all_at(&self.random.next().to_le_bytes(), at)?;
                }
                2 => self.file.write_all_at(&self.random.odd().to_le_bytes(), 48)?,
                3 => {
                    let mut list = forge::write_list(
                        1 + self.random.below(200) as u32,
                        &patterns[..1 + self.random.below(20) as usize],
                        CAPACITY,
                        &types[..self.random.below(types.len() as u64) as usize],
                    );
                    list.truncate(1 << 20); // no file lists more
                    self.file.write_all_at(&list, 128)?;
                    let select = forge::select(self.random.next(), list.len());
                    self.file.write_all_at(&select.to_le_bytes(), 48)?;
                }
                4 => {
                    self.file.seek(SeekFrom::Start(128))?;
                    self.file.write_all(&vec![0x9f; 1 << 20])?;
                    self.file.write_all_at(&forge::select(1, 1 << 20).to_le_bytes(), 48)?;
                }
                _ => self.restore_file()?,
            }
            self.bump();
        }
        self.restore_file()
    }

    /// Claims that everything has changed.
    fn bump(&mut self) {
        if let Ok(generation) = std::fs::File::options().write(true).open(self.domain.join("generation")) {
            for bucket in 0..256 {
                let _ = generation.write_all_at(&self.random.next().to_le_bytes(), 2048 + 8 * bucket);
            }
            let _ = generation.write_all_at(&self.random.next().to_le_bytes(), 64);
        }
    }

    /// Listens in its node's place, and lists inboxes there: the node's own, and subscriptions.
    pub(crate) fn listen(&mut self) -> anyhow::Result<OwnedFd> {
        self.listen_with(&forge::write_list(3, &["p/**".to_owned()], CAPACITY, &[]))
    }

    /// The same, and lists the service of the honest pair.
    pub(crate) fn listen_for_calls(&mut self) -> anyhow::Result<OwnedFd> {
        self.listen_with(&forge::write_service(SERVICE, CAPACITY))
    }

    fn listen_with(&mut self, list: &[u8]) -> anyhow::Result<OwnedFd> {
        let path = socket_of(&self.domain, "evil")?;
        let _ = std::fs::remove_file(&path);
        let listener = socket()?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
        rustix::net::listen(&listener, 16)?;
        self.file.write_all_at(list, 128)?;
        self.file.write_all_at(&forge::select(self.random.next(), list.len()).to_le_bytes(), 48)?;
        self.bump();
        Ok(listener)
    }

    /// Makes the file honest again, and says so.
    pub(crate) fn restore(&mut self) -> anyhow::Result<()> {
        self.restore_file()?;
        self.bump();
        Ok(())
    }

    /// Opens an inbox that accepts what is sent to it, and lies about it.
    pub(crate) fn receiver(&mut self) -> anyhow::Result<()> {
        let listener = self.listen()?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            let mut ready = [PollFd::new(&listener, PollFlags::IN)];
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            if poll(&mut ready, Some(&wait))? == 0 {
                continue;
            }
            let socket = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
            receive(&socket);
            let odd = self.random.below(8);
            let answer = match odd {
                0 => forge::write_terms(self.random.odd(), 0),
                1 => forge::write_refusal(self.random.below(12) as u32, "\x1b[2J".repeat(500)),
                2 => vec![0x9f; self.random.below(5000) as usize + 1],
                3 => forge::write_attached(0),
                _ => forge::write_terms(CAPACITY, 0),
            };
            // In a private domain the ring has come with the hello, and no terms are due.
            if !self.is_private || odd <= 4 {
                let _ = send(&socket, &answer, &[]);
                if odd <= 4 || receive(&socket).is_none() {
                    continue;
                }
            }
            let size = ACK_BYTES as u64 * if self.random.once_in(8) { 2 } else { 1 };
            let (words, fd) = memory(size, if self.random.once_in(8) { SealFlags::empty() } else { seals() })?;
            let count = if self.random.once_in(8) { 1 + self.random.below(250) as usize } else { 1 };
            let ring = if self.random.once_in(4) { self.random.next() as u32 } else { 0 };
            let _ = send(&socket, &forge::write_attached(ring), &vec![fd.as_fd(); count]);
            self.attached += 1;
            for step in 0..2000u64 {
                let value = if self.random.once_in(4) { self.random.odd() } else { step & !7 };
                let word = [ack::CONSUMED, ack::TAKEN, ack::ARMED, ack::RECEIVED, ack::PROCESSED, ack::MISSED];
                words.store(word[self.random.below(6) as usize], value, Ordering::Release);
                if self.random.once_in(10) {
                    let bell = ((1 + self.random.below(3)) << 32 | u64::from(ring)).to_le_bytes();
                    let with: &[BorrowedFd<'_>] = if self.random.once_in(50) { &[fd.as_fd()] } else { &[] };
                    let _ = send(&socket, &bell, with);
                }
            }
        }
        self.restore()
    }
}
