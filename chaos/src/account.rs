//! The accounts: what was sent, what arrived, what was reported lost. It only judges histories, so tests can make them up.
//!
//! A *stream* is what one sender process sends, numbered from 0. Its sender notes *segments*: a segment ends when a loss is
//! reported to the sender. Its receivers note *runs* of consecutive numbers, in the order of their arrival; anything lost,
//! doubled or out of order begins another run. For each segment with a reported loss:
//!
//! `sent − reported ≤ processed ≤ sent − reported + in work`
//!
//! What is in work when a receiver is killed may count both as processed and as reported lost: at most one message, or
//! one batch.

use std::fmt;

/// What a sender notes: numbers of messages. The ends are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    /// Every send before this number has returned `Ok`.
    pub(crate) sent: u64,
    /// No send of this number or a later one has begun.
    pub(crate) begun: u64,
    /// How many messages the library has reported lost; `None` if it has reported no loss.
    pub(crate) reported: Option<u64>,
    /// In a shared domain: the receiver has not answered yet, as far as the sender knows. Messages may die with the sender.
    pub(crate) pending: bool,
}

/// Consecutive numbers that one receiver has processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The incarnation: later ones have higher numbers.
    pub(crate) receiver: u64,
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// Whether they were flagged as redelivered.
    pub(crate) redelivered: bool,
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A sender flushed, a receiver drained.
    Finished,
    Killed,
}

/// The rules for a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The sender was opened with redelivery: the next incarnation gets what the dead one had not processed.
    pub(crate) redelivery: bool,
    /// How many messages a receiver processes before it acknowledges them.
    pub(crate) in_work: u64,
}

/// The history of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) segments: Vec<Segment>,
    pub(crate) runs: Vec<Run>,
    pub(crate) sender: End,
    /// How the last receiver has ended.
    pub(crate) receiver: End,
}

/// The sums of a correct history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) processed: u64,
    pub(crate) reported: u64,
    pub(crate) doubled: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.processed += other.processed;
        self.reported += other.reported;
        self.doubled += other.doubled;
    }
}

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Committed, not processed, and not reported.
    Lost { from: u64, to: u64 },
    /// Processed a second time: more messages than a death explains, or without the flag.
    Doubled { from: u64, to: u64 },
    /// Processed, but never sent.
    Invented { number: u64 },
    /// Reported lost, although processed.
    ReportedTooMuch { reported: u64, lost: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { from, to } => write!(f, "LOST: {from} to {to} were committed, and no loss was reported"),
            Self::Doubled { from, to } => write!(f, "DOUBLED or out of order: {from} to {to}"),
            Self::Invented { number } => write!(f, "INVENTED: {number} was never sent"),
            Self::ReportedTooMuch { reported, lost } => write!(f, "REPORTED {reported} lost, but at most {lost} were"),
        }
    }
}

impl std::error::Error for Violation {}

impl Stream {
    /// Settles the accounts.
    pub(crate) fn check(&self, rules: Rules) -> Result<Totals, Violation> {
        if rules.redelivery { self.check_redelivered(rules.in_work) } else { self.check_reported(rules.in_work) }
    }

    /// Without redelivery: each segment arrives from its first number on, and the rest is reported lost.
    fn check_reported(&self, in_work: u64) -> Result<Totals, Violation> {
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
            match segment.reported {
                Some(reported) => {
                    let sent = segment.sent - segment.first;
                    let Some(acknowledged) = sent.checked_sub(reported) else {
                        return Err(Violation::ReportedTooMuch { reported, lost: sent });
                    };
                    let processed = next - segment.first;
                    if processed < acknowledged {
                        return Err(Violation::Lost { from: next, to: segment.first + acknowledged });
                    }
                    if processed > acknowledged + in_work {
                        return Err(Violation::ReportedTooMuch { reported, lost: sent - processed + in_work });
                    }
                    totals.reported += reported;
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

    /// With redelivery: the runs cover the stream. A new incarnation may begin with what was in work, if that is flagged.
    fn check_redelivered(&self, in_work: u64) -> Result<Totals, Violation> {
        let mut totals = Totals::default();
        let (mut next, mut receiver) = (0, None);
        let (mut again, mut allowed) = (0, 0);
        for run in &self.runs {
            if receiver != Some(run.receiver) {
                // The death of the previous incarnation explains this many.
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
        let reported: u64 = self.segments.iter().filter_map(|segment| segment.reported).sum();
        if reported > 0 {
            return Err(Violation::ReportedTooMuch { reported, lost: 0 });
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
