//! Noticing that somebody has removed a node's file (`rm -rf`, a login manager's clean-up): the node joins anew.
//!
//! One inotify instance per process watches the nodes' own files for the loss of their names; what others do in the domain
//! wakes nobody. A user has 128 instances by default, so it is only taken where a good number is left for others; a node
//! without it notices when it next has to do with the registry.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use crate::node::NodeShared;
use crate::reactor::{Reactor, Source};
use crate::sys::poll::Ready;
use crate::sys::thread;
use crate::sys::watch::{Mark, Watch};

/// So many inotify instances must be left for others.
const LEFT_FOR_OTHERS: usize = 16;
/// A removal may be under way while a node joins anew: so often, and with such pauses, it tries.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Watches the files of this process's nodes.
pub(crate) struct Guard {
    watch: Watch,
    nodes: Mutex<HashMap<Mark, Weak<NodeShared>>>,
}

impl Guard {
    /// Starts watching, if that takes nothing from others.
    pub(crate) fn start(reactor: &Reactor) -> Option<Arc<Self>> {
        let mut instances: Vec<Watch> = (0..=LEFT_FOR_OTHERS).map_while(|_| Watch::new().ok()).collect();
        if instances.len() <= LEFT_FOR_OTHERS {
            return None;
        }
        let watch = instances.pop()?;
        let guard = Arc::new(Self { watch, nodes: Mutex::default() });
        reactor.watch(reactor.token(), &guard.watch, guard.clone()).ok()?;
        Some(guard)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Mark, Weak<NodeShared>>> {
        self.nodes.lock().expect("no panic under this lock")
    }

    /// Watches a node's file.
    pub(crate) fn watch(&self, file: &Path, node: Weak<NodeShared>) -> Option<Mark> {
        let mut nodes = self.nodes();
        let mark = self.watch.add_file(file).ok()?;
        nodes.insert(mark, node);
        Some(mark)
    }

    /// Watches a file no longer: it is about to be removed by its node.
    pub(crate) fn forget(&self, mark: Mark) {
        self.nodes().remove(&mark);
        self.watch.remove(mark);
    }
}

impl Source for Guard {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, _ready: Ready) {
        let marks = self.watch.changed();
        let nodes: Vec<_> = {
            let nodes = self.nodes();
            marks.iter().filter_map(|mark| nodes.get(mark).and_then(Weak::upgrade)).collect()
        };
        for node in nodes {
            // Joining may wait for others; the background thread does not.
            let join = move || {
                for _ in 0..TRIES {
                    if node.join_anew_if_removed() {
                        return;
                    }
                    std::thread::sleep(PAUSE);
                }
            };
            if let Err(error) = thread::spawn("librpc-rejoin", join) {
                tracing::warn!(%error, "no thread to join anew on");
            }
        }
    }
}
