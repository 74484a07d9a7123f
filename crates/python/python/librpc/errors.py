"""What can go wrong: one class per kind. The numbers are attributes; those that an error does not have are `None`."""

from __future__ import annotations

import builtins
from typing import Any

__all__ = [
    "Broken",
    "Busy",
    "Cancelled",
    "Closed",
    "Deadline",
    "DomainError",
    "Dropped",
    "Error",
    "Exhausted",
    "Failed",
    "Forked",
    "Full",
    "IdInUse",
    "InUse",
    "InvalidCapacity",
    "InvalidName",
    "InvalidSchema",
    "InvalidTopic",
    "Lost",
    "Mismatch",
    "NoInbox",
    "NoMemory",
    "NoServer",
    "NotFound",
    "NotObserved",
    "OverLimit",
    "RateLimited",
    "ReceiverGone",
    "Refused",
    "ServerDied",
    "Stuck",
    "SystemFailure",
    "Taken",
    "TooLarge",
    "TooMany",
    "TooManyHeld",
    "Unanswered",
    "Unimplemented",
    "Unprocessed",
]


class Error(Exception):
    """An error of librpc."""

    node: str | None = None  # which node it is about
    service: str | None = None
    topic: str | None = None
    reason: str | None = None  # why it was refused, or could not be observed
    limit: float | None = None  # the time limit, or another one
    unprocessed: int | None = None  # how many messages are not processed
    sent: int | None = None  # how many of several messages were sent before


class InUse(Error):
    """Another thread or task uses the object just now."""


class Closed(Error):
    """The object, or its node, was closed."""


class Forked(Error):
    """The object belongs to the process that forked this one: open a node of its own here."""


class SystemFailure(Error):
    """A system call has failed."""

    errno: int | None = None


class InvalidName(Error, ValueError):
    """Not a valid node id, or durable name."""


class InvalidTopic(Error, ValueError):
    """Not a valid topic, pattern or service."""


class InvalidSchema(Error, ValueError):
    """Not a valid type name."""


class InvalidCapacity(Error, ValueError):
    """Not a valid capacity of an inbox."""

    bytes: int | None = None


class IdInUse(Error):
    """Another process has a node of this id."""

    pid: int | None = None
    uid: int | None = None


class DomainError(Error):
    """The domain cannot be used."""


class Taken(Error):
    """The node already has this inbox."""


class TooMany(Error):
    """The node has as many inboxes as it can."""

    bytes: int | None = None


class NotFound(Error):
    """There is no node of this id."""


class NoInbox(Error):
    """The node has not opened its inbox."""


class Refused(Error):
    """The node does not admit this one."""


class Broken(Error):
    """The node does not keep to the protocol."""


class Mismatch(Error):
    """The other side's messages are of another type."""

    mismatch: Any = None  # a `librpc.records.SchemaMismatch`


class Full(Error):
    """The inbox stayed full for the whole time limit. The message was not sent."""


class Unanswered(Error):
    """The receiver has not answered yet. The message was not sent."""


class Dropped(Error):
    """The inbox is full and drops new messages, or messages that came back were dropped."""

    lost: int | None = None


class Stuck(Error):
    """The inbox is stuck: it was full for a whole time limit before."""


class RateLimited(Error):
    """The rate limit does not allow it within the time limit."""

    wait: float | None = None  # how long it would have to wait


class TooLarge(Error):
    """The message is longer than the receiver takes."""

    bytes: int | None = None
    max: int | None = None


class NoMemory(Error, builtins.MemoryError):
    """There is no memory for a large payload."""


class Exhausted(NoMemory):
    """The node's memory for large payloads is used up."""

    bytes: int | None = None
    used: int | None = None
    holders: list[Any] | None = None  # `librpc.records.Holder`s


class TooManyHeld(Error):
    """The inbox holds too many samples of one sender: drop some of them first."""


class ReceiverGone(Error):
    """The receiver is gone. `unprocessed` says how many messages it has not processed."""


class Unprocessed(Error, builtins.TimeoutError):
    """The time was up before everything was processed."""


class Lost(Error):
    """Messages are lost, because receivers are gone."""

    lost: int | None = None
    causes: list[Error] | None = None


class NoServer(Error):
    """Nobody serves the service."""


class Deadline(Error, builtins.TimeoutError):
    """The call was not answered in time."""


class Cancelled(Error):
    """The call was cancelled."""


class ServerDied(Error):
    """The server died. `taken`: it had taken the request, and may have carried it out."""

    taken: bool | None = None


class Busy(Error):
    """The service has too many requests, or the domain is being changed."""


class Unimplemented(Error):
    """The server does not know such requests."""

    text: str | None = None


class Failed(Error):
    """The server says that the request has failed. A handler raises `Failed(text, code)` to say so."""

    code: int | None = None
    text: str | None = None

    def __init__(self, text: str = "", code: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class OverLimit(Error):
    """The clients of a user have too many answers that wait."""

    uid: int | None = None


class NotObserved(Error):
    """A node could not be asked about itself: it is dead, stopped or stalled."""
