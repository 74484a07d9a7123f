//! librpc on the simulated machine.

use std::time::Duration;

use librpc::Node;
use librpc_sim::machine;
use librpc_sim::schedule::{self, Allowed, Plan, Program, Report, start};

fn domain() -> librpc::Domain {
    librpc::Domain::at("/dev/shm/domain")
}

fn receiver() {
    let node = Node::builder("display").domain(domain()).open().expect("opens");
    let mut inbox = node.inbox().expect("an inbox");
    for number in 0..5u8 {
        let message = inbox.recv().expect("no error").expect("not stopped");
        assert_eq!(message.payload(), [number]);
    }
}

fn sender() {
    let node = Node::builder("camera").domain(domain()).open().expect("opens");
    let mut to = node.connect("display").expect("connects");
    for number in 0..5u8 {
        to.send(&[number]).expect("sends");
    }
    to.flush(Duration::from_secs(1)).expect("flushes");
}

fn run(seed: u64) -> Report {
    let setup = || {
        start(Program::new("receiver", receiver));
        start(Program::new("sender", sender));
    };
    schedule::run(Plan::new(seed, Allowed::NOTHING), 3000, setup, |kernel| match kernel.leftovers() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("left: {left:#?}")),
    })
}

#[test]
fn messages_travel_and_a_seed_decides_everything() {
    machine::install();
    for seed in 0..100 {
        let (one, two) = (run(seed), run(seed));
        assert_eq!(one.failure, None, "seed {seed}:\n{}", one.lines.join("\n"));
        assert_eq!(one.lines, two.lines, "seed {seed}");
        assert_eq!((one.digest, one.steps, one.ns), (two.digest, two.steps, two.ns));
    }
}
