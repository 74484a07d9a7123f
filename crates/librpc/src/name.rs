//! Names of nodes, and addresses of inboxes.

use std::fmt;
use std::sync::Arc;

use crate::topic::Pattern;

/// The longest node id, in bytes.
pub const MAX_NODE_ID_BYTES: usize = 63;

/// Why a text is not a valid node id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNodeId {
    /// It is empty.
    #[error("a node id cannot be empty")]
    Empty,
    /// It is too long.
    #[error("node id {id:?} has {} bytes; the limit is {MAX_NODE_ID_BYTES}", id.len())]
    TooLong {
        /// The text.
        id: Arc<str>,
    },
    /// It contains a character that a file name or a line of output should not contain.
    #[error("node id {id:?} contains {found:?}: it may have no `/`, no control characters and no leading `.`")]
    InvalidCharacter {
        /// The text.
        id: Arc<str>,
        /// The first bad character.
        found: char,
    },
}

/// Checks a node id: 1 to 63 bytes, no `/`, no control characters, no leading `.`.
pub(crate) fn check_node_id(id: &str) -> Result<(), InvalidNodeId> {
    if id.is_empty() {
        return Err(InvalidNodeId::Empty);
    }
    if id.len() > MAX_NODE_ID_BYTES {
        return Err(InvalidNodeId::TooLong { id: id.into() });
    }
    let bad = |&(at, c): &(usize, char)| c == '/' || c.is_control() || (at == 0 && c == '.');
    match id.char_indices().find(bad) {
        Some((_, found)) => Err(InvalidNodeId::InvalidCharacter { id: id.into(), found }),
        None => Ok(()),
    }
}

/// A random 128-bit value, new each time a node id is opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation([u8; 16]);

impl Incarnation {
    pub(crate) fn random() -> Self {
        Self(crate::sys::process::random())
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Prints 32 hexadecimal digits.
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an inbox receives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// Messages to the node itself.
    Node,
    /// Messages on topics that match one of these patterns.
    Topics(Arc<[Pattern]>),
    /// Requests to a service of this name.
    Service(Arc<str>),
    /// Replies to the requests of a client. Such an inbox is not listed.
    Replies,
}

/// A process at the other end of a channel, as the kernel and the registry know it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The id of its node.
    pub node: Arc<str>,
    /// The incarnation of its node.
    pub incarnation: Incarnation,
    /// Its process, from the kernel; 0 if it is in a pid namespace that is not visible from here.
    pub pid: u32,
    /// Its user, from the kernel.
    pub uid: u32,
    /// Its primary group, from the kernel.
    pub gid: u32,
    /// Its supplementary groups, from the kernel.
    pub groups: Arc<[u32]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_are_checked() {
        for good in ["a", "Küche", "a b", "x.y", &"n".repeat(63)] {
            assert_eq!(check_node_id(good), Ok(()), "{good}");
        }
        assert_eq!(check_node_id(""), Err(InvalidNodeId::Empty));
        assert_eq!(check_node_id(&"n".repeat(64)), Err(InvalidNodeId::TooLong { id: "n".repeat(64).into() }));
        for (bad, found) in [("a/b", '/'), (".a", '.'), ("a\nb", '\n'), ("..", '.'), ("a\0", '\0')] {
            assert_eq!(check_node_id(bad), Err(InvalidNodeId::InvalidCharacter { id: bad.into(), found }));
        }
    }
}
