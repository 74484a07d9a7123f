//! Calls from many clients, to servers that are killed and started again throughout.
//!
//! Each server notes how often it was handed a request, and each client how each call has ended, byte by byte in memory of the
//! supervisor's. In the end they are compared: each call has ended once, with the right answer or a true error, and no request was handed
//! out twice, unless it may be.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use librpc::{CallError, Domain, Histogram, Node};
use testkit::HANG;

use crate::battery::{Battery, Rounds};
use crate::log::Notes;
use crate::roles::{CallMany, Ended, Role, is_idempotent, now_ns};
use crate::scene::Scene;
use crate::worker::Worker;

/// The servers.
const SERVERS: usize = 4;
/// The processes of clients, and the clients of each.
const PROCESSES: u64 = 8;
const CLIENTS: u64 = 8;

pub(crate) fn run(battery: &mut Battery) {
    battery.section("deaths", battery.pick(1000, 30), deaths);
    let pause = battery.pick(100..400, 10..60);
    battery.section("killed-servers", battery.pick(10_000_000, 100_000), |rounds| killed_servers(rounds, pause));
}

/// How long a client that waits needs to learn that its server is dead, on a machine that does nothing else.
fn deaths(rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::new();
    let node = Node::builder("client").domain(Domain::at(scene.path())).open()?;
    let client = node.client("work")?;
    let mut latency = Histogram::default();
    rounds.each(|_, _| {
        let mut server = Worker::start(&Role::Hold { domain: scene.domain(), id: "server".into() })?;
        server.waits_for("ready", HANG)?;
        let pending = client.start(b"x", HANG)?;
        server.waits_for("taken", HANG)?;
        let waiting = std::thread::spawn(move || (pending.wait().map(drop), now_ns()));
        let killed = now_ns();
        server.kill()?;
        let (ended, known) = waiting.join().expect("it does not panic");
        ensure!(matches!(ended, Err(CallError::ServerDied { taken: true, .. })), "the call ended with {ended:?}");
        latency.record(known - killed);
        Ok(())
    })?;
    drop((client, node));
    scene.is_gone()?;
    Ok(format!("known after {}", times(&latency)))
}

fn times(latency: &Histogram) -> String {
    let at = |part: f64| latency.quantile(part).map_or("-".to_owned(), |ns| format!("{:.2} ms", ns as f64 / 1e6));
    format!("{}, 99 %: {}, of {}", at(0.5), at(0.99), latency.count())
}

/// A place for one server after the other.
struct Place {
    role: Role,
    handed_out: Notes,
    worker: Worker,
    /// When the servers here were killed, in ns.
    killed: Vec<u64>,
}

/// `pause`: between two kills, in ms.
fn killed_servers(rounds: &Rounds, pause: Range<u64>) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut rng = rounds.rng(0);
    let calls = rounds.count.div_ceil(PROCESSES * CLIENTS);
    let all = calls * PROCESSES * CLIENTS;
    let place = |number: usize| {
        let handed_out = Notes::new(all)?;
        let role = Role::ServeNoted { domain: scene.domain(), id: server(number), notes: handed_out.path() };
        Ok(Place { worker: Worker::start(&role)?, role, handed_out, killed: Vec::new() })
    };
    let mut places = (0..SERVERS).map(place).collect::<anyhow::Result<Vec<_>>>()?;
    places.iter_mut().try_for_each(|place| place.worker.waits_for("ready", HANG))?;
    let ended = Notes::new(all)?;
    let caller = |process: u64| {
        let first = process * CLIENTS * calls;
        let (id, notes) = (format!("client-{process}"), ended.path());
        Worker::start(&Role::CallMany(CallMany { domain: scene.domain(), id, clients: CLIENTS, first, calls, notes }))
    };
    let begun = Instant::now();
    let mut callers = (0..PROCESSES).map(caller).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut left, mut heard) = (callers.len(), Vec::new());
    let mut last_sign = Instant::now();
    while left > 0 {
        std::thread::sleep(Duration::from_millis(rng.u64(pause.clone())));
        let place = &mut places[rng.usize(0..SERVERS)];
        let now = now_ns();
        place.worker.kill()?;
        place.killed.push(now);
        place.worker = Worker::start(&place.role)?;
        place.worker.waits_for("ready", HANG)?;
        for caller in &mut callers {
            for line in caller.has_said()? {
                last_sign = Instant::now();
                match line.split_once(' ') {
                    Some(("died", rest)) => heard.push(rest.to_owned()),
                    _ if line == "ended" => left -= 1,
                    _ => anyhow::bail!("a client said {line:?}"),
                }
            }
        }
        ensure!(last_sign.elapsed() < HANG, "a call has NO END");
    }
    let seconds = begun.elapsed().as_secs_f64();
    callers.iter_mut().try_for_each(|caller| caller.finish().map(drop))?;
    places.iter_mut().try_for_each(|place| place.worker.finish().map(drop))?;
    scene.clean()?;
    scene.is_gone()?;
    let handed_out = places.iter().map(|place| place.handed_out.read()).collect::<anyhow::Result<Vec<_>>>()?;
    let mut counts: BTreeMap<Ended, u64> = BTreeMap::new();
    for (number, byte) in (0..).zip(ended.read()?) {
        let how = Ended::from_byte(byte).with_context(|| format!("NO END of call {number}"))?;
        let times: u64 = handed_out.iter().map(|server| u64::from(server[number as usize])).sum();
        ensure!(times <= 1 || is_idempotent(number), "DOUBLED: call {number} was handed out {times} times");
        match how {
            Ended::Answered => ensure!(times > 0, "INVENTED: call {number} was answered by nobody"),
            Ended::Untaken => ensure!(times == 0, "UNTRUE: call {number} is said not to be taken"),
            _ => {}
        }
        *counts.entry(how).or_default() += 1;
    }
    let mut latency = Histogram::default();
    for line in &heard {
        latency.record(delay(line, &places).with_context(|| format!("a client said {line:?}"))?);
    }
    let kills: usize = places.iter().map(|place| place.killed.len()).sum();
    let rate = all as f64 / seconds / 1e3;
    let counts: Vec<_> = counts.iter().map(|(how, count)| format!("{count} {}", how.name())).collect();
    Ok(format!(
        "{kills} servers killed; {} ({rate:.0} thousand/s); a death known after {}",
        counts.join(", "),
        times(&latency),
    ))
}

fn server(number: usize) -> String {
    format!("server-{number}")
}

/// How long after a server's death, in ns, its client knew that a call was lost with it: "NODE TIME".
fn delay(line: &str, places: &[Place]) -> Option<u64> {
    let (node, at) = line.split_once(' ')?;
    let (place, at) = (node.strip_prefix("server-")?, at.parse::<u64>().ok()?);
    let killed = &places.get(place.parse::<usize>().ok()?)?.killed;
    let last = killed.partition_point(|&killed| killed <= at).checked_sub(1)?;
    Some(at - killed[last])
}
