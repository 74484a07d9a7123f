//! A publisher says which topic an inbox does not get, because it may not read it, or because it is of another type; a client says
//! that a service is of other types, and a sender that a node's own inbox is. Admitted by the same rules as a sender, kept by the inbox, and not answered.

use std::sync::Arc;

use crate::name::Address;
use crate::node_shared::NodeShared;
use crate::rendezvous::hello::{identify, other_version};
use crate::rendezvous::step::{Asked, Next};
use crate::schema::{ListedSchema, Schema, SchemaMismatch, is_readable, text_of};
use crate::stats::Denial;
use crate::stats::page::denial_text;
use crate::sys::socket::{Credentials, Socket};
use crate::topic::check_topic;
use crate::wire::{self, Deny, Reason, Typed, Versions};

/// Who says it, whether it may, and whether it is about a topic that the inbox wants.
pub(super) fn look(node: &Arc<NodeShared>, socket: &Socket, owner: Credentials, bytes: &[u8]) -> Next {
    let Deny { lowest, highest, node: by, incarnation, target, inbox: number, topic, text, mismatch } =
        match wire::decode(bytes) {
            Ok(deny) => deny,
            Err(error) => return Next::refuse(Reason::BadHandshake, error.to_string()),
        };
    if let Some(next) = other_version("the publisher", Versions { lowest, highest }) {
        return next;
    }
    if target != *node.incarnation.bytes() {
        return Next::refuse(Reason::Restarted, "the node was opened anew");
    }
    let Some(inbox) = node.inbox(number) else { return Next::refuse(Reason::NoInbox, "there is no such inbox") };
    let is_wanted = match &inbox.address {
        Address::Node => topic.is_empty() && mismatch.is_some(), // who may send is decided here
        Address::Topics(patterns) => patterns.iter().any(|pattern| pattern.matches(&topic)),
        Address::Service(service) => **service == *topic && mismatch.is_some(), // who may call is decided here
        Address::Replies => false,
    };
    if !is_wanted || inbox.address != Address::Node && check_topic(&topic).is_err() {
        return Next::refuse(Reason::BadHandshake, "the inbox does not want that topic");
    }
    // The publisher may be gone by now.
    match identify(node, (&by, incarnation), owner, socket.peer_groups(), node.is_private()) {
        Ok(peer) => {
            let (by, uid, topic): (_, _, Arc<str>) = (peer.node.clone(), peer.uid, topic.into());
            let mismatch = match mismatch.map(|typed| differs(&inbox.address, &inbox.schemas, typed)).transpose() {
                Ok(found) => found.map(|(ours, theirs)| Arc::new(SchemaMismatch::new(&topic, &by, uid, ours, theirs))),
                Err(bad) => return Next::refuse(Reason::BadHandshake, bad),
            };
            let text = mismatch.as_ref().map_or_else(|| denial_text(&text), |mismatch| mismatch.to_string().into());
            let denial = Denial { inbox: number, by, uid, topic, text, is_mismatch: mismatch.is_some(), mismatch };
            Next::by_rules(node, Asked::Denier(Arc::new(peer), inbox, Arc::new(denial)))
        }
        Err(next) => next,
    }
}

/// What differs here and there. Whoever says so has read what the inbox wants, and it must be so: an inbox that takes everything
/// never hears of types.
fn differs(address: &Address, wanted: &[Schema], typed: Typed) -> Result<(Option<Schema>, Option<Schema>), String> {
    let read = |listed: Option<ListedSchema>| {
        let schema = listed.map(Schema::try_from).transpose().map_err(|bad| bad.to_string())?;
        Ok::<_, String>(schema.map(|schema| schema.short()))
    };
    let (theirs, ours) = (read(typed.schema)?, read(typed.wanted)?);
    let wants = |at: usize| wanted.get(at).map(Schema::short);
    let is_request = wants(0) == ours && !is_readable(theirs.as_ref(), ours.as_ref());
    let is_reply =
        matches!(address, Address::Service(_)) && wants(1) == ours && !is_readable(ours.as_ref(), theirs.as_ref());
    match is_request || is_reply {
        true => Ok((ours, theirs)),
        false => Err(format!("it says that this inbox cannot read what is {}", text_of(theirs.as_ref()))),
    }
}
