//! A victim and an honest node, each a process, that exchange messages while somebody attacks the victim.
//!
//! They exchange numbered messages all the while, both ways, directly and by topics, and the honest one connects anew again and
//! again; each notes the longest time that it was without. The victim also publishes and sends to the attacker. A panic
//! anywhere in either of them is an abort.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use librpc::{Admission, Domain, Limits, Node};

/// Nobody honest is ever without a message for longer than this, beside what the machine itself kept its threads waiting.
const LONGEST_STALL: Duration = Duration::from_secs(1);
/// The same for a new connection of another user's than the attacker's. One of the same user takes part in its limits.
const LONGEST_CONNECT: Duration = Duration::from_secs(2);
/// What a victim that is under way has: its own, the library's, and those of its scope.
const THREADS: u64 = 8;
/// How long a peer may be silent in its handshake.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

/// The domain: the user's own, or one that is shared with the attacker's group, which bears its uid.
pub(crate) fn domain(path: &Path, attacker: Option<u32>) -> Domain {
    let domain = Domain::at(path);
    attacker.map_or(domain.clone(), |group| domain.shared_with_group(group))
}

pub(crate) fn open(path: &Path, id: &str, attacker: Option<u32>) -> anyhow::Result<Node> {
    let limits = Limits::default().handshake_time(PATIENCE);
    let admission = attacker.map_or(Admission::same_user(), |uid| Admission::same_user().uid(uid).uid(0));
    Ok(Node::builder(id).domain(domain(path, attacker)).limits(limits).admit(admission).open()?)
}

/// A side of the honest pair. It ends when its stdin does, and says how long it was without a message, and without a new
/// connection, at most.
pub(crate) fn honest(path: &Path, id: &'static str, other: &'static str, attacker: Option<u32>) -> anyhow::Result<()> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let node = Arc::new(open(path, id, attacker)?);
    let (mut inbox, mut topics) = (node.inbox()?, node.subscribe("p/**")?);
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let ended = Arc::new(AtomicBool::new(false));
    let [received, longest, connecting, overslept] = [const { AtomicU64::new(0) }; 4];
    let mut sender = node.sender_within(other, Duration::from_secs(10))?;
    let note = |last: &mut Instant| {
        longest.fetch_max(last.elapsed().as_millis() as u64, Ordering::Relaxed);
        *last = Instant::now();
        received.fetch_add(1, Ordering::Relaxed);
    };
    let is_on = || !ended.load(Ordering::Relaxed);
    let pace = Duration::from_millis(4);
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
                std::thread::sleep(2 * pace);
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
                    let _ = domain(path, attacker).nodes();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        } else {
            scope.spawn(|| {
                while is_on() {
                    let begun = Instant::now();
                    let connected = node.sender_within(other, Duration::from_secs(30)).map_err(|e| e.to_string());
                    let heard = connected.and_then(|mut to| {
                        to.send(b"anew").map_err(|error| error.to_string())?;
                        to.flush(Duration::from_secs(30)).map_err(|error| error.to_string())
                    });
                    assert!(heard.is_ok() || !is_on(), "connecting anew: {heard:?}");
                    connecting.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        scope.spawn(|| {
            while is_on() {
                if let Err(error) = sender.send(b"hello") {
                    std::thread::sleep(Duration::from_millis(200)); // it may have been told to end a moment earlier
                    assert!(!is_on(), "{error}");
                }
                std::thread::sleep(pace);
            }
        });
        // What the machine does to a thread that wants nothing: an attacker has no part in that, unless by its load.
        scope.spawn(|| {
            while is_on() {
                let begun = Instant::now();
                std::thread::sleep(pace);
                overslept.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
            }
        });
        let mut stdin = std::io::stdin().lock();
        std::io::copy(&mut stdin.by_ref(), &mut std::io::sink())?;
        ended.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    let [received, longest, connecting, overslept] =
        [received, longest, connecting, overslept].map(AtomicU64::into_inner);
    println!("{received} {longest} {connecting} {overslept}");
    Ok(())
}

/// A process that is killed when this is dropped.
pub(crate) struct Party(pub(crate) Child);

impl Drop for Party {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program with other words, as this user and this user's group.
pub(crate) fn start(words: &[&str], user: Option<u32>) -> anyhow::Result<Party> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user); // and without any other group
    }
    Ok(Party(command.spawn()?))
}

/// What a process holds of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vitals {
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) mappings: u64,
    pub(crate) resident_kib: u64,
}

impl Vitals {
    pub(crate) fn of(pid: u32) -> Self {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = text("status");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        Self {
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64),
            threads: number("Threads:"),
            mappings: text("maps").lines().count() as u64,
            resident_kib: number("VmRSS:"),
        }
    }

    /// The most of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            mappings: self.mappings.max(other.mappings),
            resident_kib: self.resident_kib.max(other.resident_kib),
        }
    }
}

impl std::fmt::Display for Vitals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { descriptors, threads, mappings, resident_kib } = self;
        write!(f, "{descriptors} descriptors, {threads} threads, {mappings} mappings, {resident_kib} KiB resident")
    }
}

/// The two honest ones, running.
pub(crate) struct Pair {
    parties: [Party; 2],
    outputs: Vec<BufReader<ChildStdout>>,
    attacker: Option<u32>,
}

impl Pair {
    /// Both, exchanging messages. The attacker to come is another user, or this one.
    pub(crate) fn start(path: &str, attacker: Option<u32>) -> anyhow::Result<Self> {
        let uid = attacker.map(|uid| uid.to_string());
        let party = |id, other| {
            let mut words = vec!["honest", path, id, other];
            words.extend(uid.as_deref());
            start(&words, None)
        };
        let mut parties = [party("victim", "honest")?, party("honest", "victim")?];
        let mut outputs = Vec::new();
        for party in &mut parties {
            let mut output = BufReader::new(party.0.stdout.take().context("stdout is piped")?);
            output.read_line(&mut String::new())?;
            outputs.push(output);
        }
        for party in &mut parties {
            party.0.stdin.as_mut().context("stdin is piped")?.write_all(b"go\n")?;
        }
        let mut pair = Self { parties, outputs, attacker };
        pair.wait_until_under_way()?;
        Ok(pair)
    }

    /// Until the victim has all its threads: on a loaded machine that takes a while.
    fn wait_until_under_way(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut since = begun;
        while since.elapsed() < Duration::from_millis(500) {
            let now = self.victim()?;
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "the victim never gets under way: {now}");
            if now.threads < THREADS {
                since = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What the victim holds; `Err`: it has died.
    pub(crate) fn victim(&mut self) -> anyhow::Result<Vitals> {
        anyhow::ensure!(self.parties[0].0.try_wait()?.is_none(), "the victim has died");
        Ok(Vitals::of(self.parties[0].0.id()))
    }

    /// Waits until an attacker has ended; what it has said, and the most that the victim held meanwhile.
    pub(crate) fn watch(&mut self, evil: &mut Party) -> anyhow::Result<(String, Vitals)> {
        let mut most = self.victim()?;
        let status = loop {
            most = most.max(self.victim()?);
            if let Some(status) = evil.0.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let mut said = String::new();
        evil.0.stdout.take().context("stdout is piped")?.read_to_string(&mut said)?;
        anyhow::ensure!(status.success(), "the attacker has ended with {status}: {}", said.trim());
        Ok((said.trim().to_owned(), most))
    }

    /// Waits until the victim holds little more than before.
    pub(crate) fn settle(&mut self, before: Vitals) -> anyhow::Result<Vitals> {
        // What lingers is closed in the end: 5 s for each eight of them.
        let begun = Instant::now();
        loop {
            let now = self.victim()?;
            if now.descriptors <= before.descriptors + 4 && now.threads <= before.threads {
                return Ok(now);
            }
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "the victim holds {now}; before: {before}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has both end; what they have felt.
    pub(crate) fn end(mut self) -> anyhow::Result<String> {
        let mut notes = Vec::new();
        self.parties.iter_mut().for_each(|party| drop(party.0.stdin.take()));
        for (party, output) in self.parties.iter_mut().zip(&mut self.outputs) {
            let mut line = String::new();
            output.read_line(&mut line)?;
            let status = party.0.wait()?;
            anyhow::ensure!(status.success(), "an honest process has ended with {status}");
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let mut number = || anyhow::Ok(numbers.next().context("four numbers")??);
            let (received, longest, connecting, overslept) = (number()?, number()?, number()?, number()?);
            let note = format!(
                "{received} honest messages, longest pause {longest} ms, longest connect {connecting} ms, of which a \
                 sleeper felt {overslept} ms"
            );
            // A message passes three threads on its way, a connection and its message more.
            let slept = Duration::from_millis(overslept);
            anyhow::ensure!(Duration::from_millis(longest) < LONGEST_STALL + 3 * slept, "{note}");
            let is_own_account = self.attacker.is_some();
            anyhow::ensure!(
                !is_own_account || Duration::from_millis(connecting) < LONGEST_CONNECT + 8 * slept,
                "{note}"
            );
            notes.push(note);
        }
        Ok(notes.join("; "))
    }
}
