//! Ring memory for one thread: words that a test can read and overwrite, and that count how often they are read.

pub(crate) use testkit::RingMemory as Plain;
