//! The honest pair under attack, as its supervisor sees it: a victim and another node, each a process.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use anyhow::Context;
use testkit::proc::Usage;
use testkit::{HANG, Process, TestDomain, wait_for};

/// No honest process may be without a message for longer than this, not counting the time that the machine delays its
/// threads.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The same for a new connection, if the attacker is another user. An attacker of the same user shares the limits of
/// the pair.
const LONGEST_CONNECT: Duration = Duration::from_secs(2);
/// How many threads a victim at work has: its main thread, the library's, and those of its scope.
const THREADS: u64 = 10;
/// How often the victim is observed. Observing costs it time, too.
const INTERVAL: Duration = Duration::from_millis(20);

/// Starts this program with other arguments, as this user and in the group of the same number.
pub(crate) fn start(words: &[&str], user: Option<u32>) -> anyhow::Result<Process> {
    let mut command = testkit::command(std::env::current_exe()?);
    command.args(words);
    if let Some(user) = user {
        command.uid(user).gid(user); // and in no other group
    }
    Process::start(&mut command)
}

/// The two honest processes.
pub(crate) struct Pair {
    victim: Process,
    other: Process,
    attacker: Option<u32>,
}

impl Pair {
    /// Starts both, which exchange messages. The later attacker is this user, or the pair's own.
    pub(crate) fn start(domain: &TestDomain, attacker: Option<u32>) -> anyhow::Result<Self> {
        let path = domain.path().to_str().context("a path under /dev/shm")?;
        let uid = attacker.map(|uid| uid.to_string());
        let start = |id, other| {
            let mut words = vec!["honest", path, id, other];
            words.extend(uid.as_deref());
            start(&words, None)
        };
        let mut pair = Self { victim: start("victim", "honest")?, other: start("honest", "victim")?, attacker };
        for process in [&mut pair.victim, &mut pair.other] {
            process.says(HANG)?.context("an honest process has ended")?;
        }
        for process in [&mut pair.victim, &mut pair.other] {
            process.stdin().context("stdin is a pipe")?.write_all(b"go\n")?;
        }
        pair.wait_until_under_way()?;
        Ok(pair)
    }

    /// Waits until the victim has had all its threads for a while: a loaded machine takes its time.
    fn wait_until_under_way(&mut self) -> anyhow::Result<()> {
        let mut since = Instant::now();
        let is_under_way = || {
            std::thread::sleep(INTERVAL);
            if self.victim()?.threads < THREADS {
                since = Instant::now();
            }
            Ok(since.elapsed() > Duration::from_millis(500))
        };
        wait_for(2 * HANG, is_under_way).context("the victim never gets under way")
    }

    /// What the victim holds. An error if it has died.
    pub(crate) fn victim(&mut self) -> anyhow::Result<Usage> {
        anyhow::ensure!(!self.victim.has_ended()?, "the victim has died");
        Usage::of(self.victim.pid())
    }

    /// Waits until an attacker has ended. Returns what it said, and the most that the victim held meanwhile.
    pub(crate) fn watch(&mut self, attacker: &mut Process) -> anyhow::Result<(String, Usage)> {
        let mut most = self.victim()?;
        while !attacker.has_ended()? {
            most = most.max(self.victim()?);
            std::thread::sleep(INTERVAL);
        }
        let ended = attacker.finishes_with(b"", HANG)?;
        let said = ended.stdout().trim();
        anyhow::ensure!(ended.code == 0, "the attacker has ended with {}: {said}", ended.code);
        Ok((said.to_owned(), most))
    }

    /// Waits until the victim holds little more than before.
    pub(crate) fn settle(&mut self, before: &Usage) -> anyhow::Result<Usage> {
        // Lingering sockets are closed at last: every eight of them take 5 s.
        let mut now = self.victim()?;
        let is_settled = || {
            std::thread::sleep(INTERVAL);
            now = self.victim()?;
            Ok(now.descriptors <= before.descriptors + 4 && now.threads <= before.threads)
        };
        match wait_for(2 * HANG, is_settled) {
            Ok(()) => Ok(now),
            Err(error) => Err(error.context(format!("the victim holds {now}; before: {before}"))),
        }
    }

    /// Ends both. Returns what they have noticed; an error if they have noticed an attack.
    pub(crate) fn end(mut self) -> anyhow::Result<String> {
        self.victim.close_stdin();
        self.other.close_stdin();
        let mut notes = Vec::new();
        for process in [&mut self.victim, &mut self.other] {
            let ended = process.finishes_with(b"", 2 * HANG)?;
            anyhow::ensure!(ended.code == 0, "an honest process has ended with {}", ended.code);
            let mut numbers = ended.stdout().split_whitespace().map(str::parse::<u64>);
            let mut number = || anyhow::Ok(numbers.next().context("eight numbers")??);
            let (received, pause, connect, sleep) = (number()?, number()?, number()?, number()?);
            let (large, unsent, calls, call) = (number()?, number()?, number()?, number()?);
            let note = format!(
                "{received} honest messages, {large} of them large, {unsent} large ones not sent, longest pause {pause} ms, \
                 longest connect {connect} ms, {calls} calls, longest call {call} ms, longest sleep of a thread {sleep} ms"
            );
            anyhow::ensure!(large > 0 && calls > 0, "{note}");
            // A message passes through three threads on its way, a new connection and its first message through more.
            let slept = Duration::from_millis(sleep);
            anyhow::ensure!(Duration::from_millis(pause) < LONGEST_PAUSE + 3 * slept, "{note}");
            // A call passes through two threads of each process.
            anyhow::ensure!(Duration::from_millis(call) < LONGEST_PAUSE + 8 * slept, "{note}");
            let has_limits_of_its_own = self.attacker.is_some();
            let is_slow = Duration::from_millis(connect) >= LONGEST_CONNECT + 8 * slept;
            anyhow::ensure!(!(has_limits_of_its_own && is_slow), "{note}");
            notes.push(note);
        }
        Ok(notes.join("; "))
    }
}
