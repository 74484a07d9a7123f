//! One side of `librpc bench duplex`: a process that sends and receives on one thread.
//!
//! It sends what is due while there is room, and receives what is there. It ends when it has sent everything and its peer
//! has left: by then it has received all that the peer ever sent.

use std::time::{Duration, Instant};

use anyhow::bail;
use librpc::{Departure, Event, Wait};
use serde::{Deserialize, Serialize};

use super::child::{self, pin, ready};
use super::content::{self, Tally};
use super::end::{self, To, Via};
use super::options::Share;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;

/// How many messages go in one direction before the other one is looked at.
const IN_A_ROW: u64 = 64;

/// What a side does.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Exchange {
    pub(super) node: String,
    pub(super) peer: String,
    pub(super) via: Via,
    pub(super) size: usize,
    /// Messages per second; 0: as fast as possible.
    pub(super) rate: u64,
    pub(super) share: Share,
    pub(super) cpu: Option<usize>,
}

/// What a side has done.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Exchanged {
    pub(super) sent: u64,
    /// From its first send to its last.
    pub(super) send_rate: f64,
    pub(super) came: Tally,
}

pub(super) fn side(domain: &DomainArgs, exchange: &Exchange, interrupt: &Interrupt) -> anyhow::Result<()> {
    let Exchange { node, peer, via, size, rate, share, cpu } = exchange;
    let node = domain.open(node)?;
    let mut inbox = end::inbox(&node, *via, Wait::Spin, librpc::DEFAULT_CAPACITY, interrupt)?;
    let mut to = Some(To::open(&node, peer, *via, interrupt)?);
    pin(*cpu)?;
    ready()?;
    let mut message = vec![0; *size];
    let (mut sent, mut came, mut peer_left) = (0, Tally::default(), false);
    let (begun, mut send_rate) = (Instant::now(), 0.0);
    while to.is_some() || !peer_left {
        anyhow::ensure!(interrupt.signal().is_none(), "interrupted");
        if let Some(open) = &mut to {
            let elapsed = begun.elapsed();
            if share.is_used_up(elapsed, sent) {
                send_rate = sent as f64 / elapsed.as_secs_f64();
                to = None; // the peer still gets what was sent
            } else {
                for _ in 0..due(*rate, *share, elapsed, sent) {
                    content::write(&mut message, sent);
                    if !open.try_send(&message)? {
                        break;
                    }
                    sent += 1;
                }
            }
        }
        for _ in 0..IN_A_ROW {
            match inbox.try_recv_event()? {
                None => break,
                Some(Event::Message(message)) => came.take(message.payload()),
                Some(Event::SenderLeft(_, Departure::Closed)) => peer_left = true,
                Some(Event::SenderLeft(peer, departure)) => bail!("{} has left: {departure:?}", peer.node),
                Some(_) => {}
            }
        }
    }
    child::report(&Exchanged { sent, send_rate, came })
}

/// How many messages to send now.
fn due(rate: u64, share: Share, elapsed: Duration, sent: u64) -> u64 {
    let by_now = if rate == 0 { u64::MAX } else { (elapsed.as_secs_f64() * rate as f64) as u64 };
    let left = match share {
        Share::Count(count) => count - sent,
        Share::Time(_) => IN_A_ROW,
    };
    by_now.saturating_sub(sent).min(IN_A_ROW).min(left)
}
