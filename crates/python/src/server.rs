//! Serving a service.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use librpc::StopHandle;
use pyo3::prelude::*;

use crate::blocking::{SLICE, block_on, is_main_thread};
use crate::errors::{self, OrRaise};
use crate::handle::process;
use crate::limit::Limit;
use crate::request::Request;
use crate::tasks;

/// Serves a service. Any number of threads and tasks may receive its requests.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Server {
    server: Mutex<Option<Arc<librpc::Server>>>,
    stop: StopHandle,
    service: String,
    process: u64,
    /// How many threads receive just now.
    receiving: AtomicUsize,
}

impl Server {
    pub(crate) fn new(server: librpc::Server) -> Self {
        let (stop, service) = (server.stop_handle(), server.service().to_owned());
        Self {
            server: Mutex::new(Some(Arc::new(server))),
            stop,
            service,
            process: process(),
            receiving: AtomicUsize::new(0),
        }
    }

    fn server(&self, py: Python<'_>) -> PyResult<Arc<librpc::Server>> {
        if self.process != process() {
            return Err(errors::forked(py, "server"));
        }
        let server = self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        server.ok_or_else(|| errors::closed(py, "server"))
    }

    fn receive(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Request>> {
        let server = self.server(py)?;
        self.receiving.fetch_add(1, Ordering::Relaxed); // with the GIL, as whoever looks at it
        let received = self.next(py, &server, timeout);
        py.detach(|| drop(server)); // it may have been closed meanwhile, which waits for its last answers
        self.receiving.fetch_sub(1, Ordering::Relaxed);
        received
    }

    fn next(&self, py: Python<'_>, server: &librpc::Server, timeout: Limit) -> PyResult<Option<Request>> {
        if let Some(request) = server.try_recv().or_raise(py)? {
            return Ok(Some(Request::new(request)));
        }
        let end = timeout.end();
        let received = if timeout == Limit::Within(Duration::ZERO) {
            Ok(None)
        } else if !is_main_thread() {
            py.detach(|| match timeout {
                Limit::Forever => server.recv(),
                Limit::Within(limit) => server.recv_timeout(limit),
            })
        } else {
            match py.detach(|| server.recv_timeout(SLICE.min(timeout.duration()))) {
                Ok(None) if end.is_none_or(|end| Instant::now() < end) => {
                    block_on(py, server.recv_async(), end, false)?.unwrap_or(Ok(None))
                }
                received => received,
            }
        };
        Ok(received.or_raise(py)?.map(Request::new))
    }
}

#[pymethods]
impl Server {
    #[getter]
    fn service(&self) -> &str {
        &self.service
    }

    /// Waits for the next request. `None`: the time is up, or the server was stopped.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn recv(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Request>> {
        self.receive(py, timeout)
    }

    /// The next request, if there is one.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        self.receive(py, Limit::Within(Duration::ZERO))
    }

    /// Waits in a task for the next request. `None`: the server was stopped.
    fn recv_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let server = self.server(py)?;
        tasks::spawn(py, received(server))
    }

    /// Receives requests and answers each with what the handler returns, until the server is stopped. In this thread.
    fn run(slf: Py<Self>, py: Python<'_>, handler: Py<PyAny>) -> PyResult<()> {
        py.import("librpc._serving")?.call_method1("run", (slf, handler))?;
        Ok(())
    }

    /// The same in a task: the handler is `async def`, and handles as many requests at once as `max_tasks`.
    #[pyo3(signature = (handler, *, max_tasks=256))]
    fn run_async<'py>(
        slf: Py<Self>,
        py: Python<'py>,
        handler: Py<PyAny>,
        max_tasks: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        py.import("librpc._serving")?.call_method1("run_async", (slf, handler, max_tasks))
    }

    /// How many requests were taken and not answered.
    #[getter]
    fn in_flight(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.server(py)?.in_flight())
    }

    /// Ends it: it takes no more requests, and the receives return `None` once those that it has were handed out.
    fn stop(&self) {
        self.stop.stop();
    }

    /// Stops it, and lets it go. What was handed out can still be answered.
    fn close(&self, py: Python<'_>) {
        if self.process == process() {
            self.stop.stop();
            let server = self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            py.detach(|| {
                // It ends with the last thread that receives: soon, as it was stopped.
                for _ in 0..1000 {
                    if self.receiving.load(Ordering::Relaxed) == 0 {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                drop(server); // it waits for clients that have no room for its last answers
            });
        }
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.process != process() || self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_none()
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        self.receive(py, Limit::Forever)
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let server = self.server(py)?;
        tasks::spawn_next(py, received(server))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("Server({:?})", self.service)
    }
}

async fn received(server: Arc<librpc::Server>) -> PyResult<Py<PyAny>> {
    let request = server.recv_async().await;
    Python::attach(|py| match request.or_raise(py)? {
        Some(request) => Ok(Py::new(py, Request::new(request))?.into_any()),
        None => Ok(py.None()),
    })
}
