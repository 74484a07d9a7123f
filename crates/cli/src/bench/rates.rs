//! The result of a measurement of messages per second, beside its limit.

use serde::Serialize;

use super::{median_of, round_to};

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Rates {
    /// Medians over the rounds.
    pub(super) msgs_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) limit_bytes_per_s: f64,
    /// The median over the rounds of the rate to the limit of the same round.
    pub(super) ratio: f64,
}

impl Rates {
    /// Of messages of this size: the rate and the limit of each round, in messages per second.
    pub(super) fn of(size: usize, rounds: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let msgs_per_s = median_of(rounds.clone().map(|(rate, _)| rate));
        let limit = median_of(rounds.clone().map(|(_, limit)| limit));
        Self {
            msgs_per_s: msgs_per_s.round(),
            bytes_per_s: (msgs_per_s * size as f64).round(),
            limit_bytes_per_s: (limit * size as f64).round(),
            ratio: round_to(median_of(rounds.map(|(rate, limit)| rate / limit)), 4),
        }
    }
}
