//! Waiting in an asyncio task, without a thread and without polling.
//!
//! A task polls a future of the library on its loop's thread. The future's waker, which the library's background thread calls, pushes the task's
//! number to the loop's list and rings the bell that the loop watches (`loop.add_reader`). It never waits for the GIL. Dropping the operation,
//! as a task that is cancelled does, drops the future.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::blocking::Bell;

/// What an event loop watches for its tasks.
#[pyclass(frozen, module = "librpc._librpc")]
pub(crate) struct Wakeups(Arc<Woken>);

struct Woken {
    bell: Bell,
    /// The numbers of the tasks that are to look again.
    numbers: Mutex<Vec<u64>>,
}

#[pymethods]
impl Wakeups {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Arc::new(Woken { bell: Bell::new()?, numbers: Mutex::default() })))
    }

    fn fileno(&self) -> i32 {
        self.0.bell.descriptor()
    }

    /// The numbers of the tasks that are to look again.
    fn take(&self) -> Vec<u64> {
        self.0.bell.silence();
        std::mem::take(&mut *self.0.numbers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// Wakes one task.
struct TaskWaker {
    woken: Arc<Woken>,
    number: u64,
    /// Its number is in the list, or was taken and it has not looked since.
    is_called: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // AcqRel: what happened before this is seen by the look that follows the Acquire in `Operation::poll`.
        if !self.is_called.swap(true, Ordering::AcqRel) {
            let mut numbers = self.woken.numbers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let was_empty = numbers.is_empty();
            numbers.push(self.number);
            drop(numbers);
            if was_empty {
                self.woken.bell.ring();
            }
        }
    }
}

type Work = Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>> + Send>>;

struct State {
    work: Work,
    waker: Option<(Arc<TaskWaker>, Waker)>,
}

/// A future of the library. `librpc._tasks.drive` awaits it.
#[pyclass(frozen, module = "librpc._librpc")]
pub(crate) struct Operation(Mutex<Option<State>>);

#[pymethods]
impl Operation {
    /// `None`: it waits, and the number is in the list once it is to be polled again. Otherwise a tuple with the result.
    fn poll(&self, wakeups: &Wakeups, number: u64) -> PyResult<Option<(Py<PyAny>,)>> {
        let taken = self.0.try_lock().ok().and_then(|mut state| state.take());
        let Some(mut state) = taken else {
            return Err(PyRuntimeError::new_err("this operation has ended, or is in use"));
        };
        let (waker, as_waker) = state.waker.get_or_insert_with(|| {
            let waker = Arc::new(TaskWaker { woken: wakeups.0.clone(), number, is_called: AtomicBool::new(false) });
            (waker.clone(), waker.into())
        });
        waker.is_called.swap(false, Ordering::AcqRel); // Acquire: pairs with the AcqRel in `wake_by_ref`
        match state.work.as_mut().poll(&mut Context::from_waker(as_waker)) {
            Poll::Ready(result) => Ok(Some((result?,))),
            Poll::Pending => {
                if let Ok(mut here) = self.0.try_lock() {
                    *here = Some(state);
                }
                Ok(None)
            }
        }
    }

    /// Drops the future.
    fn close(&self) {
        let state = self.0.try_lock().ok().and_then(|mut state| state.take());
        drop(state);
    }
}

/// An awaitable of a future, as a coroutine.
pub(crate) fn spawn(
    py: Python<'_>,
    work: impl Future<Output = PyResult<Py<PyAny>>> + Send + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    call(py, intern!(py, "drive"), work)
}

/// The same for `__anext__`: `None` ends the iteration.
pub(crate) fn spawn_next(
    py: Python<'_>,
    work: impl Future<Output = PyResult<Py<PyAny>>> + Send + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    call(py, intern!(py, "drive_next"), work)
}

fn call<'py>(
    py: Python<'py>,
    function: &Bound<'py, pyo3::types::PyString>,
    work: impl Future<Output = PyResult<Py<PyAny>>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    static TASKS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let tasks = TASKS.get_or_try_init(py, || py.import("librpc._tasks").map(Bound::unbind))?.bind(py);
    let operation = Operation(Mutex::new(Some(State { work: Box::pin(work), waker: None })));
    tasks.call_method1(function, (Py::new(py, operation)?,))
}
