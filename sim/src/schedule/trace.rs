//! What has happened, step by step: always as a number, which is different for two runs that differ anywhere, and as
//! text on request.

/// The record of a run.
#[derive(Debug, Default)]
pub(super) struct Trace {
    digest: u64,
    /// `None`: no text was requested.
    lines: Option<Vec<String>>,
    /// How many of the last lines are kept.
    at_most: usize,
}

impl Trace {
    pub(super) fn new(lines_kept: usize) -> Self {
        Self { digest: 0, lines: (lines_kept > 0).then(Vec::new), at_most: lines_kept }
    }

    /// Takes note of a step: numbers that say what it was, and text that is made only for a reader.
    #[inline]
    pub(super) fn note(&mut self, what: u64, text: impl FnOnce() -> String) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.digest = (self.digest.rotate_left(5) ^ what).wrapping_mul(ODD);
        if let Some(lines) = &mut self.lines {
            if lines.len() >= 2 * self.at_most {
                lines.drain(..self.at_most);
            }
            lines.push(text());
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        let mut lines = self.lines.unwrap_or_default();
        lines.drain(..lines.len().saturating_sub(self.at_most));
        lines
    }
}

/// A short name as a number.
#[inline]
pub(super) const fn number(name: &str) -> u64 {
    let (bytes, mut hash, mut at) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}
