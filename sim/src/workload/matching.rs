//! A publisher asks what happens to its subscriptions, while some come and go, die, and get stuck. One stays.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use librpc::{OwnedReceipt, PublishError, Publisher, PublisherEvent, SharedPublisher, SubscriptionEnd};

use super::ledger::To;
use super::scene::{Outgoing, Scene, bytes};
use super::{USER, Workload};
use crate::kernel::Pid;
use crate::schedule::{self, Allowed, End, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "matching",
    about: "a publisher asks who comes, goes, and is stuck",
    allowed: Allowed { kills: 2, stops: 2, errors: true, pauses: true, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

const TOPIC: &str = "camera";
const STEADY: &str = "steady";
/// Longer than anything that holds somebody up.
const QUIET: Duration = Duration::from_secs(60);
/// How often it is asked for what must happen.
const TRIES: u32 = 200;

fn setup(scene: &Scene) {
    let steady = scene.clone();
    schedule::start(Program::new(STEADY, move || stay(&steady)).lives());
    let churn: Vec<Pid> = (0..random(|random| random.u32(1..=3)))
        .map(|number| {
            let churn = scene.clone();
            schedule::start(Program::new(&format!("churn-{number}"), move || come_and_go(&churn)))
        })
        .collect();
    let camera = scene.clone();
    scene.start_sender(Program::new("camera", move || publish(&camera, churn)).lives());
}

fn stay(scene: &Scene) {
    let node = scene.open(STEADY, scene.domain());
    let (mut inbox, life) = scene.subscribe(&node, TOPIC);
    scene.receive_to_the_end(&mut inbox, life);
}

fn name_of(pid: Pid) -> String {
    format!("churn-{pid}")
}

fn come_and_go(scene: &Scene) {
    let name = name_of(schedule::pid());
    for _ in 0..random(|random| random.u32(1..=2)) {
        let node = scene.open(&name, scene.domain());
        for _ in 0..random(|random| random.u32(1..=3)) {
            let (mut inbox, life) = match random(fastrand::Rng::bool) {
                true => scene.subscribe(&node, TOPIC),
                false => scene.subscribe_to_all(&node),
            };
            for _ in 0..random(|random| random.u32(..4)) {
                let limit = Duration::from_micros(random(|random| random.u64(..50_000)));
                if let Ok(Some(message)) = inbox.recv_timeout(limit) {
                    scene.got(life, &message);
                }
            }
            scene.closing(life);
            drop(inbox);
        }
    }
}

/// What a publisher was told of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Came,
    Stuck,
    Gone,
}

/// What a publisher was told, by node, incarnation and number.
struct Listener {
    scene: Scene,
    churn: Vec<Pid>,
    told: RefCell<BTreeMap<(String, String, u32), Told>>,
}

impl Listener {
    fn hear(&self, event: &PublisherEvent) {
        schedule::say(|| event.to_string());
        let inbox = event.inbox();
        let key = (inbox.node.to_string(), inbox.incarnation.to_string(), inbox.number);
        let before = self.told.borrow().get(&key).copied();
        let now = match (event, before) {
            (PublisherEvent::Came(_), None) => Some(Told::Came),
            (PublisherEvent::Stuck(_), Some(Told::Came)) => Some(Told::Stuck),
            (PublisherEvent::Moves(_), Some(Told::Stuck)) => Some(Told::Came),
            (PublisherEvent::Gone(_, end), Some(Told::Came | Told::Stuck)) => {
                self.judge_end(&inbox.node, end);
                Some(Told::Gone)
            }
            _ => None,
        };
        let Some(now) = now else { return self.scene.wrong(format!("{event}, which was {before:?} before")) };
        if !self.scene.ledger(|ledger| ledger.lives.iter().any(|life| *life.node == *inbox.node)) {
            self.scene.wrong(format!("{event}, and never had an inbox"));
        }
        self.told.borrow_mut().insert(key, now);
    }

    /// Whether a subscription of this node may have ended in this way.
    fn judge_end(&self, node: &str, end: &SubscriptionEnd) {
        let pid = self.churn.iter().find(|&&pid| name_of(pid) == node);
        let was_killed = pid.is_some_and(|&pid| schedule::end_of(pid) == Some(End::Killed));
        let was_closed =
            self.scene.ledger(|ledger| ledger.lives.iter().any(|life| life.node == node && life.closed.is_some()));
        let may_be = match end {
            SubscriptionEnd::Closed => was_closed,
            // A node that cannot write its list any more leaves as if it had died.
            SubscriptionEnd::Died => was_killed || was_closed,
            SubscriptionEnd::NodeGone => was_closed || was_killed,
            _ => false,
        };
        let what = || format!("a subscription of {node:?} is gone: {end}");
        if !may_be {
            self.scene.wrong(what());
        } else if *end == SubscriptionEnd::Died && !was_killed {
            self.scene.ledger(|ledger| ledger.wrong_without_faults.push(what()));
        }
    }

    /// Whether the steady one is there, and everybody else is gone.
    fn is_settled(&self) -> bool {
        let told = self.told.borrow();
        let of_steady = |of: &Told| *of == Told::Came;
        told.iter().any(|((node, ..), of)| node == STEADY && of_steady(of))
            && told.iter().all(|((node, ..), of)| node == STEADY || *of == Told::Gone)
    }

    /// Asks until nothing more can happen.
    fn settle(&self, mut ask: impl FnMut(Duration) -> Result<Option<PublisherEvent>, PublishError>) {
        for _ in 0..TRIES {
            let has_ended = self.churn.iter().all(|&pid| schedule::end_of(pid).is_some());
            match ask(QUIET) {
                Ok(Some(event)) => self.hear(&event),
                Ok(None) if has_ended => break,
                Ok(None) => {}
                Err(error) => {
                    schedule::say(|| format!("cannot ask for events: {error}"));
                    schedule::sleep_until(schedule::clock_ns() + 10_000_000);
                }
            }
        }
        if !self.is_settled() {
            let told = self.told.borrow();
            self.scene.wrong(format!("the steady one is there and all others have gone, but it was told {told:?}"));
        }
    }
}

fn publish(scene: &Scene, churn: Vec<Pid>) {
    let node = scene.open("camera", scene.domain());
    let listener = Rc::new(Listener { scene: scene.clone(), churn, told: RefCell::default() });
    let kept = random(|random| random.usize(..3)) * 2;
    let publisher = node.publisher_builder(TOPIC).history(kept).open().expect("a topic");
    match random(fastrand::Rng::bool) {
        true => alone(&listener, publisher),
        false => shared(&listener, &publisher.into_shared()),
    }
}

fn pause() {
    match random(|random| random.u8(..4)) {
        0 => schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..100_000_000))),
        1 => schedule::pause(),
        _ => {}
    }
}

fn limit() -> Duration {
    Duration::from_millis(random(|random| random.u64(..4)))
}

/// One thread publishes and asks.
fn alone(listener: &Listener, mut publisher: Publisher) {
    let mut outgoing = listener.scene.outgoing();
    for _ in 0..random(|random| random.u32(3..=25)) {
        match random(|random| random.u8(..8)) {
            0..4 => {
                let id = outgoing.begin(To::Topic(TOPIC.to_owned()));
                outgoing.published(id, publisher.publish_timeout(&id.payload(random(bytes)), limit()));
            }
            4 => drop(publisher.flush(limit())),
            5 => drop(publisher.subscribers()),
            _ => {
                let limit = limit();
                let asked = if limit.is_zero() { publisher.try_event() } else { publisher.wait_for_event(limit) };
                match asked {
                    Ok(event) => event.iter().for_each(|event| listener.hear(event)),
                    Err(error) => schedule::say(|| format!("cannot ask for events: {error}")),
                }
            }
        }
        pause();
    }
    let _ = publisher.flush(Duration::from_secs(1));
    listener.settle(|limit| publisher.wait_for_event(limit));
}

/// One thread publishes, another one asks.
fn shared(listener: &Rc<Listener>, publisher: &SharedPublisher) {
    let is_over = Rc::new(Cell::new(false));
    let asking = {
        let (listener, publisher, is_over) = (listener.clone(), publisher.clone(), is_over.clone());
        schedule::spawn("asks", move || {
            while !is_over.get() {
                match publisher.wait_for_event(Duration::from_millis(200)) {
                    Ok(event) => event.iter().for_each(|event| listener.hear(event)),
                    Err(error) => {
                        schedule::say(|| format!("cannot ask for events: {error}"));
                        schedule::sleep_until(schedule::clock_ns() + 10_000_000);
                    }
                }
            }
        })
    };
    let mut outgoing = listener.scene.outgoing();
    for _ in 0..random(|random| random.u32(3..=25)) {
        let id = outgoing.begin(To::Topic(TOPIC.to_owned()));
        let payload = id.payload(random(bytes));
        let published =
            if random(fastrand::Rng::bool) { publisher.publish(&payload) } else { publisher.try_publish(&payload) };
        note(&mut outgoing, id, published);
        pause();
    }
    let _ = publisher.flush(Duration::from_secs(1));
    is_over.set(true);
    schedule::join(asking);
    listener.settle(|limit| publisher.wait_for_event(limit));
}

fn note(outgoing: &mut Outgoing, id: super::ledger::Id, published: Result<OwnedReceipt, PublishError>) {
    match published {
        Ok(OwnedReceipt { inboxes, pending, undelivered, .. }) => {
            let without = undelivered.iter().map(|_| String::new()).collect();
            outgoing.accepted(id, inboxes, pending, without);
        }
        Err(error) => schedule::say(|| format!("{id:?} was not published: {error}")),
    }
}
