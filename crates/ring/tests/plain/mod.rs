//! Ring memory of one thread: words that a test can look at and spoil, and that count how often they are read.

pub(crate) use testkit::RingMemory as Plain;
