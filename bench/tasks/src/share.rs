//! A shared sender, beside a sender of its own for each thread. Nobody receives: the inbox overwrites old messages, so no send waits.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Instant;

use clap::ValueEnum;
use librpc::{Inbox, Node, Policy, SendError};

use crate::{Row, domain, median, open, readable};

const MESSAGES: u32 = 1_000_000;
const PAYLOAD: [u8; 64] = [7; 64];

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Way {
    Own,
    Shared,
}

fn pair(path: &std::path::Path) -> anyhow::Result<(Node, Node, Inbox)> {
    let (here, there) = (open(path, "here")?, open(path, "there")?);
    let inbox = there.inbox_builder().policy(Policy::DropOldest).open()?;
    Ok((here, there, inbox))
}

/// callgrind looks for it by name.
#[inline(never)]
fn send_some(mut send: impl FnMut(&[u8]) -> Result<(), SendError>, messages: u32) -> Result<(), SendError> {
    (0..messages).try_for_each(|_| send(black_box(&PAYLOAD)))
}

pub(crate) fn send(path: PathBuf, way: Way, messages: u32) -> anyhow::Result<()> {
    let (here, _there, _inbox) = pair(&path)?;
    let mut sender = here.connect("there")?;
    sender.send(b"the first one")?;
    match way {
        Way::Own => send_some(|payload| sender.send(payload), messages)?,
        Way::Shared => {
            let sender = sender.into_shared();
            send_some(|payload| sender.send(payload), messages)?;
        }
    }
    Ok(())
}

/// ns for each message of all threads together.
fn measure(way: Way, threads: u32, round: usize) -> anyhow::Result<f64> {
    let path = domain(&format!("share_{way:?}_{threads}_{round}"));
    let (here, _there, _inbox) = pair(&path)?;
    let shared = here.connect("there")?.into_shared();
    let own = (0..threads).map(|_| here.connect("there")).collect::<Result<Vec<_>, _>>()?;
    let (start, each) = (Barrier::new(threads as usize + 1), MESSAGES / threads);
    let (sent, time) = std::thread::scope(|scope| {
        let sending: Vec<_> = own
            .into_iter()
            .map(|mut own| {
                let (shared, start) = (shared.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    match way {
                        Way::Own => send_some(|payload| own.send(payload), each),
                        Way::Shared => send_some(|payload| shared.send(payload), each),
                    }
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        let sent: Vec<_> = sending.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
        (sent, begun.elapsed())
    });
    sent.into_iter().collect::<Result<(), _>>()?;
    Ok(time.as_nanos() as f64 / f64::from(each * threads))
}

pub(crate) fn run(rounds: usize) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for threads in [1, 8] {
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            own.push(measure(Way::Own, threads, round)?);
            shared.push(measure(Way::Shared, threads, round)?);
        }
        let differences = shared.iter().zip(&own).map(|(shared, own)| shared - own).collect();
        let what = if threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
        rows.push([format!("a send, a sender for each: {what}"), readable(median(own)), String::new()]);
        rows.push([
            format!("a send, a shared sender: {what}"),
            readable(median(shared)),
            format!("{} more", readable(median(differences))),
        ]);
    }
    Ok(rows)
}
