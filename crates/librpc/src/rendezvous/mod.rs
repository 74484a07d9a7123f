//! Finding an inbox, and being found.

pub(crate) mod dial;
pub(crate) mod incoming;
pub(crate) mod listener;
pub(crate) mod pages;

pub use dial::ConnectError;
