//! Receivers are killed again and again, and what they had not processed goes to their next incarnation. Nothing is lost
//! while the sender lives, at most one message per death comes twice, and that one is flagged. The order is kept and the
//! numbers continue. The same holds for a durable subscription. What a sender has kept dies with it.

use std::time::Duration;

use anyhow::Context;
use testkit::HANG;
use testkit::proc::Usage;

use super::points::{LAST, WARM};
use crate::account::{End, Rules, Totals};
use crate::battery::Rounds;
use crate::health::has_not_grown;
use crate::limit::{go_on, wait_for};
use crate::points::{Point, receive_for, send_for};
use crate::roles::{Receive, Send};
use crate::scene::{Arrivals, Receiver, Scene, Sender};
use crate::worker::Start;

/// Each message is acknowledged separately, so one may be in work.
pub(crate) const RULES: Rules = Rules { redelivery: true, in_work: 1 };
/// The most that a sender keeps, in bytes: too little to look like growth.
const CAPACITY: u64 = 64 * 1024;
/// In one death of this many, the sender dies, too.
const SENDER_DIES: u32 = 50;

/// Where messages are redelivered to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Inbox {
    Own,
    Durable,
}

impl Inbox {
    fn receive(self, receive: Receive) -> Receive {
        let durable = matches!(self, Self::Durable);
        let capacity = if receive.capacity == 0 { CAPACITY } else { receive.capacity };
        Receive { durable, numbered: true, capacity, ..receive }
    }

    fn send(self, send: Send) -> Send {
        Send { publishes: matches!(self, Self::Durable), redelivers: true, ..send }
    }
}

/// Receivers die at a fault point; one sender survives them all.
pub(super) fn receiver(inbox: Inbox, point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::of(point);
    let mut source = scene.sender(inbox.send(send_for(point)))?;
    let mut arrivals = Arrivals::default();
    let mut healthy = None;
    // The first one is killed late, so that there is something to redeliver even if no later receiver ever answers.
    let mut first = scene.receiver(inbox.receive(receive_for(point)))?;
    first.wait_until_ready()?;
    first.goes_on(20, HANG).with_context(|| format!("the sender: {:?}", source.worker.has_said()))?;
    first.worker.kill()?;
    arrivals.add(&first.log)?;
    for (round, mut rng) in rounds.together() {
        let start = Start::killed_at(point.name, point.nth(&mut rng));
        let mut sink = scene.receiver_as(inbox.receive(receive_for(point)), &start)?;
        sink.worker.dies().with_context(|| format!("round {round}; the sender: {:?}", source.worker.has_said()))?;
        arrivals.add(&sink.log)?;
        let said = source.worker.has_said()?;
        anyhow::ensure!(!said.iter().any(|line| line != "connected"), "round {round}: the sender said {said:?}");
        if round == WARM {
            healthy = Some(Usage::of(source.worker.pid())?);
        }
    }
    let mut sink = scene.receiver(inbox.receive(receive_for(point)))?;
    sink.wait_until_ready()?;
    sink.goes_on(20, go_on()).with_context(|| format!("the sender: {:?}", source.worker.has_said()))?;
    if let Some(before) = healthy {
        has_not_grown(source.worker.pid(), &before, point.slack()).context("the sender")?;
    }
    let totals = arrivals.finish(&scene, &mut source, &mut sink, RULES)?;
    arrivals.are_settled()?;
    Ok(format!("{} messages processed, {} of them twice", totals.processed, totals.doubled))
}

/// A sender dies while it redelivers. Its receiver continues, and nothing is left behind.
pub(super) fn sender(point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    let mut totals = Totals::default();
    rounds.each(|_, mut rng| {
        let inbox = if rng.bool() { Inbox::Own } else { Inbox::Durable };
        let start = Start::killed_at(point.name, point.nth(&mut rng));
        let mut scene = Redelivering::begin(inbox, point, &start)?;
        scene.source.worker.dies()?;
        // What it had kept is gone with it, because its receiver was dead, too.
        let killed = scene.source.ended(End::Killed)?;
        let sink = scene.next_receiver()?;
        sink.wait_until_ready()?;
        let last = Send { stream: LAST, count: Some(100), ..inbox.send(send_for(point)) };
        let mut last = scene.scene.sender(last)?;
        last.worker.waits_for("done", HANG)?;
        last.worker.finish()?;
        let mut arrivals = scene.end()?;
        totals += arrivals.settle(killed, End::Killed, RULES)?;
        totals += arrivals.settle(last.ended(End::Finished)?, End::Finished, RULES)?;
        arrivals.are_settled()
    })?;
    Ok(format!("{} messages processed, {} of them twice", totals.processed, totals.doubled))
}

/// A sender that reaches a point of redelivery, because its receiver was killed.
pub(crate) struct Redelivering {
    pub(crate) scene: Scene,
    pub(crate) source: Sender,
    receive: Receive,
    killed: Receiver,
    sink: Option<Receiver>,
}

impl Redelivering {
    pub(crate) fn begin(inbox: Inbox, point: &Point, start: &Start) -> anyhow::Result<Self> {
        let scene = Scene::of(point);
        let receive = inbox.receive(receive_for(point));
        let mut killed = scene.receiver(receive.clone())?;
        killed.wait_until_ready()?;
        let mut source = scene.sender_as(inbox.send(send_for(point)), start)?;
        source.worker.waits_for("connected", HANG)?;
        killed.goes_on(20, HANG)?;
        killed.worker.kill()?;
        let mut this = Self { scene, source, receive, killed, sink: None };
        if point.name != "redeliver.absorbed" {
            // This is more than is redelivered before the point is reached.
            let is_enough = || Ok(this.source.log.sent()? >= this.killed.log.progress()? + 50);
            wait_for(HANG, is_enough).context("the sender should keep 50 messages")?;
            this.next_receiver()?;
        }
        Ok(this)
    }

    /// The receiver's next incarnation, started if necessary.
    pub(crate) fn next_receiver(&mut self) -> anyhow::Result<&mut Receiver> {
        let sink = match self.sink.take() {
            Some(sink) => sink,
            None => self.scene.receiver(self.receive.clone())?,
        };
        Ok(self.sink.insert(sink))
    }

    /// Ends everybody. Returns what has arrived.
    pub(crate) fn end(mut self) -> anyhow::Result<Arrivals> {
        self.next_receiver()?.worker.finish()?;
        self.scene.is_gone()?;
        let mut arrivals = Arrivals::of(&self.killed)?;
        arrivals.add(&self.next_receiver()?.log)?;
        Ok(arrivals)
    }
}

/// Receivers are killed at random moments, under load, and now and then their sender, too.
pub(super) fn random(inbox: Inbox, rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut sources = 0;
    let mut source = |rng: &mut fastrand::Rng| {
        let send = Send { stream: sources, ..Send::random(rng) };
        sources += 1;
        scene.sender(inbox.send(send))
    };
    let sink = |rng: &mut fastrand::Rng| scene.receiver(inbox.receive(Receive::random(rng)));
    let (mut arrivals, mut killed) = (Arrivals::default(), Vec::new());
    let mut sending = source(&mut rounds.rng(0))?;
    for (round, mut rng) in rounds.together() {
        let mut victim = sink(&mut rng)?;
        if rng.bool() {
            victim.wait_until_ready()?;
            if rng.bool() {
                let went_on = victim.goes_on(1, go_on());
                went_on.with_context(|| {
                    let (received, said) = (victim.worker.has_said(), sending.worker.has_said());
                    format!("round {round}; it said {received:?}, and its sender {said:?}")
                })?;
            }
        }
        // Some die before they have joined, others in the middle of the exchange.
        std::thread::sleep(Duration::from_micros(rng.u64(0..10_000)));
        let (both, sender_first) = (rng.u32(0..SENDER_DIES) == 0, rng.bool());
        if both && sender_first {
            sending.worker.kill()?;
        }
        victim.worker.kill()?;
        arrivals.add(&victim.log)?;
        let said = sending.worker.has_said()?;
        anyhow::ensure!(!said.iter().any(|line| line != "connected"), "round {round}: {said:?}");
        if both {
            if !sender_first {
                sending.worker.kill()?;
            }
            // What it had kept is gone with it.
            killed.push(sending.ended(End::Killed)?);
            sending = source(&mut rng)?;
        }
    }
    let mut sink = sink(&mut rounds.rng(0))?;
    sink.wait_until_ready()?;
    sink.goes_on(100, go_on()).with_context(|| format!("the sender: {:?}", sending.worker.has_said()))?;
    let mut totals = arrivals.finish(&scene, &mut sending, &mut sink, RULES)?;
    let senders = killed.len();
    for killed in killed {
        totals += arrivals.settle(killed, End::Killed, RULES)?;
    }
    arrivals.are_settled()?;
    let (receivers, Totals { processed, doubled, .. }) = (rounds.count, totals);
    Ok(format!("{receivers} receivers, {senders} senders; {processed} messages processed, {doubled} of them twice"))
}
