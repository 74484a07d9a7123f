//! A publisher at full speed into subscribers of which only the latest counts: a fast one, and one that takes 1 ms for each
//! message. Shows that the slow one does not slow it down, that no message is torn, and that every one is accounted for.
//!
//! `cargo run --release -p librpc-ipc --example latest -- [MESSAGES]`

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use librpc::{Domain, Node, Policy};

const WORDS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [role, domain, pause] if role == "subscribe" => subscribe(domain, Duration::from_micros(pause.parse()?)),
        _ => compare(arguments.first().map_or(Ok(10_000_000), |count| count.parse())?),
    }
}

/// Publishes to a fast and to a slow subscriber in turn.
fn compare(count: u64) -> Result<(), Box<dyn Error>> {
    let speeds = [("fast", 0), ("slow", 1000)].map(|(name, pause_us)| {
        let speed = publish(name, pause_us, count)?;
        println!("{name}: {:.1} million messages/s", speed / 1e6);
        Ok::<_, Box<dyn Error>>(speed)
    });
    let [fast, slow] = speeds;
    println!("the slow one has slowed the publisher down to {:.2} of its speed into the fast one", slow? / fast?);
    Ok(())
}

fn publish(name: &str, pause_us: u64, count: u64) -> Result<f64, Box<dyn Error>> {
    let domain = format!("/dev/shm/librpc_latest_{}_{name}", std::process::id());
    let mut subscriber = Command::new(std::env::current_exe()?)
        .args(["subscribe", &domain, &pause_us.to_string()])
        .stdin(Stdio::null())
        .spawn()?;
    let node = Node::builder("source").domain(Domain::at(&domain)).open()?;
    let mut publisher = node.publisher("numbers")?;
    if !publisher.wait_for_subscriber(Duration::from_secs(10))? {
        return Err("the subscriber does not come".into());
    }
    let begun = Instant::now();
    for number in 1..=count {
        if publisher.publish(&message(number))?.inboxes() != 1 {
            return Err(format!("message {number} did not arrive").into());
        }
    }
    let speed = count as f64 / begun.elapsed().as_secs_f64();
    if publisher.publish(&message(0))?.inboxes() != 1 {
        return Err("the last message did not arrive".into());
    }
    publisher.flush(Duration::from_secs(60))?;
    let account = publisher.account();
    println!("  publisher: {} sent, {} processed, {} overwritten", account.sent, account.processed, account.dropped);
    let ended = subscriber.wait()?;
    if !ended.success() || account.processed + account.dropped != account.sent {
        return Err(format!("{name}: {ended}, {account:?}").into());
    }
    Ok(speed)
}

/// Every word follows from the number, so that a torn message is seen.
fn message(number: u64) -> [u8; WORDS * 8] {
    let mut bytes = [0; WORDS * 8];
    for (index, word) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = number.wrapping_mul(2 * index as u64 + 1).to_le_bytes();
    }
    bytes
}

/// Receives until the message 0, and checks each.
fn subscribe(domain: &str, pause: Duration) -> Result<(), Box<dyn Error>> {
    let node = Node::builder("sink").domain(Domain::at(domain)).open()?;
    let mut inbox = node.subscriber_builder(["numbers"]).policy(Policy::DropOldest).open()?;
    let (mut received, mut missed, mut before) = (0, 0, 0);
    while let Some(received_now) = inbox.recv()? {
        let payload = received_now.payload();
        let number = u64::from_le_bytes(payload[..8].try_into()?);
        if payload != message(number) {
            return Err(format!("a torn message behind {before}").into());
        }
        (received, missed) = (received + 1, missed + received_now.missed());
        if number == 0 {
            break;
        }
        if number != before + received_now.missed() + 1 {
            return Err(format!("{number} behind {before}, with {} missed", received_now.missed()).into());
        }
        before = number;
        std::thread::sleep(pause);
    }
    println!("  subscriber: {received} received, {missed} missed, {} in all, none torn", received + missed);
    inbox.ack();
    Ok(())
}
