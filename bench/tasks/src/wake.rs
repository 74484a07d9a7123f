//! Waking a task: two processes send a message to and fro, and each sleeps until it comes. Contenders take turns.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::Context;
use clap::ValueEnum;
use librpc::{Inbox, Sender};
use rustix::event::{EventfdFlags, eventfd};
use smol::Async;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{Row, domain, median, open, readable};

const WARM_UP: u32 = 200;
const TRIPS: u32 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Contender {
    /// Two eventfds, in tokio
    Eventfd,
    /// Two eventfds, in smol
    EventfdSmol,
    /// Inboxes with `with_tokio`
    Tokio,
    /// Inboxes with `with_async_io`, in smol
    Smol,
    /// The background thread wakes the task, in tokio
    Thread,
    /// The same, with the smallest executor there is
    ThreadPollster,
}

impl Contender {
    fn base(self) -> Self {
        if self == Self::Smol { Self::EventfdSmol } else { Self::Eventfd }
    }

    fn run<T>(self, future: impl Future<Output = T>) -> anyhow::Result<T> {
        Ok(match self {
            Self::Eventfd | Self::Tokio | Self::Thread => {
                tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(future)
            }
            Self::EventfdSmol | Self::Smol => smol::block_on(future),
            Self::ThreadPollster => pollster::block_on(future),
        })
    }
}

/// One end.
enum End {
    Tokio { ours: AsyncFd<OwnedFd>, theirs: OwnedFd },
    Smol { ours: Async<OwnedFd>, theirs: OwnedFd },
    Librpc { inbox: Inbox, sender: Sender },
}

impl End {
    /// Called in the runtime.
    fn of_descriptors(contender: Contender, ours: OwnedFd, theirs: OwnedFd) -> anyhow::Result<Self> {
        Ok(match contender {
            Contender::Eventfd => {
                // SAFETY: the descriptor stays the same, and open, until it is dropped.
                let ours = unsafe { AsyncFd::register_with_interest(ours, Interest::READABLE)? };
                Self::Tokio { ours, theirs }
            }
            _ => Self::Smol { ours: Async::new_nonblocking(ours)?, theirs },
        })
    }

    fn of_node(contender: Contender, domain: &Path, us: &str, them: &str) -> anyhow::Result<Self> {
        let node = open(domain, us)?;
        let inbox = match contender {
            Contender::Tokio => node.inbox()?.with_tokio()?,
            Contender::Smol => node.inbox()?.with_async_io()?,
            _ => node.inbox()?,
        };
        Ok(Self::Librpc { inbox, sender: node.connect(them)? })
    }

    fn say(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Tokio { theirs, .. } | Self::Smol { theirs, .. } => {
                rustix::io::write(theirs, &1_u64.to_ne_bytes())?;
            }
            Self::Librpc { sender, .. } => sender.send(&[7; 8])?,
        }
        Ok(())
    }

    async fn hear(&mut self) -> anyhow::Result<()> {
        let mut count = [0; 8];
        match self {
            Self::Tokio { ours, .. } => {
                // One read takes all there is, so no second one is needed to learn that.
                let mut ready = ours.readable().await?;
                ready.clear_ready();
                rustix::io::read(ours.get_ref(), &mut count)?;
            }
            Self::Smol { ours, .. } => {
                ours.readable().await?;
                rustix::io::read(ours.get_ref(), &mut count)?;
            }
            Self::Librpc { inbox, .. } => drop(inbox.recv_async().await?.context("nobody stops it")?),
        }
        Ok(())
    }
}

/// The other process: answers each message until it is killed.
pub(crate) fn answer(contender: Contender, domain: PathBuf, descriptors: &[i32]) -> anyhow::Result<()> {
    contender.run(async {
        let mut end = match *descriptors {
            [ours, theirs] => {
                // SAFETY: inherited, and open as long as this process runs.
                let [ours, theirs] = [ours, theirs].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
                End::of_descriptors(contender, ours.try_clone_to_owned()?, theirs.try_clone_to_owned()?)?
            }
            _ => End::of_node(contender, &domain, "there", "here")?,
        };
        loop {
            end.hear().await?;
            end.say()?;
        }
    })?
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ns for the way of one message, there or back.
fn measure(contender: Contender, round: usize) -> anyhow::Result<f64> {
    let path = domain(&format!("wake_{round}_{contender:?}"));
    let mut answer = Command::new(std::env::current_exe()?);
    let name = contender.to_possible_value().context("each has a name")?;
    answer.arg("answer").arg(name.get_name()).arg(&path);
    contender.run(async {
        let (mut end, _answering) = if contender.base() == contender {
            let make = || eventfd(0, EventfdFlags::NONBLOCK); // inherited
            let (ours, theirs) = (make()?, make()?);
            let numbers = [&theirs, &ours].map(|fd| fd.as_fd().as_raw_fd().to_string());
            let answering = Killed(answer.args(numbers).spawn()?);
            (End::of_descriptors(contender, ours, theirs)?, answering)
        } else {
            let answering = Killed(answer.spawn()?);
            (End::of_node(contender, &path, "here", "there")?, answering)
        };
        let mut begun = Instant::now();
        for trip in 0..WARM_UP + TRIPS {
            if trip == WARM_UP {
                begun = Instant::now();
            }
            end.say()?;
            end.hear().await?;
        }
        Ok(begun.elapsed().as_nanos() as f64 / f64::from(2 * TRIPS))
    })?
}

pub(crate) fn run(rounds: usize) -> anyhow::Result<Vec<Row>> {
    let contenders = Contender::value_variants();
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.push(measure(*contender, round)?);
        }
    }
    let at = |contender| contenders.iter().position(|other| *other == contender).expect("it is one");
    Ok(contenders
        .iter()
        .zip(&times)
        .map(|(contender, own)| {
            let ratios = own.iter().zip(&times[at(contender.base())]).map(|(own, base)| own / base).collect();
            let beside = match contender.base() == *contender {
                true => String::new(),
                false => format!("{:.2} × eventfd", median(ratios)),
            };
            [format!("waking a task: {contender:?}"), readable(median(own.clone())), beside]
        })
        .collect())
}
