//! kill -9 of either side, at every fault point and at random. While one side lives, no committed message is lost and the
//! order is kept. The survivors continue within 1 s and do not grow, and nothing is left behind.
//!
//! [`crate::account`] checks the messages.

mod calls; //       a server or a client, at each step of a call
mod long; //        one pair of survivors through all kills
mod points; //      at each fault point
mod random; //      at random moments
mod redelivery; //  the next incarnation gets what the one before had not processed

use crate::account::Rules;
use crate::battery::Battery;
use crate::points::{POINTS, Who};
pub(crate) use redelivery::{Inbox, RULES as REDELIVERY, Redelivering};

/// Each message is acknowledged separately, so one may be in work. What is lost is reported.
pub(crate) const RULES: Rules = Rules { redelivery: false, in_work: 1 };

pub(crate) fn run(battery: &mut Battery) {
    let rounds = battery.pick(100, 3);
    for point in POINTS {
        battery.section(point.name, rounds, |rounds| points::run(point, rounds));
    }
    let receivers = || POINTS.iter().filter(|point| point.who == Who::Receiver);
    for (inbox, name) in [(Inbox::Own, "redelivery"), (Inbox::Durable, "durable")] {
        for point in receivers() {
            battery.section(&format!("{name}:{}", point.name), rounds, |rounds| {
                redelivery::receiver(inbox, point, rounds)
            });
        }
        battery
            .section(&format!("{name}:random"), battery.pick(10_000, 150), |rounds| redelivery::random(inbox, rounds));
    }
    battery.section("random", battery.pick(10_000, 300), random::run);
    battery.section("long", battery.pick(10_000, 200), long::run);
}
