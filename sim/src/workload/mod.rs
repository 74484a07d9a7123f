//! What the simulated processes do, and what is asked of them.

pub mod ledger; //   what was sent and what came, and whether that can be
pub mod scene; //    what the programs of a run share

mod calls; //        requests and replies, while servers come and go
mod fork; //         a process forks while its threads are busy
mod history; //      subscribers come late, and get what was kept
mod liar; //         a member of a shared domain says that it is another
mod limits; //       calls with short limits, and with the longest
mod matching; //     a publisher asks who comes, goes, and is stuck
mod once; //         publish or send a little, and end at once
mod open_close; //   nodes of the same ids come and go
mod redelivery; //   a receiver dies and comes back
mod rejoin; //       somebody removes the domain's files under its nodes
mod samples; //      large payloads are read in place, and held, until there is no memory
mod subscribers; //  subscribers come and go while somebody publishes
mod task; //         an executor of one task
mod tasks; //        nodes receive, send and publish in tasks
mod types; //        what is of one type meets what is of another
mod wakes; //        two nodes answer each other, and sleep in between

use librpc::Domain;

use crate::kernel::{Kernel, User};
use crate::schedule::{self, Allowed, Plan, Program, Report, start};
use ledger::Claims;
use scene::Scene;

/// A workload.
#[derive(Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    pub allowed: Allowed,
    pub redelivery: bool,
    /// Who takes part: the users of its domain, which is shared if there are several.
    users: &'static [User],
    setup: fn(&Scene),
}

/// The user of most programs.
const USER: User = User { uid: 1000, gid: 1000 };
/// The group of a shared domain.
const GROUP: u32 = 500;

/// All of them.
pub const ALL: &[Workload] = &[
    once::WORKLOAD,
    open_close::WORKLOAD,
    subscribers::WORKLOAD,
    redelivery::NODES,
    redelivery::DURABLE,
    redelivery::TYPES,
    types::WORKLOAD,
    rejoin::WORKLOAD,
    liar::WORKLOAD,
    fork::WORKLOAD,
    calls::WORKLOAD,
    calls::TASKS,
    history::WORKLOAD,
    limits::WORKLOAD,
    matching::WORKLOAD,
    samples::WORKLOAD,
    tasks::WORKLOAD,
    wakes::WORKLOAD,
];

/// How long a message may be under way where nothing holds anybody up, in ns.
const AT_ONCE: u64 = 5_000_000_000;

/// Runs a workload from a seed. `lines_kept`: how much of its trace the report has.
pub fn run(workload: &Workload, seed: u64, faults: bool, lines_kept: usize) -> Report {
    let domain = Domain::at("/dev/shm/domain");
    let plan = Plan::new(seed, workload.allowed);
    let plan = if faults { plan } else { plan.without_faults() };
    let at_once_ns = (!plan.has_faults()).then_some(AT_ONCE);
    let claims = Claims { at_once_ns, redelivery: workload.redelivery };
    let scene = Scene::new(if workload.users.len() > 1 { domain.shared_with_group(GROUP) } else { domain });
    let setup = || {
        let scene = scene.clone();
        let workload = *workload;
        start(Program::new("scene", move || direct(&scene, &workload)).spared());
    };
    let judge = |kernel: &mut Kernel| {
        scene.ledger(|ledger| ledger.judge(claims))?;
        match kernel.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("everybody has gone, and this is left: {left:#?}")),
        }
    };
    schedule::run(plan, lines_kept, setup, judge)
}

/// Starts the programs of a run, waits for their ends, and clears up as the next users of the domain would: first what they
/// have left themselves, then what had to wait for others.
fn direct(scene: &Scene, workload: &Workload) {
    (workload.setup)(scene);
    while schedule::others_are_there() {
        schedule::sleep_until(schedule::clock_ns() + 1_000_000_000);
    }
    for &user in workload.users.iter().chain(workload.users.split_last().map_or(&[][..], |(_, others)| others)) {
        let next = scene.clone();
        let clean = move || drop(next.retry("clean the domain", || next.domain().clean()));
        schedule::wait_for_end(start(Program::new("cleaner", clean).by(user, &[GROUP]).spared()));
    }
}
