"""Plain records. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from librpc._librpc import Reply, Schema
from librpc.errors import Error


class Policy(StrEnum):
    """What happens to a message whose inbox is full."""

    BLOCK = "block"
    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"


class Acknowledge(StrEnum):
    """When a message counts as processed: with the next receive, or when `ack` is called."""

    IMPLICIT = "implicit"
    EXPLICIT = "explicit"


class Wait(StrEnum):
    """How an inbox waits: it sleeps, spins a little first, or spins."""

    ADAPTIVE = "adaptive"
    SPIN = "spin"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What is sent to an inbox."""

    kind: str  # "node", "topics", "service" or "replies"
    names: list[str]  # the patterns, or the service


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What happened to messages: sent = processed + queued + dropped + returned."""

    sent: int
    accepted: int
    processed: int
    queued: int
    dropped: int
    returned: int
    bytes: int
    blocked: float
    depth: int
    depth_max: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedInbox:
    """An inbox that a publisher reaches."""

    node: str
    address: Address
    policy: str
    account: Account
    is_stuck: bool
    is_high: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedInbox:
    """A subscription that a publisher's topic matches."""

    node: str
    incarnation: str
    uid: int
    number: int
    patterns: list[str]
    policy: str
    capacity: int
    max_message: int
    durable: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A message that came back."""

    node: str
    topic: str | None
    sequence: int
    was_in_work: bool
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds memory for large payloads."""

    node: str
    address: Address
    queued: int
    held: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaMismatch:
    """Two sides whose messages are of different types."""

    topic: str
    node: str
    uid: int
    ours: Schema | None
    theirs: Schema | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one of several servers has answered: a reply, or an error."""

    node: str
    reply: Reply | None
    error: Error | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxInfo:
    """An inbox that a node lists."""

    number: int
    addresses: list[str]
    is_service: bool
    capacity: int
    schemas: list[Schema]
    policy: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node, as its domain lists it."""

    id: str
    pid: int
    uid: int
    incarnation: str
    opened: float  # as `time.time()`
    alive: bool
    inboxes: list[InboxInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Times, and how often each was measured: buckets of (from, to, count)."""

    count: int
    sum: float
    max: float
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    buckets: list[tuple[float, float | None, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """What one channel counts."""

    peer: str
    peer_incarnation: str
    peer_pid: int
    inbox: int
    state: str
    policy: str
    topics: list[str]
    types: list[str]
    depth: int
    depth_max: int
    capacity: int
    sent: int
    bytes_sent: int
    dropped: int
    returned: int
    too_large: int
    no_room: int
    no_memory: int
    blocked: float
    received: int
    bytes_received: int
    processed: int
    missed: int
    queued: int
    lent: int
    lent_bytes: int
    held: int
    last_sent: float | None
    last_processed: float | None
    latency: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What channels counted that have ended."""

    channels: int
    sent: int
    received: int
    processed: int
    bytes_received: int
    dropped: int
    missed: int
    bytes_sent: int
    returned: int
    too_large: int
    no_room: int
    no_memory: int
    blocked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxStats:
    """What an inbox counts."""

    number: int
    address: Address
    policy: str
    capacity: int
    channels: list[ChannelStats]
    ended: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedChannels:
    """What the channels of a peer counted that have ended."""

    peer: str
    address: Address
    totals: Totals
    latency: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStats:
    """What a client or a server counts."""

    service: str
    side: str  # "client" or "server"
    open: int
    calls: int
    answered: int
    in_flight: int
    failures: dict[str, int]
    latency: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A topic that a subscription may not read, or whose type differs."""

    inbox: int
    by: str
    uid: int
    topic: str
    text: str
    is_mismatch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPeer:
    """Whom a node has refused."""

    uid: int
    pid: int
    reason: str
    text: str
    count: int
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTopic:
    """A topic that a node publishes."""

    topic: str
    schema: str
    publishers: int
    unheard: int
    unheard_bytes: int
    last_unheard: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStats:
    """What a node reports about itself."""

    node: str
    incarnation: str
    version: str
    inboxes: list[InboxStats]
    outgoing: list[ChannelStats]
    ended_incoming: list[EndedChannels]
    ended_outgoing: list[EndedChannels]
    calls: list[CallStats]
    denials: list[Denial]
    refused: list[RefusedPeer]
    published: list[PublishedTopic]
    published_left_out: int
    payload_bytes: int
    payload_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A node that was asked about itself: what it reports, or why it does not."""

    node: NodeInfo
    stats: NodeStats | None
    error: Error | None
