//! Memory for a message that is filled in place. Its buffer is in `buffer.rs`.
//!
//! While a view on it is there (a `memoryview`, a numpy array), it can neither be sent nor given back: whoever has the view could go on writing
//! what its receivers read. So there is either a view, or a loan that can be sent.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use crate::errors;
use crate::handle::process;
use crate::limit::OwnLimit;
use crate::publisher::Publisher;
use crate::sender::Sender;

/// Memory for a message, as a writable buffer.
#[pyclass(frozen, module = "librpc")]
pub(crate) struct Loan {
    state: Mutex<State>,
    owner: Owner,
    process: u64,
}

struct State {
    loan: Option<librpc::Loan>,
    /// How many views are there.
    views: usize,
    /// While there is a view: the address and the length of the memory. Nothing else looks at it then: Rust has no reference to what Python may
    /// write.
    exported: (usize, usize),
}

/// Where it was taken.
pub(crate) enum Owner {
    Sender(Py<Sender>),
    Publisher(Py<Publisher>),
}

/// How long the library may wait for memory of this many bytes. A page is private memory, which is there at once.
pub(crate) fn loan_limit(bytes: usize) -> Duration {
    if bytes > 4096 { Duration::from_secs(1) } else { Duration::ZERO }
}

const GONE: &str = "this loan was sent or given back: take another one";
const IN_VIEW: &str =
    "this loan is in use as a buffer: delete the arrays and memoryviews on it first (`del array`, `view.release()`)";

impl Loan {
    pub(crate) fn new(loan: librpc::Loan, owner: Owner) -> Self {
        Self { state: Mutex::new(State { loan: Some(loan), views: 0, exported: (0, 0) }), owner, process: process() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where its memory is, for a view.
    pub(crate) fn export(&self, py: Python<'_>) -> PyResult<(*const u8, usize)> {
        if self.process != process() {
            return Err(errors::forked(py, "loan"));
        }
        let mut state = self.state();
        let State { loan, views, exported } = &mut *state;
        let loan = loan.as_mut().ok_or_else(|| PyBufferError::new_err(GONE))?;
        if *views == 0 {
            *exported = (loan.as_mut_ptr().expose_provenance(), loan.len());
        }
        *views += 1;
        Ok((std::ptr::with_exposed_provenance(exported.0), exported.1))
    }

    pub(crate) fn release_export(&self) {
        self.state().views -= 1;
    }

    /// Takes it to be sent. From now on it cannot be written.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<librpc::Loan> {
        if self.process != process() {
            return Err(errors::forked(py, "loan"));
        }
        let mut state = self.state();
        if state.views > 0 {
            return Err(PyBufferError::new_err(IN_VIEW));
        }
        state.loan.take().ok_or_else(|| PyBufferError::new_err(GONE))
    }

    /// It was not sent.
    pub(crate) fn put_back(&self, loan: Option<librpc::Loan>) {
        self.state().loan = loan;
    }
}

#[pymethods]
impl Loan {
    /// Publishes it, or sends it, where it was taken. It cannot be written afterwards. If it fails, it is still there.
    #[pyo3(signature = (timeout=OwnLimit::Own), text_signature = "($self, timeout=...)")]
    fn publish(&self, py: Python<'_>, timeout: OwnLimit) -> PyResult<Py<PyAny>> {
        match &self.owner {
            Owner::Sender(sender) => sender.get().send_loan(py, self, timeout).map(|()| py.None()),
            Owner::Publisher(publisher) => {
                Ok(Py::new(py, publisher.get().publish_loan(py, self, timeout)?)?.into_any())
            }
        }
    }

    /// The same, for a sender's.
    #[pyo3(signature = (timeout=OwnLimit::Own), text_signature = "($self, timeout=...)")]
    fn send(&self, py: Python<'_>, timeout: OwnLimit) -> PyResult<Py<PyAny>> {
        self.publish(py, timeout)
    }

    /// Gives it back unsent. Nothing happens if it was sent or given back.
    fn release(&self) -> PyResult<()> {
        let mut state = self.state();
        if state.views > 0 {
            return Err(PyBufferError::new_err(IN_VIEW));
        }
        state.loan = None;
        Ok(())
    }

    /// Whether it was sent or given back.
    #[getter]
    fn is_gone(&self) -> bool {
        self.state().loan.is_none()
    }

    fn __len__(&self) -> usize {
        let state = self.state();
        match &state.loan {
            Some(_) if state.views > 0 => state.exported.1,
            Some(loan) => loan.len(),
            None => 0,
        }
    }

    fn __bool__(&self) -> bool {
        !self.is_gone()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyAny>) {
        let _ = self.release(); // whoever has a view gives it back with the last one
    }

    fn __repr__(&self) -> String {
        match self.is_gone() {
            true => "Loan(gone)".into(),
            false => format!("Loan({} bytes)", self.__len__()),
        }
    }
}
