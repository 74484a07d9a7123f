//! Whole domains of librpc nodes on a simulated kernel: seeded, deterministic, with a fault at any step.

pub mod kernel; // a model of Linux: files, locks, sockets, memory, processes
pub mod machine; //  the calls of librpc, and how they may fail
pub mod schedule; // which thread of which process takes the next step
pub mod workload; // what the simulated processes do, and what must be true of them
