//! Shows frames, and is too slow for it: it takes a tenth of a second for each, and its supervisor stops it all the time.

use std::path::Path;
use std::thread;
use std::time::Duration;

use librpc::Node;

use crate::detector::Seen;
use crate::frame;
use crate::messages::FRAMES;
use crate::process::Termination;
use crate::record::Record;

const WORK: Duration = Duration::from_millis(100);

pub(crate) fn run(files: &Path) -> anyhow::Result<()> {
    let end = Termination::new()?;
    let mut record = Record::open(files.join("viewer"))?;
    let node = Node::open("viewer")?;
    let mut frames = node.subscribe(FRAMES)?;
    end.stops(frames.stop_handle());
    let mut buffer = Vec::new();
    while let Some(frame) = frames.recv_sample()? {
        record.add(Seen::from(frame::check(&frame, &mut buffer)?))?;
        thread::sleep(WORK);
    }
    Ok(())
}
