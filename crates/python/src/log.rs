//! What the library logs: kept in a bounded list, from which a Python thread takes it for `logging`.
//!
//! Whoever logs, such as the library's background thread, never waits: neither for the GIL, nor for the list, nor for room in it. What finds no
//! room is counted.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::blocking::Bell;
use crate::handle::process;

/// How many records wait at most.
const ROOM: usize = 4096;
/// A forked child has a list of its own: its parent's may have been in use when it was forked.
const LISTS: usize = 8;

struct Record {
    level: u8,
    target: &'static str,
    text: String,
}

static RECORDS: [Mutex<VecDeque<Record>>; LISTS] = [const { Mutex::new(VecDeque::new()) }; LISTS];
static LOST: AtomicU64 = AtomicU64::new(0);
/// The least severe level that is wanted: see [`severity`].
static WANTED: AtomicUsize = AtomicUsize::new(20);
static BELLS: [OnceLock<Bell>; LISTS] = [const { OnceLock::new() }; LISTS];

fn place() -> usize {
    process() as usize % LISTS
}

/// As `logging` numbers it.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

/// From now on, what the library logs is kept.
pub(crate) fn install() {
    let _ = tracing::subscriber::set_global_default(Keeper); // another module of this process may have been first
}

/// What is readable when there is something to take.
#[pyfunction]
pub(crate) fn _log_descriptor() -> PyResult<i32> {
    let bell = &BELLS[place()];
    if bell.get().is_none() {
        let _ = bell.set(Bell::new()?);
    }
    Ok(bell.get().expect("it was set above").descriptor())
}

/// What is less severe is not kept.
#[pyfunction]
pub(crate) fn _log_level(level: usize) {
    WANTED.store(level, Ordering::Relaxed);
}

/// What was logged, and how many records were lost.
#[pyfunction]
pub(crate) fn _log_take() -> (Vec<(u8, &'static str, String)>, u64) {
    if let Some(bell) = BELLS[place()].get() {
        bell.silence();
    }
    let records = std::mem::take(&mut *RECORDS[place()].lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    let records = records.into_iter().map(|Record { level, target, text }| (level, target, text)).collect();
    (records, LOST.swap(0, Ordering::Relaxed))
}

struct Keeper;

impl Subscriber for Keeper {
    /// What is wanted changes.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() { Interest::never() } else { Interest::sometimes() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && usize::from(severity(*metadata.level())) >= WANTED.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let Text { message, fields } = text;
        let record = Record {
            level: severity(*event.metadata().level()),
            target: event.metadata().target(),
            text: message + &fields,
        };
        let Ok(mut records) = RECORDS[place()].try_lock() else {
            LOST.fetch_add(1, Ordering::Relaxed); // somebody takes them just now
            return;
        };
        if records.len() >= ROOM {
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        records.push_back(record);
        drop(records);
        if let Some(bell) = BELLS[place()].get() {
            bell.ring();
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event as a line: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}
