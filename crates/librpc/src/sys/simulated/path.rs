//! What is read by its path alone.

use std::io;

use super::machine::machine;

pub(crate) fn text(path: &str) -> io::Result<String> {
    Ok(machine().text(path)?)
}
