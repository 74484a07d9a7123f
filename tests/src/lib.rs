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
pub use testkit::{Process, TestDomain, is_root, proc, skip, wait_until};

/// A program of this package, which Cargo builds with the tests and puts beside them.
pub fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
    testkit::command(target.join(name))
}

/// The programs in the documents, which run as doctests.
#[cfg(doctest)]
mod documents {
    macro_rules! documents {
        ($($name:ident: $file:literal,)*) => { $(#[doc = include_str!(concat!("../../", $file))] struct $name;)* };
    }
    documents! {
        Readme: "README.md",
        CrateReadme: "crates/librpc/README.md",
        Calls: "docs/guide/calls.md",
        Cookbook: "docs/guide/cookbook.md",
        Deaths: "docs/guide/deaths.md",
        EventLoops: "docs/guide/event-loops.md",
        FirstMessage: "docs/guide/first-message.md",
        LargePayloads: "docs/guide/large-payloads.md",
        Monitoring: "docs/guide/monitoring.md",
        MovingFromV3: "docs/guide/moving-from-v3.md",
        Policies: "docs/guide/policies.md",
        Tasks: "docs/guide/tasks.md",
        Topics: "docs/guide/topics.md",
        Types: "docs/guide/types.md",
        UsersAndContainers: "docs/guide/users-and-containers.md",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_program_in_the_documents_is_a_doctest() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (guide, this) = (root.join("docs/guide"), include_str!("lib.rs"));
        for file in std::fs::read_dir(guide).unwrap().map(|file| file.unwrap().path()).chain([root.join("README.md")]) {
            let name = file.strip_prefix(root).unwrap().to_str().unwrap();
            let has_programs = std::fs::read_to_string(&file).unwrap().contains("```rust");
            assert_eq!(this.contains(&format!("\"{name}\"")), has_programs, "{name}");
        }
    }
}
