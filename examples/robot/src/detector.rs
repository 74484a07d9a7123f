//! Takes the newest frame, works on it for 50 ms, and publishes what it has found. The frames that come meanwhile are passed over.

use std::path::Path;
use std::thread;
use std::time::Duration;

use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};
use librpc::{Node, Plain};

use crate::frame::{self, Checked};
use crate::messages::{DETECTIONS, Detection, FRAMES, Head};
use crate::process::{Termination, head};
use crate::record::Record;

const WORK: Duration = Duration::from_millis(50);

/// What the detector and the viewer note of each frame.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "librpc::zerocopy")]
#[repr(C)]
pub(crate) struct Seen {
    pub(crate) frame: Head,
    pub(crate) age_ns: u64,
    pub(crate) is_torn: u64,
}

impl From<Checked> for Seen {
    fn from(Checked { head, age_ns, is_torn }: Checked) -> Self {
        Self { frame: head, age_ns, is_torn: is_torn.into() }
    }
}

pub(crate) fn run(files: &Path) -> anyhow::Result<()> {
    let end = Termination::new()?;
    let mut record = Record::open(files.join("detector"))?;
    let node = Node::open("detector")?;
    let mut frames = node.subscriber_builder([FRAMES]).keep_last(1).open()?;
    // A planner that is started again learns at once what was found last.
    let mut publisher = node.publisher_builder(DETECTIONS).history(1).open_of::<Plain<Detection>>()?;
    end.stops(frames.stop_handle());
    let (mut buffer, mut number) = (Vec::new(), 0);
    while let Some(frame) = frames.recv_sample()? {
        let seen = Seen::from(frame::check(&frame, &mut buffer)?);
        drop(frame); // the camera may use its memory again
        record.add(seen)?;
        thread::sleep(WORK);
        number += 1;
        publisher.publish(&Detection { head: head(number), frame: seen.frame, x: 1.0, y: 2.0 })?.inboxes();
    }
    Ok(())
}
