//! Calls: requests to a service, and their replies.
//!
//! ```text
//! client                                                        server
//! outbox ── Caller, Request, Cancel, Credit ──▶ inbox of the service, listed
//! inbox, not listed ◀── Reply | Part… End | Failure ── outbox
//! ```
//!
//! docs/design/calls.md says what is true after a death at each step.

mod caller; //   a client, as its server knows it
mod client; //   calling: `Client`
mod error; //    why a call, or an answer, has failed
mod exchange; // an inbox for which several threads wait
mod in_common; // what a client and its calls have in common
mod options; //  how a call is to be made
mod outgoing; // a record on its way, and where it goes
mod pause; //    how soon something is tried again
mod pending; //  a call that is under way: `Pending`, `Replies`
mod request; //  a request at its server, and its answer
mod server; //   serving: `Server`
mod state; //    what a client knows of its calls
mod table; //    the calls of a client, by number
mod waited; //   a server or a call, as a wait set waits for it
mod work; //     what a server knows of its callers

#[cfg(test)]
mod tests;

pub use client::{Answer, Client, ClientBuilder};
pub use error::{CallError, ReplyError, ServeError};
pub use options::CallOptions;
pub use pending::{CancelHandle, Pending, Replies, Reply};
pub use request::{ReplyStream, Request};
pub use server::{Server, ServerBuilder};
pub(crate) use waited::Waited;
