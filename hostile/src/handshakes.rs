//! Malformed handshakes over real sockets, many at a time, with a living node of another process, while an honest pair
//! is at work.
//!
//! Invariant: every handshake ends within a bounded time, with an answer, a refusal or a hang-up. After all of them the
//! victim holds what it held before.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use librpc_ring::layout::{VERSION, data};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, inotify, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use testkit::{Random, TestDomain, socket_of};

use crate::honest;
use crate::mapping::{CAPACITY, PAYLOADS_BYTES, RING_BYTES, payloads, ring, seals, valid_payloads};
use crate::pair::{Pair, start};
use crate::script::{Facts, KEPT_AT_MOST, Script, Step, samples, write_script};
use crate::socket::{Answer, answer, connect, send, socket};

/// How many handshakes run at a time. Below the limit of a user.
const AT_A_TIME: usize = 64;
/// How many attached connections are kept, to send bells, and to add rings and memories to.
const KEPT: usize = KEPT_AT_MOST as usize;
/// How many sockets of memories that the victim has mapped are kept: more than one channel may have.
const LENT: usize = 200;
/// A handshake that gets no answer for this long has found a hang.
const NO_ANSWER: Duration = Duration::from_secs(20);
/// How much the victim may grow, over any number of handshakes.
const GROWTH_KIB: u64 = 4096;
const GROWTH_MAPPINGS: u64 = 24;

/// A running handshake.
struct Handshake {
    number: u64,
    script: VecDeque<Step>,
    connection: u64,
    socket: OwnedFd,
    is_attached: bool,
    since: Instant,
}

/// How handshakes have ended, and how often.
type Ends = BTreeMap<&'static str, u64>;

struct Handshakes {
    path: PathBuf,
    facts: Facts,
    offers: Vec<OwnedFd>,
    samples: Vec<(usize, Vec<u8>)>,
    kept: VecDeque<OwnedFd>,
    lent: VecDeque<OwnedFd>,
    ends: Ends,
    random: Random,
}

/// Descriptors of every kind. The first is a valid ring, the second a valid memory for payloads.
fn offers(domain: &Path) -> anyhow::Result<Vec<OwnedFd>> {
    let bytes = RING_BYTES;
    let ring = |bytes, seals, spoilt| ring(bytes, seals, spoilt).map(|(_, fd)| fd);
    let mut offers = vec![ring(bytes, seals(), None)?, valid_payloads()?.1];
    for (word, value) in [
        (data::MAGIC, 0),
        (data::VERSION, VERSION + 1),
        (data::CAPACITY, CAPACITY / 2),
        (data::MODE, 1),
        (data::FIRST, u64::MAX),
    ] {
        offers.push(ring(bytes, seals(), Some((word, value)))?);
    }
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL, seals()] {
        offers.push(ring(bytes, seals() - missing, None)?);
        offers.push(payloads(PAYLOADS_BYTES, seals() - missing, 0..PAYLOADS_BYTES)?.1);
    }
    // Holes, one of them with as much memory after the end; too short, too long.
    for (bytes, allocated) in [
        (PAYLOADS_BYTES, 0..0),
        (PAYLOADS_BYTES, 4096..PAYLOADS_BYTES),
        (PAYLOADS_BYTES, PAYLOADS_BYTES..2 * PAYLOADS_BYTES),
        (PAYLOADS_BYTES - 4096, 0..PAYLOADS_BYTES - 4096),
        (PAYLOADS_BYTES + 4096, 0..PAYLOADS_BYTES + 4096),
        (4096, 0..4096),
    ] {
        offers.push(payloads(bytes, seals(), allocated)?.1);
    }
    for other in [4096, 4096 + CAPACITY, bytes - 4096, bytes + 4096, bytes - 1] {
        offers.push(match other % 4096 {
            0 => ring(other, seals(), None)?,
            _ => {
                let fd = memfd_create("odd", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
                rustix::fs::ftruncate(&fd, other)?;
                rustix::fs::fcntl_add_seals(&fd, seals())?;
                fd
            }
        });
    }
    let huge = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    offers.extend(memfd_create("huge", huge).ok());
    let (near, far) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (reading, writing) = rustix::pipe::pipe()?;
    offers.extend([near, far, reading, writing, socket()?]);
    offers.push(std::net::UdpSocket::bind("127.0.0.1:0")?.into());
    offers.push(eventfd(0, EventfdFlags::CLOEXEC)?);
    offers.push(epoll::create(epoll::CreateFlags::CLOEXEC)?);
    // A user has few of these, and a test must not depend on them.
    offers.extend(inotify::init(inotify::CreateFlags::CLOEXEC).ok());
    let me = rustix::process::getpid();
    offers.extend(rustix::process::pidfd_open(me, rustix::process::PidfdFlags::empty()).ok());
    for file in ["/", "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/ns/mnt"] {
        offers.extend(std::fs::File::open(file).ok().map(OwnedFd::from));
    }
    for file in ["victim.node", "evil.node", "generation"] {
        offers.extend(std::fs::File::open(domain.join(file)).ok().map(OwnedFd::from));
    }
    offers.extend(rustix::fs::open(domain, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty()).ok());
    Ok(offers)
}

fn incarnation(domain: &Path, node: &str) -> anyhow::Result<[u8; 16]> {
    let mut front = [0; 32];
    std::fs::File::open(domain.join(format!("{node}.node")))?.read_at(&mut front, 0)?;
    Ok(front[16..32].try_into()?)
}

const REFUSED: [&str; 11] = [
    "unknown refusal",
    "busy",
    "not admitted",
    "version",
    "no inbox",
    "restarted",
    "too much",
    "identity",
    "bad handshake",
    "unknown connection",
    "resources",
];

impl Handshakes {
    fn begin(&mut self, number: u64) -> anyhow::Result<Handshake> {
        let mut random = Random::new(number);
        let Script { steps: script, connection } = write_script(&mut random, &self.facts, &self.samples);
        let socket = connect(&self.path)?;
        Ok(Handshake { number, script, connection, socket, is_attached: false, since: Instant::now() })
    }

    /// Runs until it would have to wait. Returns the name of its end once it has ended.
    fn advance(&mut self, handshake: &mut Handshake) -> Option<&'static str> {
        while let Some(step) = handshake.script.front() {
            match step {
                Step::Send(bytes, offers) => {
                    let with: Vec<BorrowedFd<'_>> = offers.iter().map(|&offer| self.offers[offer].as_fd()).collect();
                    match send(&handshake.socket, bytes, &with) {
                        Ok(()) | Err(Errno::TOOMANYREFS | Errno::MSGSIZE | Errno::NOBUFS | Errno::AGAIN) => {}
                        // Descriptors are refused here. The bytes are sent without them.
                        Err(Errno::PERM) => drop(send(&handshake.socket, bytes, &[])),
                        Err(_) if handshake.script.iter().any(|step| matches!(step, Step::Await)) => {}
                        Err(_) => return Some("hung up on"),
                    }
                }
                Step::HalfClose => drop(rustix::net::shutdown(&handshake.socket, rustix::net::Shutdown::Write)),
                Step::Await => match answer(&handshake.socket) {
                    Answer::NotYet => return None,
                    Answer::HungUp => return Some("hung up on"),
                    Answer::Is(bytes) => match bytes[1] {
                        0 => {}
                        1 => {
                            self.facts.connections.push_front(handshake.connection);
                            self.facts.connections.truncate(KEPT);
                            // The next steps get no answer, but perhaps a hang-up.
                            handshake.script.retain(|step| !matches!(step, Step::Await));
                            handshake.is_attached = true;
                            continue;
                        }
                        5 => {
                            if self.random.once_in(2) {
                                let memory = rustix::io::fcntl_dupfd_cloexec(&handshake.socket, 0);
                                self.lent.extend(memory);
                            }
                            return Some("lent");
                        }
                        2 => return Some(REFUSED[usize::from(bytes[5]) % REFUSED.len()]),
                        3 if handshake.script.len() == 1 => return Some("observed"),
                        4 if handshake.script.len() == 1 => return Some("lends nothing"),
                        _ => {}
                    },
                },
            }
            handshake.script.pop_front();
            handshake.since = Instant::now();
        }
        Some(if handshake.is_attached { "attached" } else { "went away" })
    }

    fn end(&mut self, handshake: Handshake, end: &'static str) {
        *self.ends.entry(end).or_insert(0) += 1;
        if end == "attached" && self.random.once_in(4) {
            self.kept.push_front(handshake.socket);
            self.kept.truncate(KEPT);
            self.facts.kept.push_front(handshake.connection);
            self.facts.kept.truncate(KEPT);
        }
        while self.lent.len() > LENT {
            drop(self.lent.remove(self.random.below(LENT as u64) as usize));
        }
        if !self.kept.is_empty() && self.random.once_in(16) {
            let bell = (self.random.below(3) << 32 | self.random.below(3)).to_le_bytes();
            let _ = send(&self.kept[self.random.below(self.kept.len() as u64) as usize], &bell, &[]);
        }
    }
}

/// The attacker: runs handshakes from this number on, and prints how they ended.
pub(crate) fn attack(
    domain: &Path,
    first: u64,
    executions: u64,
    seconds: u64,
    user: Option<u32>,
) -> anyhow::Result<()> {
    testkit::die_with_parent()?;
    let _node = honest::open(domain, "evil", user)?;
    let offers = offers(domain)?;
    let facts = Facts {
        incarnation: incarnation(domain, "evil")?,
        victim: incarnation(domain, "victim")?,
        honest: incarnation(domain, "honest")?,
        connections: VecDeque::new(),
        kept: VecDeque::new(),
        offers: offers.len() as u64,
        is_private: user.is_none(),
    };
    let path = socket_of(domain, "victim")?;
    let random = Random::new(first);
    let (kept, lent, ends) = Default::default();
    let mut all = Handshakes { path, facts, offers, samples: samples(), kept, lent, ends, random };
    let (begun, mut next, mut under_way) = (Instant::now(), first, Vec::with_capacity(AT_A_TIME));
    loop {
        let is_over = next - first >= executions || begun.elapsed() > Duration::from_secs(seconds);
        while !is_over && under_way.len() < AT_A_TIME {
            let failed = |error: anyhow::Error| error.context(format!("handshake {next:#x}"));
            under_way.push(all.begin(next).map_err(failed)?);
            next += 1;
        }
        let before = under_way.len();
        let mut at = 0;
        while at < under_way.len() {
            match all.advance(&mut under_way[at]) {
                Some(end) => {
                    let ended = under_way.swap_remove(at);
                    all.end(ended, end);
                }
                None => at += 1,
            }
        }
        if under_way.is_empty() && is_over {
            break;
        }
        if let Some(stuck) = under_way.iter().find(|handshake| handshake.since.elapsed() > NO_ANSWER) {
            anyhow::bail!("handshake {:#x} gets no answer; these steps are left: {:?}", stuck.number, stuck.script);
        }
        // When half of them wait, the others get their turn, because the victim answers many at once.
        if under_way.len() == before || under_way.len() > AT_A_TIME / 2 {
            let mut waiting: Vec<_> = under_way.iter().map(|one| PollFd::new(&one.socket, PollFlags::IN)).collect();
            let _ = poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
        }
    }
    println!("{} {:?}", next - first, all.ends);
    Ok(())
}

/// Runs the attacker beside an honest pair. An error if the pair has noticed it, or if the victim has grown.
pub(crate) fn run(seed: u64, executions: u64, seconds: Option<u64>, user: Option<u32>) -> anyhow::Result<String> {
    let domain = TestDomain::new().without_assertions();
    let path = domain.path().to_str().expect("a path under /dev/shm");
    let mut pair = Pair::start(&domain, user)?;
    let (rested, begun) = (pair.victim()?, Instant::now());
    let attack = |pair: &mut Pair, first: u64, executions: u64, seconds: u64| {
        let words = [first, executions, seconds].map(|number| number.to_string());
        let uid = user.map(|uid| uid.to_string());
        let mut words = vec!["handshaker", path, &words[0], &words[1], &words[2]];
        words.extend(uid.as_deref());
        pair.watch(&mut start(&words, user)?)
    };
    // The victim may keep what it needs for the first ones, such as the memory of its allocator.
    let warming = (executions / 10).clamp(100, 100_000);
    let (warm, _) = attack(&mut pair, seed << 40, warming, seconds.unwrap_or(u64::MAX / 2))?;
    let before = pair.settle(&rested)?;
    let left = seconds.map_or(u64::MAX / 2, |seconds| seconds.saturating_sub(begun.elapsed().as_secs()));
    let (said, most) = attack(&mut pair, (seed << 40) + warming, executions.saturating_sub(warming), left)?;
    let after = pair.settle(&before)?;
    let count = |said: &str| said.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0u64);
    let all = count(&warm) + count(&said);
    let seconds = begun.elapsed().as_secs_f64();
    let note = format!(
        "{all} handshakes in {seconds:.0} s, {:.0} a second, first {warm}, then {said}; the victim before: {before}; at \
         most: {most}; afterwards: {after}",
        all as f64 / seconds
    );
    anyhow::ensure!(
        after.resident_kib <= before.resident_kib + GROWTH_KIB
            && after.mappings() <= before.mappings() + GROWTH_MAPPINGS,
        "the victim grows: {note}"
    );
    match pair.end() {
        Ok(noticed) => Ok(format!("{note}; {noticed}")),
        Err(error) => Err(error.context(note)),
    }
}
