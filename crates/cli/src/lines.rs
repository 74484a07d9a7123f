//! Stdin as lines. Only the `\n` is removed, which the last line may lack. Memory stays bounded however long a line is.
//!
//! Invariant: `start ≤ scanned ≤ end ≤ buffer.len()`; the bytes in `start..scanned` hold no `\n`.

use std::io;
use std::ops::Range;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::interrupt::Interrupt;

const BUFFER_BYTES: usize = 256 * 1024;

/// What comes next on stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A line: [`Lines::bytes`] has it.
    Line(Range<usize>),
    /// A line over the limit, with its length in bytes. It is skipped.
    TooLong(u64),
    /// More must be read first: [`Lines::fill`].
    Nothing,
    /// There is no further line.
    End,
}

/// The outcome of reading more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Bytes, or the end.
    Some,
    /// There is nothing.
    Idle,
    /// A signal came.
    Interrupted,
}

pub(crate) struct Lines {
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    end: usize,
    /// Bytes that were skipped so far of a line that is too long.
    skipped: Option<u64>,
    at_end: bool,
    number: u64,
}

impl Lines {
    pub(crate) fn new() -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { buffer, start: 0, scanned: 0, end: 0, skipped: None, at_end: false, number: 0 }
    }

    /// The number of the line that was handed out last. The first one is 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn bytes(&self, line: Range<usize>) -> &[u8] {
        &self.buffer[line]
    }

    /// The next line of what was read. `limit` says how long a line may be; it is called when one does not fit into the
    /// buffer.
    #[inline]
    pub(crate) fn next(&mut self, limit: impl FnOnce() -> usize) -> Next {
        match memchr::memchr(b'\n', &self.buffer[self.scanned..self.end]) {
            Some(at) => self.line(self.scanned + at, self.scanned + at + 1),
            None => self.rest(limit),
        }
    }

    /// Ends a line.
    fn line(&mut self, end: usize, next: usize) -> Next {
        let line = self.start..end;
        (self.start, self.scanned) = (next, next);
        self.number += 1;
        match self.skipped.take() {
            Some(skipped) => Next::TooLong(skipped + line.len() as u64),
            None => Next::Line(line),
        }
    }

    /// The bytes read so far contain no `\n`.
    #[cold]
    fn rest(&mut self, limit: impl FnOnce() -> usize) -> Next {
        if self.at_end {
            let nothing = self.start == self.end && self.skipped.is_none();
            return if nothing { Next::End } else { self.line(self.end, self.end) };
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        (self.start, self.scanned) = (0, self.end);
        if let Some(skipped) = &mut self.skipped {
            *skipped += self.end as u64;
            (self.scanned, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            let limit = limit();
            if self.end > limit {
                self.skipped = Some(self.end as u64);
                (self.scanned, self.end) = (0, 0);
            } else {
                self.buffer.resize((2 * self.end).min(limit.saturating_add(1)), 0);
            }
        }
        Next::Nothing
    }

    /// Reads more, if there is more. Does not wait.
    pub(crate) fn fill(&mut self, interrupt: &Interrupt) -> io::Result<Filled> {
        let stdin = rustix::stdio::stdin();
        let mut waited = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(interrupt, PollFlags::empty())];
        match poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Err(Errno::INTR) => return Ok(Filled::Idle),
            Err(errno) => return Err(errno.into()),
            Ok(_) if !waited[1].revents().is_empty() => return Ok(Filled::Interrupted),
            Ok(_) if waited[0].revents().is_empty() => return Ok(Filled::Idle),
            Ok(_) => {}
        }
        match rustix::io::read(stdin, &mut self.buffer[self.end..]) {
            Ok(0) => self.at_end = true,
            Ok(read) => self.end += read,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(Filled::Idle),
            Err(errno) => return Err(errno.into()),
        }
        Ok(Filled::Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `input` in pieces of `piece` bytes through a buffer of `buffer` bytes.
    fn lines(input: &[u8], piece: usize, buffer: usize, limit: usize) -> Vec<Result<Vec<u8>, u64>> {
        let mut lines = Lines { buffer: vec![0; buffer], ..Lines::new() };
        let (mut input, mut found) = (input, Vec::new());
        loop {
            match lines.next(|| limit) {
                Next::Line(line) => found.push(Ok(lines.bytes(line).to_vec())),
                Next::TooLong(bytes) => found.push(Err(bytes)),
                Next::End => return found,
                Next::Nothing => {
                    let bytes = piece.min(input.len()).min(lines.buffer.len() - lines.end);
                    lines.buffer[lines.end..lines.end + bytes].copy_from_slice(&input[..bytes]);
                    lines.end += bytes;
                    lines.at_end = input.is_empty();
                    input = &input[bytes..];
                }
            }
        }
    }

    #[test]
    fn only_the_newline_is_removed() {
        for piece in 1..20 {
            let expect: [&[u8]; 5] = [b"a", b"", b" b\r", b"\0\xff", b"last"];
            assert_eq!(lines(b"a\n\n b\r\n\0\xff\nlast", piece, 8, 100), expect.map(|line| Ok(line.to_vec())));
            assert_eq!(lines(b"a\n", piece, 8, 100), [Ok(b"a".to_vec())]);
            assert_eq!(lines(b"", piece, 8, 100), []);
            assert_eq!(lines(b"\n", piece, 8, 100), [Ok(vec![])]);
        }
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_counted() {
        for piece in 1..40 {
            let input = [&[b'x'; 100][..], b"\nshort\n", &[b'y'; 33]].concat();
            let expect = [Err(100), Ok(b"short".to_vec()), Err(33)];
            assert_eq!(lines(&input, piece, 8, 31), expect, "pieces of {piece}");
        }
    }

    #[test]
    fn the_buffer_grows_up_to_the_limit() {
        let input = [b'x'; 1000];
        assert_eq!(lines(&input, 7, 8, 1000), [Ok(input.to_vec())]);
    }
}
