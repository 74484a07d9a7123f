//! `librpc bench duplex`: both directions at once, between two processes that poll, each on one thread.
//!
//! A side sends what is due while there is room, and receives what is there. It ends when it has sent everything and its
//! peer has left: by then it has received all that the peer ever sent. The limit is what one thread copies.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use librpc::{Departure, Domain, Event, Wait};
use serde::{Deserialize, Serialize};

use super::content::{self, Tally};
use super::end::{self, To, Via};
use super::options::{Common, Way};
use super::part::{on_cpu, pin, ready};
use super::progress::Progress;
use super::{Bench, Part, limit, median_of, part, round_to};
use crate::children::Report;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::grouped;

/// So many messages in one direction, then a look at the other.
const IN_A_ROW: u64 = 64;
const FIRST_REPORT: Duration = Duration::from_secs(60);

/// Both directions at once, between two processes that poll
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench duplex --size 256 --pin 0,1                  # 1,000,000 messages/s offered by each side
  librpc bench duplex --size 256 --rate 0 --seconds 5 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    way: Way,
    /// Messages a second that each side offers; 0: as fast as it goes
    #[arg(long, value_name = "R", default_value_t = 1_000_000)]
    rate: u64,
}

/// What a side does.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Exchange {
    node: String,
    peer: String,
    via: Via,
    size: usize,
    rate: u64,
    /// Messages, where `seconds` is 0.
    count: u64,
    seconds: f64,
    cpu: Option<usize>,
}

impl Exchange {
    pub(super) fn words(&self) -> Vec<String> {
        let Self { node, peer, via, size, rate, count, seconds, cpu } = self;
        let words = [node.clone(), peer.clone(), via.name()].into_iter();
        let words = words.chain([size.to_string(), rate.to_string(), count.to_string(), seconds.to_string()]);
        words.chain(cpu.map(|cpu| cpu.to_string())).collect()
    }
}

/// What a side has done.
#[derive(Debug, Deserialize, Serialize)]
struct Exchanged {
    sent: u64,
    /// From its first send to its last.
    send_rate: f64,
    came: Tally,
}

#[derive(Serialize)]
struct Measured {
    size: usize,
    via: Via,
    rounds: usize,
    rate: u64,
    /// Both directions together, of all rounds.
    count: u64,
    /// What the slower side sent, the median over the rounds.
    side_msgs_per_s: f64,
    /// Both directions together, medians over the rounds.
    msgs_per_s: f64,
    bytes_per_s: f64,
    limit_bytes_per_s: f64,
    ratio: f64,
    lost: u64,
}

struct Round {
    sides: [Exchanged; 2],
    limit_msgs_per_s: f64,
}

impl Round {
    fn both(&self) -> f64 {
        self.sides.iter().map(|side| side.send_rate).sum()
    }

    fn slower(&self) -> f64 {
        self.sides.iter().map(|side| side.send_rate).fold(f64::INFINITY, f64::min)
    }

    fn lost(&self) -> u64 {
        let [a, b] = &self.sides;
        let lost = |from: &Exchanged, to: &Exchanged| to.came.spoilt + from.sent.abs_diff(to.came.received);
        lost(a, b) + lost(b, a)
    }
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let (common, via) = (&args.common, args.way.via);
    let domain = bench.domain("duplex");
    for size in common.sizes() {
        let shares = common.rounds()?;
        let progress = Progress::new(format!("duplex, {size} bytes"), shares.len());
        let mut rounds = Vec::new();
        for share in shares {
            let (count, seconds) = match share {
                super::options::Share::Count(count) => (count, 0.0),
                super::options::Share::Time(time) => (0, time.as_secs_f64()),
            };
            let side = |node: &str, peer: &str, cpu| {
                let (node, peer) = (node.to_owned(), peer.to_owned());
                Part::Exchange(Exchange { node, peer, via, size, rate: args.rate, count, seconds, cpu })
            };
            rounds.push(round(bench, common, &domain, &side)?);
            progress.step();
        }
        drop(progress);
        let of = |each: fn(&Round) -> f64| median_of(rounds.iter().map(each));
        let msgs_per_s = of(Round::both);
        let measured = Measured {
            size,
            via,
            rounds: rounds.len(),
            rate: args.rate,
            count: rounds.iter().flat_map(|round| &round.sides).map(|side| side.sent).sum(),
            side_msgs_per_s: of(Round::slower).round(),
            msgs_per_s: msgs_per_s.round(),
            bytes_per_s: (msgs_per_s * size as f64).round(),
            limit_bytes_per_s: (of(|round| round.limit_msgs_per_s) * size as f64).round(),
            ratio: round_to(of(|round| round.both() / round.limit_msgs_per_s), 4),
            lost: rounds.iter().map(Round::lost).sum(),
        };
        bench.count_lost(measured.lost);
        bench.print(common.json, "duplex", common.pin(), &measured, || {
            let [side, messages, bytes] =
                [measured.side_msgs_per_s, measured.msgs_per_s, measured.bytes_per_s].map(|rate| grouped(rate as u64));
            let (lost, ratio) = (measured.lost, measured.ratio);
            format!(
                "{size} bytes both ways: {side} messages/s from the slower side, {messages} messages/s and {bytes} \
                 bytes/s together, {lost} lost ({ratio} × what one thread copies)"
            )
        })?;
    }
    Ok(())
}

fn round(
    bench: &Bench,
    common: &Common,
    domain: &Domain,
    side: &dyn Fn(&str, &str, Option<usize>) -> Part,
) -> anyhow::Result<Round> {
    let (first, second) = common.cpus();
    let parts = [side("a", "b", first), side("b", "a", second)];
    let Part::Exchange(Exchange { size, .. }) = &parts[0] else { bail!("a side exchanges") };
    let limit_msgs_per_s = on_cpu(first, || Ok(limit::copies_per_second(*size)))?;
    // The sides wait for each other, and one may have reported before the other says that it is ready.
    let mut sides = bench.spawn(domain, &parts)?;
    let mut reports: [Option<Exchanged>; 2] = [None, None];
    let limit = FIRST_REPORT + Duration::from_secs_f64(common.seconds);
    while reports.iter().any(Option::is_none) {
        match sides.next(limit) {
            Some((_, Report::Line(line))) if line == part::READY => {}
            Some((from, Report::Line(line))) => {
                reports[from] = Some(serde_json::from_str(&line).context("a side reports what is no report")?);
            }
            Some((from, Report::Ended(_))) if reports[from].is_some() => {}
            Some((_, Report::Ended(status))) => bail!("a side has ended: {status}"),
            None => bail!("a side says nothing"),
        }
    }
    let sides = reports.map(|report| report.expect("both are there"));
    Ok(Round { sides, limit_msgs_per_s })
}

/// One side.
pub(super) fn side(domain: &DomainArgs, exchange: &Exchange, interrupt: &Interrupt) -> anyhow::Result<()> {
    let Exchange { node, peer, via, size, rate, count, seconds, cpu } = exchange;
    let node = domain.open(node)?;
    let mut inbox = end::inbox(&node, *via, Wait::Spin, librpc::DEFAULT_CAPACITY, interrupt)?;
    let mut to = Some(To::open(&node, peer, *via, interrupt)?);
    pin(*cpu)?;
    ready()?;
    let (time, mut message) = (Duration::from_secs_f64(*seconds), vec![0; *size]);
    let is_over = |elapsed: Duration, sent| if time.is_zero() { sent >= *count } else { elapsed >= time };
    let (mut sent, mut came, mut peer_left) = (0, Tally::default(), false);
    let (begun, mut send_rate) = (Instant::now(), 0.0);
    while to.is_some() || !peer_left {
        anyhow::ensure!(interrupt.signal().is_none(), "interrupted");
        if let Some(open) = &mut to {
            let elapsed = begun.elapsed();
            if is_over(elapsed, sent) {
                send_rate = sent as f64 / elapsed.as_secs_f64();
                to = None; // the peer still gets what was sent
            } else {
                let by_now = if *rate == 0 { u64::MAX } else { (elapsed.as_secs_f64() * *rate as f64) as u64 };
                let due = by_now.saturating_sub(sent).min(IN_A_ROW);
                let due = if time.is_zero() { due.min(count - sent) } else { due };
                for _ in 0..due {
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
    part::tell(&Exchanged { sent, send_rate, came })
}
