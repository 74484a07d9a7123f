//! The library's log.

use std::ffi::{c_char, c_int, c_void};
use std::fmt::Write;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::border::{c_text, guard, text};
use crate::error::{Failure, librpc_status};

/// How grave it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_level {
    /// Something went wrong.
    Error = 1,
    /// Something may go wrong.
    Warn = 2,
    /// Something has happened.
    Info = 3,
    /// For those who look for a defect.
    Debug = 4,
    /// Each step.
    Trace = 5,
}

/// Called for each entry: its level (librpc_level), its target such as "librpc::connect", and its text. Any thread may call it, several
/// at once, the library's own among them: it must be quick, must not call the library, and must not throw.
pub type librpc_on_log =
    Option<unsafe extern "C" fn(context: *mut c_void, level: c_int, target: *const c_char, text: *const c_char)>;

fn filter(filter: *const c_char) -> Result<EnvFilter, Failure> {
    // SAFETY: C's text.
    let words = unsafe { text(filter, "filter") }?;
    EnvFilter::try_new(words).map_err(|error| {
        Failure::argument(format!("`filter` {words:?} is no filter: {error}; write \"info\", or \"librpc=debug\""))
    })
}

fn installed(result: Result<(), tracing_subscriber::util::TryInitError>) -> Result<librpc_status, Failure> {
    result.map_err(|_| Failure::argument("this process has a log already: it can be set once"))?;
    Ok(librpc_status::Ok)
}

/// Writes the library's log to stderr: what the filter lets through, such as "info", or "librpc=debug". Once in a process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_log_to_stderr(filter: *const c_char) -> librpc_status {
    guard(|| {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(self::filter(filter)?);
        installed(tracing_subscriber::registry().with(layer).try_init())
    })
}

/// Hands the library's log to a function. Once in a process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_log_to(
    filter: *const c_char,
    on_log: librpc_on_log,
    context: *mut c_void,
) -> librpc_status {
    guard(|| {
        let on_log = on_log.ok_or_else(|| Failure::argument("`on_log` is a null pointer"))?;
        let layer = ToC { on_log, context }.with_filter(self::filter(filter)?);
        installed(tracing_subscriber::registry().with(layer).try_init())
    })
}

struct ToC {
    on_log: unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char),
    context: *mut c_void,
}

// SAFETY: C promises that any thread may call the function with this context.
unsafe impl Send for ToC {}
// SAFETY: as above, several at once.
unsafe impl Sync for ToC {}

impl<S: tracing::Subscriber> Layer<S> for ToC {
    fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => librpc_level::Error,
            tracing::Level::WARN => librpc_level::Warn,
            tracing::Level::INFO => librpc_level::Info,
            tracing::Level::DEBUG => librpc_level::Debug,
            tracing::Level::TRACE => librpc_level::Trace,
        };
        let (target, text) = (c_text(event.metadata().target()), c_text(&(said.message + &said.fields)));
        // SAFETY: C's function, which may be called with this context.
        unsafe { (self.on_log)(self.context, level as c_int, target.as_ptr(), text.as_ptr()) };
    }
}

/// An entry as one line: its message, then its fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl tracing::field::Visit for Said {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
