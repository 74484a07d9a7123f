//! Texts for people.

use std::fmt::Display;

/// A text from another process, without the characters that a terminal would interpret.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A number, and what there are so many of: `one` for 1, otherwise `more`. Verbs belong to it, as in "message is" and "messages are".
pub(crate) fn counted(number: impl Copy + Display + PartialEq + From<u8>, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1.into() { one } else { more })
}

/// A number of bytes.
pub(crate) fn bytes(number: impl Copy + Display + PartialEq + From<u8>) -> String {
    counted(number, "byte", "bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!((bytes(0usize), bytes(1u64), bytes(2u32)), ("0 bytes".into(), "1 byte".into(), "2 bytes".into()));
        assert_eq!(counted(1usize, "message was", "messages were"), "1 message was");
        assert_eq!(counted(21u64, "message was", "messages were"), "21 messages were");
    }
}
