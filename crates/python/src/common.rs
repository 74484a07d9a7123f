//! What senders and publishers have in common.

use std::num::NonZeroU32;
use std::time::Duration;

use librpc::Rate;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::limit::Limit;

/// A limit of messages, of bytes, or of both, per second. The burst is by default what a tenth of a second allows.
pub(crate) fn rate(
    messages: Option<f64>,
    bytes: Option<f64>,
    burst: Option<u32>,
    fail: bool,
) -> PyResult<Option<Rate>> {
    let quota = |what: &str, per_second: f64, burst: Option<u32>| {
        let number = (1.0..=f64::from(u32::MAX)).contains(&per_second).then_some(per_second as u32);
        let number = number.and_then(NonZeroU32::new);
        let number = number.ok_or_else(|| {
            PyValueError::new_err(format!("a rate is 1 to {} {what} per second, not {per_second}", u32::MAX))
        })?;
        let burst = burst.unwrap_or(number.get() / 10).max(1);
        Ok::<_, PyErr>((number, NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
    };
    let rate = match (messages, bytes) {
        (None, None) => return Ok(None),
        (Some(messages), None) => {
            let (number, burst) = quota("messages", messages, burst)?;
            Rate::messages(number, burst)
        }
        (None, Some(bytes)) => {
            let (number, burst) = quota("bytes", bytes, burst)?;
            Rate::bytes(number, burst)
        }
        (Some(messages), Some(bytes)) => {
            let (number, burst) = quota("messages", messages, burst)?;
            let (bytes, bytes_burst) = quota("bytes", bytes, None)?;
            Rate::messages(number, burst).and_bytes(bytes, bytes_burst)
        }
    };
    Ok(Some(if fail { rate.or_fail() } else { rate }))
}

/// A part of a ring from which on an inbox counts as high.
pub(crate) fn part(part: Option<f64>) -> PyResult<Option<f64>> {
    match part {
        Some(number) if !(0.0..=1.0).contains(&number) => {
            Err(PyValueError::new_err(format!("a part is 0.0 to 1.0, not {number}")))
        }
        part => Ok(part),
    }
}

/// How long redelivery waits for a receiver; `None` turns it off.
pub(crate) fn redelivery(limit: Option<Limit>) -> Option<Duration> {
    limit.map(Limit::duration)
}

/// A value as JSON, in as few bytes as Python writes it.
pub(crate) fn to_json<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = value.py();
    let options = pyo3::types::PyDict::new(py);
    options.set_item(intern!(py, "separators"), (",", ":"))?;
    options.set_item(intern!(py, "ensure_ascii"), false)?;
    let text = py.import(intern!(py, "json"))?.call_method(intern!(py, "dumps"), (value,), Some(&options))?;
    Ok(text.call_method0(intern!(py, "encode"))?.cast_into::<PyBytes>()?)
}
