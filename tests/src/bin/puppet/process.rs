//! The process: its descriptors, and its forked children.

use std::io::{BufRead, BufReader, Write};

use librpc_system_tests::command::{InChild, ProcessCommand, Reply};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Outcome, Puppet, answer};

/// More than any test needs.
const PLENTY: u64 = 1000;

impl Puppet {
    pub(crate) fn obey_about_process(&mut self, command: ProcessCommand) -> Outcome {
        match command {
            ProcessCommand::Descriptors => answer(descriptors()?),
            ProcessCommand::LimitDescriptors { spare } => limit_descriptors(lowest_with_free(spare)),
            ProcessCommand::UnlimitDescriptors => limit_descriptors(PLENTY),
            ProcessCommand::Fork { to } => self.fork(&to),
        }
    }

    #[allow(unsafe_code)]
    fn fork(&mut self, to: &str) -> Outcome {
        let (reader, writer) = std::io::pipe()?;
        // SAFETY: this process has one thread beside the library's. The child only uses what it owns, and ends with
        // `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            self.report_from_child(to, writer);
            // The child outlives its parent, so a test can check that the parent's death is seen although its copy is
            // alive. SAFETY: waits for a signal that ends the child: the test's, or in the end the alarm.
            unsafe {
                libc::alarm(60);
                libc::pause();
            }
            // SAFETY: ends the child without running anything that belongs to the parent.
            unsafe { libc::_exit(0) };
        }
        drop(writer);
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line)?;
        let (sent, received) = serde_json::from_str(&line)?;
        answer(InChild { pid, sent, received })
    }

    /// Tries everything that the child has inherited, then drops it, which must not undo anything of the parent's.
    fn report_from_child(&mut self, to: &str, mut writer: impl Write) {
        let sent: Reply<()> = match self.sender(to) {
            Ok(sender) => sender.send(b"from the child").map_err(|error| error.to_string()),
            Err(error) => Err(error.into()),
        };
        let received: Reply<()> = match self.inboxes.get_mut(&None) {
            Some(inbox) => inbox.try_recv().map(drop).map_err(|error| error.to_string()),
            None => Err("there is no inbox".into()),
        };
        self.drop_handles();
        self.node = None;
        let _ = writeln!(writer, "{}", serde_json::json!((sent, received)));
    }
}

/// How many descriptors are open, without the one that lists them.
fn descriptors() -> std::io::Result<u64> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1)
}

/// The lowest limit below which this many numbers are free: those in use may have gaps between them.
fn lowest_with_free(spare: u64) -> u64 {
    let is_free = |number: &u64| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err();
    (0..).filter(is_free).nth(spare as usize).expect("some are free")
}

fn limit_descriptors(limit: u64) -> Outcome {
    let maximum = getrlimit(Resource::Nofile).maximum;
    answer(setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum })?)
}
