//! One of the two honest processes. They exchange numbered messages all the time, both ways, directly and by topics, while
//! an attacker is at work. Each notes the longest time that it went without a message.
//!
//! The victim also publishes and sends to the attacker; the other one connects again and again. A panic in either process
//! aborts it.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use librpc::{Admission, Domain, Inbox, Limits, Node, Sender};

/// How long a peer may be silent in its handshake.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);
/// How long the loops here pause.
const PACE: Duration = Duration::from_millis(4);
/// How long one receive waits.
const LOOK: Duration = Duration::from_millis(100);

/// The domain: a private one, or one that is shared with the group of the attacker, which has the number of its uid.
pub(crate) fn domain(path: &Path, attacker: Option<u32>) -> Domain {
    let domain = Domain::at(path);
    attacker.map_or(domain.clone(), |group| domain.shared_with_group(group))
}

/// Opens a node that admits the honest user and the attacker.
pub(crate) fn open(path: &Path, id: &str, attacker: Option<u32>) -> anyhow::Result<Node> {
    let limits = Limits::default().handshake_timeout(PATIENCE);
    let admission = attacker.map_or(Admission::same_user(), |uid| Admission::same_user().uid(uid).uid(0));
    Ok(Node::builder(id).domain(domain(path, attacker)).limits(limits).admit(admission).open()?)
}

struct Honest {
    node: Node,
    domain: Domain,
    other: String,
    ended: AtomicBool,
    received: AtomicU64,
    /// The longest time without a message, for a new connection, and for a sleep of [`PACE`], in ms.
    longest_pause: AtomicU64,
    longest_connect: AtomicU64,
    longest_sleep: AtomicU64,
}

/// Runs until stdin ends. Then prints how many messages came, and the longest pause, connect and sleep in ms.
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
        ended: AtomicBool::new(false),
        received: AtomicU64::new(0),
        longest_pause: AtomicU64::new(0),
        longest_connect: AtomicU64::new(0),
        longest_sleep: AtomicU64::new(0),
    };
    let (inbox, topics) = (honest.node.inbox()?, honest.node.subscribe("p/**")?);
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let sender = honest.node.connect_timeout(other, Duration::from_secs(10))?;
    std::thread::scope(|scope| {
        scope.spawn(|| honest.receive(inbox));
        scope.spawn(|| honest.receive(topics));
        scope.spawn(|| honest.publish());
        scope.spawn(|| if id == "victim" { honest.send_to_attacker() } else { honest.connect_again_and_again() });
        scope.spawn(|| honest.send(sender));
        scope.spawn(|| honest.sleep());
        let until_it_ends = std::io::copy(&mut std::io::stdin().lock().by_ref(), &mut std::io::sink());
        honest.ended.store(true, Ordering::Relaxed); // Relaxed: it only ends the loops
        until_it_ends
    })?;
    let Honest { received, longest_pause, longest_connect, longest_sleep, .. } = honest;
    let [received, pause, connect, sleep] =
        [received, longest_pause, longest_connect, longest_sleep].map(AtomicU64::into_inner);
    println!("{received} {pause} {connect} {sleep}");
    Ok(())
}

impl Honest {
    fn is_on(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    fn receive(&self, mut inbox: Inbox) {
        let mut last = Instant::now();
        while self.is_on() {
            let message = inbox.recv_timeout(LOOK).expect("an inbox works");
            if message.is_some_and(|message| message.sender() == self.other) {
                note(&self.longest_pause, last);
                self.received.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
        }
        note(&self.longest_pause, last);
    }

    fn send(&self, mut sender: Sender) {
        while self.is_on() {
            if let Err(error) = sender.send(b"hello") {
                std::thread::sleep(Duration::from_millis(200)); // the other one may have ended a moment earlier
                assert!(!self.is_on(), "{error}");
            }
            std::thread::sleep(PACE);
        }
    }

    fn publish(&self) {
        let mut publisher = self.node.publisher("p/x").expect("a topic");
        publisher.set_timeout(Duration::from_millis(5));
        while self.is_on() {
            // The receipt says what became of it in the attacker's inboxes. That may be anything.
            publisher.publish(b"topic").map(drop).expect("publishing works");
            std::thread::sleep(2 * PACE);
        }
    }

    fn send_to_attacker(&self) {
        while self.is_on() {
            if let Ok(mut to) = self.node.connect_timeout("evil", Duration::from_millis(50)) {
                to.set_timeout(Duration::from_millis(20));
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
            note(&self.longest_connect, begun);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Notes how long the machine delays a thread that only sleeps. The attacker affects that only by its load.
    fn sleep(&self) {
        while self.is_on() {
            let begun = Instant::now();
            std::thread::sleep(PACE);
            note(&self.longest_sleep, begun);
        }
    }
}

fn note(longest: &AtomicU64, since: Instant) {
    longest.fetch_max(since.elapsed().as_millis() as u64, Ordering::Relaxed);
}
