//! The type of a topic, a service or an inbox.

use std::ffi::{c_char, c_void};

use librpc::{Encoding, Schema};

use crate::border::{Options, options, payload, text};
use crate::error::Failure;

/// How values are encoded as bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_encoding {
    /// Whatever the program makes of it.
    Raw = 0,
    /// The bytes of the value as it lies in memory.
    Plain = 1,
    /// Postcard, by serde.
    Postcard = 2,
    /// JSON.
    Json = 3,
    /// Protocol Buffers.
    Protobuf = 4,
    /// CDR, as ROS 2 and DDS use it.
    Cdr = 5,
}

impl librpc_encoding {
    const ALL: [Self; 6] = [Self::Raw, Self::Plain, Self::Postcard, Self::Json, Self::Protobuf, Self::Cdr];
}

/// The type of the messages of a topic, of a service's requests or replies, or of what is sent to a node itself. Both sides compare it
/// before anything is sent. Set `size`, and all that is not used to zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_schema {
    /// sizeof(librpc_schema).
    pub size: usize,
    /// The name of the type, up to 128 bytes.
    pub name: *const c_char,
    /// How it is encoded: librpc_encoding.
    pub encoding: u32,
    /// Whether `hash` is set.
    pub has_hash: u32,
    /// A hash of its layout: types with different hashes do not match.
    pub hash: u64,
    /// Its definition, for tools: up to 16 KiB; null: none.
    pub definition: *const c_void,
    /// The length of the definition in bytes.
    pub definition_size: usize,
}

// SAFETY: integers and raw pointers, with the size first.
unsafe impl Options for librpc_schema {}

/// A type that C describes; `None`: null.
///
/// # Safety
///
/// Null, or a structure of C's whose pointers are valid during the call.
pub(crate) unsafe fn schema(from: *const librpc_schema) -> Result<Option<Schema>, Failure> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's contract.
    let from = unsafe { options(from, "schema") }?;
    let encoding = match librpc_encoding::ALL.get(from.encoding as usize) {
        Some(librpc_encoding::Raw) => Encoding::Raw,
        Some(librpc_encoding::Plain) => Encoding::Plain,
        Some(librpc_encoding::Postcard) => Encoding::Postcard,
        Some(librpc_encoding::Json) => Encoding::Json,
        Some(librpc_encoding::Protobuf) => Encoding::Protobuf,
        Some(librpc_encoding::Cdr) => Encoding::Cdr,
        None => Encoding::Other(from.encoding), // one that a later version knows
    };
    // SAFETY: by this function's contract.
    let mut schema = Schema::new(unsafe { text(from.name, "schema.name") }?, encoding)?;
    if from.has_hash != 0 {
        schema = schema.with_hash(from.hash);
    }
    if !from.definition.is_null() {
        // SAFETY: by this function's contract.
        schema = schema.with_definition(unsafe { payload(from.definition, from.definition_size) }?);
    }
    Ok(Some(schema))
}
