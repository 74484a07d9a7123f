//! kill -9 at random moments, under load. Each round has a domain and random numbers of its own, so that it can be
//! repeated.

use std::time::Duration;

use anyhow::Context;
use testkit::HANG;
use testkit::proc::what_it_does;

use super::RULES;
use crate::account::{End, Totals};
use crate::battery::Rounds;
use crate::limit::go_on;
use crate::roles::{Receive, Send};
use crate::scene::{Arrivals, Receiver, Scene, Sender, Sent};

pub(super) fn run(rounds: &Rounds) -> anyhow::Result<String> {
    let mut totals = Totals::default();
    let mut kills = [0; 3];
    rounds.each(|_, mut rng| {
        let mut round = Round::begin(&mut rng)?;
        // Some die before they have joined, others in the middle of the exchange.
        std::thread::sleep(Duration::from_micros(rng.u64(0..12_000)));
        let which = [0, 0, 0, 0, 1, 1, 1, 1, 2][rng.usize(0..9)];
        kills[which] += 1;
        match which {
            0 => round.kill_sender()?,
            1 => round.kill_receiver()?,
            _ => return round.kill_both(&mut rng),
        }
        totals += round.end()?;
        Ok(())
    })?;
    let Totals { processed, reported, doubled } = totals;
    let [senders, receivers, both] = kills;
    Ok(format!(
        "{senders} senders, {receivers} receivers, {both} pairs; {processed} messages processed, {reported} reported lost, {doubled} of them in work"
    ))
}

struct Round {
    scene: Scene,
    receive: Receive,
    send: Send,
    sink: Receiver,
    source: Sender,
    killed: Option<Sent>,
    arrivals: Arrivals,
}

impl Round {
    fn begin(rng: &mut fastrand::Rng) -> anyhow::Result<Self> {
        let scene = Scene::new();
        let (receive, send) = (Receive::random(rng), Send::random(rng));
        let sink = scene.receiver(receive.clone())?;
        let source = scene.sender(send.clone())?;
        Ok(Self { scene, receive, send, sink, source, killed: None, arrivals: Arrivals::default() })
    }

    /// The receiver reports the death, and another sender with the same id takes over.
    fn kill_sender(&mut self) -> anyhow::Result<()> {
        self.source.worker.kill()?;
        self.sink.wait_until_ready()?;
        if self.source.log.sent()? > 0 {
            self.sink.worker.waits_for("left source Died", go_on()).context("the receiver should report the death")?;
        }
        self.killed = Some(self.source.ended(End::Killed)?);
        self.source = self.scene.sender(Send { stream: 1, ..self.send.clone() })?;
        self.source.worker.waits_for("connected", HANG)?;
        self.source.goes_on(20, go_on())
    }

    /// Another receiver with the same id gets what is sent from then on.
    fn kill_receiver(&mut self) -> anyhow::Result<()> {
        self.sink.worker.kill()?;
        self.arrivals.add(&self.sink.log)?;
        self.sink = self.scene.receiver(self.receive.clone())?;
        self.sink.wait_until_ready()?;
        self.sink.goes_on(20, go_on()).with_context(|| {
            let said = self.source.worker.has_said();
            format!("its sender, which said {said:?}:\n{}", what_it_does(self.source.worker.pid()))
        })
    }

    /// Both sides are dead. What they left does not hinder the next process, which leaves nothing.
    fn kill_both(mut self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        if rng.bool() {
            self.source.worker.kill()?;
            self.sink.worker.kill()?;
        } else {
            self.sink.worker.kill()?;
            self.source.worker.kill()?;
        }
        self.arrivals.add(&self.sink.log)?;
        self.arrivals.settle(self.source.ended(End::Killed)?, End::Killed, RULES)?;
        if rng.bool() {
            self.scene.clean()?
        } else {
            self.scene.probe("sink")?
        };
        self.scene.is_gone()
    }

    fn end(mut self) -> anyhow::Result<Totals> {
        let mut totals = self.arrivals.finish(&self.scene, &mut self.source, &mut self.sink, RULES)?;
        if let Some(killed) = self.killed {
            totals += self.arrivals.settle(killed, End::Finished, RULES)?;
        }
        self.arrivals.are_settled()?;
        Ok(totals)
    }
}
