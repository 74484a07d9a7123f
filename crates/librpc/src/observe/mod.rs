//! Asking nodes about themselves, from outside.

mod observer;

pub use observer::{Observed, Observer, Unobserved};
