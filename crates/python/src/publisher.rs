//! Publishing to a topic.

use std::sync::Arc;
use std::time::Duration;

use librpc::{PublishError, UnsentLoan};
use pyo3::prelude::*;

use crate::blocking::{LARGE, block_on};
use crate::buffer::Payload;
use crate::common::{part, rate, redelivery, to_json};
use crate::errors::{OrRaise, Raise};
use crate::events;
use crate::handle::{Guard, Handle, User};
use crate::limit::{Limit, OwnLimit, seconds};
use crate::loan::{Loan, Owner, loan_limit};
use crate::records;
use crate::sender::run_with;
use crate::tasks;

/// Which inboxes a message has reached.
#[pyclass(frozen, get_all, freelist = 16, module = "librpc")]
pub(crate) struct Receipt {
    /// How many inboxes have got it.
    inboxes: usize,
    /// How many get it once they have answered.
    pending: usize,
    /// Why others have not: an exception for each.
    undelivered: Vec<Py<PyAny>>,
}

impl Receipt {
    fn new(py: Python<'_>, receipt: librpc::Receipt<'_>) -> Self {
        let undelivered = receipt.undelivered().iter().map(|error| error.raise(py).into_value(py).into_any());
        Self { inboxes: receipt.inboxes(), pending: receipt.pending(), undelivered: undelivered.collect() }
    }
}

#[pymethods]
impl Receipt {
    fn __repr__(&self) -> String {
        let Self { inboxes, pending, undelivered } = self;
        format!("Receipt(inboxes={inboxes}, pending={pending}, undelivered={})", undelivered.len())
    }
}

/// Publishes to a topic, in order. Threads may share it: each waits until the other has published.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Publisher {
    handle: Arc<Handle<Publishing>>,
    topic: String,
}

pub(crate) struct Publishing {
    publisher: librpc::Publisher,
    timeout: Duration,
}

impl Publisher {
    pub(crate) fn new(publisher: librpc::Publisher, topic: String, timeout: Duration) -> Self {
        Self { handle: Handle::new("publisher", Publishing { publisher, timeout }), topic }
    }

    fn publish_payload(&self, py: Python<'_>, payload: &Payload, timeout: OwnLimit) -> PyResult<Receipt> {
        let mut guard = self.handle.wait(py)?;
        let Publishing { publisher, timeout: own } = &mut *guard;
        publisher.set_timeout(timeout.or(*own));
        let receipt = block_on(py, publisher.publish_async(payload), None, payload.len() >= LARGE)?;
        receipt.expect("it has no time limit").or_raise(py).map(|receipt| Receipt::new(py, receipt))
    }

    fn publish_later<'py>(&self, py: Python<'py>, payload: Payload, timeout: OwnLimit) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let Publishing { publisher, timeout: own } = &mut *guard;
            publisher.set_timeout(timeout.or(*own));
            let receipt = publisher.publish_async(&payload).await;
            Python::attach(|py| Ok(Py::new(py, Receipt::new(py, receipt.or_raise(py)?))?.into_any()))
        })
    }

    /// Publishes a loan. What was not published goes back into it.
    pub(crate) fn publish_loan(&self, py: Python<'_>, loan: &Loan, timeout: OwnLimit) -> PyResult<Receipt> {
        let mut guard = self.handle.wait(py)?;
        let taken = loan.take(py)?;
        let limit = timeout.or(guard.timeout);
        guard.publisher.set_timeout(limit);
        let publish = move |mut guard: Guard<Publishing>| {
            let receipt = guard.publisher.publish_loan(taken);
            let receipt = receipt.map(|receipt| Python::attach(|py| Receipt::new(py, receipt)));
            (guard, receipt)
        };
        let (guard, receipt): (_, Result<Receipt, UnsentLoan<PublishError>>) = run_with(py, guard, limit, publish)?;
        drop(guard);
        receipt.map_err(|UnsentLoan { error, loan: unsent }| {
            loan.put_back(unsent);
            error.raise(py)
        })
    }
}

#[pymethods]
impl Publisher {
    #[getter]
    fn topic(&self) -> &str {
        &self.topic
    }

    /// Publishes a message, and waits for full inboxes up to the limit (by default the publisher's).
    #[pyo3(signature = (payload, timeout=OwnLimit::Own), text_signature = "($self, payload, timeout=...)")]
    fn publish(&self, py: Python<'_>, payload: &Bound<'_, PyAny>, timeout: OwnLimit) -> PyResult<Receipt> {
        if let Ok(loan) = payload.cast::<Loan>() {
            return self.publish_loan(py, loan.get(), timeout);
        }
        self.publish_payload(py, &Payload::of(payload)?, timeout)
    }

    /// Publishes a message to those inboxes that have room.
    fn try_publish(&self, py: Python<'_>, payload: &Bound<'_, PyAny>) -> PyResult<Receipt> {
        self.publish(py, payload, OwnLimit::Given(Limit::Within(Duration::ZERO)))
    }

    /// Publishes a value as JSON.
    #[pyo3(signature = (value, timeout=OwnLimit::Own), text_signature = "($self, value, timeout=...)")]
    fn publish_json(&self, py: Python<'_>, value: &Bound<'_, PyAny>, timeout: OwnLimit) -> PyResult<Receipt> {
        self.publish_payload(py, &Payload::of(to_json(value)?.as_any())?, timeout)
    }

    /// Publishes a message in a task.
    #[pyo3(signature = (payload, timeout=OwnLimit::Own), text_signature = "($self, payload, timeout=...)")]
    fn publish_async<'py>(
        &self,
        py: Python<'py>,
        payload: &Bound<'py, PyAny>,
        timeout: OwnLimit,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.publish_later(py, Payload::of(payload)?, timeout)
    }

    /// Waits until everything published is processed.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn flush(&self, py: Python<'_>, timeout: Limit) -> PyResult<()> {
        let mut guard = self.handle.wait(py)?;
        let flushed = block_on(py, guard.publisher.flush_async(timeout.duration()), None, false)?;
        flushed.expect("it has no time limit here").or_raise(py)
    }

    /// Waits in a task until everything published is processed.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn flush_async<'py>(&self, py: Python<'py>, timeout: Limit) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let flushed = guard.publisher.flush_async(timeout.duration()).await;
            Python::attach(|py| flushed.or_raise(py).map(|()| py.None()))
        })
    }

    /// Memory for a message of this many bytes, which is filled in place and published without a copy. All zero, unless `zero` is false.
    #[pyo3(signature = (bytes, *, zero=true))]
    fn loan(slf: Bound<'_, Self>, bytes: usize, zero: bool) -> PyResult<Loan> {
        let py = slf.py();
        let guard = slf.get().handle.wait(py)?;
        let take = move |mut guard: Guard<Publishing>| {
            let loan = if zero { guard.publisher.loan(bytes) } else { guard.publisher.loan_uninit(bytes) };
            (guard, loan)
        };
        let (guard, loan) = run_with(py, guard, loan_limit(bytes), take)?;
        drop(guard);
        Ok(Loan::new(loan.or_raise(py)?, Owner::Publisher(slf.clone().unbind())))
    }

    /// How long `publish` waits by default, in seconds.
    #[getter]
    fn get_timeout(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(seconds(self.handle.wait(py)?.timeout))
    }

    #[setter]
    fn set_timeout(&self, py: Python<'_>, timeout: Limit) -> PyResult<()> {
        self.handle.wait(py)?.timeout = timeout.duration();
        Ok(())
    }

    /// How many subscriptions want the topic just now.
    fn subscribers(&self, py: Python<'_>) -> PyResult<usize> {
        self.handle.wait(py)?.publisher.subscribers().or_raise(py)
    }

    /// Waits until a subscription wants the topic. `False`: the time is up.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn wait_for_subscriber(&self, py: Python<'_>, timeout: Limit) -> PyResult<bool> {
        let mut guard = self.handle.wait(py)?;
        let found = block_on(py, guard.publisher.wait_for_subscriber_async(timeout.duration()), None, false)?;
        found.expect("it has no time limit here").or_raise(py)
    }

    /// The same in a task.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn wait_for_subscriber_async<'py>(&self, py: Python<'py>, timeout: Limit) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let found = guard.publisher.wait_for_subscriber_async(timeout.duration()).await;
            Python::attach(|py| Ok(found.or_raise(py)?.into_pyobject(py)?.to_owned().into_any().unbind()))
        })
    }

    /// What has happened to its subscriptions since the last event, if anything.
    fn try_event(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let event = self.handle.wait(py)?.publisher.try_event().or_raise(py)?;
        event.map(|event| events::publisher_event(py, &event)).transpose()
    }

    /// Waits until something happens to its subscriptions. `None`: the time is up.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn wait_for_event(&self, py: Python<'_>, timeout: Limit) -> PyResult<Option<Py<PyAny>>> {
        let mut guard = self.handle.wait(py)?;
        let event = block_on(py, guard.publisher.event_async(), timeout.end(), false)?;
        event.transpose().or_raise(py)?.map(|event| events::publisher_event(py, &event)).transpose()
    }

    /// Waits in a task until something happens to its subscriptions.
    fn event_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let event = guard.publisher.event_async().await;
            Python::attach(|py| events::publisher_event(py, &event.or_raise(py)?))
        })
    }

    /// What happened to the messages, each counted once per inbox.
    fn account<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let account = self.handle.wait(py)?.publisher.account();
        records::account(py, &account)
    }

    /// Every inbox that it reaches.
    fn inboxes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let inboxes = self.handle.wait(py)?.publisher.inboxes();
        inboxes.iter().map(|inbox| records::reached(py, inbox)).collect()
    }

    /// The subscriptions that want the topic as another type.
    fn mismatches<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mismatches = self.handle.wait(py)?.publisher.mismatches();
        mismatches.iter().map(|mismatch| records::mismatch(py, mismatch)).collect()
    }

    /// The longest message that every subscription takes; `None`: there is none.
    #[getter]
    fn max_message(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        self.handle.wait(py)?.publisher.max_message().or_raise(py)
    }

    /// Limits messages and bytes per second; without a number there is no limit. With `fail`, a publish that would have to wait fails.
    #[pyo3(signature = (messages=None, *, bytes=None, burst=None, fail=false))]
    fn limit_rate(
        &self,
        py: Python<'_>,
        messages: Option<f64>,
        bytes: Option<f64>,
        burst: Option<u32>,
        fail: bool,
    ) -> PyResult<()> {
        let rate = rate(messages, bytes, burst, fail)?;
        self.handle.wait(py)?.publisher.limit_rate(rate);
        Ok(())
    }

    /// Marks an inbox as high from this part of its ring on. `None`: no mark.
    #[pyo3(signature = (part))]
    fn set_high_water(&self, py: Python<'_>, part: Option<f64>) -> PyResult<()> {
        let part = self::part(part)?;
        self.handle.wait(py)?.publisher.set_high_water(part);
        Ok(())
    }

    /// The next inbox that has passed the mark, up or down.
    fn next_high_water_change<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let change = self.handle.wait(py)?.publisher.next_high_water_change();
        change.map(|inbox| records::reached(py, &inbox)).transpose()
    }

    /// What a durable subscription had not processed when it died goes to its next incarnation, if that comes within so many seconds; otherwise
    /// it comes back (`take_returned`). `None` turns it off.
    #[pyo3(signature = (limit))]
    fn set_redelivery(&self, py: Python<'_>, limit: Option<Limit>) -> PyResult<()> {
        self.handle.wait(py)?.publisher.set_redelivery(redelivery(limit));
        Ok(())
    }

    /// The messages that came back.
    fn take_returned<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let returned = self.handle.wait(py)?.publisher.take_returned().or_raise(py)?;
        returned.iter().map(|message| records::returned(py, message)).collect()
    }

    /// Closes it.
    fn close(&self, py: Python<'_>) {
        let closed = self.handle.close();
        py.detach(|| drop(closed));
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("Publisher({:?})", self.topic)
    }
}
