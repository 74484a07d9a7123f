//! Texts for people.

use std::fmt::Display;

/// A text from another process, without the characters that a terminal would interpret.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The beginning of such a text: at most this many characters.
pub(crate) fn harmless_start(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// A number with its noun, as in "1 message" and "2 messages": `one` if the number is 1, otherwise `more`. Either may have its verb, too, as
/// in "message is" and "messages are".
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
