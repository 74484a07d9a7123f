//! A message that stays where its sender has put it. Its buffer is in `buffer.rs`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::blocking::LARGE;
use crate::errors;
use crate::handle::process;
use crate::message::{Envelope, Last, envelope_methods};

/// A message whose payload stays where its sender has put it, as a read-only buffer. Views on it keep it.
#[pyclass(frozen, module = "librpc")]
pub(crate) struct Sample {
    sample: librpc::Sample,
    envelope: Envelope,
    process: u64,
}

impl Sample {
    pub(crate) fn object(py: Python<'_>, sample: librpc::Sample, last: &mut Last) -> PyResult<Py<PyAny>> {
        let envelope = Envelope {
            peer: last.peer(py, sample.peer())?,
            topic: last.topic(py, sample.topic()),
            sequence: sample.sequence(),
            missed: sample.missed(),
            redelivered: sample.is_redelivered(),
            past: sample.is_past(),
            sent_at: sample.sent_at(),
        };
        Ok(Py::new(py, Self { sample, envelope, process: process() })?.into_any())
    }

    /// A forked child would see nothing in it.
    pub(crate) fn sample(&self, py: Python<'_>) -> PyResult<&librpc::Sample> {
        if self.process == process() { Ok(&self.sample) } else { Err(errors::forked(py, "sample")) }
    }
}

/// A copy of a payload as `bytes`.
pub(crate) fn copy<'py>(py: Python<'py>, sample: &librpc::Sample) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, sample.len(), |bytes| {
        match bytes.len() {
            LARGE.. => py.detach(|| sample.copy_to(0, bytes)),
            _ => sample.copy_to(0, bytes),
        }
        Ok(())
    })
}

envelope_methods!(Sample);

#[pymethods]
impl Sample {
    /// A copy of the payload.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        copy(py, self.sample(py)?)
    }

    /// Whether the payload is in its sender's memory.
    #[getter]
    fn is_lent(&self) -> bool {
        self.sample.is_lent()
    }

    /// The payload as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import(intern!(py, "json"))?.call_method1(intern!(py, "loads"), (copy(py, self.sample(py)?)?,))
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        copy(py, self.sample(py)?)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.sample(py)?.len())
    }

    fn __bool__(&self) -> bool {
        true // also one without bytes
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.sample)
    }
}
