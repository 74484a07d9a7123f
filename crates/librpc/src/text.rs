//! Texts that other processes wrote.

/// A text from another process, without the characters that a terminal would interpret.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
