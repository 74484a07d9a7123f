//! A publisher says which topic an inbox does not get, because it may not read it, or because it is of another type: admitted by the same rules as a sender, kept by the inbox, and
//! not answered.

use std::sync::Arc;

use crate::name::Address;
use crate::node_shared::NodeShared;
use crate::rendezvous::hello::{identify, other_version};
use crate::rendezvous::step::{Asked, Next};
use crate::schema::{InvalidSchema, Schema, SchemaMismatch};
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
        Address::Topics(patterns) => patterns.iter().any(|pattern| pattern.matches(&topic)),
        Address::Service(service) => **service == *topic,
        _ => false,
    };
    if check_topic(&topic).is_err() || !is_wanted {
        return Next::refuse(Reason::BadHandshake, "the inbox does not want that topic");
    }
    // The publisher may be gone by now.
    match identify(node, (&by, incarnation), owner, socket.peer_groups(), node.is_private()) {
        Ok(peer) => {
            let (by, uid, topic): (_, _, Arc<str>) = (peer.node.clone(), peer.uid, topic.into());
            let mismatch = match mismatch.map(|typed| differs(&inbox.schemas, typed)).transpose() {
                Ok(found) => found.map(|(ours, theirs)| Arc::new(SchemaMismatch::new(&topic, &by, uid, ours, theirs))),
                Err(bad) => return Next::refuse(Reason::BadHandshake, bad.to_string()),
            };
            let text = mismatch.as_ref().map_or_else(|| denial_text(&text), |mismatch| mismatch.to_string().into());
            let denial = Denial { inbox: number, by, uid, topic, text, is_mismatch: mismatch.is_some(), mismatch };
            Next::by_rules(node, Asked::Denier(Arc::new(peer), inbox, Arc::new(denial)))
        }
        Err(next) => next,
    }
}

/// What the inbox wants, and what the other side has. Only what it does want is believed.
fn differs(wanted: &[Schema], typed: Typed) -> Result<(Option<Schema>, Option<Schema>), InvalidSchema> {
    let Typed { schema, wanted: which } = typed;
    let (theirs, which) = (schema.map(Schema::try_from).transpose()?, which.map(Schema::try_from).transpose()?);
    let ours = wanted.iter().find(|ours| which.as_ref().is_some_and(|which| which.matches(ours)));
    Ok((ours.cloned(), theirs))
}
