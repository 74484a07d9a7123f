//! Rounds, in which the contenders take turns, and their results: medians, and ratios within a round.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contender::{Measure, Name, Side, spelt};
use crate::measure::{self, Task, Told};
use crate::place::Place;
use crate::process::{Interrupt, Process};

/// How long a measurement may take beyond its time.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after the end of the sender the last message may arrive.
const GRACE: Duration = Duration::from_secs(3);

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) names: Vec<Name>,
    pub(crate) sizes: Vec<usize>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) cpus: Option<(usize, usize)>,
}

/// The result of one measurement of a round.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) of: Of,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    pub(crate) faults: Faults,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) struct Of {
    pub(crate) measure: Measure,
    pub(crate) bytes: usize,
    pub(crate) name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    Time { p50_ns: f64, p99_ns: f64, p999_ns: f64 },
    Rate { messages_per_s: f64 },
}

impl Figures {
    /// The figure that ratios compare: the median time, or the rate.
    pub(crate) fn main(&self) -> f64 {
        match self {
            Self::Time { p50_ns, .. } => *p50_ns,
            Self::Rate { messages_per_s } => *messages_per_s,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) corrupt: u64,
    pub(crate) disordered: u64,
}

impl Faults {
    pub(crate) fn none(self) -> bool {
        self == Self::default()
    }

    fn between(sent: &Told, received: &Told) -> Self {
        let Told { tally, .. } = received;
        let arrived = tally.received + tally.corrupt + tally.disordered;
        let lost = sent.sent.saturating_sub(arrived);
        Self { lost, corrupt: tally.corrupt, disordered: tally.disordered }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.corrupt += other.corrupt;
        self.disordered += other.disordered;
    }
}

/// Runs all rounds. Shows each sample as it comes, and each failure, which does not end the run.
pub(crate) fn run(
    plan: &Plan,
    interrupt: &Interrupt,
    mut show: impl FnMut(Of, &anyhow::Result<Sample>),
) -> anyhow::Result<Vec<Sample>> {
    let place = Place::make()?;
    let (mut samples, mut number) = (Vec::new(), 0);
    for round in 0..plan.rounds {
        for (measure, bytes) in plan.matters() {
            let mut names: Vec<_> = plan.names.iter().copied().filter(|name| name.takes_part(measure, bytes)).collect();
            let turn = round % names.len().max(1);
            names.rotate_left(turn); // so no contender always follows the same one
            for name in names {
                let of = Of { measure, bytes, name };
                number += 1;
                let sample = run_one(plan, round, of, &place, number, interrupt);
                place.forget(number);
                show(of, &sample);
                anyhow::ensure!(!interrupt.load(std::sync::atomic::Ordering::Relaxed), "interrupted");
                samples.extend(sample.ok());
            }
        }
    }
    Ok(samples)
}

impl Plan {
    /// Each measure with each size. Waking does not depend on the size, so it is measured with the first one.
    fn matters(&self) -> Vec<(Measure, usize)> {
        let sizes = |measure| if measure == Measure::Wake { &self.sizes[..1] } else { &self.sizes[..] };
        let all = self.measures.iter().flat_map(|measure| sizes(*measure).iter().map(|bytes| (*measure, *bytes)));
        all.filter(|(measure, bytes)| measure.has(*bytes)).collect()
    }
}

fn run_one(
    plan: &Plan,
    round: usize,
    of: Of,
    place: &Place,
    number: usize,
    interrupt: &Interrupt,
) -> anyhow::Result<Sample> {
    let place = place.inner(number)?;
    let Of { measure, bytes, name } = of;
    let start = |side| {
        let cpu = plan.cpus.map(|(a, b)| if side == Side::A { a } else { b });
        let task = Task { name, side, measure, bytes, seconds: plan.seconds, place: place.clone(), cpu };
        Process::start(&task.arguments(), format!("{}, side {side:?}", name.title()))
    };
    let limit = Duration::from_secs_f64(plan.seconds) + PATIENCE;
    let told = |process: &mut Process, limit| -> anyhow::Result<Told> {
        Ok(serde_json::from_str(&process.line(limit, interrupt)?)?)
    };
    if name == Name::Memcpy {
        let mut alone = start(Side::A)?;
        alone.expect(measure::READY, PATIENCE, interrupt)?;
        let Told { messages_per_s, .. } = told(&mut alone, limit)?;
        return Ok(Sample { round, of, figures: Figures::Rate { messages_per_s }, faults: Faults::default() });
    }

    let mut helper = None;
    if name == Name::Aeron {
        let folder = place.display().to_string();
        let arguments = ["helper", "--name", &spelt(&name), "--measure", &spelt(&measure), "--place", &folder];
        let arguments = arguments.map(str::to_owned);
        let mut driver = Process::start(&arguments, format!("the driver of {}", name.title()))?;
        driver.expect(measure::READY, PATIENCE, interrupt)?;
        helper = Some(driver);
    }
    let (mut b, mut a) = (start(Side::B)?, start(Side::A)?);
    a.expect(measure::READY, PATIENCE, interrupt)?;
    b.expect(measure::READY, PATIENCE, interrupt)?;
    a.go()?;
    let asked = told(&mut a, limit)?;
    let answered = match told(&mut b, GRACE) {
        Ok(answered) => answered,
        Err(_) => {
            b.over(); // the last message is lost: count what arrived
            told(&mut b, PATIENCE)?
        }
    };
    let mut faults = Faults::between(&asked, &answered);
    let figures = match measure {
        Measure::Latency | Measure::Call | Measure::SleepingCall => {
            faults.add(Faults::between(&answered, &asked));
            let [p50_ns, p99_ns, p999_ns] = [asked.p50_ns, asked.p99_ns, asked.p999_ns].map(|ns| ns as f64);
            Figures::Time { p50_ns, p99_ns, p999_ns }
        }
        Measure::Throughput => Figures::Rate { messages_per_s: answered.messages_per_s },
        Measure::Wake | Measure::InPlace => {
            if measure == Measure::InPlace {
                faults.add(Faults::between(&answered, &asked));
            }
            let times = measure::one_way(&asked, &answered)?;
            let [p50_ns, p99_ns, p999_ns] = [0.5, 0.99, 0.999].map(|part| times.value_at_quantile(part) as f64);
            Figures::Time { p50_ns, p99_ns, p999_ns }
        }
    };
    b.leave(GRACE);
    a.leave(GRACE);
    if let Some(helper) = helper {
        helper.leave(GRACE);
    }
    Ok(Sample { round, of, figures, faults })
}

/// The results of all rounds of a measurement.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Summary {
    #[serde(flatten)]
    pub(crate) of: Of,
    pub(crate) rounds: usize,
    /// The median of each figure, taken separately.
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// The lowest and the highest median time, or rate, of a round.
    pub(crate) range: (f64, f64),
    /// The median of the ratios to librpc in the same round.
    pub(crate) ratio: Option<f64>,
    /// The sum over all rounds.
    pub(crate) faults: Faults,
}

pub(crate) fn summaries(samples: &[Sample]) -> Vec<Summary> {
    let mut all: BTreeMap<Of, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        all.entry(sample.of).or_default().push(sample);
    }
    let summary = |(of, samples): (&Of, &Vec<&Sample>)| {
        let ours = all.get(&Of { name: Name::Librpc, ..*of });
        let ratio = |sample: &&Sample| {
            let ours = ours?.iter().find(|ours| ours.round == sample.round)?;
            Some(sample.figures.main() / ours.figures.main())
        };
        let ratios: Vec<f64> = samples.iter().filter_map(ratio).filter(|ratio| ratio.is_finite()).collect();
        let mains = samples.iter().map(|sample| sample.figures.main());
        let mut faults = Faults::default();
        samples.iter().for_each(|sample| faults.add(sample.faults));
        Summary {
            of: *of,
            rounds: samples.len(),
            figures: medians(samples),
            range: (mains.clone().fold(f64::INFINITY, f64::min), mains.fold(0.0, f64::max)),
            ratio: (!ratios.is_empty()).then(|| median(ratios)),
            faults,
        }
    };
    all.iter().map(summary).collect()
}

fn medians(samples: &[&Sample]) -> Figures {
    let median_of = |part: fn(&Figures) -> f64| median(samples.iter().map(|sample| part(&sample.figures)).collect());
    match samples[0].figures {
        Figures::Rate { .. } => Figures::Rate { messages_per_s: median_of(Figures::main) },
        Figures::Time { .. } => {
            let [p99_ns, p999_ns]: [fn(&Figures) -> f64; 2] = [
                |figures| if let Figures::Time { p99_ns, .. } = figures { *p99_ns } else { 0.0 },
                |figures| if let Figures::Time { p999_ns, .. } = figures { *p999_ns } else { 0.0 },
            ];
            let [p50_ns, p99_ns, p999_ns] = [Figures::main, p99_ns, p999_ns].map(median_of);
            Figures::Time { p50_ns, p99_ns, p999_ns }
        }
    }
}

/// The value in the middle, or halfway between the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: usize, name: Name, messages_per_s: f64) -> Sample {
        let of = Of { measure: Measure::Throughput, bytes: 64, name };
        Sample { round, of, figures: Figures::Rate { messages_per_s }, faults: Faults { lost: 1, ..Faults::default() } }
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        // The machine becomes three times as fast, so the ratio of the medians would be different.
        let ours = [10.0, 30.0, 30.0].into_iter().enumerate().map(|(round, rate)| sample(round, Name::Librpc, rate));
        let theirs = [5.0, 5.0, 15.0].into_iter().enumerate().map(|(round, rate)| sample(round, Name::Pipe, rate));
        let summaries = summaries(&ours.chain(theirs).collect::<Vec<_>>());
        let [ours, theirs] = &summaries[..] else { panic!("two of them") };
        assert_eq!((ours.figures.main(), ours.ratio), (30.0, Some(1.0)));
        assert_eq!((theirs.figures.main(), theirs.ratio, theirs.range), (5.0, Some(0.5), (5.0, 15.0)));
        assert_eq!(theirs.faults.lost, 3);
    }
}
