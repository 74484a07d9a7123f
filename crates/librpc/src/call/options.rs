//! How a call is to be made.

use std::sync::Arc;
use std::time::Duration;

/// How a call is to be made: [`crate::Client::start`]. A [`Duration`] alone is a time limit.
///
/// ```
/// use std::time::Duration;
/// let options = librpc::CallOptions::new(Duration::from_secs(1)).idempotent(true).to("planner-2");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long the whole call may take. Servers drop requests that nobody has taken by then.
    pub timeout: Duration,
    /// Whether the request may be carried out twice: then it goes to another server if the one that had taken it dies.
    pub idempotent: bool,
    /// The node that is to answer; `None`: any server of the service.
    pub to: Option<Arc<str>>,
}

impl CallOptions {
    /// A time limit, and otherwise the defaults.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, idempotent: false, to: None }
    }

    /// Sets [`CallOptions::idempotent`](#structfield.idempotent).
    pub fn idempotent(self, idempotent: bool) -> Self {
        Self { idempotent, ..self }
    }

    /// Sets [`CallOptions::to`](#structfield.to).
    pub fn to(self, node: &str) -> Self {
        Self { to: Some(node.into()), ..self }
    }
}

impl From<Duration> for CallOptions {
    fn from(timeout: Duration) -> Self {
        Self::new(timeout)
    }
}
