//! Calling a service.

use std::sync::{Arc, Mutex};

use librpc::CallOptions;
use pyo3::prelude::*;

use crate::blocking::{LARGE, SLICE, block_on, is_main_thread};
use crate::buffer::Payload;
use crate::errors::{self, OrRaise, Raise};
use crate::handle::process;
use crate::limit::Limit;
use crate::records::record;
use crate::reply::{Pending, Replies, Reply};
use crate::tasks;

/// Calls a service. Any number of threads and tasks may use it.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Client {
    client: Mutex<Option<librpc::Client>>,
    service: Arc<str>,
    process: u64,
}

impl Client {
    pub(crate) fn new(client: librpc::Client) -> Self {
        let service = client.service().into();
        Self { client: Mutex::new(Some(client)), service, process: process() }
    }

    fn client(&self, py: Python<'_>) -> PyResult<librpc::Client> {
        if self.process != process() {
            return Err(errors::forked(py, "client"));
        }
        let client = self.client.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        client.ok_or_else(|| errors::closed(py, "client"))
    }

    /// Sends a request.
    fn begin(&self, py: Python<'_>, payload: &Bound<'_, PyAny>, options: CallOptions) -> PyResult<librpc::Pending> {
        let (client, payload) = (self.client(py)?, Payload::of(payload)?);
        let started = block_on(py, client.start_async(&payload, options), None, payload.len() >= LARGE)?;
        started.expect("it has no time limit here").or_raise(py)
    }
}

fn options(timeout: Limit, idempotent: bool, to: Option<&str>) -> CallOptions {
    let options = CallOptions::new(timeout.duration()).idempotent(idempotent);
    match to {
        Some(node) => options.to(node),
        None => options,
    }
}

/// Waits for a reply: a thread in the library itself, which is the quickest; the main thread only a little, and then so that a signal ends it.
pub(crate) fn wait(py: Python<'_>, mut pending: librpc::Pending) -> PyResult<librpc::Reply> {
    if !is_main_thread() {
        return py.detach(|| pending.wait()).or_raise(py);
    }
    if let Some(reply) = py.detach(|| pending.wait_timeout(SLICE)) {
        return reply.or_raise(py);
    }
    block_on(py, pending, None, false)?.expect("it has no time limit here").or_raise(py)
}

#[pymethods]
impl Client {
    #[getter]
    fn service(&self) -> &str {
        &self.service
    }

    /// Calls the service, and waits for the reply.
    #[pyo3(signature = (payload, timeout=Limit::Forever, *, idempotent=false, to=None), text_signature = "($self, payload, timeout=None, *, idempotent=False, to=None)")]
    fn call(
        &self,
        py: Python<'_>,
        payload: &Bound<'_, PyAny>,
        timeout: Limit,
        idempotent: bool,
        to: Option<&str>,
    ) -> PyResult<Reply> {
        let pending = self.begin(py, payload, options(timeout, idempotent, to))?;
        Ok(Reply::new(wait(py, pending)?))
    }

    /// Calls the service with a value as JSON, and returns the reply as a value.
    #[pyo3(signature = (value, timeout=Limit::Forever, *, idempotent=false, to=None), text_signature = "($self, value, timeout=None, *, idempotent=False, to=None)")]
    fn call_json<'py>(
        &self,
        py: Python<'py>,
        value: &Bound<'py, PyAny>,
        timeout: Limit,
        idempotent: bool,
        to: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = crate::common::to_json(value)?;
        self.call(py, request.as_any(), timeout, idempotent, to)?.json(py)
    }

    /// Sends a request. The reply is taken from what this returns; dropping that cancels the call.
    #[pyo3(signature = (payload, timeout=Limit::Forever, *, idempotent=false, to=None), text_signature = "($self, payload, timeout=None, *, idempotent=False, to=None)")]
    fn start(
        &self,
        py: Python<'_>,
        payload: &Bound<'_, PyAny>,
        timeout: Limit,
        idempotent: bool,
        to: Option<&str>,
    ) -> PyResult<Pending> {
        Ok(Pending::new(self.begin(py, payload, options(timeout, idempotent, to))?))
    }

    /// Calls the service, whose reply comes in parts: an iterator, also for `async for`.
    #[pyo3(signature = (payload, timeout=Limit::Forever, *, idempotent=false, to=None), text_signature = "($self, payload, timeout=None, *, idempotent=False, to=None)")]
    fn call_stream(
        &self,
        py: Python<'_>,
        payload: &Bound<'_, PyAny>,
        timeout: Limit,
        idempotent: bool,
        to: Option<&str>,
    ) -> PyResult<Replies> {
        let (client, payload) = (self.client(py)?, Payload::of(payload)?);
        let started = client.call_stream_async(&payload, options(timeout, idempotent, to));
        let started = block_on(py, started, None, payload.len() >= LARGE)?;
        Ok(Replies::new(started.expect("it has no time limit here").or_raise(py)?))
    }

    /// Calls every server of the service, and waits for all replies: `Answer(node, reply, error)` of each.
    #[pyo3(signature = (payload, timeout=Limit::Forever), text_signature = "($self, payload, timeout=None)")]
    fn call_all<'py>(
        &self,
        py: Python<'py>,
        payload: &Bound<'py, PyAny>,
        timeout: Limit,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let (client, payload) = (self.client(py)?, Payload::of(payload)?);
        let mut begun = Vec::new();
        for node in client.servers().or_raise(py)? {
            let started = client.start_async(&payload, options(timeout, false, Some(&node)));
            let started = block_on(py, started, None, payload.len() >= LARGE)?.expect("it has no time limit here");
            begun.push((node, started));
        }
        let mut answers = Vec::new();
        for (node, started) in begun {
            let answer = match started {
                Ok(pending) => wait(py, pending),
                Err(error) => Err(error.raise(py)),
            };
            let (reply, error) = match answer {
                Ok(reply) => (Some(Reply::new(reply)), None),
                Err(error) if error.is_instance(py, &py.import("librpc.errors")?.getattr("Error")?) => {
                    (None, Some(error))
                }
                Err(error) => return Err(error), // such as KeyboardInterrupt
            };
            answers.push(record!(py, "Answer", { node: &*node, reply: reply, error: error })?);
        }
        Ok(answers)
    }

    /// Calls the service in a task.
    #[pyo3(signature = (payload, timeout=Limit::Forever, *, idempotent=false, to=None), text_signature = "($self, payload, timeout=None, *, idempotent=False, to=None)")]
    fn call_async<'py>(
        &self,
        py: Python<'py>,
        payload: &Bound<'py, PyAny>,
        timeout: Limit,
        idempotent: bool,
        to: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (client, payload, options) = (self.client(py)?, Payload::of(payload)?, options(timeout, idempotent, to));
        tasks::spawn(py, async move {
            let reply = client.call_async(&payload, options).await;
            Python::attach(|py| Ok(Py::new(py, Reply::new(reply.or_raise(py)?))?.into_any()))
        })
    }

    /// The nodes that serve the service just now.
    fn servers(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let servers = self.client(py)?.servers().or_raise(py)?;
        Ok(servers.iter().map(ToString::to_string).collect())
    }

    /// Waits until somebody serves the service. `False`: the time is up.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn wait_for_server(&self, py: Python<'_>, timeout: Limit) -> PyResult<bool> {
        let client = self.client(py)?;
        let found = block_on(py, client.wait_for_server_async(timeout.duration()), None, false)?;
        found.expect("it has no time limit here").or_raise(py)
    }

    /// The same in a task.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn wait_for_server_async<'py>(&self, py: Python<'py>, timeout: Limit) -> PyResult<Bound<'py, PyAny>> {
        let client = self.client(py)?;
        tasks::spawn(py, async move {
            let found = client.wait_for_server_async(timeout.duration()).await;
            Python::attach(|py| Ok(found.or_raise(py)?.into_pyobject(py)?.to_owned().into_any().unbind()))
        })
    }

    /// Closes it. Calls that are under way go on.
    fn close(&self) {
        if self.process == process() {
            let client = self.client.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            drop(client);
        }
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.process != process() || self.client.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_none()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        format!("Client({:?})", self.service)
    }
}
