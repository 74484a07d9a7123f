//! `librpc bench large`: large payloads, which stay where they were written, for any number of subscribers.
//!
//! Two ways, in turn: handed over (written before, read after, neither is timed), and written and read in full.
pub(super) mod in_full; //  the rate
pub(super) mod in_place; // the time

use std::ops::RangeInclusive;

use librpc::{Inbox, Node, Sample, Wait};

use super::content;
use super::options::{Common, Rounds};
use super::{Bench, end};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::options::MAX_MESSAGE;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [usize; 5] = [64 * KIB, 256 * KIB, MIB, 8 * MIB, 50 * MIB];
/// Sizes of a loan that is not copied.
const ALLOWED: RangeInclusive<usize> = 4097..=MAX_MESSAGE;

/// The node that subscribes, in the other process.
const VIEWERS: &str = "viewers";
/// The reader copies this much at once, which stays in its cache.
const PIECE: usize = 32 * KIB;

/// What large messages cost: handed over in place, and written and read in full
///
/// Writes two objects for each size. "in-place": the time from publishing a loan until every subscriber has it; it is written
/// before and read afterwards, in full, and neither is timed. The same for a message of 64 bytes takes turns with it.
/// "in-full": the rate at which messages are written, published and read, every byte. The subscribers share a process.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench large --pin 0,1                     # 64 KiB, 256 KiB, 1 MiB, 8 MiB, 50 MiB
  librpc bench large --size 8388608 --subscribers 4 --json
  librpc bench large --sizes 65536,1048576 --seconds 10")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rounds: Rounds,
    /// How many subscriptions get each message
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    subscribers: u32,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let domain = bench.domain("large");
    for size in args.common.sizes_or(ALLOWED, &SIZES)? {
        in_place::measure(bench, args, &domain, size)?;
        in_full::measure(bench, args, &domain, size)?;
    }
    Ok(())
}

/// The subscriptions of the process that reads.
struct Viewers {
    node: Node,
    inboxes: Vec<Inbox>,
    piece: Vec<u8>,
}

impl Viewers {
    fn open(domain: &DomainArgs, subscribers: u32, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let node = domain.open(VIEWERS)?;
        let open = |_| end::inbox(&node, end::Via::Topic, Wait::Spin, librpc::DEFAULT_CAPACITY, interrupt);
        let inboxes = (0..subscribers).map(open).collect::<anyhow::Result<_>>()?;
        Ok(Self { node, inboxes, piece: vec![0; PIECE] })
    }

    /// Reads a payload in full, from this byte on. Whether it is that of this number.
    fn is(&mut self, sample: &Sample, from: usize, number: u64) -> bool {
        let mut is_right = true;
        for begin in (from..sample.len()).step_by(PIECE) {
            let piece = &mut self.piece[..PIECE.min(sample.len() - begin)];
            sample.copy_to(begin, piece);
            is_right &= content::part_is(piece, begin - from, number);
        }
        is_right
    }
}
