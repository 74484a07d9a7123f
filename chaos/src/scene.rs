//! A scene: a domain, the processes that send and receive in it, and their accounts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use testkit::proc::what_it_does;
use testkit::{HANG, TestDomain};

use crate::account::{End, Rules, Run, Segment, Stream, Totals};
use crate::battery::Skipped;
use crate::limit::{Limit, wait_for};
use crate::log::Log;
use crate::points::Point;
use crate::roles::{DomainAt, Receive, Role, Send};
use crate::worker::{Start, Worker};

/// A domain of its own, removed when dropped.
pub(crate) struct Scene {
    domain: TestDomain,
    is_shared: bool,
}

impl Scene {
    /// A private domain.
    pub(crate) fn new() -> Self {
        Self { domain: TestDomain::new().without_assertions(), is_shared: false }
    }

    /// A domain that is shared with the battery's group.
    pub(crate) fn shared() -> Self {
        Self { is_shared: true, ..Self::new() }
    }

    /// A domain in which the point is reached.
    pub(crate) fn of(point: &Point) -> Self {
        Self { is_shared: point.is_in_shared_domains(), ..Self::new() }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        self.domain.path()
    }

    /// The domain, for a worker.
    pub(crate) fn domain(&self) -> DomainAt {
        DomainAt { path: self.path().into(), is_shared: self.is_shared }
    }

    /// What is left of the domain.
    pub(crate) fn left(&self) -> Vec<PathBuf> {
        self.domain.left()
    }

    /// Checks that nothing is left.
    pub(crate) fn is_gone(&self) -> anyhow::Result<()> {
        let left = self.left();
        anyhow::ensure!(left.is_empty(), "LEFT BEHIND: {left:?}");
        Ok(())
    }

    pub(crate) fn receiver(&self, receive: Receive) -> anyhow::Result<Receiver> {
        self.receiver_as(receive, &Start::default())
    }

    pub(crate) fn sender(&self, send: Send) -> anyhow::Result<Sender> {
        self.sender_as(send, &Start::default())
    }

    pub(crate) fn receiver_as(&self, receive: Receive, start: &Start) -> anyhow::Result<Receiver> {
        let log = Log::new()?;
        let role = Role::Receive(Receive { domain: self.domain(), log: log.path(), ..receive });
        Ok(Receiver { worker: Worker::start_as(&role, start)?, log })
    }

    pub(crate) fn sender_as(&self, send: Send, start: &Start) -> anyhow::Result<Sender> {
        let (log, stream) = (Log::new()?, send.stream);
        let role = Role::Send(Send { domain: self.domain(), log: log.path(), ..send });
        Ok(Sender { worker: Worker::start_as(&role, start)?, log, stream })
    }

    /// Another process joins with this id, sends itself a message and leaves.
    pub(crate) fn probe(&self, id: &str) -> anyhow::Result<()> {
        let role = Role::Probe { domain: self.domain(), id: id.into() };
        Worker::start(&role)?.finish().map(drop).context("another process cannot join and leave")
    }

    /// The users of a sweeper that reaches the point and of the dead node that it sweeps; `None` for the battery's own user.
    pub(crate) fn users_of(&self, point: &Point) -> anyhow::Result<[Option<u32>; 2]> {
        const OWNER: u32 = 54_321;
        if !point.is_between_users() {
            return Ok([None; 2]);
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Skipped("processes of two users need root".into()).into());
        }
        self.leave_dead("first", 1, Some(OWNER))?; // it makes the directory, and so owns it
        Ok([Some(OWNER), Some(OWNER + 1)])
    }

    /// Leaves the dead nodes `dead0`, `dead1`, ... of a user.
    pub(crate) fn leave_dead_nodes(&self, count: u32, uid: Option<u32>) -> anyhow::Result<()> {
        self.leave_dead("dead", count, uid)
    }

    fn leave_dead(&self, prefix: &str, count: u32, uid: Option<u32>) -> anyhow::Result<()> {
        let role = Role::Corpses { domain: self.domain(), prefix: prefix.into(), count };
        let mut dead = Worker::start_as(&role, &Start::default().by(uid))?;
        dead.waits_for("ready", HANG)?;
        dead.kill()
    }

    /// Another process cleans up.
    pub(crate) fn clean(&self) -> anyhow::Result<()> {
        Worker::start(&Role::Clean { domain: self.domain() })?.finish().map(drop).context("cannot clean up")
    }
}

/// A receiver and what it has processed.
pub(crate) struct Receiver {
    pub(crate) worker: Worker,
    pub(crate) log: Log,
}

impl Receiver {
    pub(crate) fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        self.worker.waits_for("ready", HANG)
    }

    /// Waits until it has processed this many more messages.
    pub(crate) fn goes_on(&self, messages: u64, limit: impl Into<Limit>) -> anyhow::Result<()> {
        let before = self.log.progress()?;
        wait_for(limit, || Ok(self.log.progress()? >= before + messages))
            .with_context(|| format!("the receiver should continue:\n{}", what_it_does(self.worker.pid())))
    }
}

/// A sender and what it has sent.
pub(crate) struct Sender {
    pub(crate) worker: Worker,
    pub(crate) log: Log,
    pub(crate) stream: u64,
}

impl Sender {
    /// What it had sent when it ended.
    pub(crate) fn ended(&self, sender: End) -> anyhow::Result<Sent> {
        Ok(Sent { stream: self.stream, segments: self.log.segments()?, sender })
    }

    /// Waits until it has sent this many more messages.
    pub(crate) fn goes_on(&self, messages: u64, limit: impl Into<Limit>) -> anyhow::Result<()> {
        let before = self.log.sent()?;
        wait_for(limit, || Ok(self.log.sent()? >= before + messages))
            .with_context(|| format!("the sender should continue:\n{}", what_it_does(self.worker.pid())))
    }
}

/// What receivers have processed, stream by stream, in the order of their incarnations.
#[derive(Default)]
pub(crate) struct Arrivals {
    runs: HashMap<u64, Vec<Run>>,
    receivers: u64,
}

impl Arrivals {
    /// What a single receiver has processed.
    pub(crate) fn of(receiver: &Receiver) -> anyhow::Result<Self> {
        let mut arrivals = Self::default();
        arrivals.add(&receiver.log)?;
        Ok(arrivals)
    }

    /// Adds the log of the next incarnation.
    pub(crate) fn add(&mut self, log: &Log) -> anyhow::Result<()> {
        self.receivers += 1;
        for (stream, run) in log.runs(self.receivers)? {
            self.runs.entry(stream).or_default().push(run);
        }
        Ok(())
    }

    /// Ends a sender and its last receiver, checks that nothing is left, and checks the account of the sender.
    pub(crate) fn finish(
        &mut self,
        scene: &Scene,
        source: &mut Sender,
        sink: &mut Receiver,
        rules: Rules,
    ) -> anyhow::Result<Totals> {
        source.worker.finish().context("the sender")?;
        sink.worker.finish().context("the receiver")?;
        scene.is_gone()?;
        self.add(&sink.log)?;
        self.settle(source.ended(End::Finished)?, End::Finished, rules)
    }

    /// Checks the account of a stream.
    pub(crate) fn settle(&mut self, sent: Sent, receiver: End, rules: Rules) -> anyhow::Result<Totals> {
        let runs = self.runs.remove(&sent.stream).unwrap_or_default();
        let stream = Stream { segments: sent.segments, runs, sender: sent.sender, receiver };
        stream.check(rules).with_context(|| format!("{stream:?}, {rules:?}"))
    }

    /// Checks that there is no stream that nobody sent.
    pub(crate) fn are_settled(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.runs.is_empty(), "INVENTED: streams that nobody sent: {:?}", self.runs);
        Ok(())
    }
}

/// What a sender had sent when it ended.
pub(crate) struct Sent {
    pub(crate) stream: u64,
    pub(crate) segments: Vec<Segment>,
    pub(crate) sender: End,
}
