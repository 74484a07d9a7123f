//! The accounts: what was sent, what arrived, what was told lost. Pure: it judges histories, whoever wrote them.
//!
//! A *stream* is what one sender process sends, numbered from 0. Its sender notes *segments*: a segment ends when the
//! sender is told of a loss. Its receivers note *runs* of consecutive numbers, in the order of their arrival; anything that
//! is lost, doubled or out of order begins another run. The equation, for each segment whose sender was told:
//!
//! `sent − told ≤ processed ≤ sent − told + in work`
//!
//! What is in work when a receiver is killed is both processed and told: at most one message, or one batch.

use std::fmt;

/// What a sender notes. Numbers; the ends are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    /// The sends before this number have returned `Ok`.
    pub(crate) sent: u64,
    /// No send of this number or a later one was begun.
    pub(crate) begun: u64,
    /// How many the library has told lost; `None`: nothing was told.
    pub(crate) told: Option<u64>,
    /// The receiver has not answered yet, as far as the sender knows: what is committed dies with the sender.
    pub(crate) pending: bool,
}

/// Consecutive numbers that one receiver has processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The incarnation: later ones have higher numbers.
    pub(crate) receiver: u64,
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// Whether the receiver was told that it may be a second time.
    pub(crate) redelivered: bool,
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A sender flushed, a receiver drained.
    Finished,
    Killed,
}

/// What holds for a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The sender was opened with redelivery: the next incarnation gets what the dead one had not processed.
    pub(crate) redelivery: bool,
    /// How many messages a receiver processes before it acknowledges them.
    pub(crate) in_work: u64,
}

/// One stream's history.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) segments: Vec<Segment>,
    pub(crate) runs: Vec<Run>,
    pub(crate) sender: End,
    /// The last receiver.
    pub(crate) receiver: End,
}

/// What a sound history adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) processed: u64,
    pub(crate) told: u64,
    pub(crate) doubled: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.processed += other.processed;
        self.told += other.told;
        self.doubled += other.doubled;
    }
}

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Committed, not processed, and nobody was told.
    Lost { from: u64, to: u64 },
    /// Processed a second time, more often than a death explains, or without a word.
    Doubled { from: u64, to: u64 },
    /// Processed, but never sent.
    Invented { number: u64 },
    /// Told lost, although processed.
    ToldTooMuch { told: u64, lost: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { from, to } => write!(f, "LOST: {from} to {to} were committed, and nobody was told"),
            Self::Doubled { from, to } => write!(f, "DOUBLED or out of order: {from} to {to}"),
            Self::Invented { number } => write!(f, "INVENTED: {number} was never sent"),
            Self::ToldTooMuch { told, lost } => write!(f, "TOLD {told} lost, but at most {lost} were"),
        }
    }
}

impl std::error::Error for Violation {}

impl Stream {
    /// Settles the accounts.
    pub(crate) fn check(&self, rules: Rules) -> Result<Totals, Violation> {
        if rules.redelivery { self.check_redelivered(rules.in_work) } else { self.check_told(rules.in_work) }
    }

    /// Without redelivery: each segment arrives from its first number on, and what did not was told.
    fn check_told(&self, in_work: u64) -> Result<Totals, Violation> {
        let mut totals = Totals::default();
        let mut runs = self.runs.iter().peekable();
        for (index, segment) in self.segments.iter().enumerate() {
            let mut next = segment.first;
            while let Some(run) = runs.next_if(|run| run.first < segment.begun) {
                if run.first < next {
                    return Err(Violation::Doubled { from: run.first, to: next.min(run.end) });
                }
                if run.first > next {
                    return Err(Violation::Lost { from: next, to: run.first });
                }
                next = run.end;
            }
            if next > segment.begun {
                return Err(Violation::Invented { number: segment.begun });
            }
            let is_last = index + 1 == self.segments.len();
            match segment.told {
                Some(told) => {
                    let sent = segment.sent - segment.first;
                    let Some(acknowledged) = sent.checked_sub(told) else {
                        return Err(Violation::ToldTooMuch { told, lost: sent });
                    };
                    let processed = next - segment.first;
                    if processed < acknowledged {
                        return Err(Violation::Lost { from: next, to: segment.first + acknowledged });
                    }
                    if processed > acknowledged + in_work {
                        return Err(Violation::ToldTooMuch { told, lost: sent - processed + in_work });
                    }
                    totals.told += told;
                    totals.doubled += processed - acknowledged;
                }
                None if is_last && self.sender == End::Killed && (self.receiver == End::Killed || segment.pending) => {}
                None if next < segment.sent => return Err(Violation::Lost { from: next, to: segment.sent }),
                None => {}
            }
            totals.processed += next - segment.first;
        }
        match runs.next() {
            Some(run) => Err(Violation::Invented { number: run.first }),
            None => Ok(totals),
        }
    }

    /// With redelivery: the runs cover the stream, and a new incarnation may begin with what was in work, and says so.
    fn check_redelivered(&self, in_work: u64) -> Result<Totals, Violation> {
        let mut totals = Totals::default();
        let (mut next, mut receiver) = (0, None);
        let (mut again, mut allowed) = (0, 0);
        for run in &self.runs {
            if receiver != Some(run.receiver) {
                // The death of this incarnation's predecessor explains so many.
                (again, allowed) = (0, if receiver.is_some() { in_work } else { 0 });
                receiver = Some(run.receiver);
            }
            if run.first > next {
                return Err(Violation::Lost { from: next, to: run.first });
            }
            let doubled = next.min(run.end) - run.first;
            again += doubled;
            if again > allowed || doubled > 0 && !run.redelivered {
                return Err(Violation::Doubled { from: run.first, to: run.first + doubled });
            }
            totals.doubled += doubled;
            next = next.max(run.end);
        }
        let (sent, begun) = self.segments.last().map_or((0, 0), |last| (last.sent, last.begun));
        if next > begun {
            return Err(Violation::Invented { number: begun });
        }
        let told: u64 = self.segments.iter().filter_map(|segment| segment.told).sum();
        if told > 0 {
            return Err(Violation::ToldTooMuch { told, lost: 0 });
        }
        let pending = self.segments.last().is_some_and(|last| last.pending);
        if next < sent && !(self.sender == End::Killed && (self.receiver == End::Killed || pending)) {
            return Err(Violation::Lost { from: next, to: sent });
        }
        totals.processed = next;
        Ok(totals)
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
