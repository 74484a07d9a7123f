//! The Python module `librpc._librpc`: the library's handles as Python objects. What is easier to write in Python is in `python/librpc`.
//!
//! Every lock of this crate is taken only by a thread that holds the GIL (except the log's, which is never waited for). So none is held by
//! another thread when a process forks, and no thread waits for one of them and for the GIL at once.

mod limit; //      time limits
mod errors; //     errors of the library as Python exceptions
mod records; //    plain records, which are Python dataclasses
mod handle; //     an object that one thread or task uses at a time
mod blocking; //   waiting without the GIL, until something comes, the time is up, or a signal arrives
mod tasks; //      waiting in an asyncio task
mod buffer; //     the buffer protocol, and the only unsafe code
mod schema; //     what the messages of a topic are
mod admission; //  who may send to a node
mod domain; //     asking nodes about themselves, from outside
mod stats; //      what a node reports about itself
mod node; //       a participant with an id
mod inbox; //      receiving
mod message; //    a message, and who sent it
mod sample; //     a message that stays where its sender has put it
mod events; //     what else an inbox or a publisher reports
mod common; //     what senders and publishers have in common
mod sender; //     sending to one node
mod publisher; //  publishing to a topic
mod loan; //       memory for a message that is filled in place
mod client; //     calling a service
mod reply; //      a reply, and calls that are under way
mod server; //     serving a service
mod request; //    a request, and its answer in parts
mod log; //        what the library logs

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
mod _librpc {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::admission::Admission;
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::domain::{clean, nodes, observe};
    #[pymodule_export]
    use crate::handle::_forked;
    #[pymodule_export]
    use crate::inbox::Inbox;
    #[pymodule_export]
    use crate::loan::Loan;
    #[pymodule_export]
    use crate::log::{_log_descriptor, _log_level, _log_take};
    #[pymodule_export]
    use crate::message::{Message, Peer};
    #[pymodule_export]
    use crate::node::{_close_nodes, Node};
    #[pymodule_export]
    use crate::publisher::{Publisher, Receipt};
    #[pymodule_export]
    use crate::reply::{Pending, Replies, Reply};
    #[pymodule_export]
    use crate::request::{ReplyStream, Request};
    #[pymodule_export]
    use crate::sample::Sample;
    #[pymodule_export]
    use crate::schema::Schema;
    #[pymodule_export]
    use crate::sender::Sender;
    #[pymodule_export]
    use crate::server::Server;
    #[pymodule_export]
    use crate::tasks::{Operation, Wakeups};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::log::install();
        Ok(())
    }
}
