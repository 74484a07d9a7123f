//! A viewer: takes the latest frame, and checks it where it is.
//!
//! After each frame it reports how many have come, were missed, and were torn.

use librpc::{Node, Policy, Sample};

use crate::film::TOPIC;
use crate::frame::{Checksum, HEAD, Head};
use crate::{Args, at_the_end};

/// How much of a frame is read at once, which stays in the cache.
const PIECE: usize = 32 * 1024;

pub(crate) fn run(args: &Args, viewer: usize) -> anyhow::Result<()> {
    let node = Node::builder(&format!("viewer-{viewer}")).domain(args.domain()).open()?;
    let mut frames = node.subscriber_builder([TOPIC]).policy(Policy::DropOldest).open()?;
    let stop = frames.stop_handle();
    at_the_end(move || stop.stop());
    let (mut came, mut missed, mut torn) = (0, 0, 0);
    let (mut piece, mut last) = (vec![0; PIECE], None);
    while let Some(frame) = frames.recv_sample()? {
        came += 1;
        missed += frame.missed();
        let head = check(&frame, &mut piece).filter(|_| frame.len() == args.size);
        // A camera that was killed begins anew.
        let follows = |head: &Head| last.is_none_or(|(camera, number)| head.camera != camera || head.number > number);
        match head.filter(follows) {
            Some(head) => last = Some((head.camera, head.number)),
            None => torn += 1,
        }
        println!("{came} {missed} {torn}");
    }
    Ok(())
}

/// The head of a frame; `None`: its checksum is wrong.
fn check(frame: &Sample, piece: &mut [u8]) -> Option<Head> {
    let head = Head::read(frame.view().array(0)?);
    let mut checksum = Checksum::default();
    for begin in (HEAD..frame.len()).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(frame.len() - begin)];
        frame.copy_to(begin, piece);
        checksum.add(piece);
    }
    (checksum.end() == head.checksum).then_some(head)
}
