//! Texts that strangers wrote.

/// What a stranger wrote, without the characters that would mean something to a terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
