//! iceoryx2's requests and responses: side B is the server, side A the client. Both are loaned, written in place and sent.
//!
//! One request is active at a time, so no buffer is ever full. A sleeping side waits for an event, with which the other
//! one notifies it after each request or response.

use std::time::Duration;

use anyhow::{Context, anyhow};
use iceoryx2::active_request::ActiveRequest;
use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::*;

use crate::contender::{Contender, Job, Side, eventually};
use crate::contenders::iceoryx2::{bells, node, words};
use crate::payload;

type Bytes = [u8];

pub(crate) struct Iceoryx2Calls {
    end: End,
    /// Wakes the other side, and this side.
    bells: Option<(Notifier<ipc::Service>, Listener<ipc::Service>)>,
    bytes: usize,
    _node: Node<ipc::Service>,
}

enum End {
    Client(Client<ipc::Service, Bytes, (), Bytes, ()>, Option<PendingResponse<ipc::Service, Bytes, (), Bytes, ()>>),
    Server(Server<ipc::Service, Bytes, (), Bytes, ()>, Option<ActiveRequest<ipc::Service, Bytes, (), Bytes, ()>>),
}

impl Contender for Iceoryx2Calls {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let node = node(job)?;
        let name = ServiceName::new("echo").map_err(words)?;
        let alignment = Alignment::new(8).expect("a power of two");
        let service = eventually("no service", || {
            node.service_builder(&name)
                .request_response::<Bytes, Bytes>()
                .request_payload_alignment(alignment)
                .response_payload_alignment(alignment)
                .max_active_requests_per_client(1)
                .max_clients(1)
                .max_servers(1)
                .max_nodes(2)
                .open_or_create()
                .map_err(words)
        })?;
        let end = match job.side {
            Side::A => {
                let client = service.client_builder().initial_max_slice_len(job.bytes).create().map_err(words)?;
                eventually("the server does not come", || match service.dynamic_config().number_of_servers() {
                    0 => Err(anyhow!("it is not there")),
                    _ => Ok(()),
                })?;
                End::Client(client, None)
            }
            Side::B => {
                End::Server(service.server_builder().initial_max_slice_len(job.bytes).create().map_err(words)?, None)
            }
        };
        let bells = if job.sleeps() { Some(bells(job, &node)?) } else { None };
        Ok(Self { end, bells, bytes: job.bytes, _node: node })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        match &mut self.end {
            End::Client(client, pending) => {
                let mut request = client.loan_slice_uninit(self.bytes).map_err(words)?;
                let message = request.payload_mut();
                // SAFETY: bytes that are written only, all of them, before the request is said to be complete.
                let message =
                    unsafe { std::slice::from_raw_parts_mut(message.as_mut_ptr().cast::<u8>(), message.len()) };
                payload::write(number, message);
                // SAFETY: `write` has written every byte.
                *pending = Some(unsafe { request.assume_init() }.send().map_err(words)?);
            }
            End::Server(_, request) => {
                let request = request.take().context("nothing was asked")?;
                let mut response = request.loan_slice_uninit(self.bytes).map_err(words)?;
                let message = response.payload_mut();
                // SAFETY: as above.
                let message =
                    unsafe { std::slice::from_raw_parts_mut(message.as_mut_ptr().cast::<u8>(), message.len()) };
                payload::write(number, message);
                // SAFETY: as above.
                unsafe { response.assume_init() }.send().map_err(words)?;
            }
        }
        if let Some((notifier, _)) = &self.bells {
            notifier.notify().map_err(words)?;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        if let Some((_, listener)) = &self.bells {
            listener.timed_wait(|_| {}, Duration::from_secs(1)).map_err(words)?;
        }
        match &mut self.end {
            End::Client(_, pending) => {
                let response = pending.as_ref().context("nothing was asked")?.receive().map_err(words)?;
                if let Some(response) = response {
                    take(response.payload());
                    *pending = None;
                }
            }
            End::Server(server, taken) => {
                *taken = server.receive().map_err(words)?;
                if let Some(request) = taken {
                    take(request.payload());
                }
            }
        }
        Ok(())
    }
}
