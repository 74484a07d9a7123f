//! What did not arrive: how many messages, and why.

use std::collections::HashMap;
use std::fmt;

use librpc::{Node, Totals};

use super::{ChannelRow, Key, Snapshot};
use crate::latency::grouped;

/// Messages that an inbox did not get, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    pub(crate) dropped: u64,
    missed: u64,
    pub(crate) no_room: u64,
    pub(crate) too_large: u64,
    pub(crate) no_memory: u64,
}

impl Losses {
    /// What the inboxes of this process's node did not get, as their senders count it in memory that the inboxes can read.
    pub(crate) fn at(node: &Node) -> Self {
        let mut totals = Totals::default();
        for inbox in node.stats().inboxes {
            totals += inbox.ended;
            inbox.channels.iter().for_each(|channel| totals.add(channel));
        }
        Self::from(&totals)
    }

    pub(crate) fn all(self) -> u64 {
        let Self { too_large, no_memory, .. } = self;
        self.crowded_out().saturating_add(too_large).saturating_add(no_memory)
    }

    /// Those that an emptier inbox would have got.
    pub(crate) fn crowded_out(self) -> u64 {
        let Self { dropped, missed, no_room, .. } = self;
        dropped.saturating_add(missed).saturating_add(no_room)
    }

    /// What has come since an earlier look.
    pub(crate) fn since(self, was: Self) -> Self {
        Self {
            dropped: self.dropped.saturating_sub(was.dropped),
            missed: self.missed.saturating_sub(was.missed),
            no_room: self.no_room.saturating_sub(was.no_room),
            too_large: self.too_large.saturating_sub(was.too_large),
            no_memory: self.no_memory.saturating_sub(was.no_memory),
        }
    }
}

impl From<&Totals> for Losses {
    fn from(&Totals { dropped, missed, no_room, too_large, no_memory, .. }: &Totals) -> Self {
        Self { dropped, missed, no_room, too_large, no_memory }
    }
}

/// Numbers and reasons, those that there are.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dropped, missed, no_room, too_large, no_memory } = *self;
        let reasons = [
            (dropped, "dropped"),
            (missed, "overwritten or passed over"),
            (no_room, "without room in time"),
            (too_large, "too large for the inbox"),
            (no_memory, "without memory at the sender"),
        ];
        for (at, (count, why)) in reasons.into_iter().filter(|(count, _)| *count > 0).enumerate() {
            write!(f, "{}{} {why}", if at > 0 { ", " } else { "" }, grouped(count))?;
        }
        Ok(())
    }
}

impl ChannelRow {
    /// What its inbox did not get.
    pub(crate) fn losses(&self) -> Losses {
        let stats = &self.stats;
        let (dropped, missed, no_room) = (stats.dropped, stats.missed, stats.no_room);
        Losses { dropped, missed, no_room, too_large: stats.too_large, no_memory: stats.no_memory }
    }

    /// How many messages its inbox did not get.
    pub(crate) fn lost(&self) -> u64 {
        self.losses().all()
    }
}

impl Snapshot {
    /// How many messages were lost since an earlier look on the channels of this part that are there now.
    pub(crate) fn lost_on_channels_since(&self, earlier: &Self) -> u64 {
        let before: HashMap<&Key, u64> = earlier.channels.iter().map(|row| (&row.key, row.lost())).collect();
        let known = self.channels.iter().filter_map(|row| {
            let was = before.get(&row.key).copied().or_else(|| earlier.would_have_seen(row).then_some(0))?;
            Some(row.lost().saturating_sub(was))
        });
        known.fold(0, u64::saturating_add)
    }

    /// The channels of this part on which messages were lost since an earlier look, each with both ends and the reasons.
    pub(crate) fn what_was_lost_since(&self, earlier: &Self) -> Vec<String> {
        let before: HashMap<&Key, Losses> = earlier.channels.iter().map(|row| (&row.key, row.losses())).collect();
        let lost = self.channels.iter().filter_map(|row| {
            let none = || earlier.would_have_seen(row).then(Losses::default);
            let lost = row.losses().since(before.get(&row.key).copied().or_else(none)?);
            (lost.all() > 0).then(|| format!("{}: {lost}", row.ends()))
        });
        lost.collect()
    }

    /// How many messages were lost since an earlier look, whether their channel is still there, has
    /// begun since, or has ended since.
    pub(crate) fn lost_since(&self, earlier: &Self) -> u64 {
        let before = earlier.losses();
        let lost = self.losses().into_iter().map(|(inbox, now)| match before.get(&inbox) {
            None => now.ended.unwrap_or(0).saturating_add(now.channels),
            Some(was) => match (was.ended, now.ended) {
                (Some(was_ended), Some(ended)) => {
                    let was = was_ended.saturating_add(was.channels);
                    ended.saturating_add(now.channels).saturating_sub(was)
                }
                _ => now.channels.saturating_sub(was.channels),
            },
        });
        lost.fold(0, u64::saturating_add)
    }

    /// The losses of each inbox, in all.
    fn losses(&self) -> HashMap<(&str, u32), OfInbox> {
        let mut losses: HashMap<(&str, u32), OfInbox> = HashMap::new();
        for inbox in &self.inboxes {
            let ended = inbox.ended.map(|ended| Losses::from(&ended).all());
            losses.entry((&inbox.incarnation, inbox.number)).or_default().ended = ended;
        }
        for row in &self.channels {
            let losses = losses.entry((&row.key.to, row.key.inbox)).or_default();
            losses.channels = losses.channels.saturating_add(row.lost());
        }
        losses
    }
}

/// How many messages an inbox did not get, in all.
#[derive(Clone, Copy, Debug, Default)]
struct OfInbox {
    /// On channels that have ended; `None`: unknown.
    ended: Option<u64>,
    /// On the channels that are there.
    channels: u64,
}
