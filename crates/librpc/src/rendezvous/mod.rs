//! Being found: a node listens, admits, and attaches channels to its inboxes.

pub(crate) mod listener; //  takes connections
mod incoming; //             a handshake, step by step
mod step; //                 what a step leads to
mod hello; //                what a sender wants, and who it is
mod attach; //               its memory becomes a channel
mod lend; //                 a memory for payloads is handed over
mod denied; //               a publisher says what an inbox may not read
mod observed; //             the node's statistics are asked for instead
pub(crate) mod pages; //     what is answered then
