//! Texts that other processes wrote, and numbers of things.

/// A text from another process, without the characters that a terminal would interpret.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A number of things, as in "1 message" and "2 messages".
pub(crate) fn counted(number: u64, what: &str) -> String {
    let ending = match number {
        1 => "",
        _ if what.ends_with('x') => "es",
        _ => "s",
    };
    format!("{number} {what}{ending}")
}
