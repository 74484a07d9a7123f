//! Calls beside a reply in parts that nobody reads.

use librpc::{Client, Domain, Node, Wait};

use super::{LIMIT, repeat};
use crate::bench::options::{Common, Share};
use crate::bench::times::Times;
use crate::bench::{Bench, Part, child::on_cpu};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;

/// What a request asks for.
const STREAM: &[u8] = b"stream";
const ECHO: &[u8] = b"echo";
/// Long enough that a ring would be full of parts soon.
const PART: [u8; 4096] = [7; 4096];

/// Times without such a stream, and with one.
pub(super) fn round(bench: &Bench, common: &Common, domain: &Domain, share: Share) -> anyhow::Result<[Times; 2]> {
    let node = Node::builder("caller").domain(domain.clone()).open()?;
    let client = node.client_builder("work").wait(Wait::Spin).open()?;
    let (ours, theirs) = common.cpus();
    let _server = bench.start(domain, &[Part::ServeUnread { cpu: theirs }])?;
    on_cpu(ours, || {
        let without = calls(bench, &client, share)?;
        let unread = client.call_stream(STREAM, LIMIT)?;
        let with = calls(bench, &client, share)?;
        drop(unread);
        Ok([without, with])
    })
}

fn calls(bench: &Bench, client: &Client, share: Share) -> anyhow::Result<Times> {
    repeat(share, || {
        bench.check()?;
        client.call(ECHO, LIMIT)?;
        Ok(())
    })
}

/// The process at the other end. It sends parts without end, as far as they are taken, between its other answers.
pub(in crate::bench) fn serve(domain: &DomainArgs, cpu: Option<usize>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut streams = Vec::new();
    super::serve_each(domain, ("work", Wait::Spin, cpu), interrupt, |request| {
        match &request[..] {
            STREAM => streams.push(request.stream()),
            _ => request.reply(ECHO)?,
        }
        streams.retain_mut(|parts| parts.try_send(&PART).is_ok()); // one that is cancelled ends
        Ok(())
    })
}
