//! A reply, and calls that are under way. A reply's buffer is in `buffer.rs`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use librpc::CancelHandle;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::blocking::{SLICE, block_on, is_main_thread};
use crate::errors::{self, OrRaise};
use crate::handle::{Handle, User, process};
use crate::limit::Limit;
use crate::sample::copy;
use crate::tasks;

/// A reply, whose payload is a read-only buffer, too.
#[pyclass(frozen, module = "librpc")]
pub(crate) struct Reply {
    reply: librpc::Reply,
    process: u64,
}

impl Reply {
    pub(crate) fn new(reply: librpc::Reply) -> Self {
        Self { reply, process: process() }
    }

    /// A forked child would see nothing in it.
    pub(crate) fn sample(&self, py: Python<'_>) -> PyResult<&librpc::Sample> {
        if self.process == process() { Ok(self.reply.sample()) } else { Err(errors::forked(py, "reply")) }
    }
}

#[pymethods]
impl Reply {
    /// The id of the node that has answered.
    #[getter]
    fn server(&self) -> &str {
        self.reply.server()
    }

    /// A copy of the payload.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        copy(py, self.sample(py)?)
    }

    /// The payload as JSON.
    pub(crate) fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import(intern!(py, "json"))?.call_method1(intern!(py, "loads"), (self.payload(py)?,))
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.payload(py)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.sample(py)?.len())
    }

    fn __bool__(&self) -> bool {
        true // also one without bytes
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.reply)
    }
}

/// A call whose reply has not been taken: `wait()`, `await`, or `cancel()`. Dropping it cancels the call.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Pending {
    handle: Arc<Handle<Option<librpc::Pending>>>,
    cancel: CancelHandle,
}

impl Pending {
    pub(crate) fn new(pending: librpc::Pending) -> Self {
        let cancel = pending.cancel_handle();
        Self { handle: Handle::new("call", Some(pending)), cancel }
    }
}

#[pymethods]
impl Pending {
    /// Waits for the reply. `None`: it has not come within this time, and can still be waited for.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn wait(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Reply>> {
        let mut guard = self.handle.take(py)?;
        let Some(pending) = &mut *guard else { return Err(crate::errors::closed(py, "call")) };
        let end = timeout.end();
        let slice = if is_main_thread() { SLICE.min(timeout.duration()) } else { timeout.duration() };
        let mut reply = py.detach(|| pending.wait_timeout(slice));
        if reply.is_none() && is_main_thread() {
            reply = block_on(py, Pin::new(pending), end, false)?;
        }
        match reply {
            None => Ok(None),
            Some(reply) => {
                *guard = None;
                Ok(Some(Reply::new(reply.or_raise(py)?)))
            }
        }
    }

    /// Cancels the call: whoever waits for it gets `Cancelled`.
    fn cancel(&self) {
        self.cancel.cancel();
    }

    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        let coroutine = tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let Some(pending) = &mut *guard else {
                return Err(Python::attach(|py| crate::errors::closed(py, "call")));
            };
            let reply = pending.await;
            *guard = None;
            Python::attach(|py| Ok(Py::new(py, Reply::new(reply.or_raise(py)?))?.into_any()))
        })?;
        coroutine.call_method0(intern!(py, "__await__"))
    }
}

/// A reply that comes in parts: an iterator, also for `async for`. Dropping it cancels the call.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Replies {
    handle: Arc<Handle<librpc::Replies>>,
    cancel: CancelHandle,
}

impl Replies {
    pub(crate) fn new(replies: librpc::Replies) -> Self {
        let cancel = replies.cancel_handle();
        Self { handle: Handle::new("call", replies), cancel }
    }
}

async fn next_part(replies: &mut librpc::Replies) -> Option<Result<librpc::Reply, librpc::CallError>> {
    poll_fn(|context| Pin::new(&mut *replies).poll_next(context)).await
}

#[pymethods]
impl Replies {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Reply>> {
        let mut guard = self.handle.take(py)?;
        let replies = &mut *guard;
        let part = match is_main_thread() {
            false => py.detach(|| replies.next()),
            true => match py.detach(|| replies.next_timeout(SLICE)) {
                None if !replies.is_over() => {
                    block_on(py, next_part(replies), None, false)?.expect("it has no time limit here")
                }
                part => part,
            },
        };
        part.transpose().or_raise(py).map(|part| part.map(Reply::new))
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn_next(py, async move {
            let mut guard = Python::attach(|py| handle.take_for_task(py))?;
            let part = next_part(&mut guard).await;
            Python::attach(|py| match part.transpose().or_raise(py)? {
                Some(part) => Ok(Py::new(py, Reply::new(part))?.into_any()),
                None => Ok(py.None()),
            })
        })
    }

    /// Cancels the call.
    fn cancel(&self) {
        self.cancel.cancel();
    }
}
