//! What a history costs a publisher: 64-byte messages with one and without, taking turns, in one process and without any waiting.
//!
//! ```sh
//! cargo run --release -p librpc-ipc --example history
//! ```

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use librpc::{Inbox, Node, Publisher, Wait};

const ROUNDS: usize = 21;
const BATCHES: u32 = 4000;
const BATCH: u32 = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let domain = librpc::Domain::parse(format!("history-{}", std::process::id()));
    let open = |id| Node::builder(id).domain(domain.clone()).open();
    let (here, there) = (open("here")?, open("there")?);
    let pair = |topic: &str, history| {
        let inbox = there.subscriber_builder([topic]).wait(Wait::Spin).open()?;
        let publisher = here.publisher_builder(topic).history(history).open()?;
        Ok::<_, Box<dyn Error>>((publisher, inbox))
    };
    let (mut without, mut with) = (pair("without", 0)?, pair("with", 10)?);
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        // Who begins changes.
        let (one, other) = match round % 2 {
            0 => (time(&mut without)?, time(&mut with)?),
            _ => {
                let with = time(&mut with)?;
                (time(&mut without)?, with)
            }
        };
        rounds.push((one, other));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (values[ROUNDS / 2], values[ROUNDS / 4], values[ROUNDS - 1 - ROUNDS / 4])
    };
    let (without, ..) = median(rounds.iter().map(|round| round.0).collect());
    let (with, ..) = median(rounds.iter().map(|round| round.1).collect());
    let (ratio, low, high) = median(rounds.iter().map(|round| round.1 / round.0).collect());
    println!("publish without a history {without:.1} ns, with one {with:.1} ns: {ratio:.2} × ({low:.2} to {high:.2})");
    Ok(())
}

/// How long a publish takes, in ns: what is received in between is not counted.
fn time((publisher, inbox): &mut (Publisher, Inbox)) -> Result<f64, Box<dyn Error>> {
    let mut taken = Duration::ZERO;
    for _ in 0..BATCHES {
        let begun = Instant::now();
        for _ in 0..BATCH {
            if publisher.publish(black_box(&[7; 64]))?.inboxes() != 1 {
                return Err("a message did not reach its inbox".into());
            }
        }
        taken += begun.elapsed();
        for _ in 0..BATCH {
            inbox.recv()?.ok_or("nobody stops this inbox")?;
        }
    }
    Ok(taken.as_nanos() as f64 / f64::from(BATCHES * BATCH))
}
