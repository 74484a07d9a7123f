//! A process that enters a sandbox while it runs. From then on the kernel answers one of its system calls differently.
//!
//! `sandboxed connects` · `sandboxed receives` (or `receives in a task`, `receives with a set`) · `sandboxed sends`, in the domain of the environment.

use std::io::{BufRead, Write};
use std::time::Duration;

use librpc::{Inbox, Node, Wait, WaitSet};

const LIMIT: Duration = Duration::from_secs(20);
/// Register this process, so that the barriers of others count for it.
const REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;

/// What the kernel does instead of a system call of this thread and of threads that it starts.
enum Instead {
    /// It fails.
    Fail(i32),
    /// The process is killed, if the first argument is this.
    Kill { argument: u32 },
}

/// Makes the kernel do something else instead of a system call from here on.
#[allow(unsafe_code)]
fn enter_sandbox(call: libc::c_long, instead: &Instead) {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let skip_unless = |value: u32, steps: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, steps);
    let answer = |value: u32| step(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let first = std::mem::offset_of!(libc::seccomp_data, args) as u32 + 4 * u32::from(cfg!(target_endian = "big"));
    let mut filter = match instead {
        Instead::Fail(errno) => {
            let fail = libc::SECCOMP_RET_ERRNO | (*errno as u32 & libc::SECCOMP_RET_DATA);
            vec![load(number), skip_unless(call as u32, 1), answer(fail), answer(libc::SECCOMP_RET_ALLOW)]
        }
        Instead::Kill { argument } => {
            let (kill, allow) = (answer(libc::SECCOMP_RET_KILL_PROCESS), answer(libc::SECCOMP_RET_ALLOW));
            vec![load(number), skip_unless(call as u32, 3), load(first), skip_unless(*argument, 1), kill, allow]
        }
    };
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the first call takes numbers; the second one reads the program, which is there for the duration of the call.
    let entered = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(entered, "no sandbox: {}", std::io::Error::last_os_error());
}

fn say(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
    std::io::stdout().flush().expect("stdout is read");
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("connects") => connect(),
        Some("receives") => receive(|inbox| inbox.recv_timeout(LIMIT).unwrap().expect("in time").payload().to_vec()),
        Some("receives in a task") => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            receive(|inbox| runtime.block_on(inbox.recv_async()).unwrap().expect("nobody stops it").payload().to_vec());
        }
        Some("receives with a set") => receive(|inbox| {
            let mut set = WaitSet::new().unwrap();
            set.add(1, &*inbox).unwrap();
            loop {
                if let Some(message) = inbox.try_recv().unwrap() {
                    return message.payload().to_vec();
                }
                set.wait().unwrap();
            }
        }),
        Some("sends") => send(),
        other => panic!("{other:?}"),
    }
}

/// Connects for the first time when registering for barriers has become deadly.
fn connect() {
    let node = Node::open("source").unwrap();
    enter_sandbox(libc::SYS_membarrier, &Instead::Kill { argument: REGISTER_GLOBAL_EXPEDITED });
    let mut sender = node.try_connect("sink").unwrap();
    sender.send(b"hello").unwrap();
    sender.flush(LIMIT).unwrap();
    say("processed");
}

/// Receives until its stdin ends, and prints what it received. The line `sandbox` forbids it to issue barriers in other
/// processes.
fn receive(mut take: impl FnMut(&mut Inbox) -> Vec<u8>) {
    let node = Node::open("sink").unwrap();
    let mut inbox = node.inbox_builder().wait(Wait::Block).open().unwrap();
    say("ready");
    for line in std::io::stdin().lock().lines() {
        if line.unwrap() == "sandbox" {
            enter_sandbox(libc::SYS_membarrier, &Instead::Fail(libc::EPERM));
            say("entered");
        } else {
            say("receiving");
            say(String::from_utf8_lossy(&take(&mut inbox)));
        }
    }
}

/// Sends each line of stdin. After the line `sandbox` it no longer rings, as if it had not seen that the other side
/// sleeps.
fn send() {
    let node = Node::open("source").unwrap();
    let mut sender = node.connect("sink").unwrap();
    say("ready");
    for line in std::io::stdin().lock().lines().map(Result::unwrap) {
        if line == "sandbox" {
            enter_sandbox(libc::SYS_sendmsg, &Instead::Fail(libc::EAGAIN));
            say("entered");
        } else {
            sender.send(line.as_bytes()).unwrap();
            say("sent");
        }
    }
}
