//! Plain records, which are frozen dataclasses of Python (`librpc/records.py`).

use std::fmt::Debug;

use librpc::{
    Account, Address, Holder, InboxInfo, MatchedInbox, NodeInfo, ReachedInbox, Returned, Schema, SchemaMismatch,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::schema;

/// Makes a record of a class from fields and values.
macro_rules! record {
    ($py:expr, $class:literal, { $($name:ident: $value:expr),* $(,)? }) => {{
        let fields = pyo3::types::PyDict::new($py);
        $( fields.set_item(pyo3::intern!($py, stringify!($name)), $value)?; )*
        $crate::records::make($py, $class, &fields)
    }};
}
pub(crate) use record;

pub(crate) fn make<'py>(py: Python<'py>, class: &str, fields: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    py.import("librpc.records")?.getattr(class)?.call((), Some(fields))
}

/// The name of a variant as Python spells it: `DropNewest` is `drop_newest`.
pub(crate) fn names(variant: &impl Debug) -> String {
    let mut name = String::new();
    for character in format!("{variant:?}").chars() {
        match character {
            '(' | ' ' | '{' => break,
            'A'..='Z' if !name.is_empty() => name.extend(['_', character.to_ascii_lowercase()]),
            _ => name.push(character.to_ascii_lowercase()),
        }
    }
    name
}

/// An address: `(kind, names)`.
pub(crate) fn address<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    let names: Vec<String> = match address {
        Address::Topics(patterns) => patterns.iter().map(ToString::to_string).collect(),
        Address::Service(service) => vec![service.to_string()],
        _ => Vec::new(),
    };
    record!(py, "Address", { kind: self::names(address), names: names })
}

pub(crate) fn account<'py>(py: Python<'py>, account: &Account) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "Account", {
        sent: account.sent,
        accepted: account.accepted,
        processed: account.processed,
        queued: account.queued,
        dropped: account.dropped,
        returned: account.returned,
        bytes: account.bytes,
        blocked: account.blocked.as_secs_f64(),
        depth: account.depth,
        depth_max: account.depth_max,
        capacity: account.capacity,
    })
}

pub(crate) fn reached<'py>(py: Python<'py>, inbox: &ReachedInbox) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "ReachedInbox", {
        node: &*inbox.node,
        address: address(py, &inbox.address)?,
        policy: names(&inbox.policy),
        account: account(py, &inbox.account)?,
        is_stuck: inbox.is_stuck,
        is_high: inbox.is_high,
    })
}

pub(crate) fn matched<'py>(py: Python<'py>, inbox: &MatchedInbox) -> PyResult<Bound<'py, PyAny>> {
    let patterns: Vec<String> = inbox.patterns.iter().map(ToString::to_string).collect();
    record!(py, "MatchedInbox", {
        node: &*inbox.node,
        incarnation: inbox.incarnation.to_string(),
        uid: inbox.uid,
        number: inbox.number,
        patterns: patterns,
        policy: names(&inbox.policy),
        capacity: inbox.capacity,
        max_message: inbox.max_message,
        durable: inbox.durable.as_deref(),
    })
}

pub(crate) fn returned<'py>(py: Python<'py>, message: &Returned) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "Returned", {
        node: &*message.node,
        topic: Some(&*message.topic).filter(|topic| !topic.is_empty()),
        sequence: message.sequence,
        was_in_work: message.was_in_work,
        payload: PyBytes::new(py, &message.payload),
    })
}

pub(crate) fn holder<'py>(py: Python<'py>, holder: &Holder) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "Holder", {
        node: &*holder.node,
        address: address(py, &holder.address)?,
        queued: holder.queued,
        held: holder.held,
        bytes: holder.bytes,
    })
}

pub(crate) fn mismatch<'py>(py: Python<'py>, mismatch: &SchemaMismatch) -> PyResult<Bound<'py, PyAny>> {
    let schema = |schema: &Option<Schema>| schema.clone().map(schema::Schema);
    record!(py, "SchemaMismatch", {
        topic: &*mismatch.topic,
        node: &*mismatch.node,
        uid: mismatch.uid,
        ours: schema(&mismatch.ours),
        theirs: schema(&mismatch.theirs),
        text: mismatch.to_string(),
    })
}

fn inbox_info<'py>(py: Python<'py>, inbox: &InboxInfo) -> PyResult<Bound<'py, PyAny>> {
    let schemas: Vec<schema::Schema> = inbox.schemas.iter().cloned().map(schema::Schema).collect();
    record!(py, "InboxInfo", {
        number: inbox.number,
        addresses: inbox.addresses.clone(),
        is_service: inbox.is_service,
        capacity: inbox.capacity,
        schemas: schemas,
        policy: inbox.policy.as_ref().map(names),
    })
}

pub(crate) fn node_info<'py>(py: Python<'py>, node: &NodeInfo) -> PyResult<Bound<'py, PyAny>> {
    let listed: PyResult<Vec<_>> = node.listed.iter().map(|inbox| inbox_info(py, inbox)).collect();
    let opened = node.opened.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    record!(py, "NodeInfo", {
        id: &node.id,
        pid: node.pid,
        uid: node.uid,
        incarnation: node.incarnation.to_string(),
        opened: opened.as_secs_f64(),
        alive: node.alive,
        inboxes: listed?,
    })
}
