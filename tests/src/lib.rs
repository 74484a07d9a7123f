//! What the whole-system tests share: puppets, which are real processes that do what a test tells them.
//!
//! ```no_run
//! use librpc_system_tests::orders::*;
//! use librpc_system_tests::{Puppets, TestDomain};
//!
//! let domain = TestDomain::new();
//! let mut sink = domain.receiver("sink");
//! let mut source = domain.node("source");
//! source.does(connect("sink"));
//! source.does(send("sink", "hello"));
//! assert_eq!(sink.does(receive()).text, "hello");
//! source.kill();
//! assert_eq!(sink.does(next_event()), died("source"));
//! ```

pub mod command; // the protocol between a test and a puppet
pub mod orders; //  what a puppet can be told to do
mod puppet; //      a process that does it

use std::path::Path;
use std::process::Command;

pub use puppet::{Begun, ForkedChild, Puppet, Puppets};
pub use testkit::{TestDomain, is_root, proc, skip, wait_until};

/// A program of this package, which Cargo builds with the tests and puts beside them.
pub fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
    testkit::command(target.join(name))
}
