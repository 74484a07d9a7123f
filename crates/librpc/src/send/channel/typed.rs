//! The type of what is sent to a node's own inbox: it is declared before the first message of a channel.
//!
//! Invariant: while it is to be declared, the channel is not seen as open, so each message takes the slow path, and a message without
//! a type costs nothing.
//!
//! A crash between the declaration and the message leaves a ring with a declaration alone: the receiver knows the type, and got nothing.

use std::sync::Arc;

use librpc_ring::{Head, Kind, Mode};

use super::{OutboundChannel, Pushed};
use crate::send::topic_name::TopicName;

/// The type of the messages.
#[derive(Debug)]
pub(super) struct Typed {
    name: Arc<TopicName>,
    /// In which chunk of the ring it was declared last.
    declared: Option<u64>,
}

impl Typed {
    /// Whether no message needs another declaration.
    pub(super) fn is_settled(&self, mode: Mode) -> bool {
        self.declared.is_some() && mode == Mode::Lossless
    }
}

impl OutboundChannel {
    /// The messages are of this type. An inbox that knows no types is not told.
    pub(crate) fn set_type(&mut self, name: &Arc<TopicName>) {
        if self.target().knows_types() {
            self.typed = Some(Typed { name: name.clone(), declared: None });
        }
    }

    /// Declares the type of the messages, if the receiver may not know it: before the first one, and in mode Latest in each chunk.
    pub(super) fn declare_type(&mut self, may_pend: bool) -> Result<(), Pushed> {
        while let Some(Typed { name, declared }) = &self.typed {
            let (name, here) = (name.clone(), self.producer.chunk());
            if *declared == Some(here) {
                break;
            }
            match self.write_slowly(Head::of(Kind::Topic), self.declaration(&name), may_pend) {
                Pushed::Yes => self.typed = Some(Typed { name, declared: Some(here) }),
                undeclared => return Err(undeclared),
            }
            self.refresh();
        }
        Ok(())
    }
}
