//! How long messages took from their commit until they were processed: a histogram in the ack memory. The receiver fills it
//! from the timestamps that some messages carry.
//!
//! Buckets as in HDR histograms: 16 for each doubling, so a bucket is at most a sixteenth as wide as the times in it are long.
//! The first 16 are 8 ns wide each; the last one begins at 33 s and counts everything longer. Sum and maximum are exact.
//! A receiver that dies between two of these words loses one sample.

use std::ops::AddAssign;
use std::sync::atomic::Ordering;

use crate::consumer::Consumer;
use crate::layout::ack;
use crate::memory::{Memory, MemoryMut};

/// The low bits of a time in ns that no bucket distinguishes.
const UNIT_BITS: u32 = 3;
/// The bits that the buckets of one doubling distinguish.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;

/// The bucket that counts this time.
const fn bucket(ns: u64) -> usize {
    let units = ns >> UNIT_BITS;
    if units < SUB as u64 {
        return units as usize;
    }
    let doublings = units.ilog2() - SUB_BITS;
    let index = doublings as usize * SUB + (units >> doublings) as usize;
    if index < ack::BUCKETS { index } else { ack::BUCKETS - 1 }
}

/// The shortest time that a bucket counts, in ns.
const fn lower(bucket: usize) -> u64 {
    if bucket < SUB {
        return (bucket as u64) << UNIT_BITS;
    }
    let doublings = bucket / SUB - 1;
    ((bucket % SUB + SUB) as u64) << doublings << UNIT_BITS
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// Counts a message that was processed this many ns after it was committed.
    pub fn note_latency(&mut self, ns: u64) {
        // Relaxed, all of them: nothing depends on these words, and only this side writes them.
        let ack = &self.ack;
        let put = |word, value| ack.store(word, value, Ordering::Relaxed);
        let get = |word| ack.load(word, Ordering::Relaxed);
        put(ack::LATENCY_SUM, get(ack::LATENCY_SUM).saturating_add(ns));
        if ns > get(ack::LATENCY_MAX) {
            put(ack::LATENCY_MAX, ns);
        }
        let word = ack::HISTOGRAM + bucket(ns);
        put(word, get(word).saturating_add(1));
    }
}

/// Counted latencies of one or several rings: from a message's commit until it was processed.
///
/// ```
/// # use librpc_ring::Histogram;
/// let mut latencies = Histogram::default();
/// for ns in [1_000, 1_010, 90_000] {
///     latencies.record(ns);
/// }
/// assert_eq!((latencies.count(), latencies.sum_ns(), latencies.max_ns()), (3, 92_010, 90_000));
/// assert_eq!(latencies.quantile(0.5), Some(1_023)); // the end of its bucket, at most a sixteenth too much
/// assert_eq!(latencies.quantile(1.0), Some(90_000));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Empty, or one for each bucket.
    counts: Vec<u64>,
    sum_ns: u64,
    max_ns: u64,
}

/// How many times there were from `from_ns` on and below `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// The shortest time that it counts, in ns.
    pub from_ns: u64,
    /// The shortest time that the next bucket counts, in ns; `None` if this is the last one.
    pub to_ns: Option<u64>,
    /// How many there were.
    pub count: u64,
}

impl Histogram {
    /// Reads the histogram in the ack memory, in any process and thread. If a peer wrote it, any value is possible.
    pub fn read(ack: &impl Memory) -> Self {
        // Relaxed: as in Consumer::note_latency.
        let get = |word| ack.load(word, Ordering::Relaxed);
        let counts: Vec<u64> = (0..ack::BUCKETS).map(|bucket| get(ack::HISTOGRAM + bucket)).collect();
        if counts.iter().all(|&count| count == 0) {
            return Self::default();
        }
        Self { counts, sum_ns: get(ack::LATENCY_SUM), max_ns: get(ack::LATENCY_MAX) }
    }

    /// Builds a histogram from what [`Histogram::parts`] returned. Numbers of buckets that do not exist are skipped.
    pub fn from_parts(counts: impl IntoIterator<Item = (u32, u64)>, sum_ns: u64, max_ns: u64) -> Self {
        let mut histogram = Self { counts: Vec::new(), sum_ns, max_ns };
        for (bucket, count) in counts {
            if (bucket as usize) < ack::BUCKETS {
                *histogram.slot(bucket as usize) = count;
            }
        }
        histogram
    }

    /// The numbers of the buckets that are not empty, and their counts.
    pub fn parts(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0..).zip(&self.counts).filter(|&(_, &count)| count > 0).map(|(bucket, &count)| (bucket, count))
    }

    /// Counts a time in ns.
    pub fn record(&mut self, ns: u64) {
        let slot = self.slot(bucket(ns));
        *slot = slot.saturating_add(1);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    fn slot(&mut self, bucket: usize) -> &mut u64 {
        if self.counts.is_empty() {
            self.counts.resize(ack::BUCKETS, 0);
        }
        &mut self.counts[bucket]
    }

    /// How many messages were counted. They are a sample: not every message carries a timestamp.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Whether no message was counted.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The sum of their latencies in ns.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The longest latency in ns, exactly; 0 if there is none.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The latency in ns that this part of the messages (0 to 1) did not exceed. It is the end of a bucket: at most a
    /// sixteenth (or 8 ns) too much, and never more than the maximum. `None` if no message was counted.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * part).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0u64;
        self.buckets().find_map(|bucket| {
            seen = seen.saturating_add(bucket.count);
            (seen >= rank).then(|| bucket.to_ns.map_or(self.max_ns, |end| (end - 1).min(self.max_ns)))
        })
    }

    /// The buckets that are not empty, the shortest times first.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.parts().map(|(bucket, count)| {
            let bucket = bucket as usize;
            let to_ns = (bucket + 1 < ack::BUCKETS).then(|| lower(bucket + 1));
            Bucket { from_ns: lower(bucket), to_ns, count }
        })
    }

    /// How many took less than this many ns. Exact if a bucket ends there; otherwise the bucket that contains it is left out.
    pub fn count_below(&self, ns: u64) -> u64 {
        let whole = self.counts.iter().take(if ns == u64::MAX { ack::BUCKETS } else { bucket(ns) });
        whole.fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// What was counted since an earlier reading of the same ring. Its maximum is the end of the last bucket that is
    /// not empty.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bucket: usize| earlier.counts.get(bucket).copied().unwrap_or(0);
        let counts: Vec<u64> =
            self.counts.iter().enumerate().map(|(bucket, &count)| count.saturating_sub(before(bucket))).collect();
        let last = counts.iter().rposition(|&count| count > 0);
        let end = last.map_or(0, |last| if last + 1 < ack::BUCKETS { lower(last + 1) - 1 } else { u64::MAX });
        Self { counts, sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns), max_ns: end.min(self.max_ns) }
    }
}

impl AddAssign<&Histogram> for Histogram {
    fn add_assign(&mut self, other: &Histogram) {
        for (bucket, count) in other.parts() {
            let slot = self.slot(bucket as usize);
            *slot = slot.saturating_add(count);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}

const _: () = {
    assert!(bucket(0) == 0 && bucket(u64::MAX) == ack::BUCKETS - 1);
    let mut at = 0;
    while at < ack::BUCKETS {
        assert!(bucket(lower(at)) == at, "a bucket begins where it says");
        assert!(at == 0 || bucket(lower(at) - 1) == at - 1, "and the previous one ends there");
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bucket_is_wider_than_a_sixteenth() {
        for at in 0..ack::BUCKETS - 1 {
            let (from, to) = (lower(at), lower(at + 1));
            assert!(to - from <= (from / 16).max(8), "{from} to {to}");
        }
        assert_eq!(lower(ack::BUCKETS - 1), 33_285_996_544);
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list_within_a_bucket() {
        let mut times: Vec<u64> = (1..2000u64).map(|n| n * n * 37 % 900_000 + n).collect();
        let mut histogram = Histogram::default();
        times.iter().for_each(|&ns| histogram.record(ns));
        times.sort_unstable();
        for part in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len());
            let (exact, found) = (times[rank - 1], histogram.quantile(part).expect("not empty"));
            assert!(found >= exact && found <= exact + (exact / 16).max(8), "{part}: {found} for {exact}");
        }
        assert_eq!(histogram.quantile(1.0), times.last().copied());
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn a_histogram_is_rebuilt_from_its_parts_and_a_difference_is_the_rest() {
        let mut early = Histogram::default();
        [5, 500, 50_000].into_iter().for_each(|ns| early.record(ns));
        let mut late = early.clone();
        [70, 80_000, u64::MAX].into_iter().for_each(|ns| late.record(ns));
        assert_eq!(Histogram::from_parts(late.parts(), late.sum_ns(), late.max_ns()), late);
        let rest = late.since(&early);
        assert_eq!((rest.count(), rest.quantile(0.1)), (3, Some(71)));
        let mut sum = early.clone();
        sum += &rest;
        assert_eq!(sum.parts().collect::<Vec<_>>(), late.parts().collect::<Vec<_>>());
        assert_eq!(Histogram::from_parts([(u32::MAX, 1)], 0, 0).count(), 0, "no such bucket");
    }
}
