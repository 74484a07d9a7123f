//! Servers that are gone, and what becomes of their requests.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Kind;

use super::{Calling, Gone, Orphaned, Unsent};
use crate::call::error::CallError;
use crate::call::outgoing::Said;
use crate::link::channel_shared::Failure;
use crate::receive::inbox::Inbox;
use crate::registry::lookup::{self, Listings};
use crate::send::channel::OutboundChannel;
use crate::send::route::RouteId;
use crate::sys::clock::Instant;
use crate::wire::Reason;

/// How long a server that has hung up may still hold its lock. It is not connected to again before that: a request would reach it only to
/// come back.
const DYING: Duration = Duration::from_millis(100);

impl Calling {
    /// A server is gone. What it had not taken goes to others, once that is clear.
    pub(super) fn server_gone(&mut self, id: RouteId, channel: OutboundChannel) {
        let at = self.servers.iter().position(|server| server.way.id == id);
        let listed = at.map(|at| self.servers.remove(at).listed);
        self.out.routes.remove(id);
        let target = channel.target();
        let key = Arc::new((target.node.clone(), target.incarnation, target.uid));
        self.gone.push(Gone { key, listed, id, channel, since: Instant::now() });
    }

    /// Finds out what the servers that are gone had taken. An error says that some of them could not be looked up.
    pub(super) fn settle(&mut self) -> Result<(), CallError> {
        let Some(directory) = self.node.directory() else { return Ok(()) };
        let mut looked = Ok(());
        for mut gone in std::mem::take(&mut self.gone) {
            // Ask the kernel first: once the server is gone, what it has taken no longer changes.
            let lives = match lookup::is_listed(&directory, gone.channel.target()) {
                Ok(lives) => lives,
                Err(source) => {
                    looked = Err(CallError::Lookup { service: self.service.clone(), source: Arc::new(source) });
                    self.gone.push(gone);
                    continue;
                }
            };
            let is_done = !gone.channel.may_be_read() || gone.channel.is_drained();
            let is_dying = lives && gone.channel.may_be_read() && gone.since.elapsed() < DYING;
            if lives && !is_done || is_dying || gone.channel.awaits_answer() {
                self.gone.push(gone);
                continue;
            }
            self.settled(gone, lives);
        }
        looked
    }

    fn settled(&mut self, gone: Gone, lives: bool) {
        let Gone { key, listed, id, mut channel, .. } = gone;
        let refused = match channel.failure() {
            Some(Failure::Refused { reason, text }) => {
                let (service, node, text) = (self.service.clone(), key.0.clone(), text.into());
                Some(CallError::Refused { service, node, reason: Reason::from_number(reason), text })
            }
            _ => None,
        };
        // A server that has ended the channel reads no more. One that has lost it answers what it has read.
        let is_lost = matches!(channel.failure(), None | Some(Failure::Gone));
        let living = listed.clone().filter(|_| lives && is_lost);
        let mut untaken = BTreeMap::new();
        channel.unprocessed(|head, sequence, payload| {
            if let (Kind::Request, false, Some(number)) = (head.kind, head.redelivered, head.correlation) {
                let payload: Box<[u8]> = if head.lent { [].into() } else { payload.into() };
                untaken.insert(number, (head.lent.then_some(sequence), payload));
            }
        });
        let (mut taken, mut again) = (0, 0);
        for (number, call) in self.calls.in_order() {
            if call.route != id || call.outcome.is_some() {
                continue;
            }
            let slot = OnceCell::new();
            let left = untaken.remove(&number).filter(|(sequence, _)| match sequence {
                Some(sequence) => channel.slot(*sequence).is_some_and(|lent| slot.set(lent).is_ok()),
                None => true,
            });
            match left {
                Some((_, payload)) => {
                    again += 1;
                    self.unsent.push_back(Unsent { number, payload, slot, error: refused.clone() });
                }
                None => {
                    taken += 1;
                    call.orphaned = Some(living.clone().map_or(Orphaned::New, Orphaned::Lives));
                }
            }
        }
        tracing::info!(node = &*key.0, service = &*self.service, taken, untaken = again, "a server is gone");
        drop(channel);
        // Only the connection is lost.
        if let Some(listed) = listed.filter(|_| lives && refused.is_none()) {
            self.add(listed);
        }
        self.disinvite(&key);
    }

    /// Sends what no server has taken to others. An error says that these could not be looked up.
    pub(super) fn send_again(&mut self) -> Result<(), CallError> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        self.find_servers()?;
        for unsent in std::mem::take(&mut self.unsent) {
            let Some(call) = self.calls.get(unsent.number).filter(|call| call.outcome.is_none()) else { continue };
            let (deadline, to, node) = (call.deadline, call.to.clone(), call.server.0.clone());
            let Unsent { number, payload, slot, error } = unsent;
            match self.send(number, deadline, to.as_ref(), &payload, &slot) {
                (Some(Said::Yes), Some((server, route))) => {
                    if let Some(call) = self.calls.get_mut(number) {
                        (call.server, call.route, call.orphaned) = (server, route, None);
                    }
                }
                (Some(Said::Failed(failed)), _) => {
                    let failed = self.not_sent(failed);
                    self.end(number, Err(failed));
                }
                (Some(Said::Later), _) => self.unsent.push_back(Unsent { number, payload, slot, error }),
                _ => {
                    let died = CallError::ServerDied { service: self.service.clone(), node, taken: false };
                    self.end(number, Err(error.unwrap_or(died)));
                }
            }
        }
        Ok(())
    }

    /// Of the servers to which only the connection was lost, finds those that are gone now. Until then what they have read may still
    /// be answered: a request that waits there for the channel of replies was read, too.
    fn look_after_living(&mut self) {
        let Some(directory) = self.node.directory() else { return };
        let mut listings = Listings::new(&directory);
        for (_, call) in self.calls.in_order() {
            if let Some(Orphaned::Lives(listed)) = &call.orphaned
                && !self.connected.contains_key(&*call.server)
                && matches!(listings.contain(&listed.target), Ok(false))
            {
                call.orphaned = Some(Orphaned::New);
            }
        }
    }

    /// Ends the calls whose servers had taken them and are gone. Returns whether it has to look again.
    ///
    /// A server takes requests only once its channel of replies has arrived here, which the background thread notices before it
    /// notices the hang-up. So a server without a channel among those that have arrived has answered nothing more.
    pub(super) fn end_orphans(&mut self, inbox: Option<&mut Inbox>) -> bool {
        self.look_after_living();
        let mut ended = Vec::new();
        let mut is_new = false;
        let has_all = inbox.is_some_and(|inbox| {
            let has_orphans = self.calls.iter().any(|(_, call)| call.orphaned.is_some());
            has_orphans && inbox.take_in_arrivals()
        });
        for (number, call) in self.calls.in_order() {
            let Some(orphaned) = &mut call.orphaned else { continue };
            if self.connected.contains_key(&*call.server) {
                continue; // its leaving is reported
            }
            match orphaned {
                Orphaned::Lives(_) => is_new = true,
                Orphaned::LookedFor if has_all => ended.push((number, call.server.clone(), call.body.take())),
                _ => {
                    is_new = true;
                    *orphaned = Orphaned::LookedFor;
                }
            }
        }
        for (number, server, body) in ended {
            match body {
                Some(payload) => {
                    if let Some(call) = self.calls.get_mut(number) {
                        (call.orphaned, call.body) = (None, Some(payload.clone()));
                    }
                    self.unsent.push_back(Unsent { number, payload, slot: OnceCell::new(), error: None });
                }
                None => {
                    let (service, node) = (self.service.clone(), server.0.clone());
                    self.end(number, Err(CallError::ServerDied { service, node, taken: true }));
                }
            }
            self.disinvite(&server);
        }
        is_new
    }
}
