//! Observing the nodes of a domain from outside, without a node.

mod asked; //    a node that was asked about itself
mod observer; // asking all nodes of a domain at the same time

pub use observer::{ObserveError, Observed, Observer};
