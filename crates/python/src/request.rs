//! A request, and its answer in parts.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use crate::blocking::{LARGE, block_on};
use crate::buffer::Payload;
use crate::common::to_json;
use crate::errors::OrRaise;
use crate::handle::{Handle, User};
use crate::message::Peer;
use crate::sample::copy;
use crate::tasks;

/// A request. Any thread or task may answer it, once. One that is dropped unanswered fails.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Request {
    handle: Arc<Handle<librpc::Request>>,
    peer: Arc<librpc::Peer>,
    payload: PyOnceLock<Py<PyBytes>>,
}

impl Request {
    pub(crate) fn new(request: librpc::Request) -> Self {
        let peer = request.peer().clone();
        Self { handle: Handle::new("request", request), peer, payload: PyOnceLock::new() }
    }

    /// It is answered now.
    fn take(&self, py: Python<'_>) -> PyResult<librpc::Request> {
        drop(self.handle.take(py)?); // the error says whether it was answered before
        let request = self.handle.close().ok_or_else(|| crate::errors::closed(py, "request"))?;
        Ok(*request)
    }

    fn answer(&self, py: Python<'_>, payload: &Payload) -> PyResult<()> {
        let request = self.take(py)?;
        match payload.len() {
            LARGE.. => py.detach(|| request.reply(payload)),
            _ => request.reply(payload),
        }
        .or_raise(py)
    }
}

#[pymethods]
impl Request {
    /// The bytes of the request. Read them before the answer.
    #[getter]
    fn payload(&self, py: Python<'_>) -> PyResult<Py<PyBytes>> {
        let payload =
            self.payload.get_or_try_init(py, || copy(py, self.handle.take(py)?.sample()).map(Bound::unbind))?;
        Ok(payload.clone_ref(py))
    }

    /// The payload as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import(intern!(py, "json"))?.call_method1(intern!(py, "loads"), (self.payload(py)?,))
    }

    /// The id of the client's node.
    #[getter]
    fn client(&self) -> &str {
        &self.peer.node
    }

    /// Who asks.
    #[getter]
    fn peer(&self, py: Python<'_>) -> PyResult<Py<Peer>> {
        Peer::new(py, &self.peer)
    }

    /// How long the client still waits, in seconds; `None`: without a limit.
    #[getter]
    fn time_left(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(self.handle.take(py)?.time_left().map(|left| left.as_secs_f64()))
    }

    /// Whether the client no longer waits.
    #[getter]
    fn is_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        let request = self.handle.take(py)?;
        let request = &*request;
        Ok(py.detach(|| request.is_cancelled()))
    }

    /// Whether it was answered.
    #[getter]
    fn is_answered(&self) -> bool {
        self.handle.is_closed()
    }

    /// Answers it. Does not wait.
    fn reply(&self, py: Python<'_>, payload: &Bound<'_, PyAny>) -> PyResult<()> {
        self.answer(py, &Payload::of(payload)?)
    }

    /// Answers it with a value as JSON.
    fn reply_json(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.answer(py, &Payload::of(to_json(value)?.as_any())?)
    }

    /// Says that it has failed: the client gets `Failed`.
    #[pyo3(signature = (code=1, text=""))]
    fn fail(&self, py: Python<'_>, code: i32, text: &str) -> PyResult<()> {
        self.take(py)?.fail(code, text).or_raise(py)
    }

    /// Says that the server does not know such requests: the client gets `Unimplemented`.
    #[pyo3(signature = (text=""))]
    fn unimplemented(&self, py: Python<'_>, text: &str) -> PyResult<()> {
        self.take(py)?.unimplemented(text).or_raise(py)
    }

    /// Answers it in parts. Its payload can still be read.
    fn stream(&self, py: Python<'_>) -> PyResult<ReplyStream> {
        self.payload(py)?;
        Ok(ReplyStream { handle: Handle::new("reply", self.take(py)?.stream()) })
    }

    fn __bytes__(&self, py: Python<'_>) -> PyResult<Py<PyBytes>> {
        self.payload(py)
    }

    fn __repr__(&self) -> String {
        format!("Request(client={:?}, is_answered={})", self.peer.node, self.handle.is_closed())
    }
}

/// An answer in parts. As a context manager it finishes, or fails if an exception leaves the block.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct ReplyStream {
    handle: Arc<Handle<librpc::ReplyStream>>,
}

impl ReplyStream {
    fn take(&self, py: Python<'_>) -> PyResult<librpc::ReplyStream> {
        drop(self.handle.take(py)?);
        let stream = self.handle.close().ok_or_else(|| crate::errors::closed(py, "reply"))?;
        Ok(*stream)
    }
}

#[pymethods]
impl ReplyStream {
    /// Sends a part, and waits until the client takes it. A client takes 16 parts ahead.
    fn send(&self, py: Python<'_>, part: &Bound<'_, PyAny>) -> PyResult<()> {
        let part = Payload::of(part)?;
        let mut guard = self.handle.wait(py)?;
        let sent = block_on(py, guard.send_async(&part), None, part.len() >= LARGE)?;
        sent.expect("it has no time limit here").or_raise(py)
    }

    /// Sends a part, if the client takes it now. `False`: it does not.
    fn try_send(&self, py: Python<'_>, part: &Bound<'_, PyAny>) -> PyResult<bool> {
        let part = Payload::of(part)?;
        let mut guard = self.handle.take(py)?;
        let stream = &mut *guard;
        py.detach(|| stream.try_send(&part)).or_raise(py)
    }

    /// Sends a part in a task.
    fn send_async<'py>(&self, py: Python<'py>, part: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (handle, part) = (self.handle.clone(), Payload::of(part)?);
        tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let sent = guard.send_async(&part).await;
            Python::attach(|py| sent.or_raise(py).map(|()| py.None()))
        })
    }

    /// Ends the answer.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.take(py)?.finish().or_raise(py)
    }

    /// Says that the request has failed. The parts that were sent are delivered before.
    #[pyo3(signature = (code=1, text=""))]
    fn fail(&self, py: Python<'_>, code: i32, text: &str) -> PyResult<()> {
        self.take(py)?.fail(code, text).or_raise(py)
    }

    #[getter]
    fn time_left(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(self.handle.take(py)?.time_left().map(|left| left.as_secs_f64()))
    }

    #[getter]
    fn is_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        let guard = self.handle.take(py)?;
        let stream = &*guard;
        Ok(py.detach(|| stream.is_cancelled()))
    }

    /// Whether it was finished, or has failed.
    #[getter]
    fn is_over(&self) -> bool {
        self.handle.is_closed()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind=None, error=None, _traceback=None), text_signature = "($self, kind=None, error=None, traceback=None)")]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyType>>,
        error: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if self.handle.is_closed() {
            return Ok(());
        }
        match (kind, error) {
            (Some(kind), Some(error)) => self.fail(py, 1, &format!("{}: {error}", kind.name()?)),
            _ => self.finish(py),
        }
    }
}
