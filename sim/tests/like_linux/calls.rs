//! The calls, and how they are chosen.

use fastrand::Rng;

/// One call. Descriptors are numbers in the order in which they were made.
#[derive(Clone, Debug)]
pub enum Call {
    Open { name: &'static str, how: How },
    LinkOpen { slot: usize, name: &'static str },
    Rename { from: &'static str, to: &'static str, replace: bool },
    Unlink { name: &'static str },
    MakeDirectory { name: &'static str },
    RemoveDirectory { name: &'static str },
    List,
    Stat { name: &'static str },
    Write { slot: usize, offset: u64, bytes: usize },
    Read { slot: usize, offset: u64, bytes: usize },
    Truncate { slot: usize, bytes: u64 },
    Allocate { slot: usize, offset: u64, bytes: u64 },
    Flock { slot: usize, exclusive: Option<bool> },
    Lock { slot: usize, byte: u64, exclusive: bool },
    Unlock { slot: usize, byte: u64 },
    WhoLocks { slot: usize, byte: u64, exclusive: bool },
    Memory,
    Seal { slot: usize, seals: u32 },
    Seals { slot: usize },
    Socket,
    Bind { slot: usize, name: &'static str },
    Listen { slot: usize, backlog: i32 },
    Connect { slot: usize, name: &'static str },
    Accept { slot: usize },
    Send { slot: usize, bytes: usize, descriptors: Vec<usize> },
    Receive { slot: usize, bytes: usize, descriptors: usize, peek: bool },
    ShutDown { slot: usize },
    Close { slot: usize },
    Duplicate { slot: usize },
    Poll,
    PollAdd { poll: usize, slot: usize },
    PollRemove { poll: usize, slot: usize },
    PollWait { poll: usize },
    Event,
    Raise { slot: usize },
    Clear { slot: usize },
    Watcher,
    Watch { slot: usize, name: &'static str, changes: u32 },
    ReadEvents { slot: usize },
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Read,
    Write,
    Create,
    CreateNew,
    Directory,
    Unnamed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Socket,
    Poll,
    Event,
    Watcher,
    Closed,
    /// From another socket, whatever it was.
    Received,
}

/// Chooses calls that make sense more often than not.
pub struct Chooser {
    slots: Vec<Kind>,
    /// Either files are renamed, or they have several names. Which of those an open file goes by is not modelled.
    renames: bool,
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "d/a", "d/b"];

impl Chooser {
    pub fn new(seed: u64) -> Self {
        Self { slots: Vec::new(), renames: seed.is_multiple_of(2) }
    }

    fn slot(&self, random: &mut Rng, kind: Kind) -> Option<usize> {
        let open = |&slot: &usize| self.slots[slot] != Kind::Closed;
        let fits = |&slot: &usize| self.slots[slot] == kind || self.slots[slot] == Kind::Received;
        let all: Vec<usize> = (0..self.slots.len()).filter(open).collect();
        let fitting: Vec<usize> = all.iter().copied().filter(fits).collect();
        let from = if fitting.is_empty() || random.u8(..) < 8 { &all } else { &fitting };
        random.choice(from).copied()
    }

    /// The same, where another kind has answers on which nothing depends.
    fn strict_slot(&self, random: &mut Rng, kind: Kind) -> Option<usize> {
        self.slot(random, kind).filter(|&slot| self.slots[slot] == kind)
    }

    pub fn next(&self, random: &mut Rng) -> Call {
        loop {
            if let Some(call) = self.choose(random) {
                return call;
            }
        }
    }

    fn choose(&self, random: &mut Rng) -> Option<Call> {
        let name = *random.choice(&NAMES)?;
        let exclusive = random.bool();
        let byte = random.u64(..2);
        let offset = random.u64(..10_000);
        Some(match random.u8(..44) {
            0 | 1 => {
                let how = [How::Read, How::Write, How::Create, How::CreateNew, How::Directory, How::Unnamed];
                Call::Open { name, how: *random.choice(&how)? }
            }
            2 if self.renames => return None,
            2 => Call::LinkOpen { slot: self.slot(random, Kind::File)?, name },
            3 if !self.renames => return None,
            3 => Call::Rename { from: name, to: random.choice(&NAMES)?, replace: random.bool() },
            4 => Call::Unlink { name },
            5 => Call::MakeDirectory { name },
            6 => Call::RemoveDirectory { name },
            7 => Call::List,
            8 => Call::Stat { name },
            9 => Call::Write { slot: self.strict_slot(random, Kind::File)?, offset, bytes: random.usize(1..5000) },
            10 => Call::Read { slot: self.strict_slot(random, Kind::File)?, offset, bytes: random.usize(1..5000) },
            11 => Call::Truncate { slot: self.strict_slot(random, Kind::File)?, bytes: offset },
            12 => Call::Allocate { slot: self.strict_slot(random, Kind::File)?, offset, bytes: random.u64(1..9000) },
            13 | 14 => {
                let exclusive = *random.choice(&[None, Some(true), Some(false), Some(false)])?;
                Call::Flock { slot: self.strict_slot(random, Kind::File)?, exclusive }
            }
            15 | 16 => Call::Lock { slot: self.strict_slot(random, Kind::File)?, byte, exclusive },
            17 => Call::Unlock { slot: self.strict_slot(random, Kind::File)?, byte },
            18 => Call::WhoLocks { slot: self.strict_slot(random, Kind::File)?, byte, exclusive },
            19 => Call::Memory,
            20 => {
                Call::Seal { slot: self.strict_slot(random, Kind::File)?, seals: random.u32(..32) & random.u32(..32) }
            }
            21 => Call::Seals { slot: self.slot(random, Kind::File)? },
            22 | 23 => Call::Socket,
            24 => Call::Bind { slot: self.slot(random, Kind::Socket)?, name },
            25 => Call::Listen { slot: self.slot(random, Kind::Socket)?, backlog: random.i32(0..3) },
            26 | 27 => Call::Connect { slot: self.slot(random, Kind::Socket)?, name },
            28 => Call::Accept { slot: self.slot(random, Kind::Socket)? },
            29 | 30 => {
                let count = if random.bool() { 0 } else { random.usize(..3) };
                let descriptors = (0..count).filter_map(|_| self.slot(random, Kind::File)).collect();
                Call::Send { slot: self.slot(random, Kind::Socket)?, bytes: random.usize(1..600), descriptors }
            }
            31 | 32 => {
                let slot = self.slot(random, Kind::Socket)?;
                Call::Receive { slot, bytes: random.usize(1..600), descriptors: random.usize(..4), peek: random.bool() }
            }
            33 => Call::ShutDown { slot: self.slot(random, Kind::Socket)? },
            34 => {
                let all = self.slots.iter().enumerate().filter(|(_, kind)| **kind != Kind::Closed);
                Call::Close { slot: random.choice(&all.map(|(slot, _)| slot).collect::<Vec<_>>()).copied()? }
            }
            35 => Call::Duplicate { slot: self.slot(random, Kind::File)? },
            36 => Call::Poll,
            37 => {
                let poll = self.slot(random, Kind::Poll)?;
                let kind = *random.choice(&[Kind::Socket, Kind::Socket, Kind::Event, Kind::Watcher])?;
                // Sets within sets have rules of their own, which nothing here depends on.
                let slot = self.strict_slot(random, kind)?;
                Call::PollAdd { poll, slot }
            }
            38 => Call::PollRemove { poll: self.slot(random, Kind::Poll)?, slot: self.slot(random, Kind::Socket)? },
            39 => Call::PollWait { poll: self.strict_slot(random, Kind::Poll)? },
            40 => Call::Event,
            41 => {
                let slot = self.strict_slot(random, Kind::Event)?;
                if random.bool() { Call::Raise { slot } } else { Call::Clear { slot } }
            }
            42 => Call::Watcher,
            _ => {
                let slot = self.strict_slot(random, Kind::Watcher)?;
                match random.bool() {
                    true => {
                        // Of a directory its entries, of a file its last name.
                        let changes = *random.choice(&[0x100_0000 | 0xf82, 0x8200_0000 | 0xc04])?;
                        Call::Watch { slot, name: random.choice(&[".", "d", "a"])?, changes }
                    }
                    false => Call::ReadEvents { slot },
                }
            }
        })
    }

    /// Takes note of what a call has made.
    pub fn heard(&mut self, call: &Call, answer: &str) {
        let Some(answer) = answer.strip_prefix("ok") else { return };
        let made = match call {
            Call::Open { .. } | Call::Memory => Kind::File,
            Call::Socket | Call::Accept { .. } => Kind::Socket,
            Call::Poll => Kind::Poll,
            Call::Event => Kind::Event,
            Call::Watcher => Kind::Watcher,
            Call::Duplicate { slot } => self.slots[*slot],
            Call::Close { slot } => {
                self.slots[*slot] = Kind::Closed;
                return;
            }
            Call::Receive { .. } => {
                let count = answer.split("descriptors ").nth(1).and_then(|rest| rest.split(',').next());
                let count: usize = count.map_or(0, |count| count.parse().expect("a count"));
                self.slots.extend(std::iter::repeat_n(Kind::Received, count));
                return;
            }
            _ => return,
        };
        self.slots.push(made);
    }
}

/// An answer as text.
pub fn answer<T: std::fmt::Display>(outcome: Result<T, rustix::io::Errno>) -> String {
    match outcome {
        Ok(value) => format!("ok {value}"),
        Err(errno) => std::io::Error::from(errno).to_string(),
    }
}
