//! A process of the crowd: some of the nodes, each with a receiving thread, and one thread that sends for all of them.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use librpc::{Domain, Node, Sender};

use crate::Args;

/// How often the messages that are due are sent.
const TICK: Duration = Duration::from_millis(1);
/// Small, so that all rings together stay small.
const CAPACITY: u64 = 16 * 1024;

fn id(node: usize) -> String {
    format!("node-{node:02}")
}

pub(crate) fn run(args: &Args, domain: &Domain, part: usize) -> anyhow::Result<()> {
    let mine: Vec<usize> = (part..args.nodes).step_by(args.processes).collect();
    let open = |node: &usize| Node::builder(&id(*node)).domain(domain.clone()).open();
    let nodes: Vec<Node> = mine.iter().map(open).collect::<Result<_, _>>()?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut stops = Vec::new();
        for node in &nodes {
            let mut inbox = node.inbox_builder().capacity(CAPACITY).open()?;
            stops.push(inbox.stop_handle());
            scope.spawn(move || while let Ok(Some(_)) = inbox.recv() {});
        }
        scope.spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            ended.store(true, Ordering::Relaxed); // nothing else depends on it
        });
        let sent = send(args, &nodes, &mine, &ended);
        stops.iter().for_each(|stop| stop.stop());
        sent
    })
}

fn send(args: &Args, nodes: &[Node], mine: &[usize], ended: &AtomicBool) -> anyhow::Result<()> {
    let mut senders: Vec<Sender> = Vec::new();
    for further in 1..=args.channels / args.nodes {
        for (node, number) in nodes.iter().zip(mine) {
            let mut sender = node.sender(&id((number + further) % args.nodes))?;
            sender.set_limit(Duration::from_millis(100));
            senders.push(sender);
        }
    }
    let rate = args.rate as f64 * mine.len() as f64 / args.nodes as f64;
    let (message, begun) = (vec![7; args.size], Instant::now());
    let (mut sent, mut next) = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        let due = if args.rate == 0 { sent + 1000 } else { (begun.elapsed().as_secs_f64() * rate) as u64 };
        while sent < due {
            let _ = senders[next].send(&message); // a blocked one loses this message, which is counted as returned
            next = (next + 1) % senders.len();
            sent += 1;
        }
        if args.rate != 0 {
            std::thread::sleep(TICK);
        }
    }
    Ok(())
}
