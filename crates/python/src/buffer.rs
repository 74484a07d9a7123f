//! The buffer protocol, both ways. The only unsafe code of the bindings: everything in it is about memory that Python sees.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ops::Deref;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::loan::Loan;
use crate::reply::Reply;
use crate::sample::Sample;

/// The bytes of an object to be sent: `bytes`, `bytearray`, `memoryview`, a numpy array, or another with a contiguous buffer. Not copied. The
/// object keeps the memory where it is as long as this is there.
///
/// A thread that changes the bytes while they are sent has them sent in part as they were, and in part as they are.
pub(crate) enum Payload {
    Bytes(Py<PyBytes>),
    View(View),
}

pub(crate) struct View(Box<ffi::Py_buffer>);

// SAFETY: the view is released with the GIL (see `Drop`), and its memory may be read by any thread while it is exported.
unsafe impl Send for View {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for View {}

impl Payload {
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone().unbind()));
        }
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // SAFETY: the object is alive, and `view` may be written. PyBUF_SIMPLE asks for contiguous bytes.
        let failed = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), ffi::PyBUF_SIMPLE) };
        if failed != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: PyObject_GetBuffer has succeeded, so it has filled the view.
        Ok(Self::View(View(unsafe { view.assume_init() })))
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            // SAFETY: a bytes object is alive as long as this is, its bytes never move or change, and reading them needs no GIL.
            Self::Bytes(bytes) => unsafe {
                let object = bytes.as_ptr();
                std::slice::from_raw_parts(ffi::PyBytes_AsString(object).cast(), ffi::PyBytes_Size(object) as usize)
            },
            Self::View(View(view)) if view.len > 0 => {
                // SAFETY: an exporter keeps the memory where it is, and this long, until the view is released.
                unsafe { std::slice::from_raw_parts(view.buf.cast(), view.len as usize) }
            }
            Self::View(_) => &[],
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the view was filled by PyObject_GetBuffer, and is released once, with the GIL.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&mut *self.0) });
    }
}

/// Fills a view of memory that `owner` keeps where it is as long as the view is there.
///
/// # Safety
///
/// `view` is a view to be filled, or null. `address` is valid for `bytes` bytes until `owner` is dropped; for writes, too, unless `is_readonly`.
unsafe fn fill(
    owner: Bound<'_, PyAny>,
    view: *mut ffi::Py_buffer,
    (address, bytes): (*const u8, usize),
    is_readonly: bool,
    flags: c_int,
) -> PyResult<()> {
    if view.is_null() {
        return Err(PyBufferError::new_err("there is no view to be filled"));
    }
    let (address, bytes, is_readonly) = (address.cast_mut().cast(), bytes as ffi::Py_ssize_t, c_int::from(is_readonly));
    // SAFETY: the caller promises it. The view gets a reference to the owner of its own.
    match unsafe { ffi::PyBuffer_FillInfo(view, owner.as_ptr(), address, bytes, is_readonly, flags) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(owner.py())),
    }
}

#[pymethods]
impl Sample {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let sample = slf.get().sample(slf.py())?;
        let memory = (sample.as_ptr(), sample.len());
        // SAFETY: a sample's payload stays where it is until the sample is dropped, and the view keeps it. It is read by Python, not as a Rust
        // slice, so a sender that writes it changes what is read, and nothing else.
        unsafe { fill(slf.into_any(), view, memory, true, flags) }
    }
}

#[pymethods]
impl Reply {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let sample = slf.get().sample(slf.py())?;
        let memory = (sample.as_ptr(), sample.len());
        // SAFETY: as for a sample.
        unsafe { fill(slf.into_any(), view, memory, true, flags) }
    }
}

#[pymethods]
impl Loan {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = slf.get().export(slf.py())?;
        let exported = slf.clone();
        // SAFETY: the memory of a loan stays where it is until it is published or given back, which `Loan` refuses while a view is there. Until
        // then, only Python writes it.
        let filled = unsafe { fill(slf.into_any(), view, memory, false, flags) };
        filled.inspect_err(|_| exported.get().release_export())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.release_export();
    }
}
