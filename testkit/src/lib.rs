//! What the tests, the battery and the attacks share.
//!
//! A test has a [`TestDomain`] of its own and starts each other program as a [`Process`]. Both are cleared away when they
//! are dropped, however the test ends. Nothing here sleeps for a fixed time: [`wait_until`] waits for a state.

#[cfg(feature = "domain")]
mod domain; //      a domain of one test's own
mod memory; //      ring memory that a test can read and spoil
pub mod payload; // numbered payloads that can be checked
pub mod proc; //    what the kernel says about a process
mod process; //     a supervised child process
mod random; //      random numbers that follow from a seed
mod skip; //        what this machine does not allow
mod unshare; //     a program in namespaces of its own
mod wait; //        waiting for a state

#[cfg(feature = "domain")]
pub use domain::{TestDomain, left_by_this_process, left_of, remove_what_killed_runs_left, socket_of};
pub use memory::RingMemory;
pub use process::{Ended, Process, command, die_with_parent};
pub use random::Random;
pub use skip::{is_root, skip};
pub use unshare::{can_unshare, unshare};
pub use wait::{HANG, wait_for, wait_until};
