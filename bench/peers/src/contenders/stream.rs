//! Messages in a stream of bytes, for pipes and sockets. Four bytes of length precede each message.
//!
//! Each message takes one `write`. One `read` takes everything that has arrived, often many messages.

use std::io::{ErrorKind, Read, Write};

use anyhow::bail;

use crate::payload;

const LENGTH_BYTES: usize = 4;
const READ_BYTES: usize = 256 * 1024;

pub(crate) struct Outgoing<W> {
    stream: W,
    framed: Vec<u8>,
}

impl<W: Write> Outgoing<W> {
    pub(crate) fn new(stream: W, bytes: usize) -> Self {
        let mut framed = vec![0; LENGTH_BYTES + bytes];
        framed[..LENGTH_BYTES].copy_from_slice(&(bytes as u32).to_le_bytes());
        Self { stream, framed }
    }

    #[inline]
    pub(crate) fn send(&mut self, number: u64) -> anyhow::Result<()> {
        payload::write(number, &mut self.framed[LENGTH_BYTES..]);
        self.stream.write_all(&self.framed)?;
        Ok(())
    }
}

pub(crate) struct Incoming<R> {
    stream: R,
    buffer: Vec<u8>,
    filled: usize,
}

impl<R: Read> Incoming<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: vec![0; READ_BYTES], filled: 0 }
    }

    #[inline]
    pub(crate) fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => bail!("the other side has left"),
            Ok(read) => self.filled += read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut rest = &self.buffer[..self.filled];
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let Some((message, behind)) = behind.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
            take(message);
            rest = behind;
        }
        let taken = self.filled - rest.len();
        anyhow::ensure!(taken > 0 || self.filled < self.buffer.len(), "a message is longer than the buffer");
        self.buffer.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        Ok(())
    }
}
