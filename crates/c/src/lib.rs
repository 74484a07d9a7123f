//! librpc for C and C++.
//!
//! What C sees is `include/librpc.h`, which cbindgen makes of these files: `cargo test -p librpc-c` compares the two, and
//! `LIBRPC_WRITE_HEADER=1 cargo test -p librpc-c` writes the header anew. Every function here takes what C gives it: handles,
//! texts and structures are checked in `border`, and what C must keep to stands at the top of the header.

#![allow(unsafe_code)] // this crate is the border to C
#![allow(non_camel_case_types)] // the names are C's

mod border; //   pointers, texts, options, how a function ends
mod error; //    statuses and errors
mod failures; // the library's errors as those
mod log; //      the library's log
mod schema; //   types
mod node; //     nodes
mod message; //  messages and samples
mod event; //    what happens at an inbox
mod inbox; //    receiving
mod send; //     sending to one node
mod publish; //  publishing a topic
mod outbox; //   sending to many
mod call; //     calls: clients
mod serve; //    calls: servers
mod wait_set; // waiting for several things at once
mod stats; //    statistics

use std::ffi::c_char;

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn librpc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
