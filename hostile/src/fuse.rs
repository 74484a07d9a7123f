//! A file system whose files cannot be closed for as long as the attacker likes: it never answers `FLUSH`.
//!
//! It knows just enough of the kernel's FUSE protocol to open one file, `f`. Ending it aborts every call that waits.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ENOSYS: i32 = 38;
const ROOT: u64 = 1;

/// A mounted file system, until this is dropped.
pub(crate) struct Stuck {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Stuck {
    /// An error if the machine does not allow it.
    pub(crate) fn mount() -> anyhow::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).context("open /dev/fuse")?;
        let path = PathBuf::from(format!("/dev/shm/librpc_hostile_fuse_{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", device.as_raw_fd());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes())?;
        let mounted = mount("librpc-hostile", &path, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options);
        if let Err(errno) = mounted {
            let _ = std::fs::remove_dir(&path);
            return Err(errno).context("mount a file system");
        }
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let server = std::thread::spawn(move || serve(&device, &until));
        Ok(Self { path, ended, server: Some(server) })
    }

    /// Opens the file that cannot be closed. A close of it waits until this is dropped.
    pub(crate) fn open(&self) -> anyhow::Result<OwnedFd> {
        Ok(std::fs::File::open(self.path.join("f"))?.into())
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.server.take().map(JoinHandle::join); // this closes the device, which aborts every call that waits
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn serve(device: &OwnedFd, ended: &AtomicBool) {
    let mut request = vec![0; 1 << 17];
    while !ended.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(device, PollFlags::IN)];
        let _ = poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
        let Ok(read) = rustix::io::read(device, &mut request) else { continue };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("4 bytes"));
        let (opcode, node) = (word(4), u64::from(word(16)));
        let unique = [word(8).to_ne_bytes(), word(12).to_ne_bytes()].concat();
        if read < 40 {
            continue;
        }
        let body = match opcode {
            INIT => Ok(init()),
            LOOKUP => {
                Ok([&2u64.to_ne_bytes()[..], &[0; 8], &60u64.to_ne_bytes(), &60u64.to_ne_bytes(), &[0; 8], &attr(2)]
                    .concat())
            }
            GETATTR => Ok([&60u64.to_ne_bytes()[..], &[0; 8], &attr(node)].concat()),
            OPEN => Ok(vec![0; 16]),
            RELEASE => Ok(Vec::new()),
            FLUSH | FORGET | BATCH_FORGET | INTERRUPT => continue,
            _ => Err(-ENOSYS),
        };
        let (error, body) = body.map_or_else(|error| (error, Vec::new()), |body| (0, body));
        let mut answer = Vec::new();
        answer.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        answer.extend_from_slice(&error.to_ne_bytes());
        answer.extend_from_slice(&unique);
        answer.extend_from_slice(&body);
        let _ = rustix::io::write(device, &answer);
    }
}

fn init() -> Vec<u8> {
    let mut body = Vec::new();
    for word in [7u32, 31, 0, 0, 12 | 9 << 16, 4096, 1, 1] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body.resize(64, 0);
    body
}

fn attr(node: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for word in [node, 4096, 8, 0, 0, 0] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    let mode: u32 = if node == ROOT { 0o40755 } else { 0o100644 };
    for word in [0u32, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        let _ = body.write(&word.to_ne_bytes());
    }
    body
}
