"""The processes of one Linux machine exchange messages through shared memory, as equal nodes, with no broker.

One process receives:

    import librpc

    with librpc.Node("display") as node, node.inbox() as inbox:
        for message in inbox:
            print(message.sender, message.payload)

Another sends:

    import librpc

    with librpc.Node("camera") as node:
        to_display = node.connect("display")  # waits for it to appear
        to_display.send(b"hello")
        to_display.flush()  # processed

Time limits are seconds, `None` is no limit, and 0 does not wait.
"""

from librpc import errors, events, records
from librpc._librpc import (
    Admission,
    Client,
    Inbox,
    Loan,
    Message,
    Node,
    Peer,
    Pending,
    Publisher,
    Receipt,
    Replies,
    Reply,
    ReplyStream,
    Request,
    Sample,
    Schema,
    Sender,
    Server,
    __version__,
    clean,
    nodes,
    observe,
)
from librpc.errors import (
    Broken,
    Busy,
    Cancelled,
    Closed,
    Deadline,
    DomainError,
    Dropped,
    Error,
    Exhausted,
    Failed,
    Forked,
    Full,
    IdInUse,
    InUse,
    InvalidCapacity,
    InvalidName,
    InvalidSchema,
    InvalidTopic,
    Lost,
    Mismatch,
    NoInbox,
    NoMemory,
    NoServer,
    NotFound,
    NotObserved,
    OverLimit,
    RateLimited,
    ReceiverGone,
    Refused,
    ServerDied,
    Stuck,
    SystemFailure,
    Taken,
    TooLarge,
    TooMany,
    TooManyHeld,
    Unanswered,
    Unimplemented,
    Unprocessed,
)
from librpc.records import Acknowledge, Policy, Wait

__all__ = [
    "Acknowledge",
    "Admission",
    "Broken",
    "Busy",
    "Cancelled",
    "Client",
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
    "Inbox",
    "InvalidCapacity",
    "InvalidName",
    "InvalidSchema",
    "InvalidTopic",
    "Loan",
    "Lost",
    "Message",
    "Mismatch",
    "NoInbox",
    "NoMemory",
    "NoServer",
    "Node",
    "NotFound",
    "NotObserved",
    "OverLimit",
    "Peer",
    "Pending",
    "Policy",
    "Publisher",
    "RateLimited",
    "Receipt",
    "ReceiverGone",
    "Refused",
    "Replies",
    "Reply",
    "ReplyStream",
    "Request",
    "Sample",
    "Schema",
    "Sender",
    "Server",
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
    "Wait",
    "__version__",
    "clean",
    "errors",
    "events",
    "nodes",
    "observe",
    "records",
]
