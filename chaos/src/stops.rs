//! Processes that are stopped, forked, or in other namespaces: no living process is declared dead, nobody else is delayed.

mod places; //  fork, pid namespaces, clocks
mod points; //  stopped at each fault point
mod random; //  stopped at random moments

use std::time::Duration;

use crate::battery::Battery;
use crate::points::POINTS;

pub(crate) fn run(battery: &mut Battery) {
    // How long each stop lasts, and how long every tenth stop lasts.
    let hold = battery.pick([Duration::from_millis(100), Duration::from_secs(3)], [Duration::from_millis(20); 2]);
    for point in POINTS {
        battery.section(point.name, battery.pick(10, 1), |rounds| points::run(point, rounds, hold));
    }
    let longest = battery.pick(Duration::from_secs(60), Duration::from_secs(2));
    battery.section("random", battery.pick(1000, 50), |rounds| random::run(rounds, Duration::from_millis(200)));
    battery.section("long", battery.pick(4, 1), |rounds| random::long(rounds, longest));
    battery.section("fork", battery.pick(100, 5), places::fork);
    battery.section("pid-namespaces", battery.pick(20, 2), places::pid_namespaces);
    battery.section("monotonic-clock", battery.pick(20, 2), places::clocks);
    battery.section("wall-clock", 0, places::wall_clock);
}
