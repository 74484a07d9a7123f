//! `librpc chat`: lines to a node, and what is sent back, under one id.
//!
//! One thread sends, another one writes what comes. Each ends the other: the sender by hanging up a pipe, after which what has come is still
//! written; the one that writes by a signal of its own, once nobody reads stdout.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use librpc::{Event, Inbox, Node, WaitSet};
use rustix::pipe::PipeFlags;

use crate::admit::AdmitArgs;
use crate::domain::DomainArgs;
use crate::feed::{Ended, Fed, Feed, pass, report};
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, say};
use crate::output::{Messages, Notices, OutputArgs, Tally};
use crate::send::{Sending, WAIT, connect};
use crate::source::SourceArgs;
use crate::stdout::Written;

/// Sends each line of stdin to a node, and writes what is sent back to stdout
///
/// Whoever answers sends to the id of this command: another chat, or `librpc send`. Its inbox is there before it waits for the node, so two
/// that name each other can be started in either order. At the end of stdin it waits until everything that was sent is processed, stays for
/// --linger, writes what has come, and leaves. 0: everything was processed, a signal came, or nobody reads stdout. 3: not everything, or the
/// node has died, or messages were overwritten before they could be written; stderr has the numbers. 124: the node did not appear.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc chat bob --id alice                  # in one terminal
  librpc chat alice --id bob                  # in another
  echo status | librpc chat robot --linger 1s # writes what is answered within a second
  echo status | librpc chat robot --linger 5s --count 1  # leaves with the first answer")]
pub(crate) struct Args {
    /// The id of the node to send to
    node: String,
    /// Go on receiving this long after the end of stdin
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    linger: Duration,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    admit: AdmitArgs,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let admission = args.admit.clone().admission();
    let node = args.source.open_with(domain, "chat", |node| node.admit(admission))?;
    let inbox = args.output.open(node.inbox_builder())?;
    let (hangs_up, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let (sent, received) = std::thread::scope(|scope| {
        let receive = || {
            let received = receive(&node, inbox, &hangs_up, args.output, &interrupt);
            interrupt.stop();
            received
        };
        let receiving = std::thread::Builder::new().name("receive".into()).spawn_scoped(scope, receive);
        let receiving = receiving.context("cannot start a thread")?;
        let sent = send(&node, domain, &args, &interrupt);
        drop(held);
        anyhow::Ok((sent, receiving.join().expect("it does not panic")))
    })?;
    let Tally { received, missed } = received?;
    if missed > 0 {
        say(format_args!("received {received}, missed {missed}: newer messages had overwritten them"));
    }
    Ok(match sent? {
        Outcome::Done | Outcome::Interrupted(_) if missed > 0 => Outcome::Loss,
        Outcome::Interrupted(_) => Outcome::Done,
        outcome => outcome,
    })
}

/// Sends each line of stdin, and then waits for those who answer.
fn send(node: &Node, domain: &DomainArgs, args: &Args, interrupt: &Interrupt) -> CommandResult {
    let sender = match connect((node, None), &args.node, args.source.wait.unwrap_or(WAIT), interrupt)? {
        Ok(sender) => sender,
        Err(outcome) => return Ok(outcome),
    };
    let mut to = Sending::new(sender, args.node.clone(), &args.source, domain)?;
    let outcome = match pass(&mut to, &[], interrupt)? {
        Fed { ended: Some(Ended::Interrupted(signal)), .. } if to.all_processed() => Outcome::Interrupted(signal),
        fed @ Fed { ended: Some(_), .. } => report(&mut to, fed),
        fed => {
            let outcome = report(&mut to, fed);
            interrupt.wait_for(args.linger)?;
            outcome
        }
    };
    Ok(outcome)
}

/// What the thread that writes waits for.
const INBOX: u64 = 0;
const END: u64 = 1;

/// Writes what comes until the pipe hangs up, and what has come by then; or until there is enough, nobody reads stdout, or a signal comes.
fn receive(
    node: &Node,
    mut inbox: Inbox,
    hangs_up: &OwnedFd,
    output: OutputArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<Tally> {
    let mut notices = Notices::new(node);
    let tally = write(node, &mut inbox, hangs_up, (output, &mut notices), interrupt);
    notices.say(); // while the inbox is there
    tally
}

fn write(
    node: &Node,
    inbox: &mut Inbox,
    hangs_up: &OwnedFd,
    (output, notices): (OutputArgs, &mut Notices<'_>),
    interrupt: &Interrupt,
) -> anyhow::Result<Tally> {
    let mut set = WaitSet::new()?;
    set.add(INBOX, &*inbox)?;
    set.add_descriptor(END, hangs_up)?;
    let mut messages = Messages::new(output, false);
    loop {
        let is_over = set.wait()?.contains(&END);
        // Others may go on sending for ever.
        let mut left = if is_over { queued(node) } else { u64::MAX };
        while left > 0 && interrupt.signal().is_none() {
            match inbox.try_recv_event()? {
                Some(Event::Message(message)) => match messages.write(&message, interrupt)? {
                    Written::All => inbox.ack(),
                    Written::Closed | Written::Interrupted => return Ok(messages.tally),
                },
                Some(other) => {
                    notices.take(other);
                    continue;
                }
                None => break,
            }
            if messages.are_enough() {
                return Ok(messages.tally);
            }
            left -= 1;
        }
        notices.say_if_due();
        if is_over || interrupt.signal().is_some() {
            return Ok(messages.tally);
        }
    }
}

/// How many messages have come to a node, and were not received.
fn queued(node: &Node) -> u64 {
    let stats = node.stats();
    stats.inboxes.iter().flat_map(|inbox| &inbox.channels).map(|channel| channel.queued).sum()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use librpc::Domain;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        output: OutputArgs,
    }

    /// Its end and two messages are found by one wait.
    #[test]
    fn what_has_come_by_the_end_is_written() {
        let domain = Domain::at(format!("/dev/shm/librpc_unit_{}_chat", std::process::id()));
        let open = |id: &str| Node::builder(id).domain(domain.clone()).open().expect("it opens");
        let (node, other) = (open("me"), open("other"));
        let mut inbox = node.inbox().expect("it has none");
        let mut sender = other.connect("me").expect("it is there");
        (0..2).for_each(|_| sender.send(b"").expect("there is room")); // nothing appears between the results of tests
        let (hangs_up, held) = rustix::pipe::pipe().expect("a pipe");
        drop(held);
        let (interrupt, output) = (Interrupt::new().expect("a pipe"), Options::parse_from(["chat", "--raw"]).output);
        let tally = write(&node, &mut inbox, &hangs_up, (output, &mut Notices::new(&node)), &interrupt);
        assert_eq!(tally.expect("it can be written").received, 2);
    }
}
