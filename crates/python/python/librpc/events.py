"""What happens beside messages: `Inbox.recv_event` and `Publisher.wait_for_event`. Made for `match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from librpc._librpc import Message, Peer
from librpc.records import Denial, MatchedInbox, RefusedPeer, SchemaMismatch

__all__ = [
    "Denied",
    "InboxEvent",
    "Other",
    "PeerRefused",
    "PublisherEvent",
    "PublisherMismatch",
    "SenderJoined",
    "SenderLeft",
    "SubscriptionCame",
    "SubscriptionDenied",
    "SubscriptionGone",
    "SubscriptionMismatch",
    "SubscriptionMoves",
    "SubscriptionStuck",
    "TurnedAway",
]


@dataclass(frozen=True, slots=True)
class SenderJoined:
    """A sender has connected."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class SenderLeft:
    """A sender is gone. What it had sent was received before."""

    peer: Peer
    how: str  # "closed", "died", "disconnected", "corrupt", "too_much" or "mismatch"
    why: str | None


@dataclass(frozen=True, slots=True)
class Denied:
    """A publisher does not let this node read a topic."""

    denial: Denial


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Messages of a sender did not get into the inbox: how many, and why."""

    peer: Peer
    messages: int
    too_large: int
    dropped: int
    no_room: int
    no_memory: int


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """The node has refused a sender."""

    refused: RefusedPeer


@dataclass(frozen=True, slots=True)
class PublisherMismatch:
    """A publisher's topic is of another type."""

    mismatch: SchemaMismatch


@dataclass(frozen=True, slots=True)
class SubscriptionCame:
    """A subscription wants the topic."""

    inbox: MatchedInbox


@dataclass(frozen=True, slots=True)
class SubscriptionGone:
    """A subscription is gone, and how."""

    inbox: MatchedInbox
    how: str  # "closed", "died", "node_gone", "denied", "refused" or "corrupt"
    why: str | None


@dataclass(frozen=True, slots=True)
class SubscriptionStuck:
    """A subscription was full for a whole time limit. It is no longer waited for."""

    inbox: MatchedInbox


@dataclass(frozen=True, slots=True)
class SubscriptionMoves:
    """A subscription that was stuck has room again."""

    inbox: MatchedInbox


@dataclass(frozen=True, slots=True)
class SubscriptionDenied:
    """A subscription may not read the topic."""

    inbox: MatchedInbox


@dataclass(frozen=True, slots=True)
class SubscriptionMismatch:
    """A subscription wants the topic as another type."""

    inbox: MatchedInbox
    mismatch: SchemaMismatch


@dataclass(frozen=True, slots=True)
class Other:
    """Something that this version of the package has no class for."""

    text: str


InboxEvent = Union[Message, SenderJoined, SenderLeft, Denied, TurnedAway, PeerRefused, PublisherMismatch, Other]
PublisherEvent = Union[
    SubscriptionCame,
    SubscriptionGone,
    SubscriptionStuck,
    SubscriptionMoves,
    SubscriptionDenied,
    SubscriptionMismatch,
    Other,
]
