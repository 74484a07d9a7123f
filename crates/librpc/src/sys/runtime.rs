//! Runtimes that watch an inbox's descriptor themselves, for their tasks: that saves the step over the process's background thread.
//!
//! Without a feature there is none.

use std::io;
#[cfg(any(feature = "tokio", feature = "async-io"))]
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(feature = "tokio")]
use std::os::fd::{AsRawFd, RawFd};
#[cfg(any(feature = "tokio", feature = "async-io"))]
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "async-io")]
use async_io::Async;
#[cfg(feature = "tokio")]
use tokio::io::unix::AsyncFd;

#[cfg(any(feature = "tokio", feature = "async-io"))]
use crate::sys::poll;

/// An inbox's descriptor.
#[cfg(any(feature = "tokio", feature = "async-io"))]
pub(crate) struct Watched(Arc<poll::Poll>);

#[cfg(any(feature = "tokio", feature = "async-io"))]
impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(feature = "tokio")]
impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Which runtime watches an inbox.
pub(crate) enum Runtime {
    #[cfg(feature = "tokio")]
    Tokio(AsyncFd<Watched>),
    #[cfg(feature = "async-io")]
    AsyncIo(Async<Watched>),
}

impl Runtime {
    /// # Errors
    ///
    /// The runtime cannot watch it.
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio's, and in one without I/O.
    #[cfg(feature = "tokio")]
    pub(crate) fn tokio(poll: Arc<poll::Poll>) -> io::Result<Self> {
        // SAFETY: `Watched` has the epoll set, whose descriptor stays the same, and open, until it is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(Watched(poll), tokio::io::Interest::READABLE) };
        Ok(Self::Tokio(watched?))
    }

    /// # Errors
    ///
    /// The runtime cannot watch it.
    #[cfg(feature = "async-io")]
    pub(crate) fn async_io(poll: Arc<poll::Poll>) -> io::Result<Self> {
        Async::new_nonblocking(Watched(poll)).map(Self::AsyncIo)
    }

    /// Whether the descriptor has become readable since the last call that said so. If not, the task is woken when it does.
    pub(crate) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = &context; // not used without a feature
        match *self {
            #[cfg(feature = "tokio")]
            Self::Tokio(ref mut descriptor) => {
                descriptor.poll_read_ready(context).map_ok(|mut ready| ready.clear_ready())
            }
            #[cfg(feature = "async-io")]
            Self::AsyncIo(ref mut descriptor) => descriptor.poll_readable(context),
        }
    }
}
