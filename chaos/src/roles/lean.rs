//! A process that runs out of space under `/dev/shm`, or of descriptors. Every call may fail, with an error. When there is
//! enough again everything works, and nothing is left.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use librpc::{Domain, Node};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_remount, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::{HANG, wait_for};

use super::say;

/// Does everything that allocates: joins, connects, sends, receives, leaves.
fn exchange(domain: &PathBuf) -> anyhow::Result<()> {
    let sink = Node::builder("sink").domain(Domain::at(domain)).open()?;
    let mut inbox = sink.inbox()?;
    let source = Node::builder("source").domain(Domain::at(domain)).open()?;
    let mut sender = source.connect_timeout("sink", Duration::from_secs(5))?;
    sender.send(b"hello")?;
    let Some(message) = inbox.recv_timeout(Duration::from_millis(200))? else {
        // Pending: the connection is tried again and again, and a flush reports why it fails.
        let error = sender.flush(Duration::from_millis(10)).err().context("LOST: flushed, but never received")?;
        anyhow::bail!("cannot exchange: {error}");
    };
    anyhow::ensure!(message.payload() == b"hello", "another message");
    inbox.ack();
    sender.flush(Duration::from_secs(5))?;
    drop((sender, inbox));
    source.close(Duration::from_secs(5))?;
    sink.close(Duration::from_secs(5))?;
    Ok(())
}

fn left(domain: &PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(domain).into_iter().flatten().flatten();
    let mut left: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if domain.exists() {
        left.push(".".into());
    }
    left
}

fn fails_well(error: &anyhow::Error) -> anyhow::Result<()> {
    let text = format!("{error:#}");
    let names_the_trouble = text.contains("cannot") || text.contains("was not sent");
    anyhow::ensure!(!text.contains("LOST") && names_the_trouble, "an error should say what to do: {text}");
    Ok(())
}

/// In a mount namespace of its own, so that the mount vanishes with this process.
pub(super) fn full_shm(mount_point: PathBuf) -> anyhow::Result<()> {
    std::fs::create_dir_all(&mount_point)?;
    mount("tmpfs", &mount_point, "tmpfs", MountFlags::empty(), Some(c"size=4k,nr_inodes=1"))
        .context("SKIPPED: cannot mount")?;
    let domain = mount_point.join("domain");
    let (mut steps, mut failed) = (0, 0);
    let mut done = false;
    // Block by block with plenty of inodes, then inode by inode with plenty of blocks.
    let blocks = (1..).map(|n| (n, 1000));
    let inodes = (2..).map(|n| (1000, n));
    let mut both: [Box<dyn Iterator<Item = (u32, u32)>>; 2] = [Box::new(blocks), Box::new(inodes)];
    for steps_of in &mut both {
        while !std::mem::take(&mut done) {
            let (blocks, inodes) = steps_of.next().context("an endless sequence")?;
            anyhow::ensure!(blocks.min(inodes) < 100, "100 blocks and files are not enough");
            let options = std::ffi::CString::new(format!("size={}k,nr_inodes={inodes}", blocks * 4))?;
            // The kernel refuses this while more is in use: the background thread may still be closing something.
            let remount = || match mount_remount(&mount_point, MountFlags::empty(), &*options) {
                Err(Errno::INVAL) => Ok(false),
                done => Ok(done.map(|()| true)?),
            };
            wait_for(HANG, remount).context("something in the domain is still open")?;
            steps += 1;
            match exchange(&domain) {
                Ok(()) => done = true,
                Err(error) => {
                    failed += 1;
                    fails_well(&error)?;
                }
            }
            let left = left(&domain);
            anyhow::ensure!(left.is_empty(), "LEFT BEHIND with {blocks} blocks and {inodes} inodes: {left:?}");
        }
    }
    unmount(&mount_point, rustix::mount::UnmountFlags::DETACH)?;
    std::fs::remove_dir(&mount_point)?;
    say(&format!("steps {steps} {failed}"))
}

/// Both sides in one process, with fewer and fewer descriptors.
pub(super) fn descriptors(domain: PathBuf, most: u64) -> anyhow::Result<()> {
    exchange(&domain)?; // allocates what each process needs once
    let maximum = getrlimit(Resource::Nofile).maximum;
    let plenty = getrlimit(Resource::Nofile).current;
    let open = || -> anyhow::Result<u64> { Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1) };
    let used = open()?;
    let (mut steps, mut failed) = (0, 0);
    for more in (0..=most).rev() {
        // The limit applies to the numbers of descriptors, and all numbers below it are in use.
        setrlimit(Resource::Nofile, Rlimit { current: Some(used + more), maximum })?;
        steps += 1;
        if let Err(error) = exchange(&domain) {
            failed += 1;
            fails_well(&error).with_context(|| format!("with {more} descriptors"))?;
        }
        setrlimit(Resource::Nofile, Rlimit { current: plenty, maximum })?;
        exchange(&domain).with_context(|| format!("with enough descriptors again after {more}"))?;
        let left = left(&domain);
        anyhow::ensure!(left.is_empty(), "LEFT BEHIND with {more} descriptors: {left:?}");
        let mut now = open()?;
        for _ in 0..1000 {
            if now <= used {
                break;
            }
            std::thread::sleep(Duration::from_millis(1)); // the background thread is closing its end of a connection
            now = open()?;
        }
        anyhow::ensure!(now <= used, "LEAKED with {more} descriptors: {used} before, {now} now");
    }
    anyhow::ensure!(failed > 0, "no limit ever had an effect");
    say(&format!("steps {steps} {failed}"))
}
