//! A participant with an id.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use librpc::{DEFAULT_SEND_TIMEOUT, Limits};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::admission::Admission;
use crate::blocking::{block_on, run};
use crate::client::Client;
use crate::domain::domain;
use crate::errors::{self, OrRaise};
use crate::handle::process;
use crate::inbox::{self, Inbox, InboxOptions, wait_of};
use crate::limit::{Limit, OwnLimit};
use crate::publisher::Publisher;
use crate::schema::Schema;
use crate::sender::Sender;
use crate::server::Server;
use crate::stats::node_stats;
use crate::tasks;

/// A node of this process.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Node {
    id: String,
    incarnation: String,
    shared: Arc<Shared>,
}

/// A node, as those reach it that use or close it. Locked only with the GIL.
struct Shared {
    process: u64,
    state: Mutex<State>,
}

struct State {
    /// `None`: it is closed.
    node: Option<Arc<librpc::Node>>,
    /// Who waits with the node, and stops when it is closed.
    waiting: Vec<Waker>,
}

/// The nodes that are closed at exit.
static NODES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Closes every node of this process, and its inboxes: at exit. `has_failed`: the last messages were not processed.
#[pyfunction]
pub(crate) fn _close_nodes(py: Python<'_>, has_failed: bool) {
    inbox::close_all(py, !has_failed);
    let nodes = std::mem::take(&mut *NODES.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    for node in nodes.iter().filter_map(Weak::upgrade) {
        let _ = node.close(py, Duration::ZERO);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn node(&self, py: Python<'_>) -> PyResult<Arc<librpc::Node>> {
        if self.process != process() {
            return Err(errors::forked(py, "node"));
        }
        self.state().node.clone().ok_or_else(|| errors::closed(py, "node"))
    }

    fn close(&self, py: Python<'_>, timeout: Duration) -> PyResult<()> {
        if self.process != process() {
            return Ok(());
        }
        let (node, waiting) = {
            let mut state = self.state();
            (state.node.take(), std::mem::take(&mut state.waiting))
        };
        let Some(mut node) = node else { return Ok(()) };
        waiting.into_iter().for_each(Waker::wake);
        let close = move || {
            // Others use it only for a moment: those that wait were woken.
            for _ in 0..100 {
                match Arc::try_unwrap(node) {
                    Ok(node) => return node.close(timeout),
                    Err(shared) => node = shared,
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(node); // a task of this very thread uses it: its end is the node's
            Ok(())
        };
        match timeout.is_zero() {
            true => py.detach(close).or_raise(py),
            false => run(py, close)?.or_raise(py),
        }
    }

    /// Waits with the node. If the node is closed meanwhile, the wait ends.
    async fn until_closed<T>(&self, future: impl Future<Output = PyResult<T>> + Send) -> PyResult<T> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let is_closed = Python::attach(|py| {
                let mut state = self.state();
                state.waiting.retain(|waker| !waker.will_wake(context.waker()));
                state.waiting.push(context.waker().clone());
                state.node.is_none().then(|| errors::closed(py, "node"))
            });
            match is_closed {
                Some(error) => Poll::Ready(Err(error)),
                None => future.as_mut().poll(context),
            }
        })
        .await
    }
}

async fn connect(
    shared: Arc<Shared>,
    node: Arc<librpc::Node>,
    to: String,
    limit: Limit,
    stamp_all: bool,
    schema: Option<Schema>,
) -> PyResult<Sender> {
    let connecting = async {
        let mut builder = node.sender_builder(&to).wait(limit.duration());
        if stamp_all {
            builder = builder.stamp_all();
        }
        if let Some(schema) = schema {
            builder = builder.schema(schema.0);
        }
        let sender = builder.open_async().await;
        Python::attach(|py| sender.or_raise(py).map(Sender::new))
    };
    shared.until_closed(connecting).await
}

fn limits(options: Option<&Bound<'_, PyDict>>) -> PyResult<Limits> {
    let mut limits = Limits::default();
    for (name, value) in options.into_iter().flatten() {
        let name: String = name.extract()?;
        limits = match &*name {
            "handshakes_per_user" => limits.handshakes_per_user(value.extract()?),
            "channels_per_user" => limits.channels_per_user(value.extract()?),
            "mapped_bytes_per_user" => limits.mapped_bytes_per_user(value.extract()?),
            "topic_bytes_per_user" => limits.topic_bytes_per_user(value.extract()?),
            "decisions_per_user" => limits.decisions_per_user(value.extract()?),
            "decisions" => limits.decisions(value.extract()?),
            "handshake_timeout" => limits.handshake_timeout(value.extract::<Limit>()?.duration()),
            "waiting_bytes_per_user" => limits.waiting_bytes_per_user(value.extract()?),
            "payload_bytes" => limits.payload_bytes(value.extract()?),
            other => return Err(PyTypeError::new_err(format!("unknown limit {other:?}"))),
        };
    }
    Ok(limits)
}

#[pymethods]
impl Node {
    #[new]
    #[pyo3(signature = (id, *, domain=None, shared_group=None, admit=None, readers=None, callers=None, limits=None))]
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    fn new(
        py: Python<'_>,
        id: &str,
        domain: Option<PathBuf>,
        shared_group: Option<u32>,
        admit: Option<Admission>,
        readers: Option<HashMap<String, Admission>>,
        callers: Option<HashMap<String, Admission>>,
        limits: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut builder =
            librpc::Node::builder(id).domain(self::domain(domain, shared_group)).limits(self::limits(limits)?);
        if let Some(Admission(admission)) = admit {
            builder = builder.admit(admission);
        }
        for (pattern, Admission(admission)) in readers.into_iter().flatten() {
            builder = builder.readers(&pattern, admission);
        }
        for (pattern, Admission(admission)) in callers.into_iter().flatten() {
            builder = builder.callers(&pattern, admission);
        }
        py.import(intern!(py, "librpc._logging"))?.call_method0(intern!(py, "start"))?;
        let node = py.detach(|| builder.open()).or_raise(py)?;
        let (id, incarnation) = (node.id().to_owned(), node.incarnation().to_string());
        let state = State { node: Some(Arc::new(node)), waiting: Vec::new() };
        let shared = Arc::new(Shared { process: process(), state: Mutex::new(state) });
        let mut nodes = NODES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        nodes.retain(|node| node.strong_count() > 0);
        nodes.push(Arc::downgrade(&shared));
        drop(nodes);
        Ok(Self { id, incarnation, shared })
    }

    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    #[getter]
    fn incarnation(&self) -> &str {
        &self.incarnation
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.shared.process != process() || self.shared.state().node.is_none()
    }

    /// Opens the inbox of the node, for what is sent to it.
    #[pyo3(signature = (*, capacity=None, policy=None, acknowledge=None, durable=None, history=None, keep_last=None, max_message=None, receive_own=false, schema=None, wait=None))]
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    fn inbox(
        &self,
        py: Python<'_>,
        capacity: Option<u64>,
        policy: Option<String>,
        acknowledge: Option<String>,
        durable: Option<String>,
        history: Option<usize>,
        keep_last: Option<usize>,
        max_message: Option<usize>,
        receive_own: bool,
        schema: Option<Schema>,
        wait: Option<String>,
    ) -> PyResult<Inbox> {
        let options = InboxOptions {
            capacity,
            policy,
            acknowledge,
            durable,
            history,
            keep_last,
            max_message,
            receive_own,
            schema,
            wait,
        };
        options.open(py, self.shared.node(py)?.inbox_builder())
    }

    /// Opens an inbox for what is published on topics that these patterns match.
    #[pyo3(signature = (*patterns, capacity=None, policy=None, acknowledge=None, durable=None, history=None, keep_last=None, max_message=None, receive_own=false, schema=None, wait=None))]
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    fn subscribe(
        &self,
        py: Python<'_>,
        patterns: &Bound<'_, PyTuple>,
        capacity: Option<u64>,
        policy: Option<String>,
        acknowledge: Option<String>,
        durable: Option<String>,
        history: Option<usize>,
        keep_last: Option<usize>,
        max_message: Option<usize>,
        receive_own: bool,
        schema: Option<Schema>,
        wait: Option<String>,
    ) -> PyResult<Inbox> {
        let options = InboxOptions {
            capacity,
            policy,
            acknowledge,
            durable,
            history,
            keep_last,
            max_message,
            receive_own,
            schema,
            wait,
        };
        let patterns: Vec<String> = patterns.extract()?;
        options.open(py, self.shared.node(py)?.subscriber_builder(&patterns))
    }

    /// Connects to a node, and waits until it is there.
    #[pyo3(signature = (to, timeout=Limit::Forever, *, stamp_all=false, schema=None), text_signature = "($self, to, timeout=None, *, stamp_all=False, schema=None)")]
    fn connect(
        &self,
        py: Python<'_>,
        to: String,
        timeout: Limit,
        stamp_all: bool,
        schema: Option<Schema>,
    ) -> PyResult<Sender> {
        let connecting = connect(self.shared.clone(), self.shared.node(py)?, to, timeout, stamp_all, schema);
        block_on(py, connecting, None, false)?.expect("it has no time limit here")
    }

    /// Connects to a node that is there.
    #[pyo3(signature = (to, *, stamp_all=false, schema=None))]
    fn try_connect(&self, py: Python<'_>, to: String, stamp_all: bool, schema: Option<Schema>) -> PyResult<Sender> {
        self.connect(py, to, Limit::Within(Duration::ZERO), stamp_all, schema)
    }

    /// Connects to a node in a task.
    #[pyo3(signature = (to, timeout=Limit::Forever, *, stamp_all=false, schema=None), text_signature = "($self, to, timeout=None, *, stamp_all=False, schema=None)")]
    fn connect_async<'py>(
        &self,
        py: Python<'py>,
        to: String,
        timeout: Limit,
        stamp_all: bool,
        schema: Option<Schema>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let connecting = connect(self.shared.clone(), self.shared.node(py)?, to, timeout, stamp_all, schema);
        tasks::spawn(py, async move {
            let sender = connecting.await?;
            Python::attach(|py| Ok(Py::new(py, sender)?.into_any()))
        })
    }

    /// Opens a publisher.
    #[pyo3(signature = (topic, *, history=0, history_bytes=None, never_waits=false, stamp_all=false, schema=None))]
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    fn publisher(
        &self,
        py: Python<'_>,
        topic: String,
        history: usize,
        history_bytes: Option<u64>,
        never_waits: bool,
        stamp_all: bool,
        schema: Option<Schema>,
    ) -> PyResult<Publisher> {
        let node = self.shared.node(py)?;
        let mut builder = node.publisher_builder(&topic).history(history);
        if let Some(bytes) = history_bytes {
            builder = builder.history_bytes(bytes);
        }
        if never_waits {
            builder = builder.never_waits();
        }
        if stamp_all {
            builder = builder.stamp_all();
        }
        if let Some(schema) = schema {
            builder = builder.schema(schema.0);
        }
        let publisher = builder.open().or_raise(py)?;
        let timeout = if never_waits { Duration::ZERO } else { DEFAULT_SEND_TIMEOUT };
        Ok(Publisher::new(publisher, topic, timeout))
    }

    /// Serves a service. With a handler, requests are answered by what it returns: in threads, or, if it is `async def`, in tasks of the running
    /// loop.
    #[pyo3(signature = (service, handler=None, *, threads=1, max_in_flight=None, max_per_client=None, max_request=None, capacity=None, schemas=None, wait=None))]
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    fn serve(
        &self,
        py: Python<'_>,
        service: String,
        handler: Option<Py<PyAny>>,
        threads: usize,
        max_in_flight: Option<usize>,
        max_per_client: Option<usize>,
        max_request: Option<usize>,
        capacity: Option<u64>,
        schemas: Option<(Schema, Schema)>,
        wait: Option<String>,
    ) -> PyResult<Py<Server>> {
        let node = self.shared.node(py)?;
        if let Some(handler) = &handler {
            py.import("librpc._serving")?.call_method1("check", (handler, threads))?;
        }
        let mut builder = node.server_builder(&service);
        if let Some(requests) = max_in_flight {
            builder = builder.max_in_flight(requests);
        }
        if let Some(requests) = max_per_client {
            builder = builder.max_per_client(requests);
        }
        if let Some(bytes) = max_request {
            builder = builder.max_request(bytes);
        }
        if let Some(capacity) = capacity {
            builder = builder.capacity(capacity);
        }
        if let Some((request, reply)) = schemas {
            builder = builder.schemas(request.0, reply.0);
        }
        if let Some(wait) = wait {
            builder = builder.wait(wait_of(&wait)?);
        }
        let server = Py::new(py, Server::new(py.detach(|| builder.open()).or_raise(py)?))?;
        if let Some(handler) = handler {
            let serving = py.import("librpc._serving")?;
            serving.call_method1("start", (server.clone_ref(py), handler, threads))?;
        }
        Ok(server)
    }

    /// Opens a client of a service.
    #[pyo3(signature = (service, *, max_in_flight=None, max_reply=None, capacity=None, schemas=None, any_types=false, wait=None))]
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    fn client(
        &self,
        py: Python<'_>,
        service: String,
        max_in_flight: Option<usize>,
        max_reply: Option<usize>,
        capacity: Option<u64>,
        schemas: Option<(Schema, Schema)>,
        any_types: bool,
        wait: Option<String>,
    ) -> PyResult<Client> {
        let node = self.shared.node(py)?;
        let mut builder = node.client_builder(&service);
        if let Some(calls) = max_in_flight {
            builder = builder.max_in_flight(calls);
        }
        if let Some(bytes) = max_reply {
            builder = builder.max_reply(bytes);
        }
        if let Some(capacity) = capacity {
            builder = builder.capacity(capacity);
        }
        if let Some((request, reply)) = schemas {
            builder = builder.schemas(request.0, reply.0);
        }
        if any_types {
            builder = builder.any_types();
        }
        if let Some(wait) = wait {
            builder = builder.wait(wait_of(&wait)?);
        }
        Ok(Client::new(py.detach(|| builder.open()).or_raise(py)?))
    }

    /// What it counts.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let node = self.shared.node(py)?;
        let stats = py.detach(|| node.stats());
        drop(node);
        node_stats(py, &stats)
    }

    /// Waits until everything that it sent is processed, and leaves. `Unprocessed`: the time was up; it has left all the same.
    ///
    /// Without a limit given it does not wait, and does not say what is not processed yet: that stays with its receivers.
    #[pyo3(signature = (timeout=OwnLimit::Own), text_signature = "($self, timeout=...)")]
    fn close(&self, py: Python<'_>, timeout: OwnLimit) -> PyResult<()> {
        match timeout {
            OwnLimit::Own => drop(self.shared.close(py, Duration::ZERO)),
            OwnLimit::Given(timeout) => self.shared.close(py, timeout.duration())?,
        }
        Ok(())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        let _ = self.shared.close(py, Duration::ZERO); // what was sent stays with its receivers
    }

    fn __repr__(&self) -> String {
        format!("Node({:?})", self.id)
    }
}
