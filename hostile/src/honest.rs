//! One of the two honest processes. They exchange messages all the time, short and large ones, both ways, directly and by
//! topics, and call each other (`calls.rs`), while an attacker is at work. Each checks what it gets, and notes the longest time that it went without a message.
//!
//! The victim also publishes and sends to the attacker; the other one connects again and again. A panic in either process
//! aborts it.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use librpc::{Admission, Departure, Domain, Event, Inbox, Limits, LoanError, Node, Sample, SendError, Sender};
use testkit::wait_for;

/// How long a peer may be silent in its handshake.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);
/// How long the loops here pause.
pub(crate) const PACE: Duration = Duration::from_millis(4);
/// How long one receive waits.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// How long a large payload is: longer than a ring takes.
pub(crate) const LARGE: usize = 100_000;
/// One message in this many has a large payload.
const ONE_IN: u64 = 8;
/// The memory that each process may make for payloads: less than an attacker can hold.
const PAYLOAD_BYTES: u64 = 16 << 20;

/// The service of both.
pub(crate) const SERVICE: &str = "calls";

/// How many samples an inbox keeps.
const SAMPLES: usize = 4;

/// The domain: a private one, or one that is shared with the group of the attacker, which has the number of its uid.
pub(crate) fn domain(path: &Path, attacker: Option<u32>) -> Domain {
    let domain = Domain::at(path);
    attacker.map_or(domain.clone(), |group| domain.shared_with_group(group))
}

/// Opens a node that admits the honest user and the attacker.
pub(crate) fn open(path: &Path, id: &str, attacker: Option<u32>) -> anyhow::Result<Node> {
    let limits = Limits::default().handshake_timeout(PATIENCE).payload_bytes(PAYLOAD_BYTES);
    let admission = attacker.map_or(Admission::same_user(), |uid| Admission::same_user().uid(uid).uid(0));
    Ok(Node::builder(id).domain(domain(path, attacker)).limits(limits).admit(admission).open()?)
}

pub(crate) struct Honest {
    node: Node,
    domain: Domain,
    pub(crate) other: String,
    /// When it was told to end. What takes longer does not count from then on: the other one may be gone.
    ended: OnceLock<Instant>,
    received: AtomicU64,
    /// How many of them were large, and how many large ones were not sent because others had all memory for payloads.
    large: AtomicU64,
    unsent: AtomicU64,
    /// The longest time without a message, for a new connection, and for a sleep of [`PACE`], in ms.
    longest_pause: AtomicU64,
    longest_connect: AtomicU64,
    longest_sleep: AtomicU64,
    /// How many calls the other one has answered; the longest time of such a call, and by how much a call to the attacker has
    /// exceeded its limit, in ms.
    pub(crate) calls: AtomicU64,
    pub(crate) longest_call: AtomicU64,
}

/// Runs until stdin ends. Then prints how many messages came, the longest pause, connect and sleep in ms, how many of the messages
/// were large, how many large ones were not sent, how many calls were answered, and the longest call in ms.
pub(crate) fn honest(path: &Path, id: &str, other: &str, attacker: Option<u32>) -> anyhow::Result<()> {
    testkit::die_with_parent()?;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let honest = Honest {
        node: open(path, id, attacker)?,
        domain: domain(path, attacker),
        other: other.to_owned(),
        ended: OnceLock::new(),
        received: AtomicU64::new(0),
        large: AtomicU64::new(0),
        unsent: AtomicU64::new(0),
        longest_pause: AtomicU64::new(0),
        longest_connect: AtomicU64::new(0),
        longest_sleep: AtomicU64::new(0),
        calls: AtomicU64::new(0),
        longest_call: AtomicU64::new(0),
    };
    let (inbox, topics) = (honest.node.inbox()?, honest.node.subscribe("p/**")?);
    let (server, client) = (honest.node.serve(SERVICE)?, honest.node.client(SERVICE)?);
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let sender = honest.node.connect_timeout(other, Duration::from_secs(10))?;
    std::thread::scope(|scope| {
        scope.spawn(|| honest.receive(inbox));
        scope.spawn(|| honest.receive(topics));
        scope.spawn(|| honest.publish());
        scope.spawn(|| honest.serve(&server));
        scope.spawn(|| honest.call(&client));
        scope.spawn(|| if id == "victim" { honest.send_to_attacker() } else { honest.connect_again_and_again() });
        scope.spawn(|| honest.send(sender));
        scope.spawn(|| honest.sleep());
        let until_it_ends = std::io::copy(&mut std::io::stdin().lock().by_ref(), &mut std::io::sink());
        honest.ended.get_or_init(Instant::now);
        until_it_ends
    })?;
    let Honest { received, longest_pause, longest_connect, longest_sleep, large, unsent, calls, longest_call, .. } =
        honest;
    let numbers = [received, longest_pause, longest_connect, longest_sleep, large, unsent, calls, longest_call];
    println!("{}", numbers.map(|number| number.into_inner().to_string()).join(" "));
    Ok(())
}

impl Honest {
    pub(crate) fn is_on(&self) -> bool {
        self.ended.get().is_none()
    }

    fn receive(&self, mut inbox: Inbox) {
        let (mut last, mut kept) = (Instant::now(), VecDeque::new());
        for turn in 0.. {
            if !self.is_on() {
                break;
            }
            let is_others = match turn % 3 {
                0 => {
                    let sample = inbox.recv_sample_timeout(LOOK).expect("an inbox works");
                    sample.is_some_and(|sample| {
                        let is_others = sample.sender() == self.other;
                        self.read(&sample, is_others);
                        kept.push_front(sample);
                        kept.truncate(SAMPLES);
                        is_others
                    })
                }
                1 => match inbox.recv_event_timeout(LOOK).expect("an inbox works") {
                    Some(Event::Message(message)) => message.sender() == self.other && self.check(message.payload()),
                    Some(Event::SenderLeft(peer, Departure::Corrupt(why))) => {
                        assert!(*peer.node != *self.other && !why.is_empty(), "{} is corrupt: {why}", peer.node);
                        false
                    }
                    _ => false,
                },
                _ => {
                    let message = inbox.recv_timeout(LOOK).expect("an inbox works");
                    message.is_some_and(|message| message.sender() == self.other && self.check(message.payload()))
                }
            };
            if is_others {
                self.note(&self.longest_pause, last);
                self.received.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
        }
        self.note(&self.longest_pause, last);
    }

    /// Checks what the other one has sent.
    fn check(&self, payload: &[u8]) -> bool {
        if payload.len() < 100 {
            assert!([&b"hello"[..], b"topic", b"again"].contains(&payload), "{payload:?}");
        } else {
            assert!(payload.len() == LARGE && payload.iter().all(|byte| *byte == payload[0]), "a torn payload");
            self.large.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Reads a sample in each way. An attacker's may be changing.
    fn read(&self, sample: &Sample, is_others: bool) {
        let (view, middle) = (sample.view(), sample.len() / 2);
        let mut half = vec![0; sample.len() - middle];
        sample.copy_to(middle, &mut half);
        let ends = [view.get(0), view.get(middle), sample.len().checked_sub(1).and_then(|last| view.get(last))];
        assert!(view.get(sample.len()).is_none() && view.array::<9>(sample.len().saturating_sub(8)).is_none());
        let copy = sample.to_vec();
        assert_eq!(copy.len(), sample.len());
        if is_others {
            self.check(&copy);
            assert!(
                half == copy[middle..] && ends == [copy.first(), copy.get(middle), copy.last()].map(|end| end.copied())
            );
        }
    }

    fn send(&self, mut sender: Sender) {
        for turn in 0.. {
            if !self.is_on() {
                break;
            }
            let sent = match turn % ONE_IN {
                0 => sender.send_timeout(&vec![(turn / ONE_IN) as u8; LARGE], LOOK),
                _ => sender.send(b"hello"),
            };
            match sent {
                Ok(()) => {}
                Err(SendError::NoMemory { source, .. }) => self.exhausted(&source),
                // The other one may end a moment earlier.
                Err(error) => {
                    wait_for(Duration::from_millis(200), || Ok(!self.is_on())).unwrap_or_else(|_| panic!("{error}"));
                }
            }
            std::thread::sleep(PACE);
        }
    }

    /// There is no memory for a payload: only because an attacker holds all that this process may make.
    fn exhausted(&self, error: &LoanError) {
        let LoanError::Exhausted { used, limit, .. } = error else { panic!("{error}") };
        assert!(*used <= PAYLOAD_BYTES && *limit == PAYLOAD_BYTES, "{error}");
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    fn publish(&self) {
        let mut publisher = self.node.publisher("p/x").expect("a topic");
        publisher.set_timeout(Duration::from_millis(5));
        for turn in 0.. {
            if !self.is_on() {
                break;
            }
            // The receipt says what became of it in the attacker's inboxes. That may be anything.
            let large = (turn % ONE_IN == 0).then(|| vec![(turn / ONE_IN) as u8; LARGE]);
            let published = publisher.publish(large.as_deref().unwrap_or(b"topic"));
            assert!(published.is_ok() || large.is_some(), "publishing works");
            std::thread::sleep(2 * PACE);
        }
    }

    fn send_to_attacker(&self) {
        while self.is_on() {
            if let Ok(mut to) = self.node.connect_timeout("evil", Duration::from_millis(50)) {
                to.set_timeout(Duration::from_millis(20));
                // What is lent to it is memory of this process, up to the limit.
                let sent = (0..50).try_for_each(|_| to.send(&[7; LARGE]));
                if let Err(SendError::NoMemory { source, .. }) = sent {
                    self.exhausted(&source);
                }
                (0..200).take_while(|_| to.send(&[7; 5000]).is_ok()).count();
                let _ = to.flush(Duration::from_millis(50));
            }
            let _ = self.domain.nodes();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn connect_again_and_again(&self) {
        const LONG: Duration = Duration::from_secs(30);
        while self.is_on() {
            let begun = Instant::now();
            let connected = self.node.connect_timeout(&self.other, LONG).map_err(|error| error.to_string());
            let processed = connected.and_then(|mut to| {
                to.send(b"again").map_err(|error| error.to_string())?;
                to.flush(LONG).map_err(|error| error.to_string())
            });
            assert!(processed.is_ok() || !self.is_on(), "connecting again: {processed:?}");
            self.note(&self.longest_connect, begun);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Notes how long the machine delays a thread that only sleeps. The attacker affects that only by its load.
    fn sleep(&self) {
        while self.is_on() {
            let begun = Instant::now();
            std::thread::sleep(PACE);
            self.note(&self.longest_sleep, begun);
        }
    }

    pub(crate) fn note(&self, longest: &AtomicU64, since: Instant) {
        let until = self.ended.get().copied().unwrap_or_else(Instant::now);
        longest.fetch_max(until.saturating_duration_since(since).as_millis() as u64, Ordering::Relaxed);
    }
}
