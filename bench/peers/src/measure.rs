//! The two sides of a measurement, each a process. They do the same for every contender.
//!
//! A side opens, says "ready", and measures: A when it gets the order to go, B at once. It reports on one line, and
//! leaves when its standard input ends, so that no side closes while the other one may still read. The end of the input
//! also ends B's wait for the last message.

use std::hint::black_box;
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::contender::{Contender, Job, Measure, Name, Side, spelt};
use crate::contenders::{
    aeron, cache_line::CacheLine, eventfd::Eventfd, iceoryx2::Iceoryx2, iceoryx2_calls::Iceoryx2Calls,
    ipc_channel::IpcChannel, librpc::Librpc, librpc_calls::LibrpcCalls, packets::Packets, pipe::Pipe,
    unix_socket::UnixSocket, zeromq::ZeroMq,
};
use crate::payload::{BEGIN, LAST, MIN_BYTES, Tally};

pub(crate) const READY: &str = "ready";
/// This part of the time passes before counting begins.
const WARM_UP: f64 = 0.2;
/// The pause between two messages to a sleeper: long enough that it is asleep.
const PAUSE: Duration = Duration::from_millis(2);
/// How many of the first messages are not counted, where each is timed by the clock of both sides.
const FIRST: usize = 5;
/// An answer that takes longer counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// How many empty polls pass between two looks at the clock and at the parent's orders.
const POLLS_PER_LOOK: u32 = 4096;
/// How many messages, or how many bytes, are sent between two looks at the clock.
const SENDS_PER_LOOK: u64 = 64;
const BYTES_PER_LOOK: u64 = 4 << 20;
/// How many bytes `memcpy` copies: the size of a ring of librpc. (A large message is copied from and to memory of its own size.)
const COPIED_BYTES: usize = 256 * 1024;

/// One side, as given on the command line.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Task {
    #[arg(long)]
    pub(crate) name: Name,
    #[arg(long)]
    pub(crate) side: Side,
    #[arg(long)]
    pub(crate) measure: Measure,
    #[arg(long)]
    pub(crate) bytes: usize,
    #[arg(long)]
    pub(crate) seconds: f64,
    #[arg(long)]
    pub(crate) place: PathBuf,
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
}

impl Task {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let word = |value: &dyn std::fmt::Display| value.to_string();
        let mut arguments = vec![
            word(&"side"),
            word(&"--name"),
            spelt(&self.name),
            word(&"--side"),
            spelt(&self.side),
            word(&"--measure"),
            spelt(&self.measure),
            word(&"--bytes"),
            word(&self.bytes),
            word(&"--seconds"),
            word(&self.seconds),
            word(&"--place"),
            word(&self.place.display()),
        ];
        if let Some(cpu) = self.cpu {
            arguments.extend([word(&"--cpu"), word(&cpu)]);
        }
        arguments
    }

    fn time(&self, part: f64) -> Duration {
        Duration::from_secs_f64(self.seconds * part)
    }
}

/// The report of a side at its end.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Told {
    pub(crate) sent: u64,
    pub(crate) tally: Tally,
    /// One way, or of a call.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    /// The time from the message with which measuring began to the last one.
    pub(crate) messages_per_s: f64,
    /// When messages were sent or received, by their numbers.
    pub(crate) times_ns: Vec<(u64, u64)>,
}

pub(crate) fn run(task: &Task) -> anyhow::Result<()> {
    match task.name {
        Name::Memcpy => {
            pin(task.cpu)?;
            ready()?;
            let copied = Told { messages_per_s: copies_per_second(task.bytes, task.time(1.0)), ..Told::default() };
            tell(&copied)?;
            until_told()
        }
        Name::CacheLine => side::<CacheLine>(task, MIN_BYTES),
        Name::Eventfd => side::<Eventfd>(task, MIN_BYTES),
        Name::Librpc if task.measure.is_call() => side::<LibrpcCalls>(task, task.bytes),
        Name::Iceoryx2 if task.measure.is_call() => side::<Iceoryx2Calls>(task, task.bytes),
        Name::UnixSocket if task.measure.is_call() => side::<Packets>(task, task.bytes),
        Name::Librpc => side::<Librpc>(task, task.bytes),
        Name::Aeron => side::<aeron::Aeron>(task, task.bytes),
        Name::Iceoryx2 => side::<Iceoryx2>(task, task.bytes),
        Name::Zeromq => side::<ZeroMq>(task, task.bytes),
        Name::IpcChannel => side::<IpcChannel>(task, task.bytes),
        Name::UnixSocket => side::<UnixSocket>(task, task.bytes),
        Name::Pipe => side::<Pipe>(task, task.bytes),
    }
}

/// A process that a contender needs in addition to the two sides.
pub(crate) fn helper(name: Name, measure: Measure, place: &std::path::Path) -> anyhow::Result<()> {
    match name {
        Name::Aeron => aeron::drive(place, measure, ready, || {
            let _ = until_told(); // the end of the input and an error are the same
        }),
        _ => bail!("{} needs no process beside the two", name.title()),
    }
}

fn side<C: Contender>(task: &Task, bytes: usize) -> anyhow::Result<()> {
    let job = Job { place: task.place.clone(), side: task.side, measure: task.measure, bytes };
    let contender = C::open(&job)?;
    let over = Arc::new(AtomicBool::new(false));
    if task.side == Side::B {
        let (over, stop) = (over.clone(), contender.stop());
        std::thread::spawn(move || {
            let _ = until_told(); // as above
            over.store(true, Ordering::Relaxed);
            stop();
        });
    }
    pin(task.cpu)?; // after the contender has started its own threads, which stay unpinned
    let mut end = End { contender, bytes, over, tally: Tally::default() };
    ready()?;
    if task.side == Side::A {
        anyhow::ensure!(std::io::stdin().lock().read_line(&mut String::new())? > 0, "the parent has left");
    }
    let told = match (task.measure, task.side) {
        (Measure::Latency, Side::A) => end.ask(task, 2)?,
        (Measure::Call | Measure::SleepingCall, Side::A) => end.ask(task, 1)?,
        (Measure::Latency | Measure::Call | Measure::SleepingCall, Side::B) => end.answer()?,
        (Measure::Throughput, Side::A) => end.send_many(task)?,
        (Measure::Throughput, Side::B) => end.receive_many()?,
        (Measure::Wake, Side::A) => end.wake(task)?,
        (Measure::Wake, Side::B) => end.sleep()?,
        (Measure::InPlace, Side::A) => end.hand_over(task)?,
        (Measure::InPlace, Side::B) => end.take_over()?,
    };
    tell(&told)?;
    match task.side {
        Side::A => until_told(),
        Side::B => {
            while !end.over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
    }
}

/// One end, and what has arrived there.
struct End<C> {
    contender: C,
    bytes: usize,
    over: Arc<AtomicBool>,
    tally: Tally,
}

impl<C: Contender> End<C> {
    /// Receives until there is a message; `None` if the parent has ended the measurement, or the time is up.
    #[inline]
    fn next(&mut self, limit: Option<Duration>, mut each: impl FnMut(Option<u64>)) -> anyhow::Result<Option<()>> {
        let (mut polls, mut begun, mut came) = (0, None, false);
        loop {
            let (tally, bytes) = (&mut self.tally, self.bytes);
            self.contender.receive(&mut |message| {
                came = true;
                each(tally.take(message, bytes));
            })?;
            if came {
                return Ok(Some(()));
            }
            polls += 1;
            if polls % POLLS_PER_LOOK == 0 {
                let late = limit.is_some_and(|limit| begun.get_or_insert_with(Instant::now).elapsed() > limit);
                if late || self.over.load(Ordering::Relaxed) {
                    return Ok(None);
                }
            }
        }
    }

    /// Sends messages that are answered. What counts is this part of the time there and back.
    fn ask(&mut self, task: &Task, part: u64) -> anyhow::Result<Told> {
        let mut histogram = histogram()?;
        let (begun, warm, time) = (Instant::now(), task.time(WARM_UP), task.time(1.0));
        let (mut number, mut unanswered) = (0, 0);
        loop {
            let sent = Instant::now();
            let so_far = sent - begun;
            if so_far >= time {
                break;
            }
            self.contender.send(number)?;
            if self.next(Some(LOST_AFTER), |_| {})?.is_some() {
                let there_and_back = sent.elapsed();
                if so_far >= warm {
                    histogram.saturating_record(there_and_back.as_nanos() as u64 / part);
                }
            } else {
                unanswered += 1;
                anyhow::ensure!(unanswered < 3, "three messages without an answer");
            }
            number += 1;
        }
        self.contender.send(number | LAST)?;
        anyhow::ensure!(!histogram.is_empty(), "no message came back in time");
        let [p50_ns, p99_ns, p999_ns] = [0.5, 0.99, 0.999].map(|part| histogram.value_at_quantile(part));
        Ok(Told { sent: number + 1, tally: self.tally, p50_ns, p99_ns, p999_ns, ..Told::default() })
    }

    fn answer(&mut self) -> anyhow::Result<Told> {
        let mut sent = 0;
        loop {
            let mut came = None;
            if self.next(None, |number| came = number)?.is_none() || came.is_some_and(|number| number & LAST != 0) {
                return Ok(Told { sent, tally: self.tally, ..Told::default() });
            }
            // A spoilt message is counted and answered, too, so that the exchange continues.
            self.contender.send(came.unwrap_or(self.tally.next))?;
            sent += 1;
        }
    }

    fn send_many(&mut self, task: &Task) -> anyhow::Result<Told> {
        let begun = Instant::now();
        let mut number = 0;
        for (until, flag) in [(task.time(WARM_UP), BEGIN), (task.time(1.0), LAST)] {
            while begun.elapsed() < until {
                for _ in 0..(BYTES_PER_LOOK / self.bytes as u64).clamp(1, SENDS_PER_LOOK) {
                    self.contender.send(number)?;
                    number += 1;
                }
            }
            self.contender.send(number | flag)?;
            number += 1;
        }
        Ok(Told { sent: number, ..Told::default() })
    }

    fn receive_many(&mut self) -> anyhow::Result<Told> {
        let (mut began, mut received, mut ended) = (None, 0, None);
        while ended.is_none() {
            let each = |number: Option<u64>| {
                received += 1;
                match number {
                    Some(number) if number & BEGIN != 0 => began = Some((Instant::now(), received)),
                    Some(number) if number & LAST != 0 => ended = Some((Instant::now(), received)),
                    _ => {}
                }
            };
            if self.next(None, each)?.is_none() {
                break;
            }
        }
        let messages_per_s = match (began, ended) {
            (Some((began, before)), Some((ended, all))) => (all - before) as f64 / (ended - began).as_secs_f64(),
            _ => 0.0,
        };
        Ok(Told { tally: self.tally, messages_per_s, ..Told::default() })
    }

    fn wake(&mut self, task: &Task) -> anyhow::Result<Told> {
        let (begun, mut times_ns) = (Instant::now(), Vec::new());
        while begun.elapsed() < task.time(1.0) || times_ns.len() < FIRST {
            std::thread::sleep(PAUSE);
            let number = times_ns.len() as u64;
            times_ns.push((number, now_ns()));
            self.contender.send(number)?;
        }
        std::thread::sleep(PAUSE);
        let sent = times_ns.len() as u64;
        self.contender.send(sent | LAST)?;
        Ok(Told { sent: sent + 1, times_ns, ..Told::default() })
    }

    fn sleep(&mut self) -> anyhow::Result<Told> {
        let mut times_ns = Vec::new();
        loop {
            let mut last = false;
            let each = |number: Option<u64>| match number {
                Some(number) if number & LAST != 0 => last = true,
                Some(number) => times_ns.push((number, now_ns())),
                None => {}
            };
            if self.next(None, each)?.is_none() || last {
                return Ok(Told { tally: self.tally, times_ns, ..Told::default() });
            }
        }
    }
}

impl<C: Contender> End<C> {
    /// Hands over messages that are written before. Once the answer has come, the other side waits for the next one.
    fn hand_over(&mut self, task: &Task) -> anyhow::Result<Told> {
        let (begun, mut times_ns) = (Instant::now(), Vec::new());
        while begun.elapsed() < task.time(1.0) || times_ns.len() <= FIRST {
            let number = times_ns.len() as u64;
            self.contender.prepare(number)?;
            times_ns.push((number, now_ns()));
            self.contender.hand_over()?;
            anyhow::ensure!(self.next(Some(LOST_AFTER), |_| {})?.is_some(), "a message without an answer");
        }
        let sent = times_ns.len() as u64;
        self.contender.send(sent | LAST)?;
        Ok(Told { sent: sent + 1, tally: self.tally, times_ns, ..Told::default() })
    }

    /// Notes when each message has arrived, then reads and answers it.
    fn take_over(&mut self) -> anyhow::Result<Told> {
        let (mut times_ns, mut sent) = (Vec::new(), 0);
        while !self.over.load(Ordering::Relaxed) {
            if !self.contender.take()? {
                continue;
            }
            let now = now_ns();
            let (tally, bytes, mut came) = (&mut self.tally, self.bytes, None);
            self.contender.read(&mut |message| came = tally.take(message, bytes))?;
            match came {
                Some(number) if number & LAST != 0 => break,
                Some(number) => times_ns.push((number, now)),
                None => {}
            }
            self.contender.send(came.unwrap_or(self.tally.next))?;
            sent += 1;
        }
        Ok(Told { sent, tally: self.tally, times_ns, ..Told::default() })
    }
}

/// Up to an hour, three digits. (A histogram without bounds that saturates ignores everything beyond its first 2 µs.)
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(3_600_000_000_000, 3)?)
}

/// How long the messages took, without the first ones: from before each was sent until its receiver had it.
pub(crate) fn one_way(sent: &Told, received: &Told) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = histogram()?;
    for (number, came) in &received.times_ns {
        if let Some((_, went)) = sent.times_ns.get(*number as usize).filter(|_| *number as usize >= FIRST) {
            histogram.saturating_record(came.saturating_sub(*went));
        }
    }
    Ok(histogram)
}

/// How many pieces of this size one thread copies per second from one buffer to another.
fn copies_per_second(bytes: usize, time: Duration) -> f64 {
    let pieces = (COPIED_BYTES / bytes).max(1);
    // Not 0: such memory is touched by the first copy only.
    let (from, mut to) = (vec![7u8; pieces * bytes], vec![1u8; pieces * bytes]);
    let (begun, mut copied) = (Instant::now(), 0usize);
    while begun.elapsed() < time {
        for (from, to) in from.chunks_exact(bytes).zip(to.chunks_exact_mut(bytes)) {
            to.copy_from_slice(black_box(from));
        }
        black_box(&mut to);
        copied += pieces;
    }
    copied as f64 / begun.elapsed().as_secs_f64()
}

/// Puts this thread on a CPU.
fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = rustix::thread::CpuSet::new();
    anyhow::ensure!(cpu < rustix::thread::CpuSet::MAX_CPU, "there is no CPU {cpu}");
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// A clock that all processes share.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn ready() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{READY}").context("cannot report that this process is ready")
}

fn tell(told: &Told) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string(told)?).context("cannot report")
}

/// Waits until standard input ends.
fn until_told() -> anyhow::Result<()> {
    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
