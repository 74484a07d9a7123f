//! Fault points of the ring, compiled in only with the feature `fault-points`. The test that kills processes sets the hook.

/// Called with the name of each step that is reached.
#[cfg(feature = "fault-points")]
pub static HOOK: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// Marks a step at which a process may die.
macro_rules! fault {
    ($step:literal) => {
        #[cfg(feature = "fault-points")]
        if let Some(hook) = $crate::fault::HOOK.get() {
            hook($step);
        }
    };
}
pub(crate) use fault;
