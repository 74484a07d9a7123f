//! The live attacker: an admitted peer that follows the protocol until it begins its attack.
//!
//! Each round is one attack, chosen by its seed. Like every user, the attacker owns a node, so it can spoil the node's
//! lock, file and socket. The kernel must refuse everything else, such as shrinking sealed memory.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use librpc::fuzzing as forge;
use librpc_ring::layout::data;
use librpc_ring::{Kind, MemoryMut};
use rustix::fs::SealFlags;
use rustix::io::Errno;
use testkit::{Random, socket_of};

use crate::fuse::Stuck;
use crate::honest::SERVICE;
use crate::mapping::{CAPACITY, RING_BYTES, memory, ring, seals};
use crate::records::Records;
use crate::socket::{connect, receive, receive_all, send};

/// The names of the attacks. Each round chooses one.
pub(crate) const ATTACKS: [&str; 15] = [
    "garbage",
    "descriptors",
    "ring",
    "drain",
    "bells",
    "flood",
    "file",
    "receiver",
    "linger",
    "fuse",
    "lender",
    "holder",
    "caller",
    "server",
    "types",
];

pub(crate) struct Attacker {
    pub(crate) domain: PathBuf,
    pub(crate) random: Random,
    /// The file of its own node, and the first page as the library wrote it.
    pub(crate) file: std::fs::File,
    pub(crate) honest_front: Vec<u8>,
    incarnation: [u8; 16],
    /// Whether the domain is private: there the ring comes with the hello.
    pub(crate) is_private: bool,
    /// How many rings are attached: those of the victim that the attacker reads, and its own that the victim reads.
    pub(crate) attached: u64,
    /// How many memories for payloads were handed over, by either side.
    pub(crate) lent: u64,
    /// The inbox that it sends to; `None`: any.
    pub(crate) inbox: Option<u32>,
    /// The number of the connection that it opened last.
    pub(crate) connection: u64,
}

impl Attacker {
    pub(crate) fn new(domain: &Path, node: &str, is_private: bool, seed: u64) -> anyhow::Result<Self> {
        let file = std::fs::File::options().read(true).write(true).open(domain.join(format!("{node}.node")))?;
        let mut honest_front = vec![0; 4096];
        file.read_at(&mut honest_front, 0)?;
        let incarnation = honest_front[16..32].try_into()?;
        let (domain, random) = (domain.to_owned(), Random::new(seed));
        let (attached, lent, inbox, connection) = Default::default();
        Ok(Self { domain, random, file, honest_front, incarnation, is_private, attached, lent, inbox, connection })
    }

    /// One attack.
    pub(crate) fn round(&mut self, attack: &str) -> anyhow::Result<()> {
        match attack {
            "garbage" => self.garbage(),
            "descriptors" => self.descriptors(),
            "ring" => self.ring(false),
            "drain" => self.ring(true),
            "bells" => self.bells(),
            "flood" => self.flood(),
            "file" => self.spoil_file(),
            "receiver" => self.receiver(),
            "fuse" => self.fuse(),
            "lender" => self.lender(),
            "holder" => self.holder(),
            "caller" => self.caller(),
            "server" => self.server(),
            "types" => self.types(),
            _ => self.linger(),
        }
    }

    pub(crate) fn connect(&self) -> anyhow::Result<OwnedFd> {
        Ok(connect(&socket_of(&self.domain, "victim")?)?)
    }

    /// The victim's incarnation.
    pub(crate) fn victim(&self) -> [u8; 16] {
        let mut front = [0; 32];
        let victim = std::fs::File::open(self.domain.join("victim.node"));
        let _ = victim.and_then(|file| file.read_at(&mut front, 0));
        front[16..32].try_into().expect("16 bytes")
    }

    /// A hello that opens a connection. With `data`, it says that the ring comes along.
    fn hello(&mut self, data: Option<(u64, u32)>) -> Vec<u8> {
        // The victim's inbox, its subscription, or one that does not exist.
        let any = [0, 0, 1, 1, 4][self.random.below(5) as usize];
        self.connection = self.random.next();
        let (inbox, opens) = (self.inbox.unwrap_or(any), (self.connection, true));
        forge::write_hello("evil", (self.incarnation, self.victim()), inbox, opens, data)
    }

    /// A connection that was admitted and has got its terms; `None` if it was refused.
    fn admitted(&mut self) -> anyhow::Result<Option<OwnedFd>> {
        let (socket, hello) = (self.connect()?, self.hello(None));
        let _ = send(&socket, &hello, &[]);
        Ok(receive(&socket).filter(|answer| answer.get(1) == Some(&0)).map(|_| socket))
    }

    /// A connection on which these descriptors were offered as the ring; `None` if it was refused before.
    fn offering(&mut self, data: (u64, u32), descriptors: &[BorrowedFd<'_>]) -> anyhow::Result<Option<OwnedFd>> {
        let (socket, message) = match self.is_private {
            true => (self.connect()?, self.hello(Some(data))),
            false => match self.admitted()? {
                Some(socket) => (socket, forge::write_data(data.0, data.1)),
                None => return Ok(None),
            },
        };
        let _ = send(&socket, &message, descriptors);
        Ok(Some(socket))
    }

    /// A connection with this ring attached; `None` if it was refused.
    pub(crate) fn attached(&mut self, ring: &OwnedFd) -> anyhow::Result<Option<OwnedFd>> {
        Ok(self.attach_ring(ring)?.map(|(socket, _)| socket))
    }

    /// The same, with the descriptors that the victim has answered with.
    pub(crate) fn attach_ring(&mut self, ring: &OwnedFd) -> anyhow::Result<Option<(OwnedFd, Vec<OwnedFd>)>> {
        let Some(socket) = self.offering((CAPACITY, 0), &[ring.as_fd()])? else { return Ok(None) };
        let answer = receive_all(&socket).filter(|(answer, _)| answer.get(1) == Some(&1));
        self.attached += u64::from(answer.is_some());
        Ok(answer.map(|(_, descriptors)| (socket, descriptors)))
    }

    fn garbage(&mut self) -> anyhow::Result<()> {
        for _ in 0..20 {
            let (socket, mut bytes) = (self.connect()?, self.hello(None));
            for _ in 0..1 + self.random.below(5) {
                let at = self.random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.random.below(8);
            }
            if self.random.once_in(8) {
                bytes.resize(self.random.below(6000) as usize + 1, 0x9f);
            }
            for _ in 0..1 + self.random.below(3) {
                let _ = send(&socket, &bytes, &[]);
            }
            if self.random.once_in(2) {
                receive(&socket);
            }
        }
        Ok(())
    }

    fn descriptors(&mut self) -> anyhow::Result<()> {
        let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
        let directory: OwnedFd = std::fs::File::open(&self.domain)?.into();
        let (pipe, _other) = rustix::pipe::pipe()?;
        let bytes = RING_BYTES;
        let (_, good) = memory(bytes, seals())?;
        assert_eq!(rustix::fs::ftruncate(&good, 0), Err(Errno::PERM), "sealed memory does not shrink");
        let bad = match self.random.below(12) {
            0 => null,
            1 => directory,
            2 => pipe,
            3 => self.connect()?,
            4 => memory(bytes, SealFlags::empty())?.1,
            5 => memory(bytes, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?.1,
            6 => memory(bytes, SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL)?.1,
            7 => memory(bytes - 4096, seals())?.1,
            8 => memory(bytes + 4096, seals())?.1,
            9 => memory(4096, seals())?.1,
            10 => {
                use rustix::fs::MemfdFlags;
                let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
                rustix::fs::memfd_create("huge", flags).unwrap_or(good.try_clone()?)
            }
            _ => good.try_clone()?,
        };
        let count = [0, 1, 1, 1, 1, 2, 3, 253][self.random.below(8) as usize];
        let capacity = if self.random.once_in(4) { CAPACITY / 2 } else { CAPACITY };
        self.offering((capacity, 0), &vec![bad.as_fd(); count])?.as_ref().map(receive);
        Ok(())
    }

    /// Attaches a valid ring, and then writes into it what no sender writes.
    fn ring(&mut self, never_ends: bool) -> anyhow::Result<()> {
        let spoilt = self.random.once_in(8).then(|| (self.random.below(5) as usize, self.random.odd()));
        let (words, fd) = ring(RING_BYTES, seals(), spoilt)?;
        let Some(socket) = self.attached(&fd)? else { return Ok(()) };
        if never_ends {
            drop(socket); // the victim reads the ring to its end, which never comes
        }
        let (mut position, mut number) = (0u64, 0u64);
        let begun = Instant::now();
        let lie_at = if never_ends { u64::MAX } else { self.random.below(20_000) };
        while begun.elapsed() < Duration::from_millis(200) {
            let at = |position: u64| data::RING + (position & (CAPACITY - 1)) as usize / 8;
            let (kind, topic) =
                if self.random.once_in(50) && !never_ends { (Kind::Topic as u64, 2u64) } else { (1, 0) };
            let length = 0;
            words.store(at(position + 16), 0, Ordering::Relaxed);
            words.store(at(position) + 1, number, Ordering::Relaxed);
            words.store(
                at(position),
                length | kind << 32 | topic << 40 | ((position / CAPACITY) & 0xffff) << 48,
                Ordering::Release,
            );
            position += 16;
            number += 1;
            if number >= lie_at {
                for _ in 0..50 {
                    let word = match self.random.below(3) {
                        0 => self.random.below(64) as usize,
                        1 => at(position + 8 * self.random.below(16)),
                        _ => data::RING + self.random.below(CAPACITY / 8) as usize,
                    };
                    words.store(word, self.random.odd(), Ordering::Release);
                }
                if self.random.once_in(100) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn bells(&mut self) -> anyhow::Result<()> {
        let (_, fd) = ring(RING_BYTES, seals(), None)?;
        let Some(socket) = self.attached(&fd)? else { return Ok(()) };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            let ring = if self.random.once_in(2) { 0 } else { self.random.next() as u32 };
            let bell = (self.random.below(4) << 32 | u64::from(ring)).to_le_bytes();
            let with: &[BorrowedFd<'_>] = if self.random.once_in(10) { &[fd.as_fd()] } else { &[] };
            match send(&socket, &bell, with) {
                Ok(()) | Err(Errno::AGAIN | Errno::PERM | Errno::TOOMANYREFS) => {}
                Err(_) => break, // the victim has disconnected, as it should
            }
        }
        Ok(())
    }

    fn flood(&mut self) -> anyhow::Result<()> {
        let mut open = Vec::new();
        for _ in 0..400 {
            match self.connect() {
                Ok(socket) => open.push(socket),
                Err(_) => break,
            }
            if self.random.once_in(2) {
                let hello = self.hello(None);
                let _ = send(open.last().expect("one was pushed"), &hello, &[]);
            }
        }
        Ok(())
    }

    /// Says that the victim's inboxes, which take everything, want a type and do not get it.
    fn types(&mut self) -> anyhow::Result<()> {
        self.declares()?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            let socket = self.connect()?;
            let inbox = self.random.below(5) as u32;
            let topic = ["p/x", "p/y", SERVICE, "p/\u{1b}", "q", ""][self.random.below(6) as usize].to_owned();
            let long = "x".repeat(self.random.below(4000) as usize);
            let type_of =
                |random: &mut Random| ["", "A", "B", "\u{1b}[2J", &*long][random.below(5) as usize].to_owned();
            let (theirs, wanted) = (type_of(&mut self.random), type_of(&mut self.random));
            let who = (self.incarnation, self.victim());
            let _ = send(&socket, &forge::write_mismatch("evil", who, inbox, &topic, (&theirs, &wanted)), &[]);
            if self.random.once_in(2) {
                receive(&socket);
            }
        }
        Ok(())
    }

    /// Says of what type it sends to the victim's own inbox: once, again, as something else, and as nonsense.
    fn declares(&mut self) -> anyhow::Result<()> {
        let (words, fd) = ring(RING_BYTES, seals(), None)?;
        let before = self.inbox.replace(0);
        let attached = self.attached(&fd);
        self.inbox = before;
        let Some(_socket) = attached? else { return Ok(()) };
        let mut records = Records::new(words);
        let type_of = |random: &mut Random| {
            let name = ["A", "B", "", "\u{1b}[2J"][random.below(4) as usize];
            forge::write_direct_type(name, random.below(300) as usize)
        };
        let first = type_of(&mut self.random);
        for _ in 0..self.random.below(6) {
            let (kind, what) = match self.random.below(6) {
                0 | 1 => (Kind::Topic, first.clone()),
                2 => (Kind::Topic, type_of(&mut self.random)),
                3 => (Kind::Topic, b"p/x\0".to_vec()),
                _ => (Kind::Message, b"x".to_vec()),
            };
            records.say(kind, None, None, &what);
        }
        Ok(())
    }

    /// Offers sockets whose last close waits 5 s, for data that nobody reads.
    fn linger(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut kept = Vec::new();
        for _ in 0..4 {
            let mut lingering = Vec::new();
            for _ in 0..40 {
                let mut stream = TcpStream::connect(listener.local_addr()?)?;
                kept.push(listener.accept()?.0);
                stream.set_nonblocking(true)?;
                while stream.write(&[0; 1 << 16]).is_ok() {}
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(5)))?;
                lingering.push(stream);
            }
            let all: Vec<BorrowedFd<'_>> = lingering.iter().map(AsFd::as_fd).collect();
            let Some(socket) = self.offering((CAPACITY, 0), &all)? else { return Ok(()) };
            // While the message is unread, the attacker's own copies are not the last ones.
            std::thread::spawn(move || drop(lingering));
            receive(&socket);
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    /// Offers files that cannot be closed before the attacker allows it: more files than there are closing threads.
    fn fuse(&mut self) -> anyhow::Result<()> {
        let mut files = Vec::new(); // dropped after the file system, or they could not be closed here either
        let stuck = match Stuck::mount() {
            Ok(stuck) => stuck,
            Err(error) => anyhow::bail!("SKIPPED: it cannot mount a file system: {error:#}"),
        };
        for _ in 0..3 {
            files.push(stuck.open()?);
        }
        for _ in 0..24 {
            let count = 1 + self.random.below(3) as usize;
            let some: Vec<BorrowedFd<'_>> = files.iter().take(count).map(AsFd::as_fd).collect();
            self.offering((CAPACITY, 0), &some)?.as_ref().map(receive);
        }
        std::thread::sleep(Duration::from_millis(500));
        drop(stuck);
        Ok(())
    }
}
