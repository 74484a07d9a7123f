//! Publishes 200 samples a second, none of which may be lost or doubled: the planner's subscription is durable, and this publisher keeps
//! for it what it has not processed. How a killed IMU goes on: [`crate::once`].

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use librpc::{Node, Plain, Publisher, PublisherEvent};

use crate::messages::{PLANNER, SAMPLES, Sample};
use crate::once::Numbers;
use crate::process::{Beat, now_ns};

const HERTZ: u32 = 200;
/// How long the planner may be away.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(files: &Path) -> anyhow::Result<()> {
    let mut beat = Beat::new(HERTZ)?;
    let mut numbers = Numbers::open(files.join("imu"))?;
    let node = Node::open("imu")?;
    let mut publisher = node.publisher_of::<Plain<Sample>>(SAMPLES)?;
    publisher.set_redelivery(Some(PATIENCE));
    // A publisher keeps messages for subscriptions that it has seen, so the planner's must be there before the first one.
    let is_planner = |event| matches!(event, PublisherEvent::Came(inbox) if &*inbox.node == PLANNER);
    while !publisher.wait_for_event(PATIENCE)?.is_some_and(is_planner) {}
    let mut processed = 0;
    while beat.next() || numbers.are_behind() {
        let head = numbers.next();
        let (acceleration, turning) = ([0.0, 0.0, 9.81], [0.0; 3]);
        publisher.publish(&Sample { head, taken_ns: now_ns(), acceleration, turning })?.inboxes();
        processed = processed_by_planner(&mut publisher)?.unwrap_or(processed);
        numbers.sent(processed)?;
    }
    Ok(publisher.flush(PATIENCE)?)
}

/// `None`: the planner is away.
fn processed_by_planner(publisher: &mut Publisher) -> anyhow::Result<Option<u64>> {
    let Some(planner) = publisher.inboxes().into_iter().find(|inbox| &*inbox.node == PLANNER) else { return Ok(None) };
    ensure!(planner.account.returned == 0, "the planner was away for too long");
    Ok(Some(planner.account.processed))
}
