//! What an inbox or a publisher reports beside messages: classes of `librpc/events.py`, for `match`.

use librpc::{Departure, Event, PublisherEvent, SubscriptionEnd};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;

use crate::message::{Last, Message};
use crate::records::{matched, mismatch, names};
use crate::stats::{denial, refused};

fn make<'py>(py: Python<'py>, class: &str, fields: impl PyCallArgs<'py>) -> PyResult<Py<PyAny>> {
    Ok(py.import("librpc.events")?.getattr(class)?.call1(fields)?.unbind())
}

/// What an inbox reports.
pub(crate) fn event(py: Python<'_>, event: &Event<'_>, last: &mut Last) -> PyResult<Py<PyAny>> {
    match event {
        Event::Message(message) => Message::object(py, message, last),
        Event::SenderJoined(peer) => make(py, "SenderJoined", (last.peer(py, peer)?,)),
        Event::SenderLeft(peer, departure) => {
            let why = match departure {
                Departure::Corrupt(why) | Departure::TooMuch(why) => Some(why.clone()),
                Departure::Mismatch(mismatch) => Some(mismatch.to_string()),
                _ => None,
            };
            make(py, "SenderLeft", (last.peer(py, peer)?, names(departure), why))
        }
        Event::Denied(denied) => make(py, "Denied", (denial(py, denied)?,)),
        Event::TurnedAway(away) => make(
            py,
            "TurnedAway",
            (last.peer(py, &away.peer)?, away.messages(), away.too_large, away.dropped, away.no_room, away.no_memory),
        ),
        Event::Refused(peer) => make(py, "PeerRefused", (refused(py, peer)?,)),
        Event::Mismatch(of) => make(py, "PublisherMismatch", (mismatch(py, of)?,)),
        other => make(py, "Other", (format!("{other:?}"),)),
    }
}

/// What a publisher reports.
pub(crate) fn publisher_event(py: Python<'_>, event: &PublisherEvent) -> PyResult<Py<PyAny>> {
    let inbox = matched(py, event.inbox())?;
    match event {
        PublisherEvent::Came(_) => make(py, "SubscriptionCame", (inbox,)),
        PublisherEvent::Gone(_, end) => {
            let text = match end {
                SubscriptionEnd::Refused { text, .. } | SubscriptionEnd::Corrupt(text) => Some(text.to_string()),
                _ => None,
            };
            make(py, "SubscriptionGone", (inbox, names(end), text))
        }
        PublisherEvent::Stuck(_) => make(py, "SubscriptionStuck", (inbox,)),
        PublisherEvent::Moves(_) => make(py, "SubscriptionMoves", (inbox,)),
        PublisherEvent::Denied(_) => make(py, "SubscriptionDenied", (inbox,)),
        PublisherEvent::Mismatch(_, of) => make(py, "SubscriptionMismatch", (inbox, mismatch(py, of)?)),
        other => make(py, "Other", (other.to_string(),)),
    }
}
