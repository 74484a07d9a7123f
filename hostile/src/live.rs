//! A victim, an honest pair, and a live attacker, each a process: what the attacker does, the honest ones do not feel.
//!
//! Victim and honest node exchange numbered messages all the while, both ways, directly and by topics; each notes the longest
//! time that it was without one. The victim also publishes and sends to the attacker. A panic anywhere in the victim is an abort.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use librpc::{Domain, Limits, Node};

use crate::attacker::{ATTACKS, Attacker};
use crate::random::Random;

/// Nobody honest is ever without a message for longer than this, beside what the machine itself kept its threads waiting.
const LONGEST_STALL: Duration = Duration::from_secs(1);

fn open(domain: &Path, id: &str) -> anyhow::Result<Node> {
    let limits = Limits { handshake_time: Duration::from_millis(200), ..Limits::default() };
    Ok(Node::builder(id).domain(Domain::at(domain)).limits(limits).open()?)
}

/// A side of the honest pair. It ends when its stdin does, and says how long it was without a message at most.
pub(crate) fn honest(domain: &Path, id: &'static str, other: &'static str) -> anyhow::Result<()> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let node = Arc::new(open(domain, id)?);
    let (mut inbox, mut topics) = (node.inbox()?, node.subscribe("p/**")?);
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let ended = Arc::new(AtomicBool::new(false));
    let (received, longest, overslept) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut sender = node.sender_within(other, Duration::from_secs(10))?;
    let note = |last: &mut Instant| {
        longest.fetch_max(last.elapsed().as_millis() as u64, Ordering::Relaxed);
        *last = Instant::now();
        received.fetch_add(1, Ordering::Relaxed);
    };
    let is_on = || !ended.load(Ordering::Relaxed);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        scope.spawn(|| {
            let mut last = Instant::now();
            while is_on() {
                if inbox.recv_timeout(Duration::from_millis(100)).expect("an inbox").is_some_and(|m| m.from() == other)
                {
                    note(&mut last);
                }
            }
            longest.fetch_max(last.elapsed().as_millis() as u64, Ordering::Relaxed);
        });
        scope.spawn(|| {
            let mut last = Instant::now();
            while is_on() {
                if topics
                    .recv_timeout(Duration::from_millis(100))
                    .expect("a subscriber")
                    .is_some_and(|m| m.from() == other)
                {
                    note(&mut last);
                }
            }
            longest.fetch_max(last.elapsed().as_millis() as u64, Ordering::Relaxed);
        });
        scope.spawn(|| {
            let mut publisher = node.publisher("p/x").expect("a topic");
            publisher.set_limit(Duration::from_millis(5));
            while is_on() {
                // What the attacker's inboxes make of it is in the receipt.
                publisher.publish(b"topic").map(drop).expect("publishing goes on");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        if id == "victim" {
            scope.spawn(|| {
                while is_on() {
                    if let Ok(mut to) = node.sender_within("evil", Duration::from_millis(50)) {
                        to.set_limit(Duration::from_millis(20));
                        (0..200).take_while(|_| to.send(&[7; 5000]).is_ok()).count();
                        let _ = to.flush(Duration::from_millis(50));
                    }
                    let _ = Domain::at(domain).nodes();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        scope.spawn(|| {
            while is_on() {
                if let Err(error) = sender.send(b"hello") {
                    std::thread::sleep(Duration::from_millis(200)); // it may have been told to end a moment earlier
                    assert!(!is_on(), "{error}");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // What the machine does to a thread that wants nothing: an attacker has no part in that, unless by its load.
        scope.spawn(|| {
            while is_on() {
                let begun = Instant::now();
                std::thread::sleep(Duration::from_millis(1));
                overslept.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
            }
        });
        let mut stdin = std::io::stdin().lock();
        std::io::copy(&mut stdin.by_ref(), &mut std::io::sink())?;
        ended.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    let [received, longest, overslept] = [received, longest, overslept].map(AtomicU64::into_inner);
    println!("{received} {longest} {overslept}");
    Ok(())
}

/// Attacks until its stdin ends, or it is killed.
pub(crate) fn attack(domain: &Path, seed: u64, rounds: u64, only: Option<&str>) -> anyhow::Result<()> {
    let node = open(domain, "evil")?;
    let _inbox = node.inbox()?;
    let mut random = Random::new(seed);
    let (mut counts, mut attached): (BTreeMap<&str, u64>, u64) = Default::default();
    for round in 0..rounds {
        let drawn = ATTACKS[random.below(ATTACKS.len() as u64) as usize];
        let attack = only.unwrap_or(drawn);
        let mut attacker = Attacker::new(domain, "evil", random.next())?;
        // What does not work (a refusal, a full queue) is as good as what does.
        if let Err(error) = attacker.round(attack) {
            eprintln!("round {round}, {attack}: {error:#}");
        }
        attached += attacker.attached;
        *counts.entry(ATTACKS.iter().find(|known| **known == attack).copied().unwrap_or("?")).or_insert(0) += 1;
    }
    println!("{counts:?}, {attached} rings attached;");
    Ok(())
}

struct Party(Child);

impl Drop for Party {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(words: &[&str]) -> anyhow::Result<Party> {
    let program = std::env::current_exe()?;
    Ok(Party(Command::new(program).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Everybody together; `Err`: what the honest ones have felt.
pub(crate) fn run(seed: u64, rounds: u64, only: Option<String>) -> anyhow::Result<String> {
    let path = format!("/dev/shm/librpc_hostile_{}", std::process::id());
    let result = together(&path, seed, rounds, only);
    let _ = std::fs::remove_dir_all(&path);
    result
}

fn together(path: &str, seed: u64, rounds: u64, only: Option<String>) -> anyhow::Result<String> {
    let mut parties = [start(&["honest", path, "victim", "honest"])?, start(&["honest", path, "honest", "victim"])?];
    let mut outputs = Vec::new();
    for party in &mut parties {
        let mut output = BufReader::new(party.0.stdout.take().context("stdout is piped")?);
        output.read_line(&mut String::new())?;
        outputs.push(output);
    }
    for party in &mut parties {
        party.0.stdin.as_mut().context("stdin is piped")?.write_all(b"go\n")?;
    }
    std::thread::sleep(Duration::from_millis(300));
    let victim = parties[0].0.id();
    let before = descriptors(victim);
    let (seed_text, rounds_text) = (seed.to_string(), rounds.to_string());
    let mut words = vec!["attacker", path, &seed_text, &rounds_text];
    words.extend(only.as_deref());
    let mut evil = start(&words)?;
    let mut most = before;
    while evil.0.try_wait()?.is_none() {
        most = most.max(descriptors(victim));
        anyhow::ensure!(parties[0].0.try_wait()?.is_none(), "the victim has died");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut said = String::new();
    evil.0.stdout.take().context("stdout is piped")?.read_to_string(&mut said)?;
    // What lingers is closed in the end: 5 s for each eight of them.
    let begun = Instant::now();
    while descriptors(victim) > before + 4 {
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "{} descriptors, {before} before",
            descriptors(victim)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut notes = vec![format!("{} the victim held {most} descriptors at most, {before} before", said.trim())];
    parties.iter_mut().for_each(|party| drop(party.0.stdin.take()));
    for (party, output) in parties.iter_mut().zip(&mut outputs) {
        let mut line = String::new();
        output.read_line(&mut line)?;
        let status = party.0.wait()?;
        anyhow::ensure!(status.success(), "an honest process has ended with {status}");
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let mut number = || anyhow::Ok(numbers.next().context("three numbers")??);
        let (received, longest, overslept) = (number()?, number()?, number()?);
        let note =
            format!("{received} honest messages, longest pause {longest} ms, of which a sleeper felt {overslept} ms");
        // A message passes three threads on its way.
        let limit = LONGEST_STALL + 3 * Duration::from_millis(overslept);
        anyhow::ensure!(Duration::from_millis(longest) < limit, "{note}; {}", notes[0]);
        notes.push(note);
    }
    Ok(notes.join("; "))
}
