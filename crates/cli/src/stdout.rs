//! Stdout, written to directly: one `write(2)` for each message that fits. A signal ends every write.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::interrupt::Interrupt;

/// Whether this program was started without a stdout.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

ctor::declarative::ctor! {
    /// Looks before Rust's runtime does: before `main`, that opens /dev/null in place of a closed stdout.
    #[ctor(unsafe)]
    fn look_at_stdout() {
        let is_closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()) == Err(Errno::BADF);
        WAS_CLOSED.store(is_closed, Ordering::Relaxed); // no other thread runs yet
    }
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// The reader is gone.
    Closed,
    /// A signal came before everything was written.
    Interrupted,
}

pub(crate) struct Stdout(Kind);

enum Kind {
    /// It was closed from the start.
    Nothing,
    /// A description of our own that never blocks. The one that we were given is shared with others.
    Pipe(OwnedFd),
    Socket,
    Terminal,
    File,
}

impl Stdout {
    pub(crate) fn new() -> Self {
        if was_closed() {
            return Self(Kind::Nothing);
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Self(match file_type() {
            Some(FileType::Fifo) => match rustix::fs::openat(CWD, "/proc/self/fd/1", flags, Mode::empty()) {
                Ok(own) => Kind::Pipe(own),
                Err(_) => Kind::Terminal, // another user's pipe: wait for room first; the write may still block
            },
            Some(FileType::Socket) => Kind::Socket,
            Some(FileType::CharacterDevice) => Kind::Terminal,
            _ => Kind::File,
        })
    }

    /// Writes everything, unless the reader is gone or a signal comes.
    pub(crate) fn write(&mut self, mut bytes: &[u8], interrupt: &Interrupt) -> io::Result<Written> {
        if let Kind::Nothing = self.0 {
            return Ok(Written::Closed);
        }
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
                Err(Errno::IO) if matches!(self.0, Kind::Terminal) => return Ok(Written::Closed),
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

    /// Waits for room. `false`: a signal has come.
    fn wait(&self, interrupt: &Interrupt) -> io::Result<bool> {
        let descriptor = self.descriptor();
        let mut waited = [PollFd::new(&descriptor, PollFlags::OUT), PollFd::new(interrupt, PollFlags::empty())];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => Ok(waited[1].revents().is_empty() && interrupt.signal().is_none()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn file_type() -> Option<FileType> {
    let stat = rustix::fs::fstat(rustix::stdio::stdout()).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// Whether this program was started without a stdout. What `std` writes then goes to /dev/null, without an error.
pub(crate) fn was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

/// Whether a failed write to stdout only means that the reader of the pipe, or the terminal, is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let is_hung_up = || error.raw_os_error() == Some(Errno::IO.raw_os_error());
    error.kind() == io::ErrorKind::BrokenPipe || is_hung_up() && file_type() == Some(FileType::CharacterDevice)
}
