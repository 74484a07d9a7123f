//! Measured times and their percentiles. No time is cut off: a histogram that is too small would record everything above its
//! end as its end.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::latency::Latency;

/// Three significant digits.
const DIGITS: u8 = 3;
/// Half an hour, longer than any measurement.
const LONGEST_NS: u64 = 1_800_000_000_000;
/// Lines of a percentile file per halving of the distance to 100 %.
const TICKS: u32 = 5;

pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("these bounds are valid"))
    }

    #[inline]
    pub(super) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub(super) fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn median(&self) -> u64 {
        self.0.value_at_quantile(0.5)
    }

    pub(super) fn latency(&self) -> Latency {
        Latency::of(&self.0)
    }

    /// Writes the percentiles in the text form of HdrHistogram, values in ns, for its plotter and others.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        self.print(&mut file).and_then(|()| file.flush()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn print(&self, to: &mut impl Write) -> std::io::Result<()> {
        let histogram = &self.0;
        writeln!(to, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
        let mut count = 0;
        for step in histogram.iter_quantiles(TICKS) {
            let (value, part) = (step.value_iterated_to(), step.quantile_iterated_to());
            count += step.count_since_last_iteration();
            write!(to, "{:>12.3} {part:>14.12} {count:>10}", value as f64)?;
            match 1.0 - part {
                0.0 => writeln!(to)?,
                rest => writeln!(to, " {:>14.2}", 1.0 / rest)?,
            }
        }
        let (mean, deviation) = (histogram.mean(), histogram.stdev());
        writeln!(to, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
        writeln!(to, "#[Max     = {:>12.3}, Total count    = {:>12}]", histogram.max() as f64, histogram.len())?;
        let buckets = (u64::BITS - LONGEST_NS.leading_zeros()).saturating_sub(10);
        writeln!(to, "#[Buckets = {buckets:>12}, SubBuckets     = {:>12}]", 2048)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_times_are_not_cut_off() {
        let mut times = Times::new();
        (0..999).for_each(|_| times.record(100));
        times.record(5_000_000_000);
        let Latency { p50_ns, p999_ns, max_ns, .. } = times.latency();
        assert_eq!((p50_ns, p999_ns), (100, 100));
        assert!((5_000_000_000..5_010_000_000).contains(&max_ns), "{max_ns}");
    }

    #[test]
    fn the_percentile_file_ends_at_the_longest_time() {
        let mut times = Times::new();
        (1..=1000).for_each(|ns| times.record(ns));
        let mut text = Vec::new();
        times.print(&mut text).expect("memory can be written");
        let text = String::from_utf8(text).expect("it is text");
        assert!(text.contains("     500.000 0.500000000000        500           2.00"), "{text}");
        assert!(text.contains("    1000.000 1.000000000000       1000\n"), "{text}");
    }
}
