//! Finding an inbox, and being found.

pub(crate) mod admission;
pub(crate) mod dial;
pub(crate) mod incoming;
pub(crate) mod pages;

pub use admission::{Admission, Limits};
pub use dial::ConnectError;
pub use incoming::Reason;
