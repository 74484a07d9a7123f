//! Time limits: seconds, or `None` for no limit.

use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyEllipsis;

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Forever,
    Within(Duration),
}

/// A limit, or `...` for the object's own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OwnLimit {
    Own,
    Given(Limit),
}

impl Limit {
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self::Within(Duration::from_secs(seconds))
    }

    /// The library takes a limit that is too far away for none.
    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Forever => Duration::MAX,
            Self::Within(limit) => limit,
        }
    }

    /// When the time is up. `None`: never.
    pub(crate) fn end(self) -> Option<Instant> {
        match self {
            Self::Forever => None,
            Self::Within(limit) => Instant::now().checked_add(limit),
        }
    }
}

impl OwnLimit {
    pub(crate) fn or(self, own: Duration) -> Duration {
        match self {
            Self::Own => own,
            Self::Given(limit) => limit.duration(),
        }
    }
}

/// A time as Python has it. `None`: without a limit.
pub(crate) fn seconds(limit: Duration) -> Option<f64> {
    (limit < Duration::from_secs(1 << 33)).then_some(limit.as_secs_f64())
}

impl<'a, 'py> FromPyObject<'a, 'py> for Limit {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Ok(Self::Forever);
        }
        let seconds: PyResult<f64> = value.extract();
        if let Err(error) = &seconds
            && error.is_instance_of::<PyOverflowError>(value.py())
            && value.gt(0)?
        {
            return Ok(Self::Forever); // an int that is larger than any float
        }
        let seconds = seconds.map_err(|_| {
            let of = value.get_type().name().map(|name| name.to_string()).unwrap_or_default();
            PyTypeError::new_err(format!("a time limit is a number of seconds, or None for no limit, not {of}"))
        })?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(PyValueError::new_err(format!("a time limit is 0 or more seconds, not {seconds}")));
        }
        Ok(Duration::try_from_secs_f64(seconds).map_or(Self::Forever, Self::Within))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for OwnLimit {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if value.is_instance_of::<PyEllipsis>() { Ok(Self::Own) } else { value.extract().map(Self::Given) }
    }
}
