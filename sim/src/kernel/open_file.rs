//! Open files ("open file descriptions"), and what happens at the last close.

use super::message::Message;
use super::poll::Epoll;
use super::socket::Socket;
use super::watch::Watcher;
use super::{InodeId, Kernel, OpenId};

/// What descriptors, mappings and messages in flight refer to.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) kind: Kind,
    pub(super) references: u32,
}

#[derive(Debug)]
pub(super) enum Kind {
    File(File),
    Socket(Box<Socket>),
    Epoll(Epoll),
    /// An eventfd and its count.
    Event(u64),
    Watcher(Watcher),
}

/// An open file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub(super) inode: InodeId,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The directory in which it was found. Watches of that directory report writes to it.
    pub(super) found_in: Option<InodeId>,
}

impl Kernel {
    /// A new open file, to which nothing refers yet.
    pub(super) fn new_open_file(&mut self, kind: Kind) -> OpenId {
        OpenId(self.open_files.add(OpenFile { kind, references: 0 }))
    }

    pub(super) fn open_file(&self, id: OpenId) -> &OpenFile {
        self.open_files.get(id.0).expect("an open file that something refers to")
    }

    pub(super) fn open_file_mut(&mut self, id: OpenId) -> &mut OpenFile {
        self.open_files.get_mut(id.0).expect("an open file that something refers to")
    }

    pub(super) fn is_open(&self, id: OpenId) -> bool {
        self.open_files.get(id.0).is_some()
    }

    pub(super) fn refer(&mut self, id: OpenId) {
        self.open_file_mut(id).references += 1;
    }

    /// Drops a reference. The last one closes the file.
    pub(super) fn release(&mut self, id: OpenId) {
        let file = self.open_file_mut(id);
        file.references -= 1;
        if file.references > 0 {
            return;
        }
        let file = self.open_files.remove(id.0).expect("it was there a moment ago");
        self.forget_polled(id);
        match file.kind {
            Kind::File(File { inode, .. }) => {
                self.drop_locks(inode, id);
                self.inode_mut(inode).opened -= 1;
                self.let_go(inode);
            }
            Kind::Socket(socket) => self.close_socket(*socket, false),
            Kind::Epoll(_) | Kind::Event(_) | Kind::Watcher(_) => {}
        }
        self.changed();
    }

    pub(super) fn release_messages(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.uncharge(&message);
            message.descriptors.into_iter().for_each(|id| self.release(id));
        }
    }
}
