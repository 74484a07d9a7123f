//! Two named pipes, one for each direction. The sender blocks while the pipe is full; a polling receiver never blocks.

use std::fs::File;

use rustix::fs::{Mode, OFlags};

use crate::contender::{Contender, Job, eventually};
use crate::contenders::stream::{Incoming, Outgoing};

/// The most that a user without privileges may ask for.
const CAPACITY_BYTES: usize = 1 << 20;

pub(crate) struct Pipe {
    outgoing: Outgoing<File>,
    incoming: Incoming<File>,
}

impl Contender for Pipe {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let (out, back) = job.directions(job.place.join("to-b"), job.place.join("to-a"));
        match rustix::fs::mkfifoat(rustix::fs::CWD, &back, Mode::RUSR | Mode::WUSR) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Opened for writing, too, so that it does not end before the other side has opened it.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reading = File::from(rustix::fs::open(&back, flags, Mode::empty())?);
        // Opening fails until the other side reads. After that, writing blocks.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writing =
            File::from(eventually("the other side does not read", || rustix::fs::open(&out, flags, Mode::empty()))?);
        rustix::fs::fcntl_setfl(&writing, OFlags::empty())?;
        if job.sleeps() {
            rustix::fs::fcntl_setfl(&reading, OFlags::empty())?;
        }
        rustix::pipe::fcntl_setpipe_size(&writing, CAPACITY_BYTES)?;
        Ok(Self { outgoing: Outgoing::new(writing, job.bytes), incoming: Incoming::new(reading) })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        self.outgoing.send(number)
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        self.incoming.receive(take)
    }
}
