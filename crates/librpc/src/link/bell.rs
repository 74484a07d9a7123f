//! Bells: what travels on an open connection, to wake its other end.
//!
//! A bell says nothing that the shared memory does not say, so it may be lost where the receiver of bells will look anyway:
//! when its queue is full. A side that reads many in one go looks at every ring of the connection.

use crate::sys::OwnedFd;

use crate::sys::dispose::dispose;
use crate::sys::socket::{MAX_MESSAGE_BYTES, Received, Sent, Socket};

/// How many bells are read in one go.
const AT_ONCE: usize = 256;
/// If this many bells are read in one go, the queue may have been full, and others were not rung.
const MANY: usize = 32;
/// After this many bells for rings that do not exist (any more, or yet), the connection is closed.
pub(crate) const STRAY: u32 = 1024;
/// How often a bell is tried for which the kernel lacks memory.
const NO_MEMORY_TRIES: u32 = 100_000;

/// What travels on an open connection: 8 bytes, the kind and a ring's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bell {
    /// Look at this ring: there is something to receive, or something was consumed.
    Ring(u32),
    /// The receiver found this ring corrupt and reads it no more.
    Reset(u32),
}

impl Bell {
    fn encode(self) -> [u8; 8] {
        let (kind, ring) = match self {
            Self::Ring(ring) => (1u64, ring),
            Self::Reset(ring) => (2, ring),
        };
        (kind << 32 | u64::from(ring)).to_le_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = u64::from_le_bytes(bytes.try_into().ok()?);
        match word >> 32 {
            1 => Some(Self::Ring(word as u32)),
            2 => Some(Self::Reset(word as u32)),
            _ => None,
        }
    }

    /// Rings. Never blocks for a peer that does not read its bells.
    pub(crate) fn ring(self, socket: &Socket) {
        for _ in 0..NO_MEMORY_TRIES {
            match socket.send(&self.encode(), None) {
                Ok(Sent::Done | Sent::QueueFull | Sent::HungUp) => return,
                Ok(Sent::NoMemory) => crate::sys::thread::yield_now(),
                Err(error) => return tracing::warn!(%error, "a bell could not be rung"),
            }
        }
        tracing::warn!("a bell could not be rung: the kernel has no memory for 8 bytes");
    }
}

/// What reading bells has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The queue is empty, or it is others' turn.
    Bells,
    /// Bells were read, as many as the queue holds: others may not have been rung.
    Many,
    /// The peer is gone.
    HungUp,
    /// The peer sends what no honest one sends.
    Dishonest,
}

/// Reads the bells of a connection; `each` says whether an honest peer would have rung that one.
pub(crate) fn hear(socket: &Socket, hung_up: bool, mut each: impl FnMut(Bell) -> bool) -> Heard {
    let mut message = [0; MAX_MESSAGE_BYTES];
    for read in 0..AT_ONCE {
        match socket.receive(&mut message) {
            Ok(Received::Message { bytes, descriptors, .. }) => {
                let stray = !descriptors.is_empty();
                dispose(descriptors, ());
                if stray || !Bell::decode(&message[..bytes]).is_some_and(&mut each) {
                    return Heard::Dishonest;
                }
            }
            Ok(Received::Nothing) if hung_up => return Heard::HungUp,
            Ok(Received::Nothing) if read < MANY => return Heard::Bells,
            Ok(Received::Nothing) => return Heard::Many,
            // The bells are still there; until they are read, every ring is looked at.
            Err(error) if error.is_passing() => return Heard::Many,
            Ok(Received::HungUp) | Err(_) => return Heard::HungUp,
        }
    }
    Heard::Many
}

/// Called after a receiver's answer, once no more descriptors are accepted: reads what has come until then. `Err`: what no
/// honest receiver sends, and the descriptors that came with it.
pub(crate) fn take_early(socket: &Socket) -> Result<Vec<Bell>, Vec<OwnedFd>> {
    let mut bells = Vec::new();
    let mut message = [0; MAX_MESSAGE_BYTES];
    while !socket.shut_to_descriptors() {
        match socket.receive(&mut message) {
            Ok(Received::Message { bytes, descriptors, .. }) => match Bell::decode(&message[..bytes]) {
                Some(bell) if descriptors.is_empty() && bells.len() < MANY => bells.push(bell),
                _ => return Err(descriptors),
            },
            Ok(Received::Nothing) => {}
            // It will be seen where it belongs.
            Ok(Received::HungUp) | Err(_) => break,
        }
    }
    Ok(bells)
}

#[cfg(test)]
mod golden {
    use super::*;

    #[test]
    fn bells_are_pinned() {
        assert_eq!(Bell::Ring(5).encode(), [5, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(Bell::Reset(9).encode(), [9, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(Bell::decode(&Bell::Reset(9).encode()), Some(Bell::Reset(9)));
        assert_eq!(Bell::decode(&[0; 8]), None);
        assert_eq!(Bell::decode(&[0; 7]), None);
    }
}
