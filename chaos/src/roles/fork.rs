//! A process that forks without exec, and whose child outlives it.

use std::time::Duration;

use anyhow::Context;
use testkit::payload;

use super::{DomainAt, open, say};

#[allow(unsafe_code)]
pub(super) fn fork(domain: &DomainAt, id: &str, to: &str) -> anyhow::Result<()> {
    let node = open(domain, id)?;
    let mut inbox = node.inbox()?;
    let mut sender = node.connect_timeout(to, Duration::from_secs(10))?;
    let mut payload = Vec::new();
    let stream = u64::from(std::process::id());
    for number in 0..10 {
        payload::write(&mut payload, stream, number, 100);
        sender.send(&payload)?;
    }
    // SAFETY: this process has one thread beside the library's. The child uses only what it owns, and never returns from
    // here.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let forked = sender.send(&payload).is_err() && inbox.try_recv().is_err();
        drop((sender, inbox, node)); // this must not undo anything of the parent's
        let _ =
            say(if forked { "the child can use nothing" } else { "error: the child can use what it has inherited" });
        // SAFETY: `pause` only waits for a signal, which ends the child: the supervisor's, or at last the alarm.
        unsafe {
            libc::alarm(120);
            libc::pause();
            libc::_exit(0)
        }
    }
    anyhow::ensure!(child > 0, "cannot fork");
    for number in 10..20 {
        payload::write(&mut payload, stream, number, 100);
        sender.send(&payload).context("sending after the fork")?;
    }
    sender.flush(Duration::from_secs(10))?;
    say("forked")?;
    std::thread::park(); // until it is killed
    Ok(())
}
