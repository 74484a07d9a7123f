//! The contenders, each in a file that says how it is set and why.
pub(crate) mod aeron; //        Aeron IPC, with its media driver in a process of its own
pub(crate) mod cache_line; //   limit
pub(crate) mod eventfd; //      limit
pub(crate) mod iceoryx2; //     publish and subscribe, events to wake
pub(crate) mod iceoryx2_calls; // requests and responses, events to wake
pub(crate) mod ipc_channel; //  bytes channels
pub(crate) mod librpc; //       this project
pub(crate) mod librpc_calls; // its client and its server
pub(crate) mod line; //         what the limits share: words in shared memory
pub(crate) mod packets; //      a packet socket, for calls
pub(crate) mod pipe; //         two named pipes
pub(crate) mod stream; //       what pipes and sockets share: lengths before messages
pub(crate) mod unix_socket; //  a stream socket
pub(crate) mod zeromq; //       a pair of sockets over ipc://
