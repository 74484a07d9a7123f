//! What is read by its path alone.

use std::io;

/// The text of a file.
pub(crate) fn text(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path)
}
