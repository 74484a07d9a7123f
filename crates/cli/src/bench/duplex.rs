//! `librpc bench duplex`: both directions at once, between two processes that poll, each on one thread.
//!
//! The limit is what one thread copies.

use std::time::Duration;

use anyhow::{Context, bail};
use librpc::Domain;
use serde::Serialize;

use super::child::{READY, on_cpu};
use super::end::Via;
use super::exchange::{Exchange, Exchanged};
use super::options::{Common, Rounds, SIZES, Share, Way};
use super::rates::Rates;
use super::{Bench, PATIENCE, Part, limit, median_of};
use crate::children::Report;
use crate::latency::grouped;

/// Both directions at once, between two processes that poll
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench duplex --size 256 --pin 0,1                  # each side offers 1,000,000 messages/s
  librpc bench duplex --size 256 --rate 0 --seconds 5 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    way: Way,
    /// Messages per second that each side offers; 0: as fast as possible
    #[arg(long, value_name = "R", default_value_t = 1_000_000)]
    rate: u64,
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
    /// Both directions together.
    #[serde(flatten)]
    rates: Rates,
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
    for size in common.sizes(SIZES)? {
        let rounds = args.rounds.each(common, format!("duplex, {size} bytes"), |share| {
            let limit_msgs_per_s = on_cpu(common.cpus().0, || Ok(limit::copies_per_second(size)))?;
            let sides = round(bench, common, &domain, (via, size, args.rate, share))?;
            Ok(Round { sides, limit_msgs_per_s })
        })?;
        let measured = Measured {
            size,
            via,
            rounds: rounds.len(),
            rate: args.rate,
            count: rounds.iter().flat_map(|round| &round.sides).map(|side| side.sent).sum(),
            side_msgs_per_s: median_of(rounds.iter().map(Round::slower)).round(),
            rates: Rates::of(size, rounds.iter().map(|round| (round.both(), round.limit_msgs_per_s))),
            lost: rounds.iter().map(Round::lost).sum(),
        };
        bench.count_lost(measured.lost);
        bench.print(common.json, "duplex", common.pin(), &measured, || {
            let Rates { msgs_per_s, bytes_per_s, ratio, .. } = measured.rates;
            let [side, messages, bytes] =
                [measured.side_msgs_per_s, msgs_per_s, bytes_per_s].map(|rate| grouped(rate as u64));
            let lost = measured.lost;
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
    (via, size, rate, share): (Via, usize, u64, Share),
) -> anyhow::Result<[Exchanged; 2]> {
    let side = |node: &str, peer: &str, cpu| {
        let (node, peer) = (node.to_owned(), peer.to_owned());
        Part::Exchange(Exchange { node, peer, via, size, rate, share, cpu })
    };
    let (first, second) = common.cpus();
    // The sides wait for each other, and one may report before the other one says that it is ready.
    let mut sides = bench.spawn(domain, &[side("a", "b", first), side("b", "a", second)])?;
    let mut reports: [Option<Exchanged>; 2] = [None, None];
    let patience = match share {
        Share::Time(time) => PATIENCE.saturating_add(time),
        Share::Count(_) => Duration::MAX,
    };
    while reports.iter().any(Option::is_none) {
        match sides.next(patience) {
            Some((_, Report::Line(line))) if line == READY => {}
            Some((from, Report::Line(line))) => {
                reports[from] = Some(serde_json::from_str(&line).context("a side's report is not valid")?);
            }
            Some((from, Report::Ended(_))) if reports[from].is_some() => {}
            Some((_, Report::Ended(status))) => bail!("a side has ended: {status}"),
            None => bail!("a side does not report"),
        }
    }
    Ok(reports.map(|report| report.expect("both are there")))
}
