//! What crosses the border: pointers, texts, options, and how a function ends.

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::error::{Failure, librpc_status, remember};

/// No time limit.
pub const LIBRPC_FOREVER: u64 = u64::MAX;

/// Runs the body of a function that C calls. An error is kept for `librpc_last_error`. A panic becomes an error, too: nothing unwinds
/// into C.
#[inline(always)]
pub(crate) fn guard(body: impl FnOnce() -> Result<librpc_status, Failure>) -> librpc_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => remember(failure),
        Err(panic) => panicked(&*panic),
    }
}

/// As [`guard`], for a function that returns a value instead of a status.
pub(crate) fn guard_or<T>(otherwise: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => {
            remember(failure);
            otherwise
        }
        Err(panic) => {
            panicked(&*panic);
            otherwise
        }
    }
}

#[cold]
fn panicked(panic: &(dyn std::any::Any + Send)) -> librpc_status {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(|text| &**text));
    remember(Failure::new(
        librpc_status::Internal,
        format!("a defect of librpc: {}", text.unwrap_or("a panic without a text")),
    ))
}

#[cold]
#[inline(never)]
fn null(what: &str) -> Failure {
    Failure::new(librpc_status::InvalidArgument, format!("`{what}` is a null pointer"))
}

#[cold]
#[inline(never)]
fn too_many(count: usize, what: &str) -> Failure {
    Failure::new(librpc_status::InvalidArgument, format!("`{what}` has {count} values: more than any memory"))
}

/// A handle that C has.
///
/// # Safety
///
/// Null, or a handle of this type that was not freed. Nobody has it exclusively.
#[inline(always)]
pub(crate) unsafe fn shared<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: by this function's contract.
    unsafe { handle.as_ref() }.ok_or_else(|| null(what))
}

/// A handle that C uses in one thread at a time.
///
/// # Safety
///
/// Null, or a handle of this type that was not freed, and that nobody else uses now.
#[inline(always)]
pub(crate) unsafe fn exclusive<'a, T>(handle: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: by this function's contract.
    unsafe { handle.as_mut() }.ok_or_else(|| null(what))
}

/// A handle that C gives back.
///
/// # Safety
///
/// Null, or a handle of this type that `give` has made, and that was not freed.
pub(crate) unsafe fn taken<T>(handle: *mut T, what: &str) -> Result<Box<T>, Failure> {
    match handle.is_null() {
        true => Err(null(what)),
        // SAFETY: by this function's contract.
        false => Ok(unsafe { Box::from_raw(handle) }),
    }
}

/// Frees a handle, if there is one. What its drop panics with is kept as an error.
///
/// # Safety
///
/// As of [`taken`].
pub(crate) unsafe fn free<T>(handle: *mut T) {
    guard(|| {
        // SAFETY: by this function's contract.
        unsafe { taken(handle, "handle") }.map(drop).ok();
        Ok(librpc_status::Ok)
    });
}

/// Where a function writes its result.
///
/// # Safety
///
/// Null, or valid for writing a `T`.
#[inline(always)]
pub(crate) unsafe fn out<'a, T>(out: *mut T, what: &str) -> Result<Out<'a, T>, Failure> {
    match out.is_null() {
        true => Err(null(what)),
        false => Ok(Out(out, std::marker::PhantomData)),
    }
}

/// A place for a result.
pub(crate) struct Out<'a, T>(*mut T, std::marker::PhantomData<&'a mut T>);

impl<T> Out<'_, T> {
    #[inline(always)]
    pub(crate) fn set(&self, value: T) {
        // SAFETY: valid for writing, as the function that made it requires.
        unsafe { self.0.write(value) }
    }
}

/// Where a function writes the handle that it makes: null until there is one.
///
/// # Safety
///
/// As of [`out`].
pub(crate) unsafe fn handle_out<'a, T>(place: *mut *mut T, what: &str) -> Result<Out<'a, *mut T>, Failure> {
    // SAFETY: by this function's contract.
    let place = unsafe { out(place, what) }?;
    place.set(std::ptr::null_mut());
    Ok(place)
}

impl<T> Out<'_, *mut T> {
    pub(crate) fn give(&self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// A text.
///
/// # Safety
///
/// Null, or a string that ends with a zero byte, and stays as it is during the call.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: by this function's contract.
    unsafe { optional_text(text, what) }?.ok_or_else(|| null(what))
}

/// A text that may be left out.
///
/// # Safety
///
/// As of [`text`].
pub(crate) unsafe fn optional_text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| {
        Failure::new(librpc_status::InvalidArgument, format!("`{what}` is not UTF-8: {:?}", text.to_string_lossy()))
    })
}

/// An array.
///
/// # Safety
///
/// `count` is 0, or the pointer is null or valid for reading `count` values, which stay as they are during the call.
#[inline(always)]
pub(crate) unsafe fn array<'a, T>(values: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]); // wherever the pointer points
    }
    if values.is_null() {
        return Err(null(what));
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(too_many(count, what));
    }
    // SAFETY: by this function's contract; the length was checked.
    Ok(unsafe { std::slice::from_raw_parts(values, count) })
}

/// The bytes of a payload.
///
/// # Safety
///
/// As of [`array()`].
#[inline(always)]
pub(crate) unsafe fn payload<'a>(data: *const c_void, size: usize) -> Result<&'a [u8], Failure> {
    // SAFETY: by this function's contract.
    unsafe { array(data.cast(), size, "data") }
}

/// A `bool` that C writes. Everything but 0 is true: a byte that is neither 0 nor 1, out of memory that nobody has set, is no undefined
/// behaviour here.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Flag(u8);

impl Flag {
    pub(crate) fn is_set(self) -> bool {
        self.0 != 0
    }
}

/// A structure with options, whose first field is its size. Zeros are the defaults, so a caller that was compiled with an older header
/// gets the defaults of the fields that it does not know.
///
/// # Safety
///
/// Every pattern of bits is a value of it: integers, flags and raw pointers, with a `usize` first.
///
/// A field that is added later begins behind the old end of the structure: the padding that it has there now is of any value in programs
/// that were compiled before.
pub(crate) unsafe trait Options: Copy {}

/// Reads a structure with options. Null: the defaults.
///
/// # Safety
///
/// Null, or valid for reading as many bytes as its first field says.
pub(crate) unsafe fn options<T: Options>(from: *const T, what: &str) -> Result<T, Failure> {
    // SAFETY: zeros are a valid value, by the contract of the trait.
    let mut options: T = unsafe { std::mem::zeroed() };
    if from.is_null() {
        return Ok(options);
    }
    // SAFETY: it begins with its size.
    let size = unsafe { from.cast::<usize>().read() };
    let known = size_of::<T>();
    if size < size_of::<usize>() || size > 4096 {
        let why = format!("`{what}` says that it has {size} bytes: set `size` to its sizeof, and all else to zero");
        return Err(Failure::new(librpc_status::InvalidArgument, why));
    }
    if size > known {
        // SAFETY: as many bytes as it says can be read.
        let newer = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known) };
        if newer.iter().any(|byte| *byte != 0) {
            let why = format!("`{what}` sets options that this version ({}) does not know", env!("CARGO_PKG_VERSION"));
            return Err(Failure::new(librpc_status::InvalidArgument, why));
        }
    }
    // SAFETY: both are valid for that many bytes, and they do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut options).cast::<u8>(), size.min(known)) };
    Ok(options)
}

/// What C chooses by its number: C's enumerations count from 0.
pub(crate) fn choice<E: Copy>(all: &[E], number: u32, what: &str, kind: &str) -> Result<E, Failure> {
    let one = all.get(number as usize).copied();
    one.ok_or_else(|| Failure::argument(format!("`{what}` is {number}: no {kind}")))
}

/// How a function fails, off the hot path.
#[cold]
#[inline(never)]
pub(crate) fn refused(failure: impl Into<Failure>) -> librpc_status {
    remember(failure.into())
}

/// A time limit; `None`: without limit.
#[inline(always)]
pub(crate) fn limit(ns: u64) -> Option<Duration> {
    (ns != LIBRPC_FOREVER).then(|| Duration::from_nanos(ns))
}

/// A time limit where the library has no form without one: so long that it makes no difference.
pub(crate) fn long_limit(ns: u64) -> Duration {
    limit(ns).unwrap_or(Duration::MAX)
}

/// A duration in ns, at most the largest that there is.
pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A text for C. What comes after a zero byte is left out: names have none, and texts of other processes were made harmless.
pub(crate) fn c_text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}
