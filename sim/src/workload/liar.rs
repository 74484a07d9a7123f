//! A shared domain with a member that lies: it writes another node's incarnation and inboxes into its own file. Nobody
//! takes it for that node.

use std::time::Duration;

use librpc::{Admission, Domain, Node, NodeBuilder};

use super::ledger::To;
use super::scene::{CAPACITY, Scene, bytes};
use super::{GROUP, USER, Workload};
use crate::kernel::{CWD, Kernel, Mode, OFlags, Outcome, Pid, User};
use crate::schedule::{self, Allowed, Program, call, random};

pub const WORKLOAD: Workload = Workload {
    name: "liar",
    about: "a member of a shared domain says that it is another",
    allowed: Allowed { kills: 1, stops: 1, errors: true, pauses: true, large_pages: false },
    redelivery: false,
    users: &[USER, LIAR],
    setup,
};

const LIAR: User = User { uid: 1001, gid: 1001 };

fn builder(id: &str, scene: &Scene) -> NodeBuilder {
    let admission = Admission::same_user().uid(USER.uid).uid(LIAR.uid);
    Node::builder(id).domain(scene.domain()).admit(admission)
}

fn setup(scene: &Scene) {
    let victim = scene.clone();
    schedule::start(Program::new("victim", move || be_victim(&victim)).by(USER, &[GROUP]).lives());
    let liar = scene.clone();
    schedule::start(Program::new("liar", move || lie(&liar)).by(LIAR, &[GROUP]).spared());
    let sender = scene.clone();
    scene.start_sender(Program::new("sender", move || send(&sender)).by(USER, &[GROUP]));
}

fn be_victim(scene: &Scene) {
    let node = scene.retry("open node \"victim\"", || builder("victim", scene).open());
    let (mut inbox, life) = scene.inbox(&node);
    scene.receive_to_the_end(&mut inbox, life);
}

/// Is a node like any other, and then says that it is the victim.
fn lie(scene: &Scene) {
    let node = scene.retry("open node \"liar\"", || builder("liar", scene).open());
    let open = || node.inbox_builder().capacity(CAPACITY).open();
    let (mut inbox, life) = scene.retry("open an inbox", || scene.opening("liar", To::Node("liar".into()), open));
    for _ in 0..50 {
        if copy(&scene.domain()).is_ok() {
            break;
        }
        schedule::sleep_until(schedule::clock_ns() + 1_000_000);
    }
    scene.receive_to_the_end(&mut inbox, life);
}

/// Writes what the victim's file says into the liar's own.
fn copy(domain: &Domain) -> Outcome<()> {
    let path = domain.path().to_str().expect("a path that is text").to_owned();
    let copy = |kernel: &mut Kernel, pid: Pid| {
        let of = |name: &str| format!("{path}/{name}.node");
        let from = kernel.open_at(pid, CWD, &of("victim"), OFlags::RDONLY, Mode::empty())?;
        let to = kernel.open_at(pid, CWD, &of("liar"), OFlags::RDWR, Mode::empty());
        let copied = to.and_then(|to| {
            let mut bytes = vec![0; 4096];
            let read = kernel.read_at(pid, from, &mut bytes, 0)?;
            // All but whose file it is: its user and process.
            kernel.write_at(pid, to, &bytes[..32], 0)?;
            kernel.write_at(pid, to, &bytes[48..read], 48)?;
            kernel.close(pid, to)
        });
        kernel.close(pid, from)?;
        copied
    };
    call("lie", || "copies the victim's file".into(), &[], copy, |()| "done".into())
}

fn send(scene: &Scene) {
    let node = scene.retry("open node \"sender\"", || builder("sender", scene).open());
    // A connection that is still there is used again.
    let mut kept = Vec::new();
    for _ in 0..random(|random| random.u32(1..=4)) {
        for to in ["liar", "victim"] {
            let Ok(mut sender) = node.connect_timeout(to, Duration::from_millis(100)) else { continue };
            // Order is promised for each sender only.
            let mut outgoing = scene.outgoing();
            for _ in 0..random(|random| random.u32(1..=3)) {
                let _ = outgoing.send(to, random(bytes), |payload| sender.send(payload));
            }
            let _ = sender.flush(Duration::from_millis(100));
            kept.push(sender);
        }
    }
}
