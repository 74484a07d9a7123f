//! `librpc serve`: a command, or an echo, as a service.

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context;
use librpc::{RecvError, ReplyError, ReplyStream, Request, Schema, Server};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::admit::AdmitArgs;
use crate::call::open;
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, Usage, say};

/// How often a command whose client no longer waits is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The longest text of a failure, in bytes: what follows on the command's stderr is left out.
const TEXT: u64 = 4096;

/// Serves a service: a command is run for each request, or the request is the reply
///
/// COMMAND gets the request on stdin, and what it writes to stdout is the reply. If it ends with another code than 0, the call fails
/// with that code and what it wrote to stderr. It is killed if its client no longer waits. Ends with 0 at SIGINT or SIGTERM, after
/// what is in work was answered.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc serve echo --echo
  librpc serve text/upper -- tr a-z A-Z
  librpc serve disk/usage --concurrency 4 -- sh -c 'xargs du -s'
  librpc serve log/follow --stream -- tail -f /var/log/messages   # each line is a part of the reply")]
pub(crate) struct Args {
    /// The service
    service: String,
    /// Answer each request with its own bytes
    #[arg(long, conflicts_with_all = ["command", "stream"])]
    echo: bool,
    /// The command for each request, and its arguments
    #[arg(last = true, required_unless_present = "echo")]
    command: Vec<String>,
    /// Reply with each line that the command writes, as it comes
    #[arg(long)]
    stream: bool,
    /// The types of the requests and of the replies: each NAME/ENCODING or NAME/ENCODING/HASH
    #[arg(long, value_names = ["REQUEST", "REPLY"], num_args = 2)]
    types: Vec<Schema>,
    /// Run up to N commands at once
    #[arg(long, value_name = "N", default_value = "1")]
    concurrency: NonZeroUsize,
    /// The id of the node that serves [default: serve and 8 hex digits]
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    admit: AdmitArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    if args.concurrency.get() > 1024 {
        return Err(Usage("--concurrency is at most 1024".into()).into());
    }
    let id = args.id.clone().map_or_else(|| unique_id("serve"), Ok)?;
    let node = domain.open_admitting(&id, args.admit.clone().admission())?;
    let mut server = node.server_builder(&args.service);
    if let [request, reply] = &args.types[..] {
        server = server.schemas(request.clone(), reply.clone());
    }
    let server = open(server.open())?;
    let stop = server.stop_handle();
    interrupt.then(move || stop.stop());
    std::thread::scope(|scope| {
        let work = || work(&server, &args);
        let others = (1..args.concurrency.get())
            .map(|_| std::thread::Builder::new().name("serve".into()).spawn_scoped(scope, work));
        let others = others.collect::<Result<Vec<_>, _>>().context("cannot start a thread")?;
        let served = work();
        if served.is_err() {
            server.stop_handle().stop();
        }
        let all = others.into_iter().map(|other| other.join().expect("it does not panic")).chain([served]);
        Ok(all.collect::<Result<Vec<()>, RecvError>>().map(|_| Outcome::Done)?)
    })
}

/// Serves until a signal comes.
fn work(server: &Server, args: &Args) -> Result<(), RecvError> {
    while let Some(request) = server.recv()? {
        let client = request.client().to_owned();
        let replied = match args.echo {
            true => {
                let payload = request.to_vec();
                request.reply(&payload).map_err(Into::into)
            }
            false => answer(request, args),
        };
        if let Err(error) = replied {
            say(format_args!("the request of {client} was not answered: {error:#}"));
        }
    }
    Ok(())
}

/// An answer that is being made.
enum Answer {
    Whole(Request, Vec<u8>),
    Parts(ReplyStream),
}

impl Answer {
    fn is_cancelled(&self) -> bool {
        match self {
            Self::Whole(request, _) => request.is_cancelled(),
            Self::Parts(stream) => stream.is_cancelled(),
        }
    }

    fn add(&mut self, mut written: Vec<u8>) -> Result<(), ReplyError> {
        match self {
            Self::Whole(_, reply) => reply.append(&mut written),
            Self::Parts(stream) => stream.send(written.strip_suffix(b"\n").unwrap_or(&written))?,
        }
        Ok(())
    }

    fn finish(self) -> Result<(), ReplyError> {
        match self {
            Self::Whole(request, reply) => request.reply(&reply),
            Self::Parts(stream) => stream.finish(),
        }
    }

    fn fail(self, code: i32, text: &str) -> Result<(), ReplyError> {
        match self {
            Self::Whole(request, _) => request.fail(code, text),
            Self::Parts(stream) => stream.fail(code, text),
        }
    }
}

/// Runs the command for a request, and answers with what it writes.
fn answer(request: Request, args: &Args) -> anyhow::Result<()> {
    let (program, arguments) = args.command.split_first().context("there is no command")?;
    let input = request.to_vec();
    let mut answer = if args.stream { Answer::Parts(request.stream()) } else { Answer::Whole(request, Vec::new()) };
    let mut command = Command::new(program);
    // Signals for this process are not for the command, which is ended with everything that it has started.
    command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            answer.fail(127, &format!("cannot run {program:?}: {error}"))?;
            return Err(error).with_context(|| format!("cannot run {program:?}"));
        }
    };
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else { anyhow::bail!("its pipes are missing") };
    let mut complaint = Vec::new();
    let ended = std::thread::scope(|scope| {
        let (write, written) = sync_channel(1);
        scope.spawn(move || stdin.write_all(&input)); // a command need not read it
        scope.spawn(|| read_text(stderr, &mut complaint));
        scope.spawn(move || read(stdout, args.stream, &write));
        let taken = loop {
            match written.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) if answer.is_cancelled() => break Ok(false),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Ok(true),
                Ok(bytes) => match answer.add(bytes) {
                    Ok(()) => {}
                    Err(ReplyError::Cancelled { .. } | ReplyError::Deadline { .. }) => break Ok(false),
                    Err(error) => break Err(error),
                },
            }
        };
        drop(written);
        if !matches!(taken, Ok(true)) {
            // Its number is its own until it was waited for. It may have ended.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        }
        (taken, child.wait())
    });
    match ended {
        (Ok(false), _) => {}
        (Err(error), _) => return Err(error.into()),
        (Ok(true), Ok(status)) if status.success() => answer.finish()?,
        (Ok(true), Ok(status)) => answer.fail(status.code().unwrap_or(-1), &String::from_utf8_lossy(&complaint))?,
        (Ok(true), Err(error)) => return Err(error).context("cannot wait for the command"),
    }
    Ok(())
}

/// Passes on what a command writes: each line of it, or as it comes. Ends early if nobody takes it.
fn read(stdout: impl Read, by_line: bool, write: &SyncSender<Vec<u8>>) {
    let mut stdout = BufReader::with_capacity(1 << 16, stdout);
    loop {
        let mut bytes = Vec::new();
        let read = match by_line {
            true => stdout.read_until(b'\n', &mut bytes).map(|_| ()),
            false => stdout.fill_buf().map(|read| bytes.extend_from_slice(read)),
        };
        if !by_line {
            stdout.consume(bytes.len());
        }
        if read.is_err() || bytes.is_empty() || write.send(bytes).is_err() {
            return;
        }
    }
}

/// The beginning of what a command writes to stderr. The rest is read, too: a full pipe would stop the command.
fn read_text(mut stderr: impl Read, text: &mut Vec<u8>) {
    let _ = stderr.by_ref().take(TEXT).read_to_end(text);
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    while text.last().is_some_and(u8::is_ascii_whitespace) {
        text.pop();
    }
}
