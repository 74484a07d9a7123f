//! What a seed decides before a run begins: the machine, how threads take turns, and which faults happen when.

use fastrand::Rng;

use crate::kernel::Machine;

/// What may happen to the processes of a run.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// At most this many processes are killed.
    pub kills: u32,
    /// At most this many are stopped for a while.
    pub stops: u32,
    /// Calls may fail.
    pub errors: bool,
    /// Time may pass while nobody gets on, as on a machine that is busy or suspended.
    pub pauses: bool,
    /// The machine may have pages of 16 or 64 KiB.
    pub large_pages: bool,
}

impl Allowed {
    /// Nothing but the order in which threads take turns.
    pub const NOTHING: Self = Self { kills: 0, stops: 0, errors: false, pauses: false, large_pages: false };
}

/// How threads take turns.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// One call in this many, and one word in this many, is followed by any other thread's turn.
    Random { calls: u32, words: u32 },
    /// The thread of the highest priority runs until it waits; at these steps the running one becomes the last.
    Priority { changes: Vec<u64> },
}

/// When a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// At the nth step of all.
    Step(u64),
    /// At the nth step that is a call or a fault point.
    Call(u64),
}

/// What happens to the process that makes this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Kill,
    /// It goes on after this many ns.
    Stop {
        ns: u64,
    },
    /// So much time passes for everybody.
    Pause {
        ns: u64,
    },
    /// This call and the next `more` that can fail at all fail.
    Errors {
        more: u32,
    },
}

/// All that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub machine: Machine,
    pub(super) order: Order,
    pub(super) faults: Vec<(Moment, Fault)>,
}

const MS: u64 = 1_000_000;

/// A number between these two, each order of magnitude as likely as the next.
fn of_any_size(random: &mut Rng, from: u64, to: u64) -> u64 {
    let (from, to) = ((from as f64).ln(), (to as f64).ln());
    (from + (to - from) * random.f64()).exp() as u64
}

fn moment(random: &mut Rng) -> Moment {
    match random.u8(..4) {
        0 => Moment::Step(of_any_size(random, 10, 50_000)),
        _ => Moment::Call(of_any_size(random, 5, 3000)),
    }
}

impl Plan {
    /// What this seed decides.
    pub fn new(seed: u64, allowed: Allowed) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x706c_616e);
        let order = match random.u8(..8) {
            0..3 => {
                let changes = (0..random.u32(1..6)).map(|_| of_any_size(&mut random, 10, 50_000)).collect();
                Order::Priority { changes }
            }
            _ => {
                let calls = *random.choice(&[1, 2, 2, 4, 16]).expect("not empty");
                let words = *random.choice(&[2, 8, 64, 512, u32::MAX]).expect("not empty");
                Order::Random { calls, words }
            }
        };
        let mut faults = Vec::new();
        // A quarter of the runs has none: what goes wrong there needs nothing but an unlucky order.
        if random.u8(..4) > 0 {
            Self::choose_faults(&mut random, allowed, &mut faults);
        }
        let machine = Self::choose_machine(&mut random, allowed);
        Self { seed, machine, order, faults }
    }

    fn choose_faults(random: &mut Rng, allowed: Allowed, faults: &mut Vec<(Moment, Fault)>) {
        let Allowed { kills, stops, errors, pauses, .. } = allowed;
        for _ in 0..random.u32(..=kills) {
            faults.push((moment(random), Fault::Kill));
        }
        for _ in 0..random.u32(..=stops) {
            let ns = of_any_size(random, MS / 10, 3000 * MS);
            faults.push((moment(random), Fault::Stop { ns }));
        }
        if errors && random.bool() {
            for _ in 0..random.u32(1..4) {
                let more = *random.choice(&[0, 0, 0, 1, 3, 20]).expect("not empty");
                let at = Moment::Call(of_any_size(random, 5, 3000));
                faults.push((at, Fault::Errors { more }));
            }
        }
        if pauses && random.bool() {
            for _ in 0..random.u32(1..4) {
                let ns = of_any_size(random, MS / 100, 5000 * MS);
                faults.push((moment(random), Fault::Pause { ns }));
            }
        }
    }

    fn choose_machine(random: &mut Rng, allowed: Allowed) -> Machine {
        let mut machine = Machine::default();
        if random.u8(..4) == 0 {
            machine.send_buffer = *random.choice(&[4608, 9216]).expect("not empty");
        }
        if random.u8(..8) == 0 && allowed.large_pages {
            machine.page = *random.choice(&[16_384, 65_536]).expect("not empty");
        }
        machine.refuses_descriptors = random.u8(..4) > 0;
        machine.has_barriers = random.u8(..4) > 0;
        machine.watchers = if random.u8(..8) == 0 { 0 } else { machine.watchers };
        machine
    }

    /// Whether anything goes wrong by itself.
    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The same without faults.
    pub fn without_faults(self) -> Self {
        Self { faults: Vec::new(), ..self }
    }
}
