//! Receiving on a thread of the inbox's own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::receive::builder::{InboxBuilder, InboxError};
use crate::receive::inbox::{Acknowledge, RecvError, StopHandle};
use crate::receive::message::Message;
use crate::sys::thread::{self, JoinHandle};
use crate::sys::{OsError, fork};

impl InboxBuilder<'_> {
    /// Opens the inbox and calls `callback` with each message, on a thread of its own, which ends when the handle is
    /// dropped. A message counts as processed when the callback has returned. If it panics, its message stays
    /// unprocessed, the thread ends, the inbox closes, and [`CallbackHandle::stop`] reports it.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn callback(
        self,
        mut callback: impl FnMut(Message<'_>) + Send + 'static,
    ) -> Result<CallbackHandle, InboxError> {
        let node = self.node.id.to_string();
        let mut inbox = self.acknowledge(Acknowledge::Explicit).open()?;
        let stop = inbox.stop_handle();
        let run = move || -> Result<(), CallbackError> {
            while let Some(message) = inbox.recv()? {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(message))) {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                    tracing::error!(node, text, "a callback panicked: its message stays unprocessed, its inbox closes");
                    return Err(CallbackError::Panicked { text });
                }
                inbox.ack();
            }
            Ok(())
        };
        let thread = thread::spawn_joinable("librpc-inbox", run);
        let thread = thread.map_err(|error| OsError::new("start a thread for callbacks", error))?;
        Ok(CallbackHandle { stop, thread: Some(thread), born: fork::Born::now() })
    }
}

/// Why a callback's thread has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// The callback panicked. Its message stays unprocessed.
    #[error("the callback panicked: {text}")]
    Panicked {
        /// What it said.
        text: String,
    },
    /// Receiving failed.
    #[error(transparent)]
    Recv(#[from] RecvError),
}

/// The thread that calls a callback. Dropping it stops and joins the thread.
#[derive(Debug)]
pub struct CallbackHandle {
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), CallbackError>>>,
    born: fork::Born,
}

impl CallbackHandle {
    /// Stops the thread, waits until a callback that is running has returned, and says how it ended.
    ///
    /// # Errors
    ///
    /// [`CallbackError`].
    pub fn stop(mut self) -> Result<(), CallbackError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), CallbackError> {
        self.stop.stop();
        match self.thread.take() {
            // A forked child has no such thread.
            Some(thread) if !self.born.is_here() => {
                std::mem::forget(thread);
                Ok(())
            }
            Some(thread) => thread.join().expect("the thread catches the callback's panics"),
            None => Ok(()),
        }
    }
}

impl Drop for CallbackHandle {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::warn!(%error, "a callback's thread had failed");
        }
    }
}
