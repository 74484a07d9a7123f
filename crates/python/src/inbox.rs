//! Receiving.

use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use librpc::{Acknowledge, InboxBuilder, Policy, StopHandle, Wait};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::blocking::{SLICE, block_on, is_main_thread};
use crate::errors::OrRaise;
use crate::events;
use crate::handle::{Guard, Handle};
use crate::limit::Limit;
use crate::message::{Last, Message};
use crate::sample::Sample;
use crate::schema::Schema;
use crate::tasks;

/// Receives messages. One thread or task at a time receives; another one gets `InUse`.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Inbox {
    handle: Arc<Handle<Receiving>>,
    stop: StopHandle,
}

pub(crate) struct Receiving {
    inbox: librpc::Inbox,
    last: Last,
    spins: bool,
}

/// The inboxes that are closed at exit.
static INBOXES: Mutex<Vec<Weak<Handle<Receiving>>>> = Mutex::new(Vec::new());

/// Closes every inbox of this process: at exit.
pub(crate) fn close_all(py: Python<'_>, is_processed: bool) {
    let inboxes = std::mem::take(&mut *INBOXES.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    for receiving in inboxes.iter().filter_map(Weak::upgrade).filter_map(|handle| handle.close()) {
        py.detach(|| receiving.end(is_processed));
    }
}

impl Receiving {
    /// Closes it. The library takes the last message for processed, unless its owner panics: so that is how it learns that an exception has
    /// ended its processing. (Nothing is printed, and nothing else is unwound.)
    fn end(self: Box<Self>, is_processed: bool) {
        if !is_processed {
            let dropped_by_a_panic = AssertUnwindSafe(move || {
                let _receiving = self;
                resume_unwind(Box::new(()))
            });
            let _ = catch_unwind(dropped_by_a_panic);
        }
    }
}

/// What an inbox is like, as Python names it.
pub(crate) struct InboxOptions {
    pub(crate) capacity: Option<u64>,
    pub(crate) policy: Option<String>,
    pub(crate) acknowledge: Option<String>,
    pub(crate) durable: Option<String>,
    pub(crate) history: Option<usize>,
    pub(crate) keep_last: Option<usize>,
    pub(crate) max_message: Option<usize>,
    pub(crate) receive_own: bool,
    pub(crate) schema: Option<Schema>,
    pub(crate) wait: Option<String>,
}

/// One of a few names.
pub(crate) fn choice<T: Copy>(what: &str, name: &str, choices: &[(&str, T)]) -> PyResult<T> {
    choices.iter().find(|(choice, _)| *choice == name).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = choices.iter().map(|(choice, _)| format!("{choice:?}")).collect();
        PyValueError::new_err(format!("unknown {what} {name:?}: it is one of {}", known.join(", ")))
    })
}

pub(crate) fn wait_of(name: &str) -> PyResult<Wait> {
    choice("wait", name, &[("adaptive", Wait::Adaptive), ("spin", Wait::Spin), ("block", Wait::Block)])
}

impl InboxOptions {
    pub(crate) fn open(self, py: Python<'_>, mut builder: InboxBuilder<'_>) -> PyResult<Inbox> {
        let Self { capacity, policy, acknowledge, durable, history, keep_last, max_message, receive_own, schema, wait } =
            self;
        let policies =
            [("block", Policy::Block), ("drop_newest", Policy::DropNewest), ("drop_oldest", Policy::DropOldest)];
        if let Some(capacity) = capacity {
            builder = builder.capacity(capacity);
        }
        if let Some(policy) = policy {
            builder = builder.policy(choice("policy", &policy, &policies)?);
        }
        if let Some(acknowledge) = acknowledge {
            let choices = [("implicit", Acknowledge::Implicit), ("explicit", Acknowledge::Explicit)];
            builder = builder.acknowledge(choice("acknowledge", &acknowledge, &choices)?);
        }
        if let Some(name) = durable {
            builder = builder.durable(&name);
        }
        if let Some(most) = history {
            builder = builder.history(most);
        }
        if let Some(messages) = keep_last {
            builder = builder.keep_last(messages);
        }
        if let Some(bytes) = max_message {
            builder = builder.max_message(bytes);
        }
        if let Some(schema) = schema {
            builder = builder.schema(schema.0);
        }
        let wait = wait.as_deref().map(wait_of).transpose()?;
        if let Some(wait) = wait {
            builder = builder.wait(wait);
        }
        let inbox = py.detach(|| builder.receive_own(receive_own).open()).or_raise(py)?;
        let stop = inbox.stop_handle();
        let receiving = Receiving { inbox, last: Last::default(), spins: matches!(wait, Some(Wait::Spin)) };
        let handle = Handle::new("inbox", receiving);
        let mut inboxes = INBOXES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        inboxes.retain(|inbox| inbox.strong_count() > 0);
        inboxes.push(Arc::downgrade(&handle));
        Ok(Inbox { handle, stop })
    }
}

/// Receives: first what is there, with the GIL. Then it waits without the GIL: a thread as long as it takes, the main thread a little at a time
/// and then so that a signal ends the wait. `$main` is how the main thread goes on.
macro_rules! receive {
    ($py:ident, $guard:ident, $timeout:ident, $try:ident, $recv:ident, $within:ident, $show:expr, $main:expr) => {{
        let Receiving { inbox, last, spins } = &mut *$guard;
        let show = $show;
        if let Some(found) = inbox.$try().or_raise($py)? {
            return show($py, found, last).map(Some);
        }
        if $timeout == Limit::Within(std::time::Duration::ZERO) {
            return Ok(None);
        }
        if !is_main_thread() {
            let found = $py.detach(|| match $timeout {
                Limit::Forever => inbox.$recv(),
                Limit::Within(limit) => inbox.$within(limit),
            });
            return found.or_raise($py)?.map(|found| show($py, found, last)).transpose();
        }
        let end = $timeout.end();
        let goes_on: fn(
            &mut librpc::Inbox,
            Python<'_>,
            Option<Instant>,
            &mut Last,
        ) -> PyResult<Option<Option<Py<PyAny>>>> = $main;
        loop {
            let slice = end.map_or(SLICE, |end| SLICE.min(end.saturating_duration_since(Instant::now())));
            if let Some(found) = $py.detach(|| inbox.$within(slice)).or_raise($py)? {
                return show($py, found, last).map(Some);
            }
            $py.check_signals()?;
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(None);
            }
            if !*spins && let Some(found) = goes_on(inbox, $py, end, last)? {
                return Ok(found);
            }
        }
    }};
}

impl Inbox {
    /// What an iteration gets: `None` once it was stopped.
    fn receive(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Py<PyAny>>> {
        let mut guard = self.handle.take(py)?;
        receive!(
            py,
            guard,
            timeout,
            try_recv,
            recv,
            recv_timeout,
            |py, message: librpc::Message<'_>, last: &mut Last| Message::object(py, &message, last),
            |inbox, py, end, last| {
                let found = block_on(py, inbox.recv_async(), end, false)?.transpose().or_raise(py)?.flatten();
                Ok(Some(found.map(|message| Message::object(py, &message, last)).transpose()?))
            }
        )
    }

    /// Closes it. Nothing happens if it was closed before.
    fn end(&self, py: Python<'_>, is_processed: bool) {
        match self.handle.close() {
            Some(receiving) => py.detach(|| receiving.end(is_processed)),
            None => self.stop.stop(), // whoever receives puts it back, and it ends
        }
    }
}

#[pymethods]
impl Inbox {
    /// Waits for the next message. `None`: the time is up, or the inbox was stopped.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn recv(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Py<PyAny>>> {
        self.receive(py, timeout)
    }

    /// The next message, if there is one.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut guard = self.handle.take(py)?;
        let Receiving { inbox, last, .. } = &mut *guard;
        inbox.try_recv().or_raise(py)?.map(|message| Message::object(py, &message, last)).transpose()
    }

    /// Waits for a message, and returns it with those that are there, too: at most this many. Empty: the time is up, or the inbox was stopped.
    /// All but the last one count as processed.
    #[pyo3(signature = (most, timeout=Limit::Forever), text_signature = "($self, most, timeout=None)")]
    fn recv_many(&self, py: Python<'_>, most: usize, timeout: Limit) -> PyResult<Vec<Py<PyAny>>> {
        let mut messages = Vec::new();
        if most == 0 {
            return Ok(messages);
        }
        messages.extend(self.receive(py, timeout)?);
        if messages.is_empty() {
            return Ok(messages);
        }
        // Closed meanwhile, or another thread was faster: what was received is not lost.
        let Ok(mut guard) = self.handle.take(py) else { return Ok(messages) };
        let Receiving { inbox, last, .. } = &mut *guard;
        while messages.len() < most {
            match inbox.try_recv() {
                Ok(Some(message)) => messages.push(Message::object(py, &message, last)?),
                Ok(None) | Err(_) => break, // the next receive says so again
            }
        }
        Ok(messages)
    }

    /// Waits for the newest message of each topic and sender; older ones are passed over and counted (`missed`).
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn recv_latest(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Py<PyAny>>> {
        let mut guard = self.handle.take(py)?;
        receive!(
            py,
            guard,
            timeout,
            try_recv_latest,
            recv_latest,
            recv_latest_timeout,
            |py, message: librpc::Message<'_>, last: &mut Last| Message::object(py, &message, last),
            |_, _, _, _| Ok(None)
        )
    }

    /// Waits for what comes next: a message, or one of `librpc.events`.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn recv_event(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Py<PyAny>>> {
        let mut guard = self.handle.take(py)?;
        receive!(
            py,
            guard,
            timeout,
            try_recv_event,
            recv_event,
            recv_event_timeout,
            |py, event: librpc::Event<'_>, last: &mut Last| events::event(py, &event, last),
            |inbox, py, end, last| {
                let found = block_on(py, inbox.recv_event_async(), end, false)?.transpose().or_raise(py)?.flatten();
                Ok(Some(found.map(|event| events::event(py, &event, last)).transpose()?))
            }
        )
    }

    /// Waits for the next message, whose payload stays where its sender has put it.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn recv_sample(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Py<PyAny>>> {
        let mut guard = self.handle.take(py)?;
        receive!(
            py,
            guard,
            timeout,
            try_recv_sample,
            recv_sample,
            recv_sample_timeout,
            |py, sample: librpc::Sample, last: &mut Last| Sample::object(py, sample, last),
            |inbox, py, end, last| {
                let found = block_on(py, inbox.recv_sample_async(), end, false)?.transpose().or_raise(py)?.flatten();
                Ok(Some(found.map(|sample| Sample::object(py, sample, last)).transpose()?))
            }
        )
    }

    /// Waits in a task for the next message. `None`: the inbox was stopped.
    fn recv_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = taken(&handle)?;
            found(&mut guard).await
        })
    }

    /// Waits in a task for what comes next.
    fn recv_event_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = taken(&handle)?;
            let Receiving { inbox, last, .. } = &mut *guard;
            let event = inbox.recv_event_async().await;
            Python::attach(|py| {
                let event = event.or_raise(py)?.map(|event| events::event(py, &event, last)).transpose()?;
                Ok(event.unwrap_or_else(|| py.None()))
            })
        })
    }

    /// Waits in a task for the next message, whose payload stays where its sender has put it.
    fn recv_sample_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = taken(&handle)?;
            let Receiving { inbox, last, .. } = &mut *guard;
            let sample = inbox.recv_sample_async().await;
            Python::attach(|py| {
                let sample = sample.or_raise(py)?.map(|sample| Sample::object(py, sample, last)).transpose()?;
                Ok(sample.unwrap_or_else(|| py.None()))
            })
        })
    }

    /// Acknowledges every message received so far.
    fn ack(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.take(py)?.inbox.ack();
        Ok(())
    }

    /// Makes the receives return `None`: the one in progress and all later ones. Any thread may call it.
    fn stop(&self) {
        self.stop.stop();
    }

    /// A descriptor for `select`, `poll` and `epoll`: readable while there may be something to receive, until `try_recv` has found nothing.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        Ok(self.handle.take(py)?.inbox.as_raw_fd())
    }

    /// Closes it: its senders learn that it is gone.
    fn close(&self, py: Python<'_>) {
        self.end(py, true);
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.receive(py, Limit::Forever)
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn_next(py, async move {
            let mut guard = taken(&handle)?;
            found(&mut guard).await
        })
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// After an exception, the last message does not count as processed.
    #[pyo3(signature = (*exception))]
    fn __exit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) {
        let has_failed = exception.iter().any(|value| !value.is_none());
        self.end(py, !has_failed);
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.handle.take(py) {
            Ok(guard) => format!("{:?}", guard.inbox),
            Err(_) => "Inbox(closed or in use)".into(),
        }
    }
}

fn taken(handle: &Arc<Handle<Receiving>>) -> PyResult<Guard<Receiving>> {
    Python::attach(|py| handle.take_for_task(py))
}

async fn found(receiving: &mut Receiving) -> PyResult<Py<PyAny>> {
    let Receiving { inbox, last, .. } = receiving;
    let message = inbox.recv_async().await;
    Python::attach(|py| {
        let message = message.or_raise(py)?.map(|message| Message::object(py, &message, last)).transpose()?;
        Ok(message.unwrap_or_else(|| py.None()))
    })
}
