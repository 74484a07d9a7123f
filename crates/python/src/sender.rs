//! Sending to one node.

use std::sync::Arc;
use std::time::Duration;

use librpc::{DEFAULT_SEND_TIMEOUT, SendError, UnsentLoan};
use pyo3::prelude::*;

use crate::blocking::{LARGE, block_on, is_main_thread, run};
use crate::buffer::Payload;
use crate::common::{part, rate, redelivery, to_json};
use crate::errors::{OrRaise, Raise};
use crate::handle::{Guard, Handle, User};
use crate::limit::{Limit, OwnLimit, seconds};
use crate::loan::{Loan, Owner, loan_limit};
use crate::records;
use crate::tasks;

/// Sends to one node, in order. Threads may share it: each waits until the other has sent.
#[pyclass(frozen, weakref, module = "librpc")]
pub(crate) struct Sender {
    handle: Arc<Handle<Sending>>,
}

pub(crate) struct Sending {
    sender: librpc::Sender,
    timeout: Duration,
}

impl Sender {
    pub(crate) fn new(sender: librpc::Sender) -> Self {
        Self { handle: Handle::new("sender", Sending { sender, timeout: DEFAULT_SEND_TIMEOUT }) }
    }

    fn send_payload(&self, py: Python<'_>, payload: &Payload, timeout: OwnLimit) -> PyResult<()> {
        let mut guard = self.handle.wait(py)?;
        let Sending { sender, timeout: own } = &mut *guard;
        sender.set_timeout(timeout.or(*own));
        let sent = block_on(py, sender.send_async(payload), None, payload.len() >= LARGE)?;
        sent.expect("it has no time limit").or_raise(py)
    }

    fn send_later<'py>(&self, py: Python<'py>, payload: Payload, timeout: OwnLimit) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let Sending { sender, timeout: own } = &mut *guard;
            sender.set_timeout(timeout.or(*own));
            let sent = sender.send_async(&payload).await;
            Python::attach(|py| sent.or_raise(py).map(|()| py.None()))
        })
    }

    /// Sends a loan. What was not sent goes back into it.
    pub(crate) fn send_loan(&self, py: Python<'_>, loan: &Loan, timeout: OwnLimit) -> PyResult<()> {
        let mut guard = self.handle.wait(py)?;
        let taken = loan.take(py)?;
        let limit = timeout.or(guard.timeout);
        guard.sender.set_timeout(limit);
        let send = move |mut guard: Guard<Sending>| {
            let sent = guard.sender.send_loan(taken);
            (guard, sent)
        };
        let (guard, sent) = run_with(py, guard, limit, send)?;
        drop(guard);
        sent.map_err(|UnsentLoan { error, loan: unsent }| {
            loan.put_back(unsent);
            error.raise(py)
        })
    }
}

/// Runs what waits with a guard, so that a signal ends the wait. A short wait needs no thread for that.
pub(crate) fn run_with<T: Send + 'static, R: Send + 'static>(
    py: Python<'_>,
    guard: Guard<T>,
    limit: Duration,
    work: impl FnOnce(Guard<T>) -> (Guard<T>, R) + Send + 'static,
) -> PyResult<(Guard<T>, R)> {
    if limit <= Duration::from_millis(50) {
        return Ok(py.detach(move || work(guard)));
    }
    if is_main_thread() {
        guard.hand_over();
    }
    run(py, move || Kept(Some(work(guard)))).map(|mut kept| kept.0.take().expect("it was just made"))
}

/// What work has left. If nobody waits for it any more, it is dropped with the GIL.
struct Kept<T>(Option<T>);

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some(kept) = self.0.take() {
            Python::attach(|_| drop(kept));
        }
    }
}

#[pymethods]
impl Sender {
    /// Sends a message, and waits for room up to the limit (by default the sender's).
    #[pyo3(signature = (payload, timeout=OwnLimit::Own), text_signature = "($self, payload, timeout=...)")]
    fn send(&self, py: Python<'_>, payload: &Bound<'_, PyAny>, timeout: OwnLimit) -> PyResult<()> {
        if let Ok(loan) = payload.cast::<Loan>() {
            return self.send_loan(py, loan.get(), timeout);
        }
        self.send_payload(py, &Payload::of(payload)?, timeout)
    }

    /// Sends several messages in order. Returns how many were sent: all of them, or an error says why not.
    #[pyo3(signature = (payloads, timeout=OwnLimit::Own), text_signature = "($self, payloads, timeout=...)")]
    fn send_many(&self, py: Python<'_>, payloads: &Bound<'_, PyAny>, timeout: OwnLimit) -> PyResult<usize> {
        let mut sent = 0;
        for payload in payloads.try_iter()? {
            let payload = Payload::of(&payload?)?;
            if let Err(error) = self.send_payload(py, &payload, timeout) {
                let _ = error.value(py).setattr("sent", sent);
                return Err(error);
            }
            sent += 1;
        }
        Ok(sent)
    }

    /// Sends a message if there is room.
    fn try_send(&self, py: Python<'_>, payload: &Bound<'_, PyAny>) -> PyResult<()> {
        let payload = Payload::of(payload)?;
        let mut guard = self.handle.take(py)?;
        let Sending { sender, .. } = &mut *guard;
        let sent: Result<(), SendError> = match payload.len() {
            LARGE.. => py.detach(|| sender.try_send(&payload)),
            _ => sender.try_send(&payload),
        };
        sent.or_raise(py)
    }

    /// Sends a value as JSON.
    #[pyo3(signature = (value, timeout=OwnLimit::Own), text_signature = "($self, value, timeout=...)")]
    fn send_json(&self, py: Python<'_>, value: &Bound<'_, PyAny>, timeout: OwnLimit) -> PyResult<()> {
        self.send_payload(py, &Payload::of(to_json(value)?.as_any())?, timeout)
    }

    /// Sends a message in a task.
    #[pyo3(signature = (payload, timeout=OwnLimit::Own), text_signature = "($self, payload, timeout=...)")]
    fn send_async<'py>(
        &self,
        py: Python<'py>,
        payload: &Bound<'py, PyAny>,
        timeout: OwnLimit,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.send_later(py, Payload::of(payload)?, timeout)
    }

    /// Waits until everything sent is processed.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn flush(&self, py: Python<'_>, timeout: Limit) -> PyResult<()> {
        let mut guard = self.handle.wait(py)?;
        let flushed = block_on(py, guard.sender.flush_async(timeout.duration()), None, false)?;
        flushed.expect("it has no time limit here").or_raise(py)
    }

    /// Waits in a task until everything sent is processed.
    #[pyo3(signature = (timeout=Limit::Forever), text_signature = "($self, timeout=None)")]
    fn flush_async<'py>(&self, py: Python<'py>, timeout: Limit) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.clone();
        tasks::spawn(py, async move {
            let mut guard = handle.when_free(User::task()).await?;
            let flushed = guard.sender.flush_async(timeout.duration()).await;
            Python::attach(|py| flushed.or_raise(py).map(|()| py.None()))
        })
    }

    /// Memory for a message of this many bytes, which is filled in place and sent without a copy. All zero, unless `zero` is false.
    #[pyo3(signature = (bytes, *, zero=true))]
    fn loan(slf: Bound<'_, Self>, bytes: usize, zero: bool) -> PyResult<Loan> {
        let py = slf.py();
        let guard = slf.get().handle.wait(py)?;
        let take = move |mut guard: Guard<Sending>| {
            let loan = if zero { guard.sender.loan(bytes) } else { guard.sender.loan_uninit(bytes) };
            (guard, loan)
        };
        let (guard, loan) = run_with(py, guard, loan_limit(bytes), take)?;
        drop(guard);
        Ok(Loan::new(loan.or_raise(py)?, Owner::Sender(slf.clone().unbind())))
    }

    /// How long `send` waits by default, in seconds.
    #[getter]
    fn get_timeout(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(seconds(self.handle.wait(py)?.timeout))
    }

    #[setter]
    fn set_timeout(&self, py: Python<'_>, timeout: Limit) -> PyResult<()> {
        self.handle.wait(py)?.timeout = timeout.duration();
        Ok(())
    }

    /// What happened to the messages.
    fn account<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let account = self.handle.wait(py)?.sender.account();
        records::account(py, &account)
    }

    #[getter]
    fn is_connected(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.handle.wait(py)?.sender.is_connected())
    }

    /// The longest message that the receiver takes; `None` while it is gone.
    #[getter]
    fn max_message(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        self.handle.wait(py)?.sender.max_message().or_raise(py)
    }

    /// Limits messages and bytes per second; without a number there is no limit. With `fail`, a send that would have to wait fails.
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
        self.handle.wait(py)?.sender.limit_rate(rate);
        Ok(())
    }

    /// Marks the inbox as high from this part of its ring on. `None`: no mark.
    #[pyo3(signature = (part))]
    fn set_high_water(&self, py: Python<'_>, part: Option<f64>) -> PyResult<()> {
        let part = self::part(part)?;
        self.handle.wait(py)?.sender.set_high_water(part);
        Ok(())
    }

    /// The next inbox that has passed the mark, up or down.
    fn next_high_water_change<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let change = self.handle.wait(py)?.sender.next_high_water_change();
        change.map(|inbox| records::reached(py, &inbox)).transpose()
    }

    /// What the receiver had not processed when it died goes to its next incarnation, if that comes within so many seconds; otherwise it comes
    /// back (`take_returned`). `None` turns it off.
    #[pyo3(signature = (limit))]
    fn set_redelivery(&self, py: Python<'_>, limit: Option<Limit>) -> PyResult<()> {
        self.handle.wait(py)?.sender.set_redelivery(redelivery(limit));
        Ok(())
    }

    /// The messages that came back.
    fn take_returned<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let returned = self.handle.wait(py)?.sender.take_returned().or_raise(py)?;
        returned.iter().map(|message| records::returned(py, message)).collect()
    }

    /// Closes it. What was sent stays with the receiver.
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

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.handle.take(py) {
            Ok(guard) => format!("{:?}", guard.sender),
            Err(_) => "Sender(closed or in use)".into(),
        }
    }
}
