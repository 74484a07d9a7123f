//! What an outbox sends to a node itself: of what type it is, and whether the node's inbox takes that.
//!
//! They are compared where the inbox is found: when a route is connected, and when its receiver is back. So a message costs nothing
//! more, and nothing is sent to an inbox of another type. The type is declared before the first message of a channel.
//!
//! A crash after the comparison leaves nothing; the inbox's node may not have been told.

use std::sync::Arc;

use crate::node_shared::NodeShared;
use crate::registry::target::Target;
use crate::schema::{Schema, SchemaMismatch, is_readable};
use crate::send::notice::{Why, tell};
use crate::send::topic_name::TopicName;
use crate::sys::sync::Mutex;

/// What is sent over a route to a node's own inbox.
#[derive(Debug)]
pub(crate) struct Direct {
    /// Its type, as it is declared; `None`: bytes.
    typed: Option<Arc<TopicName>>,
    /// The last inbox of another type. Its node was told.
    told: Mutex<Option<(Target, Arc<SchemaMismatch>)>>,
}

impl Direct {
    pub(crate) fn new(schema: Option<Schema>) -> Arc<Self> {
        let typed = schema.map(|schema| Arc::new(TopicName::new("".into(), Some(schema))));
        Arc::new(Self { typed, told: Mutex::default() })
    }

    /// Its type; `None`: bytes.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        self.typed.as_ref()?.schema()
    }

    /// What is declared before the first message, to an inbox that knows types.
    pub(crate) fn declaration(&self) -> Option<&Arc<TopicName>> {
        self.typed.as_ref()
    }

    /// Whether an inbox takes it. If not, its node is told, once.
    pub(crate) fn compare(&self, node: &Arc<NodeShared>, target: &Target) -> Result<(), Arc<SchemaMismatch>> {
        if is_readable(self.schema(), target.wanted()) {
            return Ok(());
        }
        let mut told = self.told.lock();
        if let Some((known, mismatch)) = &*told
            && known == target
        {
            return Err(mismatch.clone());
        }
        let (ours, theirs) = (self.schema().map(Schema::short), target.wanted().cloned());
        let mismatch = Arc::new(SchemaMismatch::new(&"".into(), &target.node, target.uid, ours, theirs));
        tracing::warn!(inbox = target.inbox, %mismatch, "an inbox is not reached");
        tell(node, target, &"".into(), Why::Mismatch(mismatch.clone()));
        *told = Some((target.clone(), mismatch.clone()));
        Err(mismatch)
    }
}
