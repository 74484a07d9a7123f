//! A process is stopped at a fault point for a while. Two bystanders of the same domain continue meanwhile, and afterwards
//! everything of the stopped process arrives, with no loss reported.

use std::time::Duration;

use anyhow::Context;
use testkit::HANG;

use crate::account::End;
use crate::battery::Rounds;
use crate::kills::{Inbox, REDELIVERY, RULES, Redelivering};
use crate::limit::go_on;
use crate::points::{Point, Who, receive_for, send_for};
use crate::roles::{CallCount, Receive, Role, Send};
use crate::scene::{Arrivals, Receiver, Scene, Sender};
use crate::worker::{Start, Worker};

pub(super) fn run(point: &Point, rounds: &Rounds, hold: [Duration; 2]) -> anyhow::Result<String> {
    rounds.each(|round, mut rng| {
        let hold = hold[usize::from(round % 10 == 9)];
        let start = Start::stopped_at(point.name, point.nth(&mut rng));
        match point.who {
            Who::Sender | Who::Receiver => one_side(point, &start, hold),
            Who::Alone => alone(point, &start, hold),
            Who::Sweeper => sweeper(point, start, hold),
            Who::Redeliverer => redeliverer(point, &start, hold, rng.bool()),
            Who::Caller | Who::Server => call(point, &start, hold),
        }
    })?;
    Ok(String::new())
}

/// A server or a client is stopped within a call. Every call is answered in the end.
fn call(point: &Point, start: &Start, hold: Duration) -> anyhow::Result<()> {
    let scene = Scene::new();
    let (of_client, of_server) = match point.who {
        Who::Server => (&Start::default(), start),
        _ => (start, &Start::default()),
    };
    let mut server = Worker::start_as(&Role::Serve { domain: scene.domain(), id: "server".into() }, of_server)?;
    server.waits_for("ready", HANG)?;
    let calls = Role::Call(CallCount { domain: scene.domain(), calls: 60 });
    let mut client = Worker::start_as(&calls, of_client)?;
    let stopped = if point.who == Who::Server { &mut server } else { &mut client };
    stopped.wait_until_stopped()?;
    std::thread::sleep(hold);
    stopped.go_on()?;
    let said = client.finish()?;
    let answered = said.iter().filter(|line| line.starts_with("answered ")).count();
    anyhow::ensure!(
        answered == 48 && said.last().is_some_and(|line| line == "ended"),
        "not all were answered: {said:?}"
    );
    server.finish()?;
    scene.is_gone()
}

/// Two processes that do not communicate with the stopped one.
struct Bystanders(Receiver, Sender);

impl Bystanders {
    fn start(scene: &Scene) -> anyhow::Result<Self> {
        let mut receiver = scene.receiver(Receive::by("bystander"))?;
        receiver.wait_until_ready()?;
        let send = Send { pause_us: 200, ..Send::between("passer-by", "bystander") };
        let mut sender = scene.sender(send)?;
        sender.worker.waits_for("connected", HANG)?;
        Ok(Self(receiver, sender))
    }

    fn go_on(&self) -> anyhow::Result<()> {
        self.0.goes_on(3, go_on()).context("bystanders are delayed")
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.1.worker.finish()?;
        self.0.worker.finish()?;
        let mut arrivals = Arrivals::of(&self.0)?;
        arrivals.settle(self.1.ended(End::Finished)?, End::Finished, RULES).map(drop)
    }
}

fn one_side(point: &Point, start: &Start, hold: Duration) -> anyhow::Result<()> {
    let scene = Scene::of(point);
    let bystanders = Bystanders::start(&scene)?;
    let (stopped_receiver, count) = (point.who == Who::Receiver, 200);
    let plain = Start::default();
    let mut sink = scene.receiver_as(receive_for(point), if stopped_receiver { start } else { &plain })?;
    if !stopped_receiver {
        sink.wait_until_ready()?;
    }
    let send = Send { count: Some(count), ..send_for(point) };
    let mut source = scene.sender_as(send, if stopped_receiver { &plain } else { start })?;
    let stopped = if stopped_receiver { &sink.worker } else { &source.worker };
    stopped.wait_until_stopped()?;
    bystanders.go_on()?;
    // A new process is not delayed either.
    scene.probe("newcomer")?;
    std::thread::sleep(hold);
    bystanders.go_on()?;
    let other = if stopped_receiver { source.worker.has_said()? } else { sink.worker.has_said()? };
    let reports_death =
        |line: &String| line.starts_with("reported") || line.contains("Died") || line.contains("Disconnected");
    anyhow::ensure!(!other.iter().any(reports_death), "a stopped process was mistaken for a dead one: {other:?}");
    let stopped = if stopped_receiver { &sink.worker } else { &source.worker };
    stopped.go_on()?;
    let mut said = Vec::new();
    while said.last().is_none_or(|line| line != "done") {
        said.push(source.worker.says(HANG)?.with_context(|| format!("the sender has ended; it said {said:?}"))?);
    }
    source.worker.finish()?;
    sink.worker.finish()?;
    bystanders.finish()?;
    scene.is_gone()?;
    let mut arrivals = Arrivals::of(&sink)?;
    let totals = arrivals.settle(source.ended(End::Finished)?, End::Finished, RULES)?;
    anyhow::ensure!((totals.processed, totals.reported) == (count, 0), "{totals:?} of {count} messages: {said:?}");
    Ok(())
}

/// The first node that joins and the last one that leaves. Two steps are known to delay others, which get an error that
/// says so.
fn alone(point: &Point, start: &Start, hold: Duration) -> anyhow::Result<()> {
    let scene = Scene::of(point);
    let role = Role::Live { domain: scene.domain(), id: "display".into() };
    let mut stopped = Worker::start_as(&role, start)?;
    stopped.wait_until_stopped()?;
    let probe = scene.probe("other");
    if matches!(point.name, "last.locked" | "last.swept") {
        let error = format!("{:#}", probe.err().context("nobody can join while the domain is being removed")?);
        anyhow::ensure!(error.contains("has been closing for over 2 s"), "{error}");
    } else {
        probe?;
    }
    std::thread::sleep(hold);
    stopped.go_on()?;
    stopped.finish()?;
    scene.clean()?;
    scene.is_gone()
}

/// Only opening the id that is being swept is delayed, with an error that says so.
fn sweeper(point: &Point, start: Start, hold: Duration) -> anyhow::Result<()> {
    let scene = Scene::of(point);
    let [sweeper, dead] = scene.users_of(point)?;
    let bystanders = Bystanders::start(&scene)?;
    scene.leave_dead_nodes(1, dead)?;
    let mut stopped = Worker::start_as(&Role::Clean { domain: scene.domain() }, &start.by(sweeper))?;
    stopped.wait_until_stopped()?;
    scene.probe("newcomer")?;
    bystanders.go_on()?;
    if let Err(error) = scene.probe("dead0") {
        let error = format!("{error:#}");
        anyhow::ensure!(error.contains("is removing what a dead node"), "{error}");
    }
    std::thread::sleep(hold);
    stopped.go_on()?;
    stopped.finish()?;
    scene.probe("dead0")?;
    bystanders.finish()?;
    scene.is_gone()
}

/// A sender is stopped in the middle of redelivery.
fn redeliverer(point: &Point, start: &Start, hold: Duration, durable: bool) -> anyhow::Result<()> {
    let inbox = if durable { Inbox::Durable } else { Inbox::Own };
    let mut stopped = Redelivering::begin(inbox, point, start)?;
    stopped.source.worker.wait_until_stopped()?;
    stopped.next_receiver()?.wait_until_ready()?;
    stopped.scene.probe("newcomer")?;
    std::thread::sleep(hold);
    stopped.source.worker.go_on()?;
    stopped.next_receiver()?.goes_on(20, go_on())?;
    stopped.source.worker.finish()?;
    let sent = stopped.source.ended(End::Finished)?;
    let mut arrivals = stopped.end()?;
    arrivals.settle(sent, End::Finished, REDELIVERY)?;
    arrivals.are_settled()
}
