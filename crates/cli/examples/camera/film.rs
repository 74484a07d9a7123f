//! The camera: writes a frame into a loan, publishes it, and waits for the time of the next one.
//!
//! After each frame it reports how many it has published, how many of those did not reach a viewer, and how many came late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use librpc::Node;

use crate::{Args, at_the_end, frame};

pub(crate) const TOPIC: &str = "camera/front";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    at_the_end(move || end.store(true, Ordering::Relaxed)); // nothing else depends on it
    let node = Node::builder("camera").domain(args.domain()).open()?;
    let mut publisher = node.publisher(TOPIC)?;
    let interval = Duration::from_secs_f64(1.0 / args.rate);
    // Viewers that take the latest frames are never waited for, but a new one must be given the memory first.
    publisher.set_timeout(interval / 2);
    let began = SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let (mut due, mut unreached, mut late) = (Instant::now(), 0, 0);
    for number in 0.. {
        let mut loan = publisher.loan_uninit(args.size)?;
        frame::write(&mut loan, began, number);
        unreached += publisher.publish_loan(loan)?.undelivered().len();
        println!("{} {unreached} {late}", number + 1);
        due += interval;
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(pause) => std::thread::sleep(pause),
            None => (due, late) = (now, late + 1),
        }
        if ended.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}
