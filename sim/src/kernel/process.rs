//! Processes: their descriptors, and how they fork and die.
//!
//! A dying process does not vanish at once. Its memory goes first, then its open files one by one, in an order that the
//! scheduler chooses: others run in between, and find some of them gone and some not.

use std::collections::BTreeMap;

use super::memory::Region;
use super::{Errno, InodeId, Kernel, OpenId, Outcome, ROOT, RegionId};

/// Names a process.
pub type Pid = u32;

/// In place of a descriptor: the process's current directory.
pub const CWD: i32 = -100;

/// Whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// Where in its life a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Runs,
    Stopped,
    /// None of its threads runs any more; what it had open is closed step by step.
    Dies,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) stage: Stage,
    pub(super) user: User,
    pub(super) groups: Vec<u32>,
    pub(super) umask: u32,
    pub(super) directory: InodeId,
    pub(super) descriptors: BTreeMap<i32, OpenId>,
    next_descriptor: i32,
    /// The longest file that it may make, in bytes (`ulimit -f`).
    pub(super) file_limit: Option<u64>,
    pub(super) regions: BTreeMap<RegionId, Region>,
}

impl Process {
    pub(super) fn is_in_group(&self, gid: u32) -> bool {
        self.user.gid == gid || self.groups.contains(&gid)
    }
}

impl Kernel {
    /// Starts a process.
    pub fn start(&mut self, pid: Pid, user: User, groups: &[u32]) {
        let process = Process {
            stage: Stage::Runs,
            user,
            groups: groups.to_vec(),
            umask: 0o022,
            directory: ROOT,
            descriptors: BTreeMap::new(),
            next_descriptor: 3,
            file_limit: None,
            regions: BTreeMap::new(),
        };
        assert!(self.processes.insert(pid, process).is_none(), "pid {pid} is in use");
    }

    /// Makes a child with its parent's descriptors, and with its mappings but for those that are not inherited.
    pub fn fork(&mut self, parent: Pid, child: Pid) {
        let from = self.process(parent);
        let regions = from.regions.iter().filter_map(|(&id, region)| Some((id, region.forked()?))).collect();
        let process = Process {
            stage: Stage::Runs,
            groups: from.groups.clone(),
            descriptors: from.descriptors.clone(),
            regions,
            ..*from
        };
        let opened: Vec<OpenId> = process.descriptors.values().copied().collect();
        let mapped: Vec<OpenId> = process.regions.values().filter_map(Region::file).collect();
        assert!(self.processes.insert(child, process).is_none(), "pid {child} is in use");
        opened.into_iter().chain(mapped).for_each(|id| self.refer(id));
    }

    pub(super) fn process(&self, pid: Pid) -> &Process {
        self.processes.get(&pid).expect("a process that is there")
    }

    pub(super) fn process_mut(&mut self, pid: Pid) -> &mut Process {
        self.processes.get_mut(&pid).expect("a process that is there")
    }

    /// Where in its life a process is; `None`: it is no more.
    pub fn stage(&self, pid: Pid) -> Option<Stage> {
        self.processes.get(&pid).map(|process| process.stage)
    }

    /// Stops a process or lets it go on. A dying one stays so.
    pub fn set_stopped(&mut self, pid: Pid, stopped: bool) {
        let process = self.process_mut(pid);
        if process.stage != Stage::Dies {
            process.stage = if stopped { Stage::Stopped } else { Stage::Runs };
        }
    }

    /// Sets the longest file that a process may make, in bytes.
    pub fn set_file_limit(&mut self, pid: Pid, bytes: Option<u64>) {
        self.process_mut(pid).file_limit = bytes;
    }

    /// The longest file that a process may make, in bytes.
    pub fn file_limit(&self, pid: Pid) -> Option<u64> {
        self.process(pid).file_limit
    }

    /// Whether a process of this user is stopped.
    pub fn is_stopped(&self, pid: Pid, uid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.stage == Stage::Stopped && process.user.uid == uid)
    }

    /// The process's user.
    pub fn user(&self, pid: Pid) -> User {
        self.process(pid).user
    }

    /// Begins a process's death: its memory is gone.
    pub fn begin_exit(&mut self, pid: Pid) {
        let process = self.process_mut(pid);
        process.stage = Stage::Dies;
        let regions = std::mem::take(&mut process.regions);
        regions.values().filter_map(Region::file).for_each(|file| self.release(file));
        self.bury(pid);
    }

    /// The descriptors that a dying process still has, in ascending order.
    pub fn open_descriptors(&self, pid: Pid) -> Vec<i32> {
        self.processes.get(&pid).map_or_else(Vec::new, |process| process.descriptors.keys().copied().collect())
    }

    /// One more step of a death: closes one descriptor. With the last one, the process is no more.
    pub fn exit_step(&mut self, pid: Pid, fd: i32) {
        let id = self.process_mut(pid).descriptors.remove(&fd).expect("a descriptor that is open");
        self.release(id);
        self.bury(pid);
    }

    fn bury(&mut self, pid: Pid) {
        if self.process(pid).descriptors.is_empty() {
            self.processes.remove(&pid);
            self.changed();
        }
    }

    /// Whether a descriptor is a socket: a death may close those first.
    pub fn is_socket(&self, pid: Pid, fd: i32) -> bool {
        let id = self.process(pid).descriptors[&fd];
        matches!(self.open_file(id).kind, super::open_file::Kind::Socket(_))
    }

    /// What a process maps.
    pub fn mapped(&self, pid: Pid) -> usize {
        self.processes.get(&pid).map_or(0, |process| process.regions.len())
    }

    /// What a descriptor refers to. A descriptor that is not open is a mistake of the program.
    pub(super) fn look_up(&self, pid: Pid, fd: i32) -> Outcome<OpenId> {
        self.process(pid).descriptors.get(&fd).copied().ok_or(Errno::BADF)
    }

    /// Whether there is room for another descriptor.
    pub(super) fn check_room(&self, pid: Pid) -> Outcome<()> {
        let count = self.process(pid).descriptors.len();
        if count < self.machine.descriptors { Ok(()) } else { Err(Errno::MFILE) }
    }

    /// A new descriptor, for which there is room.
    pub(super) fn install(&mut self, pid: Pid, id: OpenId) -> i32 {
        self.refer(id);
        let process = self.process_mut(pid);
        let fd = process.next_descriptor;
        process.next_descriptor += 1;
        process.descriptors.insert(fd, id);
        fd
    }

    /// `close`.
    pub fn close(&mut self, pid: Pid, fd: i32) -> Outcome<()> {
        let id = self.process_mut(pid).descriptors.remove(&fd).ok_or(Errno::BADF)?;
        self.release(id);
        Ok(())
    }

    /// `dup` with close-on-exec.
    pub fn duplicate(&mut self, pid: Pid, fd: i32) -> Outcome<i32> {
        let id = self.look_up(pid, fd)?;
        self.check_room(pid)?;
        Ok(self.install(pid, id))
    }
}
