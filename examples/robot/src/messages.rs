//! What the processes tell each other: plain data, read where it is.
//!
//! Every message on a topic begins with a [`Head`]: its number, and the run of its sender, which is the sender's process id.

use librpc::Describe;
use librpc::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const FRAMES: &str = "camera/front";
pub(crate) const SAMPLES: &str = "imu/data";
pub(crate) const DETECTIONS: &str = "detections";
pub(crate) const ROUTES: &str = "plan/route";
/// The node that gets commands.
pub(crate) const PLANNER: &str = "planner";

macro_rules! plain_data {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$of:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Describe)]
        #[zerocopy(crate = "librpc::zerocopy")]
        #[repr(C)]
        pub(crate) struct $name { $($(#[$of])* pub(crate) $field: $type,)* }
    )*};
}

plain_data! {
    struct Head {
        /// Counted from 1. A command or a sample that is sent again has the same number.
        number: u64,
        run: u64,
    }

    /// To the planner's inbox.
    struct Command {
        head: Head,
        x: f32,
        y: f32,
    }

    /// On `imu/data`.
    struct Sample {
        head: Head,
        taken_ns: u64,
        acceleration: [f32; 3],
        turning: [f32; 3],
    }

    /// On `detections`.
    struct Detection {
        head: Head,
        frame: Head,
        x: f32,
        y: f32,
    }

    /// A request to `plan/route`.
    struct Goal {
        x: f32,
        y: f32,
    }

    /// Its reply, with what the planner knew when it made the plan.
    struct Route {
        metres: f32,
        turn: f32,
        last_command: u64,
        last_sample: u64,
        last_detection: u64,
    }

    /// The first bytes of a frame on `camera/front`; its pixels follow.
    struct FrameHead {
        head: Head,
        taken_ns: u64,
        checksum: u64,
    }
}
