//! What this machine, or this user, does not allow.

use std::io::Write;

/// Whether the tests run as root, and so can take other uids and mount. If not, this reports that the test is skipped.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("this test needs root");
    }
    root
}

/// Reports that a test is skipped, and why. Written to stderr directly: the test runner hides what passing tests print.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}
