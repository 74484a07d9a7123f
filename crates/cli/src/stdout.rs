//! Stdout, written to directly: one `write(2)` for each message that fits, and no write that a signal could not end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::interrupt::Interrupt;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// Nobody reads any more.
    Closed,
    /// A signal came before everything was written.
    Interrupted,
}

pub(crate) struct Stdout(Kind);

enum Kind {
    /// A description of our own, that never blocks; the one that we were given is shared with others.
    Pipe(OwnedFd),
    Socket,
    Terminal,
    File,
}

impl Stdout {
    pub(crate) fn new() -> Self {
        let mode = rustix::fs::fstat(rustix::stdio::stdout()).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Self(match mode {
            Ok(FileType::Fifo) => match rustix::fs::openat(CWD, "/proc/self/fd/1", flags, Mode::empty()) {
                Ok(own) => Kind::Pipe(own),
                Err(_) => Kind::Terminal, // another user's pipe: it is waited for, and may then block
            },
            Ok(FileType::Socket) => Kind::Socket,
            Ok(FileType::CharacterDevice) => Kind::Terminal,
            _ => Kind::File,
        })
    }

    /// Writes everything, unless nobody reads any more or a signal comes.
    pub(crate) fn write(&mut self, mut bytes: &[u8], interrupt: &Interrupt) -> io::Result<Written> {
        while !bytes.is_empty() {
            if let Kind::Terminal = self.0
                && !self.wait(interrupt)?
            {
                return Ok(Written::Interrupted);
            }
            match self.write_once(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.wait(interrupt)? {
                        return Ok(Written::Interrupted);
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Written::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Written::All)
    }

    fn write_once(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        match &self.0 {
            Kind::Socket => {
                rustix::net::send(rustix::stdio::stdout(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
            _ => rustix::io::write(self.descriptor(), bytes),
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Pipe(own) => own.as_fd(),
            _ => rustix::stdio::stdout(),
        }
    }

    /// Waits for room; `false` if a signal has come.
    fn wait(&self, interrupt: &Interrupt) -> io::Result<bool> {
        let descriptor = self.descriptor();
        let mut waited = [PollFd::new(&descriptor, PollFlags::OUT), PollFd::new(interrupt, PollFlags::empty())];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => Ok(waited[1].revents().is_empty() && interrupt.signal().is_none()),
            Err(errno) => Err(errno.into()),
        }
    }
}
