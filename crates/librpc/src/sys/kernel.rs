//! Optional kernel features. Probed, not inferred from the version: kernels are patched, and sandboxes forbid calls.

use crate::sys::{barrier, memory, socket};

/// The optional kernel features that librpc uses if they are present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kernel {
    /// A receiver that goes to sleep can run a barrier in its senders (`membarrier`), so that they need no fence for each
    /// message.
    pub has_barriers: bool,
    /// A socket can refuse descriptors (`SO_PASSRIGHTS`, Linux 6.16): none can be sent outside a handshake.
    pub refuses_descriptors: bool,
    /// Memory can be made non-executable for good (`MFD_NOEXEC_SEAL`, Linux 6.3).
    pub seals_execution: bool,
}

impl Kernel {
    /// Tries each.
    ///
    /// ```
    /// let kernel = librpc::Kernel::probe();
    /// assert!(!kernel.refuses_descriptors || kernel.seals_execution, "the one is younger than the other: {kernel:?}");
    /// ```
    pub fn probe() -> Self {
        barrier::prepare();
        Self {
            has_barriers: barrier::is_registered() && barrier::is_available(),
            refuses_descriptors: socket::can_refuse_descriptors(),
            seals_execution: memory::can_seal_execution(),
        }
    }
}
