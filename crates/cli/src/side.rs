//! One side of a full-duplex exchange: a node that sends numbered messages to its peer, and checks what the peer sends.
//!
//! A side ends when its peer has processed everything and it has received the peer's end message, so nothing is left in
//! between. A failure on one thread ends the other one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use hdrhistogram::Histogram;
use librpc::{Departure, Event, FlushError, Inbox, SendError, Sender};

use crate::deadline::SLICE;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::{Latency, counted};
use crate::outcome::Outcome;
use crate::pace::{Due, Pace};
use crate::payload::{self, Content, Kind, MIN_BYTES, MIN_STAMPED_BYTES, now_ns};
use crate::send::connect;

const STAMP_EVERY_UNDER_LOAD: u64 = 64;
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// A period with one rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) time: Duration,
    /// Messages per second; 0: as fast as possible.
    pub(crate) rate: u64,
    /// What its messages carry: [`Kind::Data`], [`Kind::Stamped`], or every 64th [`Kind::StampedUnderLoad`].
    pub(crate) kind: Kind,
}

/// What a side does.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) node: String,
    pub(crate) peer: String,
    pub(crate) size: usize,
    pub(crate) wait: Duration,
    pub(crate) phases: Vec<Phase>,
}

/// How many messages, and when the first and the last one were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) count: u64,
    span: Option<(Instant, Instant)>,
}

impl Flow {
    fn at(&mut self, now: Instant) {
        self.span = Some((self.span.map_or(now, |(first, _)| first), now));
    }

    /// Messages per second, from the first to the last one.
    pub(crate) fn rate(&self) -> f64 {
        match self.span {
            Some((first, last)) if last > first => (self.count.saturating_sub(1)) as f64 / (last - first).as_secs_f64(),
            _ => 0.0,
        }
    }
}

/// The progress of a side, for observers.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Numbers that were skipped.
    pub(crate) missing: AtomicU64,
    pub(crate) latency: Mutex<[Latency; 2]>,
    cancelled: AtomicBool,
}

/// What a side has done.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) sent: Flow,
    pub(crate) received: Flow,
    /// How many messages the peer reports as sent.
    pub(crate) peer_sent: u64,
    /// The latencies: paced, and under load.
    pub(crate) latency: [Latency; 2],
}

impl Exchanged {
    pub(crate) fn lost(&self) -> u64 {
        self.peer_sent.saturating_sub(self.received.count)
    }
}

impl Side {
    /// Runs the side, and calls `look` from time to time.
    pub(crate) fn run(
        &self,
        domain: &DomainArgs,
        interrupt: &Interrupt,
        mut look: impl FnMut(&Live),
    ) -> anyhow::Result<Result<Exchanged, Outcome>> {
        let node = domain.open(&self.node)?;
        let inbox = node.inbox()?;
        let mut sender = match connect((&node, None), &self.peer, self.wait, interrupt)? {
            Ok(sender) => sender,
            Err(outcome) => return Ok(Err(outcome)),
        };
        sender.set_timeout(SLICE);
        let (live, stop) = (std::sync::Arc::new(Live::default()), inbox.stop_handle());
        let (cancelled, stop_too) = (live.clone(), stop.clone());
        interrupt.then(move || {
            cancelled.cancelled.store(true, Ordering::Relaxed);
            stop_too.stop();
        });
        let (receiving, sending) = std::thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                let received = self.receive(inbox, &live);
                live.cancelled.fetch_or(!matches!(received, Ok(Some(_))), Ordering::Relaxed);
                received
            });
            let sending = scope.spawn(|| {
                let sent = self.send(sender, &live);
                if !matches!(sent, Ok(Some(_))) {
                    stop.stop();
                }
                sent
            });
            while !receiving.is_finished() || !sending.is_finished() {
                std::thread::sleep(Duration::from_millis(50));
                look(&live);
            }
            (receiving.join().expect("no panic"), sending.join().expect("no panic"))
        });
        if let Some(signal) = interrupt.signal() {
            let (sent, received) = (live.sent.load(Ordering::Relaxed), live.received.load(Ordering::Relaxed));
            crate::outcome::say(format_args!("{}: interrupted: sent {sent}, received {received}", self.node));
            return Ok(Err(Outcome::Interrupted(signal)));
        }
        match (receiving?, sending?) {
            (Some((_inbox, received, peer_sent, latency)), Some(sent)) => {
                Ok(Ok(Exchanged { sent, received, peer_sent, latency }))
            }
            _ => bail!("stopped without a reason"),
        }
    }

    /// Sends all phases and the end message, and waits until everything is processed. `None`: cancelled.
    fn send(&self, mut sender: Sender, live: &Live) -> anyhow::Result<Option<Flow>> {
        let stamped = self.phases.iter().any(|phase| phase.kind != Kind::Data);
        assert!(self.size >= if stamped { MIN_STAMPED_BYTES } else { MIN_BYTES });
        let mut message = vec![0; self.size];
        let mut sent = Flow::default();
        for phase in &self.phases {
            let mut pace = Pace::new(phase.rate, phase.time);
            loop {
                let now = Instant::now();
                match pace.due(now) {
                    Due::Over => break,
                    Due::Nothing(time) => std::thread::sleep(time),
                    Due::Messages(due) => {
                        for _ in 0..due {
                            let kind = match phase.kind {
                                Kind::StampedUnderLoad if sent.count % STAMP_EVERY_UNDER_LOAD != 0 => Kind::Data,
                                kind => kind,
                            };
                            payload::write(&mut message, kind, sent.count);
                            if !self.send_one(&mut sender, &message, live)? {
                                return Ok(None);
                            }
                            sent.count += 1;
                        }
                        if sent.span.is_none() {
                            sent.at(now);
                        }
                        live.sent.store(sent.count, Ordering::Relaxed);
                    }
                }
                if live.cancelled.load(Ordering::Relaxed) {
                    return Ok(None);
                }
            }
        }
        sent.at(Instant::now());
        payload::write(&mut message, Kind::End, sent.count);
        if !self.send_one(&mut sender, &message, live)? {
            return Ok(None);
        }
        loop {
            match sender.flush(SLICE) {
                Ok(()) => return Ok(Some(sent)),
                Err(FlushError::TimedOut { .. }) if live.cancelled.load(Ordering::Relaxed) => return Ok(None),
                Err(FlushError::TimedOut { .. }) => {}
                Err(error) => return Err(error).with_context(|| self.failed()),
            }
        }
    }

    /// Sends a message, and waits for room without limit. `false`: cancelled.
    #[inline]
    fn send_one(&self, sender: &mut Sender, message: &[u8], live: &Live) -> anyhow::Result<bool> {
        loop {
            match sender.send(message) {
                Ok(()) => return Ok(true),
                Err(SendError::Full { .. } | SendError::Unanswered { .. })
                    if live.cancelled.load(Ordering::Relaxed) =>
                {
                    return Ok(false);
                }
                Err(SendError::Full { .. } | SendError::Unanswered { .. }) => {}
                Err(error) => return Err(error).with_context(|| self.failed()),
            }
        }
    }

    fn failed(&self) -> String {
        format!("{} cannot send to {}", self.node, self.peer)
    }

    /// Receives until the peer's end message. `None`: stopped.
    #[expect(clippy::type_complexity, reason = "it has one caller, which destructures it at once")]
    fn receive(&self, mut inbox: Inbox, live: &Live) -> anyhow::Result<Option<(Inbox, Flow, u64, [Latency; 2])>> {
        let (mut received, mut next) = (Flow::default(), 0);
        let mut histograms = [histogram(), histogram()];
        let mut published = Instant::now();
        loop {
            let message = match inbox.recv_event()? {
                None => return Ok(None),
                Some(Event::Message(message)) if message.sender() == self.peer => message,
                Some(Event::SenderLeft(peer, departure)) if *peer.node == *self.peer => {
                    let why = match departure {
                        Departure::Died => "died".to_owned(),
                        Departure::Corrupt(why) => format!("wrote something invalid ({why})"),
                        _ => "left".to_owned(),
                    };
                    bail!(
                        "{}: {} {why} after {}, without an end message",
                        self.node,
                        self.peer,
                        counted(received.count, "message")
                    );
                }
                Some(_) => continue,
            };
            let content = payload::read(message.payload());
            let content = content.ok_or_else(|| {
                anyhow!("{}: message {} from {} is not what was sent", self.node, received.count, self.peer)
            })?;
            match content {
                Content { kind: Kind::End, number, .. } => {
                    inbox.ack();
                    received.at(Instant::now());
                    let latency = histograms.map(|histogram| Latency::of(&histogram));
                    return Ok(Some((inbox, received, number, latency)));
                }
                Content { kind, number, sent_ns } => {
                    // A gap is a loss, and is counted. A message that comes twice or out of order is a failure.
                    if number < next {
                        bail!("{}: message {number} from {} came out of order or twice", self.node, self.peer);
                    }
                    next = number + 1;
                    if kind != Kind::Data {
                        let histogram = &mut histograms[usize::from(kind == Kind::StampedUnderLoad)];
                        histogram.saturating_record(now_ns().saturating_sub(sent_ns));
                        if published.elapsed() > PUBLISH_EVERY {
                            published = Instant::now();
                            let mut latency = live.latency.lock().expect("no panic under this lock");
                            *latency = [Latency::of(&histograms[0]), Latency::of(&histograms[1])];
                        }
                    }
                    if received.span.is_none() {
                        received.at(Instant::now());
                    }
                    received.count += 1;
                    live.received.store(received.count, Ordering::Relaxed);
                    live.missing.store(next - received.count, Ordering::Relaxed);
                }
            }
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid")
}
