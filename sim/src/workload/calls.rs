//! Clients call a service whose servers die, end, and come back. Each call ends once: with a right reply, or with an error that is true.
//! No request is handed out twice, unless that is allowed, and no answer that was accepted is lost.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_core::Stream;
use librpc::{CallError, CallOptions, Client, Pending, Request, Server};

use super::scene::{Scene, bytes};
use super::task::run;
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "calls",
    about: "requests, replies and streams, while servers come and go",
    allowed: Allowed { kills: 3, stops: 2, errors: true, pauses: true, large_pages: false },
    redelivery: false,
    users: &[USER],
    setup: |scene| setup(scene, false),
};

pub const TASKS: Workload =
    Workload { name: "call-tasks", about: "the same in tasks", setup: |scene| setup(scene, true), ..WORKLOAD };

/// A call may take this long.
const LONG: Duration = Duration::from_secs(600);

/// What the servers have done with the requests.
#[derive(Default)]
struct Requests {
    /// Whether whoever waits is a task.
    in_tasks: bool,
    next: u64,
    /// Those that may be handed out several times.
    idempotent: BTreeSet<u64>,
    handed_out: BTreeMap<u64, u32>,
    /// Those whose answer was accepted.
    answered: BTreeSet<u64>,
}

type Record = Rc<RefCell<Requests>>;

fn setup(scene: &Scene, in_tasks: bool) {
    let record = Record::default();
    record.borrow_mut().in_tasks = in_tasks;
    for number in 0..random(|random| random.u32(1..=2)) {
        let (servers, record) = (scene.clone(), record.clone());
        let id = format!("server-{number}");
        schedule::start(Program::new(&id.clone(), move || come_back(&servers, &record, &id)).spared());
    }
    for number in 0..random(|random| random.u32(1..=2)) {
        let (client, record) = (scene.clone(), record.clone());
        let id = format!("client-{number}");
        scene.start_sender(Program::new(&id.clone(), move || call(&client, &record, &id)));
    }
}

/// Starts a server again whenever it has ended. The last one stays.
fn come_back(scene: &Scene, record: &Record, id: &str) {
    let incarnations = random(|random| random.u32(0..=3));
    for number in 0..=incarnations {
        let (server, record, node, is_last) = (scene.clone(), record.clone(), id.to_owned(), number == incarnations);
        let program = Program::new(&format!("{id}.{number}"), move || serve(&server, &record, &node, is_last));
        let pid = schedule::start(if is_last { program.lives() } else { program });
        if is_last {
            return;
        }
        while schedule::end_of(pid).is_none() {
            schedule::sleep_until(schedule::clock_ns() + 500_000);
        }
    }
}

fn serve(scene: &Scene, record: &Record, id: &str, is_last: bool) {
    let node = scene.open(id, scene.domain());
    let server = scene.retry("serve", || node.serve("work"));
    let mut held = Vec::new();
    if is_last {
        loop {
            if !serve_one(scene, record, &server, &mut held, Duration::from_secs(60)) && scene.is_over() {
                return;
            }
        }
    }
    for _ in 0..random(|random| random.u32(..8)) {
        serve_one(scene, record, &server, &mut held, Duration::from_millis(20));
    }
    match random(|random| random.u8(..4)) {
        0 => schedule::exit(),
        1 => schedule::kill(schedule::pid()),
        2 => drop(server), // and answers what it holds afterwards
        _ => held.clear(),
    }
    held.drain(..).for_each(|request| answer(scene, record, request));
}

/// Takes a request, and answers it, or keeps it for later. `false`: none has come.
fn serve_one(scene: &Scene, record: &Record, server: &Server, held: &mut Vec<Request>, limit: Duration) -> bool {
    let in_tasks = record.borrow().in_tasks;
    let received = match in_tasks {
        false => server.recv_timeout(limit),
        true => run(server.recv_async(), Some(limit)).unwrap_or(Ok(None)),
    };
    let request = match received {
        Ok(Some(request)) => request,
        Ok(None) => {
            held.drain(..).for_each(|request| answer(scene, record, request));
            return false;
        }
        Err(error) => {
            schedule::say(|| format!("cannot receive: {error}"));
            schedule::sleep_until(schedule::clock_ns() + 10_000_000);
            return false;
        }
    };
    let number = number_of(&request);
    schedule::say(|| format!("request {number} is handed out"));
    let times = {
        let mut record = record.borrow_mut();
        let times = record.handed_out.entry(number).or_default();
        *times += 1;
        if record.idempotent.contains(&number) { 1 } else { record.handed_out[&number] }
    };
    if times > 1 {
        scene.wrong(format!("request {number} was handed out {times} times"));
    }
    held.push(request);
    if random(|random| random.u8(..3)) > 0 {
        let at = random(|random| random.usize(..held.len()));
        answer(scene, record, held.swap_remove(at));
    }
    true
}

fn number_of(request: &[u8]) -> u64 {
    u64::from_le_bytes(request[..8].try_into().expect("8 bytes"))
}

/// The reply to a request, or its parts.
fn reply_to(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes.max(8)).map(|at| (number as usize + at) as u8).collect()
}

fn answer(scene: &Scene, record: &Record, request: Request) {
    let (number, is_stream, bytes) = (number_of(&request), request[8] != 0, random(bytes));
    let answered = if is_stream {
        let mut stream = request.stream();
        let in_tasks = record.borrow().in_tasks;
        let sent = (0..3).try_for_each(|_| match in_tasks {
            false => stream.send(&reply_to(number, bytes)),
            true => run(stream.send_async(&reply_to(number, bytes)), None).expect("it has no limit"),
        });
        sent.and_then(|()| stream.finish())
    } else {
        match random(|random| random.u8(..8)) {
            0 => return drop(request),
            1 => return drop(request.fail(number as i32, "as it likes")),
            _ => request.reply(&reply_to(number, bytes)),
        }
    };
    match answered {
        Ok(()) => {
            schedule::say(|| format!("request {number} is answered"));
            record.borrow_mut().answered.insert(number);
        }
        Err(librpc::ReplyError::TooLarge { .. }) => scene.wrong(format!("the reply to {number} is too large")),
        Err(error) => schedule::say(|| format!("request {number} is not answered: {error}")),
    }
}

fn call(scene: &Scene, record: &Record, id: &str) {
    let node = scene.open(id, scene.domain());
    let client = scene.retry("open a client", || node.client("work"));
    let (mut open, in_tasks) = (Vec::new(), record.borrow().in_tasks);
    for _ in 0..random(|random| random.u32(1..=12)) {
        let number = {
            let mut record = record.borrow_mut();
            record.next += 1;
            record.next
        };
        let (is_stream, is_idempotent) = random(|random| (random.u8(..4) == 0, random.u8(..4) == 0));
        if is_idempotent {
            record.borrow_mut().idempotent.insert(number);
        }
        let mut request = number.to_le_bytes().to_vec();
        request.resize(9 + random(bytes), 0);
        request[8] = u8::from(is_stream);
        schedule::say(|| format!("request {number} begins, idempotent: {is_idempotent}, stream: {is_stream}"));
        let options = CallOptions::new(LONG).idempotent(is_idempotent);
        if is_stream {
            stream(scene, record, &client, number, (&request, options));
            continue;
        }
        let started = match in_tasks {
            false => client.start(&request, options),
            true => run(client.start_async(&request, options), None).expect("it has no limit"),
        };
        match started {
            Ok(call) => open.push((number, call)),
            Err(error) => judge(scene, record, number, Err(error)),
        }
        if random(fastrand::Rng::bool) && !open.is_empty() {
            let (number, call) = open.swap_remove(random(|random| random.usize(..open.len())));
            if random(|random| random.u8(..8)) == 0 {
                drop(call); // given up
                continue;
            }
            if in_tasks && random(|random| random.u8(..8)) == 0 {
                let limit = Duration::from_micros(random(|random| random.u64(..20_000)));
                if let Some(reply) = run(call, Some(limit)) {
                    judge(scene, record, number, reply.map(|reply| reply.to_vec()));
                }
                continue; // given up at some step of the wait
            }
            judge(scene, record, number, wait(call, in_tasks));
        }
    }
    for (number, call) in open {
        judge(scene, record, number, wait(call, in_tasks));
    }
}

fn wait(call: Pending, in_tasks: bool) -> Result<Vec<u8>, CallError> {
    let reply = if in_tasks { run(call, None).expect("it has no limit") } else { call.wait() };
    reply.map(|reply| reply.to_vec())
}

fn stream(scene: &Scene, record: &Record, client: &Client, number: u64, (request, options): (&[u8], CallOptions)) {
    let in_tasks = record.borrow().in_tasks;
    let begun = match in_tasks {
        false => client.call_stream(request, options),
        true => run(client.call_stream_async(request, options), None).expect("it has no limit"),
    };
    let mut parts = match begun {
        Ok(parts) => parts,
        Err(error) => return judge(scene, record, number, Err(error)),
    };
    let mut count = 0;
    loop {
        let part = match in_tasks {
            false => parts.next(),
            true => run(poll_fn(|context| Pin::new(&mut parts).poll_next(context)), None).expect("it has no limit"),
        };
        match part {
            Some(Ok(part)) if *part == *reply_to(number, part.len()) => count += 1,
            Some(Ok(part)) => scene.wrong(format!("a part of the reply to {number} is spoilt: {} bytes", part.len())),
            Some(Err(error)) => return judge(scene, record, number, Err(error)),
            None if count != 3 => return scene.wrong(format!("the reply to {number} has {count} parts")),
            None => return judge(scene, record, number, Ok(reply_to(number, 8))),
        }
    }
}

/// Whether what a call has returned can be.
fn judge(scene: &Scene, record: &Record, number: u64, outcome: Result<Vec<u8>, CallError>) {
    schedule::say(|| match &outcome {
        Ok(reply) => format!("request {number}: {} bytes", reply.len()),
        Err(error) => format!("request {number}: {error}"),
    });
    let record = record.borrow();
    let handed_out = record.handed_out.get(&number).copied().unwrap_or(0);
    let (is_answered, is_idempotent) = (record.answered.contains(&number), record.idempotent.contains(&number));
    match outcome {
        Ok(reply) if reply != reply_to(number, reply.len()) => scene.wrong(format!("the reply to {number} is spoilt")),
        Ok(_) if handed_out == 0 => scene.wrong(format!("request {number} was answered, but not handed out")),
        Ok(_) => {}
        Err(CallError::ServerDied { .. }) if is_answered && !is_idempotent => {
            scene.wrong(format!("the answer to request {number} was accepted, and is lost"));
        }
        Err(CallError::ServerDied { taken: false, .. } | CallError::NoServer { .. } | CallError::Busy { .. })
            if handed_out > 0 && !is_idempotent =>
        {
            scene.wrong(format!("request {number} was handed out, and is said not to have been taken"));
        }
        Err(CallError::Deadline { .. }) => scene.wrong(format!("request {number} has no end")),
        Err(_) => {}
    }
}
