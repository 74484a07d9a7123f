//! Errors of the library as Python exceptions (`librpc/errors.py`): one class per kind, with the numbers as attributes.

use std::fmt::Display;

use librpc::{
    CallError, CloseError, ConnectError, DomainError, FlushError, InboxError, InvalidNodeId, InvalidSchema,
    InvalidTopic, LoanError, ObserveError, OpenError, OsError, PublishError, RecvError, ReplyError, ReturnedError,
    SchemaMismatch, SendError, ServeError,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::limit::seconds;
use crate::records::{self, names};

/// An error of the library.
pub(crate) trait Raise {
    fn raise(&self, py: Python<'_>) -> PyErr;
}

/// A result with the exception.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T, E: Raise> OrRaise<T> for Result<T, E> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| error.raise(py))
    }
}

/// An exception that is being made.
struct Exception<'py>(PyResult<Bound<'py, PyAny>>);

fn exception<'py>(py: Python<'py>, class: &str, text: impl Display) -> Exception<'py> {
    let class = py.import("librpc.errors").and_then(|errors| errors.getattr(class));
    Exception(class.and_then(|class| class.call1((text.to_string(),))))
}

impl<'py> Exception<'py> {
    fn with(self, name: &str, value: impl IntoPyObject<'py>) -> Self {
        Self(self.0.and_then(|exception| {
            let value = value.into_bound_py_any(exception.py())?;
            exception.setattr(name, value)?;
            Ok(exception)
        }))
    }

    fn done(self) -> PyErr {
        self.0.map_or_else(|error| error, PyErr::from_value)
    }
}

pub(crate) fn in_use(py: Python<'_>, text: String) -> PyErr {
    exception(py, "InUse", text).done()
}

pub(crate) fn closed(py: Python<'_>, what: &str) -> PyErr {
    exception(py, "Closed", format!("this {what} is closed")).done()
}

pub(crate) fn forked(py: Python<'_>, what: &str) -> PyErr {
    let text = format!("this {what} belongs to the process that forked this one: open a node of its own here");
    exception(py, "Forked", text).done()
}

fn os(py: Python<'_>, error: &OsError) -> PyErr {
    let number = error.source.raw_os_error();
    exception(py, "SystemFailure", error).with("errno", number).done()
}

impl Raise for InvalidNodeId {
    fn raise(&self, py: Python<'_>) -> PyErr {
        exception(py, "InvalidName", self).done()
    }
}

impl Raise for InvalidTopic {
    fn raise(&self, py: Python<'_>) -> PyErr {
        exception(py, "InvalidTopic", self).done()
    }
}

impl Raise for InvalidSchema {
    fn raise(&self, py: Python<'_>) -> PyErr {
        exception(py, "InvalidSchema", self).done()
    }
}

impl Raise for DomainError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Os(error) => os(py, error),
            Self::Busy { .. } => exception(py, "Busy", self).done(),
            _ => exception(py, "DomainError", self).done(),
        }
    }
}

impl Raise for OpenError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::InvalidId(error) => error.raise(py),
            Self::InvalidTopic(error) => error.raise(py),
            Self::Domain(error) => error.raise(py),
            Self::Os(error) => os(py, error),
            Self::IdInUse { id, pid, uid } => {
                exception(py, "IdInUse", self).with("node", &**id).with("pid", *pid).with("uid", *uid).done()
            }
            Self::LeftBehind { id, uid } => exception(py, "IdInUse", self).with("node", &**id).with("uid", *uid).done(),
            Self::BeingSwept { id } => exception(py, "IdInUse", self).with("node", &**id).done(),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for InboxError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::InvalidTopic(error) => error.raise(py),
            Self::Type(error) => error.raise(py),
            Self::InvalidName(_) => exception(py, "InvalidName", self).done(),
            Self::Patterns { .. } => exception(py, "InvalidTopic", self).done(),
            Self::Capacity { bytes } => exception(py, "InvalidCapacity", self).with("bytes", *bytes).done(),
            Self::Taken { node } => exception(py, "Taken", self).with("node", &**node).done(),
            Self::TooMany { node } => exception(py, "TooMany", self).with("node", &**node).done(),
            Self::ListTooLong { node, bytes } => {
                exception(py, "TooMany", self).with("node", &**node).with("bytes", *bytes).done()
            }
            Self::Closed { node } => exception(py, "Closed", self).with("node", &**node).done(),
            Self::Os(error) => os(py, error),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for ServeError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::InvalidService(error) => error.raise(py),
            Self::Type(error) => error.raise(py),
            Self::Inbox(error) => error.raise(py),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for RecvError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Closed { node } => exception(py, "Closed", self).with("node", &**node).done(),
            Self::Forked => exception(py, "Forked", self).done(),
            Self::TooManyHeld { node } => exception(py, "TooManyHeld", self).with("node", &**node).done(),
            Self::Mismatch(mismatch) => mismatched(py, self, mismatch),
            Self::Os(error) => os(py, error),
            _ => exception(py, "Error", self).done(),
        }
    }
}

fn mismatched(py: Python<'_>, error: &dyn Display, mismatch: &SchemaMismatch) -> PyErr {
    let exception = exception(py, "Mismatch", error).with("node", &*mismatch.node).with("topic", &*mismatch.topic);
    match records::mismatch(py, mismatch) {
        Ok(record) => exception.with("mismatch", record).done(),
        Err(error) => error,
    }
}

impl Raise for ConnectError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::InvalidId(error) => error.raise(py),
            Self::Type(error) => error.raise(py),
            Self::NotFound { node } => exception(py, "NotFound", self).with("node", &**node).done(),
            Self::NoInbox { node } => exception(py, "NoInbox", self).with("node", &**node).done(),
            Self::Refused { node, reason, .. } => {
                exception(py, "Refused", self).with("node", &**node).with("reason", names(reason)).done()
            }
            Self::Mismatch(mismatch) => mismatched(py, self, mismatch),
            Self::Broken { node, .. } => exception(py, "Broken", self).with("node", &**node).done(),
            Self::Closed { node } => exception(py, "Closed", self).with("node", &**node).done(),
            Self::Os(error) => os(py, error),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for SendError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        let of =
            |class: &str| exception(py, class, self).with("node", self.node()).with("unprocessed", self.undelivered());
        match self {
            Self::Full { limit, .. } => of("Full").with("limit", seconds(*limit)).done(),
            Self::Unanswered { limit, .. } => of("Unanswered").with("limit", seconds(*limit)).done(),
            Self::Dropped { .. } => of("Dropped").done(),
            Self::Stuck { .. } => of("Stuck").done(),
            Self::Mismatch(mismatch) => mismatched(py, self, mismatch),
            Self::RateLimited { to, wait } => of("RateLimited").with("node", &**to).with("wait", seconds(*wait)).done(),
            Self::TooLarge { bytes, max, .. } => of("TooLarge").with("bytes", *bytes).with("max", *max).done(),
            Self::NoMemory { source, .. } => of("NoMemory").with("__cause__", source.raise(py)).done(),
            Self::ReceiverGone { .. } => of("ReceiverGone").done(),
            Self::Refused { reason, .. } => of("Refused").with("reason", names(reason)).done(),
            Self::Closed { .. } => of("Closed").done(),
            Self::Forked => of("Forked").done(),
            Self::Os(error) => os(py, error),
            _ => of("Error").done(),
        }
    }
}

impl Raise for PublishError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::RateLimited { topic, wait } => {
                exception(py, "RateLimited", self).with("topic", &**topic).with("wait", seconds(*wait)).done()
            }
            Self::Closed { node } => exception(py, "Closed", self).with("node", &**node).done(),
            Self::Forked => exception(py, "Forked", self).done(),
            Self::Os(error) => os(py, error),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for FlushError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::TimedOut { unprocessed } => {
                exception(py, "Unprocessed", self).with("unprocessed", *unprocessed).done()
            }
            Self::Lost { lost, unprocessed, causes } => {
                let causes: Vec<PyErr> = causes.iter().map(|cause| cause.raise(py)).collect();
                let exception = exception(py, "Lost", self).with("lost", *lost).with("unprocessed", *unprocessed);
                exception.with("causes", causes).done()
            }
            Self::Forked => exception(py, "Forked", self).done(),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for CloseError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        exception(py, "Unprocessed", self).with("node", &*self.node).with("unprocessed", self.unprocessed).done()
    }
}

impl Raise for LoanError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Exhausted { bytes, used, limit, holders, .. } => {
                let holders: PyResult<Vec<_>> = holders.iter().map(|holder| records::holder(py, holder)).collect();
                let exception =
                    exception(py, "Exhausted", self).with("bytes", *bytes).with("used", *used).with("limit", *limit);
                match holders {
                    Ok(holders) => exception.with("holders", holders).done(),
                    Err(error) => error,
                }
            }
            Self::Closed { node } => exception(py, "Closed", self).with("node", &**node).done(),
            Self::Forked => exception(py, "Forked", self).done(),
            Self::Os(error) => os(py, error),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for ReturnedError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Dropped { messages } => exception(py, "Dropped", self).with("lost", *messages).done(),
            Self::Forked => exception(py, "Forked", self).done(),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for CallError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        let of = |class: &str, service: &str| exception(py, class, self).with("service", service);
        match self {
            Self::NoServer { service, node } => of("NoServer", service).with("node", node.as_deref()).done(),
            Self::Deadline { service, timeout } => of("Deadline", service).with("limit", seconds(*timeout)).done(),
            Self::Cancelled { service } => of("Cancelled", service).done(),
            Self::ServerDied { service, node, taken } => {
                of("ServerDied", service).with("node", &**node).with("taken", *taken).done()
            }
            Self::Busy { service, .. } => of("Busy", service).done(),
            Self::Unimplemented { service, node, text } => {
                of("Unimplemented", service).with("node", &**node).with("text", &**text).done()
            }
            Self::Mismatch { service, node, .. } => of("Mismatch", service).with("node", &**node).done(),
            Self::Failed { service, node, code, message } => {
                of("Failed", service).with("node", &**node).with("code", *code).with("text", &**message).done()
            }
            Self::Refused { service, node, reason, .. } => {
                of("Refused", service).with("node", &**node).with("reason", names(reason)).done()
            }
            Self::Send { service, source } => caused(py, self, service, source.raise(py)),
            Self::Receive { service, source } => caused(py, self, service, source.raise(py)),
            Self::Lookup { service, source } => caused(py, self, service, os(py, source)),
            Self::Closed { node } => exception(py, "Closed", self).with("node", &**node).done(),
            Self::Forked => exception(py, "Forked", self).done(),
            _ => exception(py, "Error", self).done(),
        }
    }
}

/// A call failed because of another error: of that error's class, with the call's text.
fn caused(py: Python<'_>, error: &CallError, service: &str, cause: PyErr) -> PyErr {
    let class = cause.get_type(py).name().map(|name| name.to_string());
    let class = class.unwrap_or_else(|_| "Error".into());
    let (number, attributes) = (cause.value(py), ["node", "bytes", "max", "limit", "reason", "errno"]);
    let mut exception = exception(py, &class, error);
    for name in attributes {
        if let Ok(value) = number.getattr(name) {
            exception = exception.with(name, value);
        }
    }
    exception.with("service", service).with("__cause__", cause).done()
}

impl Raise for ReplyError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::TooLarge { node, bytes, max } => {
                exception(py, "TooLarge", self).with("node", &**node).with("bytes", *bytes).with("max", *max).done()
            }
            Self::Dropped { node } => exception(py, "Dropped", self).with("node", &**node).done(),
            Self::OverLimit { node, uid, limit } => {
                exception(py, "OverLimit", self).with("node", &**node).with("uid", *uid).with("limit", *limit).done()
            }
            Self::Cancelled { node } => exception(py, "Cancelled", self).with("node", &**node).done(),
            Self::Deadline { node } => exception(py, "Deadline", self).with("node", &**node).done(),
            Self::Closed { node } => exception(py, "Closed", self).with("node", &**node).done(),
            Self::Send(source) => source.raise(py),
            Self::Receive(source) => source.raise(py),
            Self::Forked => exception(py, "Forked", self).done(),
            _ => exception(py, "Error", self).done(),
        }
    }
}

impl Raise for ObserveError {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Refused { reason, .. } => exception(py, "Refused", self).with("reason", names(reason)).done(),
            _ => exception(py, "NotObserved", self).with("reason", variant(self)).done(),
        }
    }
}

/// The variant's name.
fn variant(error: &ObserveError) -> &'static str {
    match error {
        ObserveError::Dead => "dead",
        ObserveError::Stopped => "stopped",
        ObserveError::Stalled { .. } => "stalled",
        _ => "failed",
    }
}
