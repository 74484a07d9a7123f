//! Opening and closing nodes.

use librpc::{Admission, Domain, Limits, Node};
use librpc_system_tests::command::{NodeCommand, Open};

use crate::{Outcome, Puppet, done};

impl Puppet {
    pub(crate) fn obey_about_node(&mut self, command: NodeCommand) -> Outcome {
        match command {
            NodeCommand::Open(open) => self.node = Some(self.open(open)?),
            NodeCommand::Close { limit } => {
                self.drop_handles();
                self.take_node()?.close(limit)?;
            }
            NodeCommand::CloseAlone { limit } => self.take_node()?.close(limit)?,
            NodeCommand::Leave => {
                self.drop_handles();
                self.node = None;
            }
            NodeCommand::OpenAndLeave { id, times } => {
                for _ in 0..times {
                    Node::builder(&id).domain(Domain::at(&self.domain)).open()?;
                }
            }
        }
        done()
    }

    fn open(&self, open: Open) -> Result<Node, librpc::OpenError> {
        let Open { id, group, uids, executables, only, never_decides, readers, .. } = open;
        let domain = Domain::at(&self.domain);
        let domain = group.map_or(domain.clone(), |gid| domain.shared_with_group(gid));
        let admission = match only {
            None if never_decides => Admission::nobody().function(|_| never()),
            None => {
                let admission = uids.into_iter().fold(Admission::same_user(), Admission::uid);
                executables.into_iter().fold(admission, Admission::executable)
            }
            Some(id) => Admission::nobody().function(move |peer| *peer.node == *id),
        };
        let mut limits = Limits::default();
        limits.channels_per_user = open.channels_per_user.unwrap_or(limits.channels_per_user);
        limits.handshake_timeout = open.handshake_timeout.unwrap_or(limits.handshake_timeout);
        limits.payload_bytes = open.payload_bytes.unwrap_or(limits.payload_bytes);
        let builder = Node::builder(&id).domain(domain).admit(admission).limits(limits);
        let only = |uid| Admission::nobody().uid(uid);
        readers.iter().fold(builder, |builder, (pattern, uid)| builder.readers(pattern, only(*uid))).open()
    }

    fn take_node(&mut self) -> Result<Node, &'static str> {
        self.node.take().ok_or("no node is open")
    }

    pub(crate) fn drop_handles(&mut self) {
        self.senders.clear();
        self.outbox = None;
        self.inboxes.clear();
    }
}

/// An admission function that never returns.
fn never() -> bool {
    loop {
        std::thread::park();
    }
}
