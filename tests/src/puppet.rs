//! A process that does what a test tells it.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::unix::process::CommandExt;
use std::process;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use testkit::{HANG, Process, TestDomain, can_unshare, command, unshare, wait_for, wait_until};

use crate::command::{Command, Reply};
use crate::orders::{self, InChild, Order};
use crate::program;

/// A puppet that does not answer for this long hangs. It is longer than any order may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Starts puppets in a domain.
pub trait Puppets {
    /// A puppet that has done nothing yet.
    fn puppet(&self) -> Puppet;

    /// A puppet that has opened a node.
    fn node(&self, id: &str) -> Puppet;

    /// A puppet that has opened a node and its inbox.
    fn receiver(&self, id: &str) -> Puppet;

    /// A puppet that is killed or stopped when it reaches a fault point: `step`, `step:stop`, `step:kill:3`.
    fn doomed(&self, fault: &str) -> Puppet;

    /// A puppet with a `/dev/shm` of its own, of this many bytes. `None`: this user may not mount one.
    fn puppet_with_shm(&self, bytes: u64) -> Option<Puppet>;

    /// A puppet of another user and group.
    fn puppet_of(&self, uid: u32, gid: u32) -> Puppet;
}

impl Puppets for TestDomain {
    fn puppet(&self) -> Puppet {
        Puppet::start(&mut in_domain(self))
    }

    fn node(&self, id: &str) -> Puppet {
        let mut puppet = self.puppet();
        puppet.does(orders::open(id));
        puppet
    }

    fn receiver(&self, id: &str) -> Puppet {
        let mut puppet = self.node(id);
        puppet.does(orders::inbox());
        puppet
    }

    fn doomed(&self, fault: &str) -> Puppet {
        Puppet::start(in_domain(self).env("LIBRPC_FAULT", fault))
    }

    fn puppet_with_shm(&self, bytes: u64) -> Option<Puppet> {
        const ALONE: [&str; 2] = ["--mount", "--propagation=private"];
        can_unshare(&ALONE).ok()?;
        let script = format!("mount -t tmpfs -o size={bytes} none /dev/shm && exec \"$@\"");
        let (mut shell, puppet) = (command("sh"), in_domain(self));
        shell.args(["-c", &script, "sh"]).arg(puppet.get_program()).args(puppet.get_args());
        let process = Process::start_wrapper(&mut unshare(&ALONE, &shell)).expect("`unshare` was there just now");
        Some(Puppet { process, given: 0, read: 0 })
    }

    fn puppet_of(&self, uid: u32, gid: u32) -> Puppet {
        Puppet::start(in_domain(self).uid(uid).gid(gid))
    }
}

fn in_domain(domain: &TestDomain) -> process::Command {
    let mut command = program("puppet");
    command.arg(domain.path());
    command
}

/// A process that does what a test tells it. Killed when dropped.
#[derive(Debug)]
pub struct Puppet {
    process: Process,
    /// How many orders were given, and how many replies were read.
    given: u64,
    read: u64,
}

/// An order that was given, whose reply has not been read.
#[derive(Debug)]
pub struct Begun<Answer> {
    number: u64,
    answer: PhantomData<Answer>,
}

impl Puppet {
    fn start(command: &mut process::Command) -> Self {
        let process = Process::start(command).expect("the program of the puppets is built with the tests");
        Self { process, given: 0, read: 0 }
    }

    /// Gives an order and waits for the answer. Panics if the puppet fails.
    #[track_caller]
    pub fn does<O: Order>(&mut self, order: O) -> O::Answer {
        let begun = self.begins(order);
        self.completes(begun)
    }

    /// Gives an order that must fail, and returns the error.
    #[track_caller]
    pub fn fails<O: Order>(&mut self, order: O) -> String {
        match self.tries(order) {
            Ok(_) => panic!("the puppet succeeded; it should have failed"),
            Err(error) => error,
        }
    }

    /// Gives an order that may fail.
    #[track_caller]
    pub fn tries<O: Order>(&mut self, order: O) -> Reply<O::Answer> {
        let begun = self.begins(order);
        self.reply(begun)
    }

    /// Gives an order without waiting for the reply. Orders are done in their turn.
    pub fn begins<O: Order>(&mut self, order: O) -> Begun<O::Answer> {
        let command: Command = order.command();
        // A dying puppet does not read it. The reply shows that.
        self.process.tell(&serde_json::to_string(&command).expect("a command is JSON"));
        self.given += 1;
        Begun { number: self.given, answer: PhantomData }
    }

    /// Waits for the answer to an order that was given before. Panics if the puppet fails.
    #[track_caller]
    pub fn completes<Answer: DeserializeOwned>(&mut self, begun: Begun<Answer>) -> Answer {
        self.reply(begun).unwrap_or_else(|error| panic!("the puppet failed: {error}"))
    }

    /// Waits for the reply to an order that was given before.
    #[track_caller]
    pub fn reply<Answer: DeserializeOwned>(&mut self, begun: Begun<Answer>) -> Reply<Answer> {
        self.reply_unless_dead(begun).unwrap_or_else(|| {
            let ended = self.process.ends(HANG).map(|status| status.to_string());
            panic!("the puppet died: {}", ended.unwrap_or_else(|error| error.to_string()))
        })
    }

    /// Waits for the reply to an order that was given before; `None` if the puppet has died.
    ///
    /// Skips unread replies to earlier orders.
    #[track_caller]
    pub fn reply_unless_dead<Answer: DeserializeOwned>(&mut self, begun: Begun<Answer>) -> Option<Reply<Answer>> {
        assert!(begun.number > self.read, "replies are read in the order in which they come");
        loop {
            let line = self.process.says(PATIENCE).unwrap_or_else(|error| panic!("{error:#}"))?;
            self.read += 1;
            if self.read == begun.number {
                return Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
            }
        }
    }

    /// Gives an order again and again until the answer is this one.
    #[track_caller]
    pub fn comes_to<O: Order>(&mut self, order: impl Fn() -> O, expected: O::Answer)
    where
        O::Answer: PartialEq + Debug,
    {
        let mut last = self.does(order());
        let is_expected = || {
            last = self.does(order());
            Ok(last == expected)
        };
        if wait_for(HANG, is_expected).is_err() {
            panic!("{last:?} instead of {expected:?}");
        }
    }

    /// Waits until the puppet has this many descriptors or fewer. It must receive nothing meanwhile: receives only notice
    /// which connections have ended.
    #[track_caller]
    pub fn gets_down_to(&mut self, descriptors: u64) {
        wait_until(|| {
            assert_eq!(self.does(orders::try_receive()), None);
            self.does(orders::descriptors()) <= descriptors
        });
    }

    /// Waits until the puppet has died, for any reason.
    pub fn ends(&mut self) {
        self.process.ends(HANG).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("the puppet lives");
    }

    /// Kills the puppet with SIGKILL, and waits for its end.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ends();
    }

    /// Waits until the puppet has been killed by its planned fault.
    #[track_caller]
    pub fn dies(&mut self) {
        self.process.is_killed().unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Stops the puppet with SIGSTOP, and waits until it is stopped.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        self.wait_until_stopped();
    }

    /// Waits until the puppet is stopped, by its planned fault for example.
    #[track_caller]
    pub fn wait_until_stopped(&self) {
        self.process.wait_until_stopped().unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Lets a stopped puppet continue.
    #[track_caller]
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Makes the puppet drop everything and exit, and waits for its end.
    #[track_caller]
    pub fn exits(mut self) {
        self.process.close_stdin();
        let status = self.process.ends(HANG).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(status.success(), "the puppet ended with {status}");
    }
}

/// The forked child of a puppet, which outlives the puppet. Killed when dropped.
#[derive(Debug)]
pub struct ForkedChild(Pid);

impl ForkedChild {
    /// The child that a puppet's answer to a fork names.
    pub fn of(answer: &InChild) -> Self {
        Self(Pid::from_raw(answer.pid).expect("a child's pid is not 0"))
    }
}

impl Drop for ForkedChild {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL); // it may have ended
    }
}
