//! Receiving on a separate thread of the inbox.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::receive::builder::{InboxBuilder, InboxError};
use crate::receive::inbox::{Acknowledge, Inbox, RecvError, StopHandle};
use crate::receive::message::Message;
use crate::sys::thread::{self, JoinHandle};
use crate::sys::{OsError, fork};

impl InboxBuilder<'_> {
    /// Opens the inbox and calls `callback` with each message, on a separate thread, which ends when the handle is
    /// dropped. A message counts as processed when the callback has returned. If the callback panics, its message stays
    /// unprocessed, the thread ends, the inbox closes, and [`CallbackHandle::stop`] reports it.
    ///
    /// The callback may do everything that other threads may do: send, publish, subscribe, stop or drop its own handle,
    /// close the node. It must not wait for messages that only it would process, as [`crate::Node::close`] does up to
    /// its limit.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn callback(
        self,
        mut callback: impl FnMut(Message<'_>) + Send + 'static,
    ) -> Result<CallbackHandle, InboxError> {
        let node = self.node.id.clone();
        let inbox = self.acknowledge(Acknowledge::Explicit).open()?;
        let stop = inbox.stop_handle();
        let run = move || {
            let received = receive_all(inbox, &mut callback);
            // Dropping what the callback owns may panic, too.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(callback))).map_err(CallbackError::panicked);
            let ended = received.and(dropped);
            if let Err(CallbackError::Panicked { text }) = &ended {
                tracing::error!(node = &*node, text, "a callback panicked: its inbox is closed");
            }
            ended
        };
        let thread = thread::spawn_joinable("librpc-inbox", run);
        let thread = thread.map_err(|error| OsError::new("start a thread for callbacks", error))?;
        Ok(CallbackHandle { stop, thread: Some(thread), born: fork::Born::now() })
    }
}

/// Calls back with each message until the inbox is stopped. A message during which it panics stays unprocessed.
fn receive_all(mut inbox: Inbox, callback: &mut impl FnMut(Message<'_>)) -> Result<(), CallbackError> {
    loop {
        let message = match inbox.recv() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(RecvError::Mismatch(_)) => continue, // it was logged, and the others come
            Err(error) => return Err(error.into()),
        };
        catch_unwind(AssertUnwindSafe(|| callback(message))).map_err(CallbackError::panicked)?;
        inbox.ack();
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

impl CallbackError {
    fn panicked(panic: Box<dyn Any + Send>) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Self::Panicked { text: text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default() }
    }
}

/// The thread that calls a callback. Dropping it stops and joins the thread. In the callback itself it can only be stopped: the
/// thread ends when the callback has returned.
#[derive(Debug)]
pub struct CallbackHandle {
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), CallbackError>>>,
    born: fork::Born,
}

impl CallbackHandle {
    /// Stops the thread, waits until a running callback has returned, and reports how the thread ended. If the callback
    /// itself calls this, it neither waits nor reports the end.
    ///
    /// # Errors
    ///
    /// [`CallbackError`]. In a forked child it is [`RecvError::Forked`], and the parent's thread goes on.
    pub fn stop(mut self) -> Result<(), CallbackError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), CallbackError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        if !self.born.is_here() {
            std::mem::forget(thread); // a forked child has no such thread
            return Err(RecvError::Forked.into());
        }
        self.stop.stop();
        if thread::is_current(&thread) {
            return Ok(());
        }
        thread.join().unwrap_or_else(|panic| Err(CallbackError::panicked(panic)))
    }
}

impl Drop for CallbackHandle {
    fn drop(&mut self) {
        match self.end() {
            Ok(()) | Err(CallbackError::Recv(RecvError::Forked)) => {}
            Err(error) => tracing::warn!(%error, "a callback's thread had failed"),
        }
    }
}
