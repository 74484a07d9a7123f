//! What a contender must be able to do, and the list of all contenders.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// Which of the two processes this is: A asks or sends, B answers or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Side {
    A,
    B,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// There and back between two processes that poll, halved
    Latency,
    /// One direction, as fast as it goes
    Throughput,
    /// One message to a process that sleeps
    Wake,
    /// A large message handed over: it is written before, and read afterwards
    InPlace,
    /// A call: request and reply, between two processes that poll
    Call,
    /// The same, between two processes that sleep
    SleepingCall,
}

/// From this size on, only the contenders take part whose messages can stay where they were written.
pub(crate) const LARGE: usize = 64 * 1024;

impl Measure {
    pub(crate) const ALL: [Self; 6] =
        [Self::Latency, Self::Throughput, Self::Wake, Self::InPlace, Self::Call, Self::SleepingCall];

    /// Whether a message is a request that is answered.
    pub(crate) fn is_call(self) -> bool {
        matches!(self, Self::Call | Self::SleepingCall)
    }

    /// Whether messages of this size are measured so.
    pub(crate) fn has(self, bytes: usize) -> bool {
        match self {
            Self::Throughput => true,
            Self::Latency | Self::Wake | Self::Call | Self::SleepingCall => bytes < LARGE,
            Self::InPlace => bytes >= LARGE,
        }
    }
}

/// How a side is to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// A directory in memory, for this measurement only.
    pub(crate) place: PathBuf,
    pub(crate) side: Side,
    pub(crate) measure: Measure,
    pub(crate) bytes: usize,
}

impl Job {
    /// Whether the receiver sleeps while there is no message; otherwise it polls.
    pub(crate) fn sleeps(&self) -> bool {
        matches!(self.measure, Measure::Wake | Measure::SleepingCall)
    }

    /// Whether messages are large: then they stay where they were written.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes >= LARGE
    }

    /// The names of what this side sends to, and what it receives from.
    pub(crate) fn directions<T>(&self, to_b: T, to_a: T) -> (T, T) {
        match self.side {
            Side::A => (to_b, to_a),
            Side::B => (to_a, to_b),
        }
    }
}

/// One side of a pair of processes that exchange messages of one size.
pub(crate) trait Contender: Sized {
    /// Opens this side, and waits for the other.
    fn open(job: &Job) -> anyhow::Result<Self>;

    /// Writes the message with this number (`payload::write`) and sends it. Waits while there is no room.
    fn send(&mut self, number: u64) -> anyhow::Result<()>;

    /// Hands out the messages that have arrived. A polling contender may return without one. A sleeping one returns
    /// after about a second at the latest, if it can.
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()>;

    /// For [`Measure::InPlace`]: writes the message with this number, where it stays.
    fn prepare(&mut self, _number: u64) -> anyhow::Result<()> {
        bail!("it has no messages in place")
    }

    /// Sends the message that is prepared.
    fn hand_over(&mut self) -> anyhow::Result<()> {
        bail!("it has no messages in place")
    }

    /// Receives the next message without copying its payload. `false`: no message has arrived.
    fn take(&mut self) -> anyhow::Result<bool> {
        bail!("it has no messages in place")
    }

    /// Reads the message that was taken, and gives it back.
    fn read(&mut self, _read: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        bail!("it has no messages in place")
    }

    /// Makes `receive` and `take` return, from another thread, if it waits without limit.
    fn stop(&self) -> Box<dyn FnOnce() + Send> {
        Box::new(|| {})
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Name {
    /// Limit: a cache line there and back
    CacheLine,
    /// Limit: one thread copies as many bytes
    Memcpy,
    /// Limit: an eventfd, heard by epoll
    Eventfd,
    Librpc,
    Aeron,
    Iceoryx2,
    Zeromq,
    IpcChannel,
    UnixSocket,
    Pipe,
}

impl Name {
    pub(crate) const ALL: [Self; 10] = [
        Self::CacheLine,
        Self::Memcpy,
        Self::Eventfd,
        Self::Librpc,
        Self::Aeron,
        Self::Iceoryx2,
        Self::Zeromq,
        Self::IpcChannel,
        Self::UnixSocket,
        Self::Pipe,
    ];

    pub(crate) fn is_limit(self) -> bool {
        matches!(self, Self::CacheLine | Self::Memcpy | Self::Eventfd)
    }

    /// Whether the contender has this measure, with messages of this size.
    pub(crate) fn takes_part(self, measure: Measure, bytes: usize) -> bool {
        match self {
            Self::Librpc | Self::Iceoryx2 => true,
            Self::CacheLine => matches!(measure, Measure::Latency | Measure::Call),
            Self::Memcpy => measure == Measure::Throughput,
            Self::Eventfd => matches!(measure, Measure::Wake | Measure::SleepingCall),
            Self::UnixSocket => bytes < LARGE,
            _ if measure.is_call() => false, // they have no calls of their own
            _ if bytes >= LARGE => false,
            Self::Aeron => measure != Measure::Wake, // its subscribers poll
            Self::Zeromq | Self::IpcChannel | Self::Pipe => true,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CacheLine => "limit: cache line",
            Self::Memcpy => "limit: memcpy",
            Self::Eventfd => "limit: eventfd + epoll",
            Self::Librpc => "librpc",
            Self::Aeron => "Aeron IPC",
            Self::Iceoryx2 => "iceoryx2",
            Self::Zeromq => "ZeroMQ ipc://",
            Self::IpcChannel => "ipc-channel",
            Self::UnixSocket => "Unix socket",
            Self::Pipe => "pipe",
        }
    }
}

/// The name on the command line.
pub(crate) fn spelt(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().expect("none is hidden").get_name().to_owned()
}

/// Tries until it succeeds: the other side may not be there yet.
pub(crate) fn eventually<T, E: Into<anyhow::Error>>(
    what: &'static str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if begun.elapsed() > Duration::from_secs(10) => return Err(error.into()).context(what),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
