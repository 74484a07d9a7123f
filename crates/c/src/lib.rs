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

// What the header says about threads: any number of them may use, or look at, these at once, and each may end in another one.
const fn any_threads<T: Send + Sync>() {}
const fn one_thread_at_a_time<T: Send>() {}
const _: () = {
    any_threads::<node::librpc_node>();
    any_threads::<call::librpc_client>();
    any_threads::<serve::librpc_server>();
    any_threads::<message::librpc_sample>();
    any_threads::<call::librpc_reply>();
    any_threads::<serve::librpc_request>();
    any_threads::<stats::librpc_stats>();
    any_threads::<stats::librpc_nodes>();
    one_thread_at_a_time::<inbox::librpc_callback>();
    one_thread_at_a_time::<librpc::Inbox>(); // in librpc_inbox, with pointers into itself
    one_thread_at_a_time::<publish::librpc_publisher>();
    one_thread_at_a_time::<send::librpc_sender>();
    one_thread_at_a_time::<send::librpc_loan>();
    one_thread_at_a_time::<outbox::librpc_outbox>();
    one_thread_at_a_time::<call::librpc_pending>();
    one_thread_at_a_time::<call::librpc_replies>();
    one_thread_at_a_time::<serve::librpc_reply_stream>();
};
