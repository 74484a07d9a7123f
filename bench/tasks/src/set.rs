//! A wait set of a thousand inboxes, some of which have something.

use std::time::Instant;

use librpc::WaitSet;

use crate::{Row, domain, median, open, readable};

const WAITS: usize = 200;

/// ns for one wait that returns this many tokens, and for taking one message from each of them.
fn measure(inboxes: usize, busy: usize, round: usize) -> anyhow::Result<(f64, f64)> {
    let path = domain(&format!("set_{inboxes}_{busy}_{round}"));
    let (here, there) = (open(&path, "here")?, open(&path, "there")?);
    let mut list = (0..inboxes).map(|at| here.subscribe(&format!("t/{at}"))).collect::<Result<Vec<_>, _>>()?;
    let mut set = WaitSet::new()?;
    for (at, inbox) in list.iter().enumerate() {
        set.add(at as u64, inbox)?;
    }
    let mut outbox = there.outbox();
    let topics =
        (0..busy).map(|at| outbox.topic(&format!("t/{}", at * (inboxes / busy)))).collect::<Result<Vec<_>, _>>()?;
    let (mut waited, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..WAITS {
        // All are looked at until nothing is left, and what comes then is announced.
        while !set.wait_timeout(std::time::Duration::from_millis(1))?.is_empty() {
            for inbox in &mut list {
                while inbox.try_recv()?.is_some() {}
            }
        }
        for topic in &topics {
            outbox.publish(*topic, &[7; 64])?.inboxes();
        }
        let begun = Instant::now();
        let tokens = set.wait()?;
        waited.push(begun.elapsed().as_nanos() as f64);
        if tokens.len() < busy.min(64) {
            waited.pop(); // the bells of some are still on their way
            continue;
        }
        let begun = Instant::now();
        for &token in tokens {
            let inbox = &mut list[token as usize];
            while inbox.try_recv()?.is_some() {}
        }
        taken.push(begun.elapsed().as_nanos() as f64);
    }
    Ok((median(waited), median(taken)))
}

pub(crate) fn run(rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (inboxes, busy) in [(1, 1), (1000, 1), (1000, 10), (1000, 100)] {
        let rounds = (0..rounds.div_ceil(5)).map(|round| measure(inboxes, busy, round));
        let (waits, takes): (Vec<_>, Vec<_>) = rounds.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
        rows.push([
            format!("a wait over {inboxes} inboxes, {busy} with a message"),
            readable(median(waits)),
            format!("{} to take the messages", readable(median(takes))),
        ]);
    }
    Ok(rows)
}
