//! Obeys commands, follows the IMU and the detector, and serves `plan/route`: one thread that waits for all of them.
//!
//! Each command and each sample is put on record, and acknowledged after that: see [`crate::once`].

use std::path::Path;

use librpc::{Acknowledge, Node, Plain, WaitSet};

use crate::messages::{Command, DETECTIONS, Detection, Goal, PLANNER, ROUTES, Route, SAMPLES, Sample};
use crate::once::Done;
use crate::process::Termination;

const COMMAND: u64 = 1;
const SAMPLE: u64 = 2;
const DETECTION: u64 = 3;
const REQUEST: u64 = 4;
const END: u64 = 5;

pub(crate) fn run(files: &Path) -> anyhow::Result<()> {
    let end = Termination::new()?;
    let mut obeyed = Done::open(files.join("planner.commands"))?;
    let mut followed = Done::open(files.join("planner.samples"))?;
    let mut last_detection = 0;
    let node = Node::open(PLANNER)?;
    let explicit = Acknowledge::Explicit;
    let mut commands = node.inbox_builder().acknowledge(explicit).open_of::<Plain<Command>>()?;
    let samples = node.subscriber_builder([SAMPLES]).durable("samples").acknowledge(explicit);
    let mut samples = samples.open_of::<Plain<Sample>>()?;
    let mut detections = node.subscriber_of::<Plain<Detection>>(DETECTIONS)?;
    let server = node.serve_of::<Plain<Goal>, Plain<Route>>(ROUTES)?;
    let mut set = WaitSet::new()?;
    set.add(COMMAND, &*commands)?;
    set.add(SAMPLE, &*samples)?;
    set.add(DETECTION, &*detections)?;
    set.add(REQUEST, &*server)?;
    set.add_descriptor(END, end.descriptor())?;
    loop {
        let tokens = set.wait()?;
        if tokens == [END] {
            return Ok(()); // and nothing is left to be done
        }
        for &token in tokens {
            match token {
                COMMAND => {
                    while let Some(command) = commands.try_recv()? {
                        obeyed.process(command.value()?.head, command.is_redelivered())?;
                        commands.ack();
                    }
                }
                SAMPLE => {
                    while let Some(sample) = samples.try_recv()? {
                        followed.process(sample.value()?.head, sample.is_redelivered())?;
                        samples.ack();
                    }
                }
                DETECTION => {
                    while let Some(detection) = detections.try_recv()? {
                        last_detection = detection.value()?.head.number;
                    }
                }
                REQUEST => {
                    while let Some(request) = server.try_recv()? {
                        let &Goal { x, y } = request.value()?;
                        let (last_command, last_sample) = (obeyed.last(), followed.last());
                        let (metres, turn) = (x.hypot(y), y.atan2(x));
                        request.reply(&Route { metres, turn, last_command, last_sample, last_detection })?;
                    }
                }
                _ => {}
            }
        }
    }
}
