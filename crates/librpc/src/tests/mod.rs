//! Tests that need the inside of the crate.

mod denials; //    publishers that say what a subscription may not read
mod direct; //     senders that ignore what an inbox wants
mod growing; //    memory for payloads that grows
mod handles; //    what handles look like in a log
mod handshakes; // peers that say what they like
mod lending; //    memory that is handed over before it is needed
mod listeners; //  listeners that answer a sender as they like
mod observers; //  nodes that answer an observer as they like
