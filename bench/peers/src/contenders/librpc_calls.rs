//! librpc's calls: side B serves a service, side A calls it.
//!
//! Polling sides never sleep (`Wait::Spin`), sleeping ones sleep at once (`Wait::Block`). All other options have their
//! defaults: each call has a deadline, and counts against the limits of client and server.

use std::time::Duration;

use anyhow::{Context, ensure};
use librpc::{Client, Domain, Node, Pending, Request, Server, Wait};

use crate::contender::{Contender, Job, Side};
use crate::payload;

const SERVICE: &str = "echo";
/// The limit of a call, and how long the server may take to appear.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a server waits at most.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) struct LibrpcCalls {
    end: End,
    message: Vec<u8>,
    _node: Node,
}

enum End {
    Client(Client, Option<Pending>),
    Server(Server, Option<Request>),
}

impl Contender for LibrpcCalls {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let (_, ours) = job.directions("b", "a");
        let node = Node::builder(ours).domain(Domain::at(job.place.join("domain"))).open()?;
        let wait = if job.sleeps() { Wait::Block } else { Wait::Spin };
        let end = match job.side {
            Side::A => {
                let client = node.client_builder(SERVICE).wait(wait).open()?;
                ensure!(client.wait_for_server(LIMIT)?, "the server does not come");
                End::Client(client, None)
            }
            Side::B => End::Server(node.server_builder(SERVICE).wait(wait).open()?, None),
        };
        Ok(Self { end, message: vec![0; job.bytes], _node: node })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        payload::write(number, &mut self.message);
        match &mut self.end {
            End::Client(client, pending) => *pending = Some(client.start(&self.message, LIMIT)?),
            End::Server(_, request) => request.take().context("nothing was asked")?.reply(&self.message)?,
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        match &mut self.end {
            End::Client(_, pending) => take(&pending.take().context("nothing was asked")?.wait()?),
            End::Server(server, taken) => {
                *taken = server.recv_timeout(LOOK)?;
                if let Some(request) = taken {
                    take(request);
                }
            }
        }
        Ok(())
    }

    fn stop(&self) -> Box<dyn FnOnce() + Send> {
        match &self.end {
            End::Client(..) => Box::new(|| {}),
            End::Server(server, _) => {
                let stop = server.stop_handle();
                Box::new(move || stop.stop())
            }
        }
    }
}
