/*
 * librpc: the processes of one machine exchange messages through shared memory, as equal nodes, with no broker.
 *
 * How a function ends. Most return a librpc_status: LIBRPC_STATUS_OK, LIBRPC_STATUS_NONE (nothing is there, which is no error), or a
 * negative one. After a negative one, librpc_last_error() has the whole sentence and the numbers, for this thread. Nothing unwinds
 * out of a function: a defect of the library is LIBRPC_STATUS_INTERNAL, or the end of the program if it shows in the midst of a send or a
 * receive.
 *
 * Who owns what. A function whose last argument is a pointer to a pointer makes a handle, which is yours: free it with the function of its
 * type, once. If it fails, the pointer is null. Texts that a function returns belong to the handle that it was asked about. Texts and
 * payloads that you pass are copied before the function returns. Everything may be freed in any order: what needs a node keeps it.
 *
 * Threads. A node, a client and a server may be used by any number of threads at once. An inbox, a sender, a publisher, an outbox, a loan, a
 * pending call, replies and a wait set are used by one thread at a time, which need not be always the same. Other handles are read by any thread.
 * Functions that may be called by any thread at any time say so. Nothing may be used while, or after, it is freed.
 *
 * Time. Limits are in ns. 0 does not wait, LIBRPC_FOREVER waits without limit.
 *
 * Options. Structures with options begin with `size`: set it to the sizeof of the structure, and all else to zero or to what you want.
 * Null means the defaults. `librpc_inbox_options options = {.size = sizeof options, .capacity = 1 << 20};`
 *
 * fork(). A child cannot use what it inherits: each function fails with LIBRPC_STATUS_FORKED (LIBRPC_STATUS_CLOSED: it would open
 * something at an inherited node), or has no effect. It may open its own nodes.
 *
 * dlclose(). librpc.so stays in memory once it was loaded, as its threads and what it keeps for each thread are in it.
 *
 * Not here: tasks of Rust's executors, senders that threads share (use a lock), admission by a function.
 */


#ifndef LIBRPC_H
#define LIBRPC_H

/* Made by cbindgen from crates/c/src. To change it: LIBRPC_WRITE_HEADER=1 cargo test -p librpc-c. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// No time limit.
#define LIBRPC_FOREVER UINT64_MAX

// How a function has ended. Negative: an error, and librpc_last_error() tells more.
typedef enum {
    // Done.
    LIBRPC_STATUS_OK = 0,
    // Nothing is there: the time is up, or the inbox, the server or the call is stopped or over. No error.
    LIBRPC_STATUS_NONE = 1,
    // An argument is wrong: a null pointer, a text that is not UTF-8, an unknown option.
    LIBRPC_STATUS_INVALID_ARGUMENT = -1,
    // A node id, topic, pattern, service or type name is not valid.
    LIBRPC_STATUS_INVALID_NAME = -2,
    // The id belongs to a node that is open.
    LIBRPC_STATUS_ID_IN_USE = -3,
    // The domain (the directory in which nodes meet) cannot be used.
    LIBRPC_STATUS_DOMAIN = -4,
    // The node was closed.
    LIBRPC_STATUS_CLOSED = -5,
    // The handle was inherited through fork() and belongs to the parent process.
    LIBRPC_STATUS_FORKED = -6,
    // A system call failed; `code` is its errno, if it has one.
    LIBRPC_STATUS_OS = -7,
    // There is no such node.
    LIBRPC_STATUS_NOT_FOUND = -8,
    // The node is there, but has no inbox.
    LIBRPC_STATUS_NO_INBOX = -9,
    // The other side refused; `reason` says why.
    LIBRPC_STATUS_REFUSED = -10,
    // The two sides have different types.
    LIBRPC_STATUS_MISMATCH = -11,
    // The other side broke the protocol.
    LIBRPC_STATUS_BROKEN = -12,
    // The inbox was full until the time limit.
    LIBRPC_STATUS_FULL = -13,
    // The receiver did not answer within the time limit.
    LIBRPC_STATUS_UNANSWERED = -14,
    // The inbox was full and its policy is to drop new messages: it is gone.
    LIBRPC_STATUS_DROPPED = -15,
    // The receiver is stuck: it is left out until it goes on.
    LIBRPC_STATUS_STUCK = -16,
    // A rate limit; `wait_ns` says how long to wait.
    LIBRPC_STATUS_RATE_LIMITED = -17,
    // The message has `bytes` bytes, the inbox takes `max`.
    LIBRPC_STATUS_TOO_LARGE = -18,
    // There is no memory for the payload.
    LIBRPC_STATUS_NO_MEMORY = -19,
    // The receiver is gone; `count` messages were not delivered.
    LIBRPC_STATUS_RECEIVER_GONE = -20,
    // The time limit was over before everything was processed; `count` messages are not.
    LIBRPC_STATUS_TIMED_OUT = -21,
    // `count` messages were lost.
    LIBRPC_STATUS_LOST = -22,
    // The node has such an inbox, or the wait set such a token, already.
    LIBRPC_STATUS_TAKEN = -23,
    // A limit of this node is reached.
    LIBRPC_STATUS_TOO_MANY = -24,
    // Too many samples with large payloads of one sender are held.
    LIBRPC_STATUS_TOO_MANY_HELD = -25,
    // No node serves this service.
    LIBRPC_STATUS_NO_SERVER = -26,
    // The call was not answered within its time limit.
    LIBRPC_STATUS_DEADLINE = -27,
    // The call was cancelled.
    LIBRPC_STATUS_CANCELLED = -28,
    // The server died; `taken` says whether it had begun with the call.
    LIBRPC_STATUS_SERVER_DIED = -29,
    // Too many calls are open.
    LIBRPC_STATUS_BUSY = -30,
    // The server does not know this request.
    LIBRPC_STATUS_UNIMPLEMENTED = -31,
    // The server answered with an error: its `code` and its text.
    LIBRPC_STATUS_FAILED = -32,
    // The callback has failed.
    LIBRPC_STATUS_CALLBACK = -33,
    // A defect of librpc.
    LIBRPC_STATUS_INTERNAL = -34,
} librpc_status;

// Why the other side refused.
typedef enum {
    // No reason is known.
    LIBRPC_REASON_NONE = 0,
    // It has too much to do.
    LIBRPC_REASON_BUSY = 1,
    // It does not admit this process.
    LIBRPC_REASON_NOT_ADMITTED = 2,
    // It speaks another version of the protocol.
    LIBRPC_REASON_VERSION = 3,
    // It has no such inbox.
    LIBRPC_REASON_NO_INBOX = 4,
    // It has restarted.
    LIBRPC_REASON_RESTARTED = 5,
    // This user has as much there as its limits allow.
    LIBRPC_REASON_TOO_MUCH = 6,
    // This process is not what it says it is.
    LIBRPC_REASON_IDENTITY = 7,
    // What was sent was no handshake.
    LIBRPC_REASON_BAD_HANDSHAKE = 8,
    // It does not know the connection.
    LIBRPC_REASON_UNKNOWN_CONNECTION = 9,
    // It has no descriptors or memory left.
    LIBRPC_REASON_RESOURCES = 10,
} librpc_reason;

// What has happened.
typedef enum {
    // A message: `message`.
    LIBRPC_EVENT_KIND_MESSAGE = 0,
    // The sender `node` has connected.
    LIBRPC_EVENT_KIND_SENDER_JOINED = 1,
    // The sender `node` has left: `departure`, and `text` where there is more to say.
    LIBRPC_EVENT_KIND_SENDER_LEFT = 2,
    // The publisher `node` does not let this node read `topic`: `text` says why.
    LIBRPC_EVENT_KIND_DENIED = 3,
    // Messages of `node` did not fit in: `too_large`, `dropped`, `no_room`, `no_memory`.
    LIBRPC_EVENT_KIND_TURNED_AWAY = 4,
    // A process of `uid` was refused `count` times: `reason`, `text`.
    LIBRPC_EVENT_KIND_REFUSED = 5,
    // The messages of `node` (on `topic`) are of another type: `text`.
    LIBRPC_EVENT_KIND_MISMATCH = 6,
    // One that a later version of the header knows.
    LIBRPC_EVENT_KIND_OTHER = 7,
} librpc_event_kind;

// How a sender has left.
typedef enum {
    // It is no departure.
    LIBRPC_DEPARTURE_NONE = 0,
    // It closed its channel.
    LIBRPC_DEPARTURE_CLOSED = 1,
    // It died.
    LIBRPC_DEPARTURE_DIED = 2,
    // The connection is gone.
    LIBRPC_DEPARTURE_DISCONNECTED = 3,
    // It wrote what no honest sender writes.
    LIBRPC_DEPARTURE_CORRUPT = 4,
    // It used more than its user may.
    LIBRPC_DEPARTURE_TOO_MUCH = 5,
    // It has another type.
    LIBRPC_DEPARTURE_MISMATCH = 6,
} librpc_departure;

// What has happened to a subscription.
typedef enum {
    // A subscription has come.
    LIBRPC_PUBLISHER_EVENT_KIND_CAME = 0,
    // It has gone.
    LIBRPC_PUBLISHER_EVENT_KIND_GONE = 1,
    // It is stuck: its receiver does not go on, and publishes leave it out.
    LIBRPC_PUBLISHER_EVENT_KIND_STUCK = 2,
    // It goes on.
    LIBRPC_PUBLISHER_EVENT_KIND_MOVES = 3,
    // Its node may not read the topic.
    LIBRPC_PUBLISHER_EVENT_KIND_DENIED = 4,
    // It wants another type: `text`.
    LIBRPC_PUBLISHER_EVENT_KIND_MISMATCH = 5,
    // One that a later version of the header knows.
    LIBRPC_PUBLISHER_EVENT_KIND_OTHER = 6,
} librpc_publisher_event_kind;

// How a subscription has gone.
typedef enum {
    // It has not.
    LIBRPC_SUBSCRIPTION_END_NONE = 0,
    // It was closed.
    LIBRPC_SUBSCRIPTION_END_CLOSED = 1,
    // Its process died.
    LIBRPC_SUBSCRIPTION_END_DIED = 2,
    // Its node has left.
    LIBRPC_SUBSCRIPTION_END_NODE_GONE = 3,
    // It may not read the topic any more.
    LIBRPC_SUBSCRIPTION_END_DENIED = 4,
    // It refused: `reason`, `text`.
    LIBRPC_SUBSCRIPTION_END_REFUSED = 5,
    // It wrote what no honest receiver writes: `text`.
    LIBRPC_SUBSCRIPTION_END_CORRUPT = 6,
} librpc_subscription_end;

// Which way a channel goes.
typedef enum {
    // To the node: `peer` sends.
    LIBRPC_DIRECTION_INCOMING = 0,
    // From the node: `peer` receives.
    LIBRPC_DIRECTION_OUTGOING = 1,
} librpc_direction;

// How a channel is.
typedef enum {
    // The receiver has not answered yet.
    LIBRPC_CHANNEL_STATE_PENDING = 0,
    // It is in use.
    LIBRPC_CHANNEL_STATE_OPEN = 1,
    // It has failed.
    LIBRPC_CHANNEL_STATE_FAILED = 2,
} librpc_channel_state;

// Whom a rule admits.
typedef enum {
    // Processes of this process's user.
    LIBRPC_RULE_KIND_SAME_USER = 0,
    // Processes of the user `id`.
    LIBRPC_RULE_KIND_UID = 1,
    // Processes of the group `id`.
    LIBRPC_RULE_KIND_GID = 2,
    // The process `id`.
    LIBRPC_RULE_KIND_PID = 3,
    // Processes that run the file `path`.
    LIBRPC_RULE_KIND_EXECUTABLE = 4,
} librpc_rule_kind;

// What becomes of a message whose inbox is full.
typedef enum {
    // The default: its sender waits, within its time limit.
    LIBRPC_POLICY_DEFAULT = 0,
    // Its sender waits, within its time limit.
    LIBRPC_POLICY_BLOCK = 1,
    // The new message is dropped, and counted.
    LIBRPC_POLICY_DROP_NEWEST = 2,
    // The oldest messages are overwritten, and counted.
    LIBRPC_POLICY_DROP_OLDEST = 3,
} librpc_policy;

// How an inbox waits.
typedef enum {
    // It spins for a moment, then sleeps. The default.
    LIBRPC_WAIT_ADAPTIVE = 0,
    // It spins, for the lowest latency at the price of a processor.
    LIBRPC_WAIT_SPIN = 1,
    // It sleeps at once.
    LIBRPC_WAIT_BLOCK = 2,
} librpc_wait;

// How values are encoded as bytes.
typedef enum {
    // Whatever the program makes of it.
    LIBRPC_ENCODING_RAW = 0,
    // The bytes of the value as it lies in memory.
    LIBRPC_ENCODING_PLAIN = 1,
    // Postcard, by serde.
    LIBRPC_ENCODING_POSTCARD = 2,
    // JSON.
    LIBRPC_ENCODING_JSON = 3,
    // Protocol Buffers.
    LIBRPC_ENCODING_PROTOBUF = 4,
    // CDR, as ROS 2 and DDS use it.
    LIBRPC_ENCODING_CDR = 5,
} librpc_encoding;

// How grave it is.
typedef enum {
    // Something went wrong.
    LIBRPC_LEVEL_ERROR = 1,
    // Something may go wrong.
    LIBRPC_LEVEL_WARN = 2,
    // Something has happened.
    LIBRPC_LEVEL_INFO = 3,
    // For those who look for a defect.
    LIBRPC_LEVEL_DEBUG = 4,
    // Each step.
    LIBRPC_LEVEL_TRACE = 5,
} librpc_level;

// A callback that is running.
typedef struct librpc_callback librpc_callback;

// Calls a service. Any number of threads may use it at once.
typedef struct librpc_client librpc_client;

// Receives messages. One thread at a time uses it; librpc_inbox_stop() may be called by any.
typedef struct librpc_inbox librpc_inbox;

// Memory for one message, which is filled in place, then sent or published. One thread at a time uses it.
typedef struct librpc_loan librpc_loan;

// What else is known about a message.
typedef struct librpc_message_more librpc_message_more;

// A participant with an id. Any number of threads may use it at once. Inboxes, senders and the like live on when it is freed, until they
// are freed.
typedef struct librpc_node librpc_node;

// The nodes of a domain, as they were at one moment.
typedef struct librpc_nodes librpc_nodes;

// Sends to any number of nodes and topics. Messages to one inbox stay in order, whatever their topics. One thread at a time uses it.
typedef struct librpc_outbox librpc_outbox;

// A call that is in flight. One thread at a time uses it; librpc_pending_cancel() may be called by any.
typedef struct librpc_pending librpc_pending;

// Publishes a topic. One thread at a time uses it.
typedef struct librpc_publisher librpc_publisher;

// The parts of a reply, as they come. One thread at a time uses it; librpc_replies_cancel() may be called by any.
typedef struct librpc_replies librpc_replies;

// A reply, or a part of one.
typedef struct librpc_reply librpc_reply;

// A reply in parts. One thread at a time uses it.
typedef struct librpc_reply_stream librpc_reply_stream;

// A request. It is owned: any thread may answer it, in any order. Freed unanswered, its client's call fails.
typedef struct librpc_request librpc_request;

// A message that is owned. A large payload stays where its sender has put it until the sample is freed, in any thread. It outlives its
// inbox and its node.
typedef struct librpc_sample librpc_sample;

// Sends to one node. One thread at a time uses it.
typedef struct librpc_sender librpc_sender;

// Serves a service. Any number of threads may take requests at once.
typedef struct librpc_server librpc_server;

// What a node reports about itself: a snapshot.
typedef struct librpc_stats librpc_stats;

// Waits for several things at once: inboxes, servers, calls, publishers' events, and other descriptors, each under a token of yours. A
// wait returns the tokens of what may have something. Look at each with a call that does not wait, and take as much as you like: what is
// left is reported by the next wait. What is freed is reported no more. One thread at a time uses the set.
typedef struct librpc_wait_set librpc_wait_set;

// What is known about an error. What does not apply is zero or null. It may get more fields; read it only through the pointer.
typedef struct {
    // Which error.
    librpc_status status;
    // LIBRPC_STATUS_FAILED: the server's code. LIBRPC_STATUS_OS: the errno.
    int32_t code;
    // The whole sentence: what happened, to whom, and what to do. Never null.
    const char *message;
    // The node on the other side.
    const char *node;
    // The topic, service, path or other name that it is about.
    const char *name;
    // Bytes of what was too large, or had no memory.
    uint64_t bytes;
    // The limit that was passed, in the unit of what it limits.
    uint64_t max;
    // Messages that were lost, not delivered or not processed.
    uint64_t count;
    // The time limit that was over, or how long to wait, in ns.
    uint64_t wait_ns;
    // The process and the user on the other side.
    uint32_t pid;
    // See `pid`.
    uint32_t uid;
    // Why the other side refused.
    librpc_reason reason;
    // LIBRPC_STATUS_SERVER_DIED: the server had begun with the call.
    bool taken;
} librpc_error;

// Called for each entry: its level (librpc_level), its target such as "librpc::connect", and its text. Any thread may call it, several
// at once, the library's own among them: it must be quick, must not call the library, and must not throw.
typedef void (*librpc_on_log)(void *context, int level, const char *target, const char *text);

// A rule of admission.
typedef struct {
    // Whom it admits: librpc_rule_kind.
    uint32_t kind;
    // The user, group or process.
    uint32_t id;
    // The executable.
    const char *path;
    // Whether it must hold together with the rule before it.
    bool and_previous;
} librpc_rule;

// Who may read the topics, or call the services, that match a pattern: processes that at least one rule admits. No rules: nobody.
typedef struct {
    // The pattern.
    const char *pattern;
    // The rules.
    const librpc_rule *rules;
    // How many there are.
    size_t count;
} librpc_admission;

// Options of a node. Set `size` to sizeof(librpc_node_options); zeros are the defaults.
typedef struct {
    // sizeof(librpc_node_options).
    size_t size;
    // The name of a domain, or the path of its directory; null: what LIBRPC_DOMAIN says, otherwise the user's own.
    const char *domain;
    // Whether the domain is shared with the group `shared_gid`. All of its members set this alike.
    bool shared;
    // Whether nobody is admitted who no rule admits. Otherwise processes of the same user are, if there are no rules.
    bool admit_nobody;
    // See `shared`.
    uint32_t shared_gid;
    // Who may send to this node: processes that at least one rule admits. Null: processes of the same user.
    const librpc_rule *admit;
    // How many rules there are.
    size_t admit_count;
    // Who may read what this node publishes. Topics that match no pattern may be read by everybody in the domain.
    const librpc_admission *readers;
    // How many there are.
    size_t readers_count;
    // Who may call the services of this node. Others are called by everybody who may send to it.
    const librpc_admission *callers;
    // How many there are.
    size_t callers_count;
    // How many bytes the payloads of this node may take; by default 4 GiB.
    uint64_t payload_bytes;
    // How many channels the processes of one user may have to this node; by default 16,384.
    uint32_t channels_per_user;
    // How many handshakes of one user may be under way; by default 256.
    uint32_t handshakes_per_user;
    // How many bytes of memory one user's channels may map here; by default 64 GiB.
    uint64_t mapped_bytes_per_user;
    // How long a handshake may take, in ns; by default 2 s.
    uint64_t handshake_timeout_ns;
} librpc_node_options;

// A message. It is valid until the next receive at its inbox, and no longer than the inbox.
typedef struct {
    // Its payload: a private copy, or, if the inbox trusts its publishers, where its sender has put it. It is aligned to 16 bytes; where that
    // is not enough, receive a sample, which is aligned to 64. Never null.
    const void *data;
    // The length of the payload in bytes.
    size_t size;
    // For the functions below.
    const librpc_message_more *more;
} librpc_message;

// What is known about a message, a sample, a request or a reply. Set `size` before it is filled.
typedef struct {
    // sizeof(librpc_info).
    size_t size;
    // The node that sent it. As long as the message.
    const char *sender;
    // The topic that it was published on; null: it was sent to the node itself. As long as the message.
    const char *topic;
    // Its number, counted from 0 by the outbox that sent it, for this inbox.
    uint64_t sequence;
    // How many messages before it were overwritten or passed over.
    uint64_t missed;
    // When it was sent, in ns of CLOCK_MONOTONIC; 0: it does not say.
    uint64_t sent_at_ns;
    // The sender's process, from the kernel; 0: it is not visible from here.
    uint32_t pid;
    // The sender's user, from the kernel.
    uint32_t uid;
    // The sender's group, from the kernel.
    uint32_t gid;
    // An earlier incarnation of this node may have processed it already.
    bool redelivered;
    // It was published before the subscription was opened.
    bool past;
    // Its payload is in its sender's memory.
    bool lent;
} librpc_info;

// The type of the messages of a topic, of a service's requests or replies, or of what is sent to a node itself. Both sides compare it
// before anything is sent. Set `size`, and all that is not used to zero.
typedef struct {
    // sizeof(librpc_schema).
    size_t size;
    // The name of the type, up to 128 bytes.
    const char *name;
    // How it is encoded: librpc_encoding.
    uint32_t encoding;
    // Whether `hash` is set.
    uint32_t has_hash;
    // A hash of its layout: types with different hashes do not match.
    uint64_t hash;
    // Its definition, for tools: up to 16 KiB; null: none.
    const void *definition;
    // The length of the definition in bytes.
    size_t definition_size;
} librpc_schema;

// Options of an inbox. Set `size` to sizeof(librpc_inbox_options); zeros are the defaults.
typedef struct {
    // sizeof(librpc_inbox_options).
    size_t size;
    // The ring of each sender, in bytes; by default 256 KiB.
    uint64_t capacity;
    // The longest message that it takes, in bytes; by default 1 GiB.
    uint64_t max_message;
    // What becomes of a message when it is full: librpc_policy. By default its sender waits; with `keep_last`, old ones are overwritten.
    uint32_t policy;
    // How it waits: librpc_wait.
    uint32_t wait;
    // Receives at most this many messages of a topic and sender at once, the newest; 0: all.
    uint64_t keep_last;
    // The name of a durable subscription: what comes while its node is down is kept for it. Null: none.
    const char *durable;
    // The type of what it receives; null: none.
    const librpc_schema *schema;
    // At most this many past messages of each topic, from each publisher that keeps some; 0: all that they keep.
    uint64_t history;
    // Whether it gets no past messages.
    bool no_history;
    // Whether a message counts as processed only by librpc_inbox_ack(); otherwise by the next receive.
    bool explicit_ack;
    // Whether a subscription gets what its own node publishes, too.
    bool receive_own;
    // Whether `data` of a large message is where its sender has put it, instead of a copy. Then no sender may be hostile: it could change
    // the payload while it is read. Samples are never copied.
    bool trust_publishers;
} librpc_inbox_options;

// An event at an inbox. What does not apply is zero or null. It is valid until the next receive.
typedef struct {
    // What has happened.
    librpc_event_kind kind;
    // How the sender has left.
    librpc_departure departure;
    // The message.
    librpc_message message;
    // The node on the other side.
    const char *node;
    // The topic.
    const char *topic;
    // What there is to say.
    const char *text;
    // Messages that were longer than the inbox takes.
    uint64_t too_large;
    // Messages that were dropped because the inbox was full.
    uint64_t dropped;
    // Messages for which there was no room within their sender's time limit.
    uint64_t no_room;
    // Messages for which their sender had no memory.
    uint64_t no_memory;
    // How many times a process was refused.
    uint64_t count;
    // The process on the other side.
    uint32_t pid;
    // Its user.
    uint32_t uid;
    // Why it was refused.
    librpc_reason reason;
} librpc_event;

// Called for each message, one at a time, in a thread of the library's. The message is valid until it returns. 0: it is processed. Anything
// else: it has failed. Then its message stays unprocessed, the inbox closes, and librpc_callback_stop() reports it. It must not throw.
typedef int (*librpc_on_message)(void *context, const librpc_message *message);

// Options of a sender. Set `size` to sizeof(librpc_sender_options); zeros are the defaults.
typedef struct {
    // sizeof(librpc_sender_options).
    size_t size;
    // The type of what is sent; null: none.
    const librpc_schema *schema;
    // How long a send waits while the inbox is full, in ns; by default 1 s.
    uint64_t timeout_ns;
    // Whether each message says when it was sent.
    bool stamp_all;
} librpc_sender_options;

// What became of the messages of a sender or a publisher.
typedef struct {
    // Messages that it was asked to send.
    uint64_t sent;
    // Those of them that were put into an inbox.
    uint64_t accepted;
    // Those that the receiver has processed.
    uint64_t processed;
    // Those that are in an inbox.
    uint64_t queued;
    // Those that the inbox's policy has dropped: new ones, or overwritten ones of which the receiver knows.
    uint64_t dropped;
    // Those that were returned with an error, or are counted in one: there was no room, or the receiver is gone.
    uint64_t returned;
    // Bytes of payload that were put into inboxes.
    uint64_t bytes;
    // How long sends have waited for room, in ns.
    uint64_t blocked_ns;
    // Bytes of the ring that are in use now. For several inboxes, this field and the next two are those of the fullest one.
    uint64_t depth;
    // The highest depth so far, in bytes.
    uint64_t depth_max;
    // Capacity of the ring, in bytes; 0 before there is a channel.
    uint64_t capacity;
} librpc_account;

// A limit of messages and bytes per second, with how much may come at once. Zeros: no such limit.
typedef struct {
    // Messages per second.
    uint32_t messages;
    // How many messages may come at once; 0: as many as per second.
    uint32_t messages_burst;
    // Bytes per second.
    uint32_t bytes;
    // How many bytes may come at once; 0: as many as per second.
    uint32_t bytes_burst;
    // Whether a send over the limit fails with LIBRPC_STATUS_RATE_LIMITED. Otherwise it waits.
    bool or_fail;
} librpc_rate;

// A message that came back. It is valid while the function runs.
typedef struct {
    // Its payload.
    const void *data;
    // The length of the payload in bytes.
    size_t size;
    // Whom it was for.
    const char *node;
    // Its topic; empty: none.
    const char *topic;
    // Its number.
    uint64_t sequence;
    // The receiver may have processed it.
    bool was_in_work;
} librpc_returned;

// Called for each message that came back. It must not throw.
typedef void (*librpc_on_returned)(void *context, const librpc_returned *returned);

// Options of a publisher. Set `size` to sizeof(librpc_publisher_options); zeros are the defaults.
typedef struct {
    // sizeof(librpc_publisher_options).
    size_t size;
    // The type of the topic; null: none.
    const librpc_schema *schema;
    // How many messages it keeps for subscriptions that are opened later.
    uint64_t history;
    // At most this many bytes of them; by default 64 MiB.
    uint64_t history_bytes;
    // How long a publish waits while an inbox is full, in ns; by default 1 s.
    uint64_t timeout_ns;
    // Whether it never waits for an inbox that is full: that one misses the message.
    bool never_waits;
    // Whether each message says when it was sent.
    bool stamp_all;
} librpc_publisher_options;

// Who got a message.
typedef struct {
    // Inboxes that have accepted it: it survives this process there.
    size_t inboxes;
    // Inboxes that are connecting: it is kept for them as long as this process lives.
    size_t pending;
    // Inboxes that did not get it: librpc_publisher_undelivered() says why.
    size_t undelivered;
} librpc_receipt;

// An event of a publisher. What does not apply is zero or null. It is valid until the next event.
typedef struct {
    // What has happened.
    librpc_publisher_event_kind kind;
    // How it has gone.
    librpc_subscription_end end;
    // The node of the subscription.
    const char *node;
    // The name of a durable subscription.
    const char *durable;
    // What there is to say.
    const char *text;
    // The user of its process.
    uint32_t uid;
    // The number of the inbox in its node.
    uint32_t inbox;
    // Why it refused.
    librpc_reason reason;
} librpc_publisher_event;

// Options of a client. Set `size` to sizeof(librpc_client_options); zeros are the defaults.
typedef struct {
    // sizeof(librpc_client_options).
    size_t size;
    // The type of the requests; null: none. Set both or neither.
    const librpc_schema *request;
    // The type of the replies.
    const librpc_schema *reply;
    // How many calls may be in flight, by default 256. Beyond it a call fails at once with LIBRPC_STATUS_BUSY.
    uint64_t max_in_flight;
    // The longest reply, or part of one, in bytes; by default 1 GiB.
    uint64_t max_reply;
    // Bytes of the ring in which each server's replies come; by default 256 KiB.
    uint64_t capacity;
    // How it waits: librpc_wait.
    uint32_t wait;
} librpc_client_options;

// Options of a call. Set `size` to sizeof(librpc_call_options); zeros are the defaults.
typedef struct {
    // sizeof(librpc_call_options).
    size_t size;
    // The server; null: any.
    const char *node;
    // Whether it may be tried again on another server when one dies with it.
    bool idempotent;
} librpc_call_options;

// What one server answered. It is valid while the function runs; `reply` is the function's own: it frees it.
typedef struct {
    // The server's node.
    const char *node;
    // Its reply; null: an error.
    librpc_reply *reply;
    // Why there is no reply; null: there is one.
    const librpc_error *error;
} librpc_answer;

// Called for the answer of each server. It must not throw.
typedef void (*librpc_on_answer)(void *context, const librpc_answer *answer);

// Options of a server. Set `size` to sizeof(librpc_server_options); zeros are the defaults.
typedef struct {
    // sizeof(librpc_server_options).
    size_t size;
    // The type of the requests; null: none. Set both or neither.
    const librpc_schema *request;
    // The type of the replies.
    const librpc_schema *reply;
    // How many requests may be taken and not answered, by default 4,096. Those beyond it fail at once with LIBRPC_STATUS_BUSY.
    uint64_t max_in_flight;
    // The same for each client, by default 256.
    uint64_t max_per_client;
    // The longest request in bytes, by default 1 GiB.
    uint64_t max_request;
    // Bytes of the ring in which each client's requests come; by default 256 KiB.
    uint64_t capacity;
    // How it waits: librpc_wait.
    uint32_t wait;
} librpc_server_options;

// The counts of a channel. Texts are as long as the statistics.
typedef struct {
    // Which way it goes.
    librpc_direction direction;
    // How it is.
    librpc_channel_state state;
    // The node on the other side.
    const char *peer;
    // What the inbox receives: "node", patterns, or a service. Null: an outgoing channel.
    const char *inbox;
    // The process on the other side.
    uint32_t peer_pid;
    // The number of the inbox in its node.
    uint32_t inbox_number;
    // Messages that were sent.
    uint64_t sent;
    // Bytes of them.
    uint64_t bytes_sent;
    // Messages that were received.
    uint64_t received;
    // Bytes of them.
    uint64_t bytes_received;
    // Messages that were processed.
    uint64_t processed;
    // Messages that wait.
    uint64_t queued;
    // Messages that the inbox's policy has dropped.
    uint64_t dropped;
    // Messages that were overwritten before they could be received.
    uint64_t missed;
    // Messages that were returned.
    uint64_t returned;
    // Messages that were too large.
    uint64_t too_large;
    // Messages for which there was no room in time.
    uint64_t no_room;
    // Messages for which there was no memory.
    uint64_t no_memory;
    // How long sends have waited for room, in ns.
    uint64_t blocked_ns;
    // Bytes of the ring that are in use.
    uint64_t depth;
    // The most so far.
    uint64_t depth_max;
    // The capacity of the ring, in bytes.
    uint64_t capacity;
    // Large payloads that are lent.
    uint64_t lent;
    // Bytes of them.
    uint64_t lent_bytes;
    // Samples that are held.
    uint64_t held;
    // The latency from sending to receiving that half of the messages do not exceed, in ns; 0: it is not known. A sample is measured.
    uint64_t latency_p50_ns;
    // The same of 99 of 100.
    uint64_t latency_p99_ns;
    // The longest latency, in ns.
    uint64_t latency_max_ns;
} librpc_channel_stats;

// What a node has sent, received and lost in all, channels that have ended included.
typedef struct {
    // Messages that were sent.
    uint64_t sent;
    // Bytes of them.
    uint64_t bytes_sent;
    // Messages that were received.
    uint64_t received;
    // Bytes of them.
    uint64_t bytes_received;
    // Messages that were received and processed.
    uint64_t processed;
    // Messages to or from it that an inbox's policy has dropped.
    uint64_t dropped;
    // Messages to it that were overwritten before they could be received.
    uint64_t missed;
    // Messages of its own that were returned.
    uint64_t returned;
    // Bytes of memory for payloads that it uses.
    uint64_t payload_bytes;
    // How many it may use.
    uint64_t payload_limit;
} librpc_totals;

// A node of a domain.
typedef struct {
    // Its id.
    const char *id;
    // Its incarnation: 32 hexadecimal digits.
    const char *incarnation;
    // When it was opened, in ns since 1970.
    uint64_t opened_ns;
    // Its process.
    uint32_t pid;
    // Its user.
    uint32_t uid;
    // Whether its process lives.
    bool alive;
    // What it reports about itself; null: it was not asked, or did not answer. It belongs to the list: do not free it.
    const librpc_stats *stats;
    // Why it did not answer; null: it did, or was not asked.
    const char *error;
} librpc_node_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, such as "0.1.0".
const char *librpc_version(void);

// What is known about the last error of this thread; null: there was none. It is valid until the next function fails in this thread. A
// function that succeeds leaves it as it is, so look at it only after a negative status or a null handle.
const librpc_error *librpc_last_error(void);

// The name of a status, such as "too_large"; never null.
const char *librpc_status_name(int32_t status);

// Writes the library's log to stderr: what the filter lets through, such as "info", or "librpc=debug". Once in a process.
librpc_status librpc_log_to_stderr(const char *filter);

// Hands the library's log to a function. Once in a process.
librpc_status librpc_log_to(const char *filter, librpc_on_log on_log, void *context);

// Opens a node. The id has 1 to 63 bytes, no '/', no control characters and no leading '.'. No other open node of the domain has it. Does
// not wait for other nodes.
librpc_status librpc_node_open(const char *id, const librpc_node_options *options, librpc_node **node);

// The node's id. As long as the node.
const char *librpc_node_id(const librpc_node *node);

// Which incarnation of the id this is: 32 hexadecimal digits. As long as the node.
const char *librpc_node_incarnation(const librpc_node *node);

// Closes a node, waits up to `timeout_ns` until what it sent is processed, and frees the handle, whatever it returns.
// LIBRPC_STATUS_TIMED_OUT: `count` messages are not processed yet; they stay in their inboxes. Its inboxes and senders end.
librpc_status librpc_node_close(librpc_node *node, uint64_t timeout_ns);

// Frees a node. It leaves the domain once its inboxes, senders and the like are freed, too. Null is fine.
void librpc_node_free(librpc_node *node);

// The node that sent it; null after the next receive.
const char *librpc_message_sender(const librpc_message *message);

// The topic that it was published on; null: it was sent to the node itself.
const char *librpc_message_topic(const librpc_message *message);

// What else is known about a message.
librpc_status librpc_message_info(const librpc_message *message, librpc_info *info);

// The payload of a sample. It is aligned to 64 bytes. If it is lent (`librpc_info.lent`), it is in its sender's memory, mapped read-only:
// an honest sender does not write it while the sample is there, a hostile one may. Copy what you check before you use it, where you do not
// trust the sender. Null for a null pointer.
const void *librpc_sample_data(const librpc_sample *sample);

// The length of its payload in bytes.
size_t librpc_sample_size(const librpc_sample *sample);

// The node that sent it. As long as the sample.
const char *librpc_sample_sender(const librpc_sample *sample);

// The topic that it was published on; null: it was sent to the node itself. As long as the sample.
const char *librpc_sample_topic(const librpc_sample *sample);

// What else is known about a sample.
librpc_status librpc_sample_info(const librpc_sample *sample, librpc_info *info);

// Lets go of a sample, in any thread. Null is fine.
void librpc_sample_free(librpc_sample *sample);

// Opens the inbox for what is sent to the node itself. Does not block.
librpc_status librpc_inbox_open(const librpc_node *node, const librpc_inbox_options *options, librpc_inbox **inbox);

// Subscribes to topics. A pattern has `*` for one level and `**` for any number. Does not block.
librpc_status librpc_subscribe(const librpc_node *node, const char *pattern, const librpc_inbox_options *options, librpc_inbox **inbox);

// As librpc_subscribe(), with several patterns.
librpc_status librpc_subscribe_all(const librpc_node *node,
                                   const char *const *patterns,
                                   size_t count,
                                   const librpc_inbox_options *options,
                                   librpc_inbox **inbox);

// Waits for the next message, up to `timeout_ns`: 0 does not wait, LIBRPC_FOREVER waits without limit. LIBRPC_STATUS_NONE: the time is
// up, or the inbox was stopped. The message before counts as processed now (unless `explicit_ack` is set), and is not valid any more.
librpc_status librpc_inbox_recv(librpc_inbox *inbox, uint64_t timeout_ns, librpc_message *message);

// As librpc_inbox_recv(), but the newest message of those that wait; older ones are passed over, and `missed` counts them.
librpc_status librpc_inbox_recv_latest(librpc_inbox *inbox, uint64_t timeout_ns, librpc_message *message);

// As librpc_inbox_recv(), as a sample: owned, and a large payload stays where its sender has put it. The message counts as processed by
// the next receive, as any other, but its payload stays until librpc_sample_free().
librpc_status librpc_inbox_recv_sample(librpc_inbox *inbox, uint64_t timeout_ns, librpc_sample **sample);

// As librpc_inbox_recv(), but what comes next: a message, a sender that joins or leaves, or something that cannot arrive. The event is
// valid until the next receive.
librpc_status librpc_inbox_recv_event(librpc_inbox *inbox, uint64_t timeout_ns, librpc_event *event);

// With `explicit_ack`: every message that was received so far is processed. The last one is not valid any more.
librpc_status librpc_inbox_ack(librpc_inbox *inbox);

// The inbox's descriptor, for poll() and epoll: readable while there may be something to receive, until a receive that does not wait
// (`timeout_ns` 0) has returned LIBRPC_STATUS_NONE. It belongs to the inbox: do not close it. -1 for a null pointer.
int librpc_inbox_fd(const librpc_inbox *inbox);

// Stops the inbox, for good: a receive that waits, and each later one, returns LIBRPC_STATUS_NONE. Any thread may call it, and a signal
// handler, while the inbox is not freed.
void librpc_inbox_stop(const librpc_inbox *inbox);

// Closes the inbox; its senders learn that it is gone. Null is fine. Samples stay valid.
void librpc_inbox_free(librpc_inbox *inbox);

// Opens the inbox for what is sent to the node itself, and calls a function for each message.
librpc_status librpc_inbox_callback(const librpc_node *node,
                                    const librpc_inbox_options *options,
                                    librpc_on_message on_message,
                                    void *context,
                                    librpc_callback **handle);

// Subscribes to topics, and calls a function for each message.
librpc_status librpc_subscribe_callback(const librpc_node *node,
                                        const char *const *patterns,
                                        size_t count,
                                        const librpc_inbox_options *options,
                                        librpc_on_message on_message,
                                        void *context,
                                        librpc_callback **handle);

// Stops a callback, waits until it has returned, and frees the handle, whatever it returns. Called by the callback itself, it does not
// wait: the context must last until the function has returned, and the inbox closes, and lets go of its node, only after that.
librpc_status librpc_callback_stop(librpc_callback *handle);

// Connects to a node, and waits up to `timeout_ns` for it to open its inbox, then up to 1 s for its answer. 0: it must be there, and its
// answer is not waited for. A node that is there but does not answer gets its messages when it goes on.
librpc_status librpc_connect(const librpc_node *node,
                             const char *to,
                             uint64_t timeout_ns,
                             const librpc_sender_options *options,
                             librpc_sender **sender);

// Sends a message. It waits while the inbox is full, up to the sender's time limit. LIBRPC_STATUS_OK: it is accepted, and survives this
// process from now on.
librpc_status librpc_sender_send(librpc_sender *sender, const void *data, size_t size);

// As librpc_sender_send(), with a time limit of its own: 0 does not wait (LIBRPC_STATUS_FULL if there is no room).
librpc_status librpc_sender_send_timeout(librpc_sender *sender, const void *data, size_t size, uint64_t timeout_ns);

// Waits up to `timeout_ns` until everything that was sent is processed.
librpc_status librpc_sender_flush(librpc_sender *sender, uint64_t timeout_ns);

// Whether the receiver is there.
bool librpc_sender_is_connected(const librpc_sender *sender);

// Disconnects. What was accepted stays in the inbox. Null is fine.
void librpc_sender_free(librpc_sender *sender);

// What became of its messages so far.
librpc_status librpc_sender_account(librpc_sender *sender, librpc_account *account);

// The longest message that the inbox takes, in bytes; 0: it has not said yet.
librpc_status librpc_sender_max_message(librpc_sender *sender, uint64_t *bytes);

// Limits how fast it sends. Null or zeros: no limit.
librpc_status librpc_sender_limit_rate(librpc_sender *sender, const librpc_rate *rate);

// Lets this sender survive its receivers: when a receiver is gone, what it has not processed, and what is sent meanwhile, is kept for up to
// `limit_ns` (LIBRPC_FOREVER: as long as this sender lives), up to the capacity of its ring, and delivered when the same node opens its
// inbox again. It happens in this sender's own calls. When the time is up, the next call reports LIBRPC_STATUS_RECEIVER_GONE with the number
// of messages, and librpc_sender_take_returned() returns them. 0, the default: what is not processed is reported at once.
librpc_status librpc_sender_set_redelivery(librpc_sender *sender,
                                           uint64_t limit_ns);

// Hands over the messages that came back since the last call, each once.
librpc_status librpc_sender_take_returned(librpc_sender *sender, librpc_on_returned on_returned, void *context);

// Lends memory for a message of this many bytes to this sender's node. The memory is not cleared: its content is that of an earlier
// message of this process, or zeros. LIBRPC_STATUS_NO_MEMORY: all of the node's memory for payloads is in use.
librpc_status librpc_sender_loan(librpc_sender *sender, size_t bytes, librpc_loan **loan);

// Where a loan's payload is to be written; null: it was sent. Aligned to 64 bytes.
void *librpc_loan_data(librpc_loan *loan);

// The length of a loan in bytes; 0: it was sent.
size_t librpc_loan_size(const librpc_loan *loan);

// Frees a loan; what was not sent is given back. Null is fine.
void librpc_loan_free(librpc_loan *loan);

// Sends a loan, without a copy, and frees it. If it fails, the loan is as before and may be sent again, or freed; where `*loan` has become
// null, the message is gone.
librpc_status librpc_sender_send_loan(librpc_sender *sender, librpc_loan **loan);

// Opens a publisher of a topic. Does not block.
librpc_status librpc_publisher_open(const librpc_node *node,
                                    const char *topic,
                                    const librpc_publisher_options *options,
                                    librpc_publisher **publisher);

// Publishes a message to every inbox whose subscription matches. It waits for inboxes that are full, as long as the publisher's time limit.
// That an inbox did not get it is no error: the receipt says so (null: it is not wanted).
librpc_status librpc_publisher_publish(librpc_publisher *publisher, const void *data, size_t size, librpc_receipt *receipt);

// As librpc_publisher_publish(), with a time limit of its own: 0 does not wait.
librpc_status librpc_publisher_publish_timeout(librpc_publisher *publisher,
                                               const void *data,
                                               size_t size,
                                               uint64_t timeout_ns,
                                               librpc_receipt *receipt);

// Why an inbox did not get the last message; null: there are not that many. It is valid until the next publish.
const librpc_error *librpc_publisher_undelivered(const librpc_publisher *publisher, size_t index);

// As librpc_sender_loan().
librpc_status librpc_publisher_loan(librpc_publisher *publisher, size_t bytes, librpc_loan **loan);

// Publishes a loan, without a copy, and frees it. If it fails, the loan is as before and may be published again, or freed; where `*loan`
// has become null, the message is gone.
librpc_status librpc_publisher_publish_loan(librpc_publisher *publisher, librpc_loan **loan, librpc_receipt *receipt);

// How many subscriptions match.
librpc_status librpc_publisher_subscribers(librpc_publisher *publisher, size_t *count);

// Waits up to `timeout_ns` for a subscription. LIBRPC_STATUS_NONE: none has come in time.
librpc_status librpc_publisher_wait_for_subscriber(librpc_publisher *publisher, uint64_t timeout_ns);

// As librpc_sender_flush(), for all inboxes.
librpc_status librpc_publisher_flush(librpc_publisher *publisher, uint64_t timeout_ns);

// As librpc_sender_account(), for all inboxes.
librpc_status librpc_publisher_account(librpc_publisher *publisher, librpc_account *account);

// As librpc_sender_limit_rate().
librpc_status librpc_publisher_limit_rate(librpc_publisher *publisher, const librpc_rate *rate);

// As librpc_sender_set_redelivery(), for durable subscriptions.
librpc_status librpc_publisher_set_redelivery(librpc_publisher *publisher, uint64_t limit_ns);

// As librpc_sender_take_returned().
librpc_status librpc_publisher_take_returned(librpc_publisher *publisher, librpc_on_returned on_returned, void *context);

// Waits up to `timeout_ns` for what happens to the subscriptions of this topic. LIBRPC_STATUS_NONE: nothing has happened.
librpc_status librpc_publisher_recv_event(librpc_publisher *publisher, uint64_t timeout_ns, librpc_publisher_event *event);

// Frees a publisher. What was accepted stays in the inboxes. Null is fine.
void librpc_publisher_free(librpc_publisher *publisher);

// An outbox of a node. Does not block.
librpc_status librpc_outbox_open(const librpc_node *node, librpc_outbox **outbox);

// Connects to a node, as librpc_connect() does. `destination` stands for it in this outbox, also when the node has gone and come back.
librpc_status librpc_outbox_connect(librpc_outbox *outbox, const char *to, uint64_t timeout_ns, uint32_t *destination);

// Sends a message, as librpc_sender_send() does, with the default time limit of 1 s.
librpc_status librpc_outbox_send(librpc_outbox *outbox, uint32_t destination, const void *data, size_t size);

// As librpc_outbox_send(), with a time limit of its own: 0 does not wait.
librpc_status librpc_outbox_send_timeout(librpc_outbox *outbox, uint32_t destination, const void *data, size_t size, uint64_t timeout_ns);

// A topic to publish. `topic` stands for it in this outbox. `of_type` is null for bytes without a type.
librpc_status librpc_outbox_topic(librpc_outbox *outbox, const char *name, const librpc_schema *of_type, uint32_t *topic);

// Publishes a message, as librpc_publisher_publish() does, with the default time limit of 1 s.
librpc_status librpc_outbox_publish(librpc_outbox *outbox, uint32_t topic, const void *data, size_t size, librpc_receipt *receipt);

// As librpc_outbox_publish(), with a time limit of its own: 0 does not wait.
librpc_status librpc_outbox_publish_timeout(librpc_outbox *outbox,
                                            uint32_t topic,
                                            const void *data,
                                            size_t size,
                                            uint64_t timeout_ns,
                                            librpc_receipt *receipt);

// As librpc_publisher_undelivered().
const librpc_error *librpc_outbox_undelivered(const librpc_outbox *outbox, size_t index);

// As librpc_sender_loan(), for a message to a destination.
librpc_status librpc_outbox_loan(librpc_outbox *outbox, uint32_t destination, size_t bytes, librpc_loan **loan);

// As librpc_outbox_loan(), for a message on a topic.
librpc_status librpc_outbox_topic_loan(librpc_outbox *outbox, uint32_t topic, size_t bytes, librpc_loan **loan);

// As librpc_sender_send_loan(), with a time limit.
librpc_status librpc_outbox_send_loan(librpc_outbox *outbox, uint32_t destination, librpc_loan **loan, uint64_t timeout_ns);

// As librpc_publisher_publish_loan(), with a time limit.
librpc_status librpc_outbox_publish_loan(librpc_outbox *outbox,
                                         uint32_t topic,
                                         librpc_loan **loan,
                                         uint64_t timeout_ns,
                                         librpc_receipt *receipt);

// How many subscriptions match a topic.
librpc_status librpc_outbox_subscribers(librpc_outbox *outbox, uint32_t topic, size_t *count);

// As librpc_sender_flush(), for everything that the outbox has sent.
librpc_status librpc_outbox_flush(librpc_outbox *outbox, uint64_t timeout_ns);

// As librpc_sender_account(), for everything that the outbox has sent.
librpc_status librpc_outbox_account(librpc_outbox *outbox, librpc_account *account);

// As librpc_sender_set_redelivery(), for all of its destinations and for durable subscriptions.
librpc_status librpc_outbox_set_redelivery(librpc_outbox *outbox, uint64_t limit_ns);

// As librpc_sender_take_returned().
librpc_status librpc_outbox_take_returned(librpc_outbox *outbox, librpc_on_returned on_returned, void *context);

// Frees an outbox. What was accepted stays in the inboxes. Null is fine.
void librpc_outbox_free(librpc_outbox *outbox);

// Opens a client of a service. No server needs to be there yet. Does not block.
librpc_status librpc_client_open(const librpc_node *node,
                                 const char *service,
                                 const librpc_client_options *options,
                                 librpc_client **client);

// Frees a client. Calls that are in flight go on. Null is fine.
void librpc_client_free(librpc_client *client);

// Waits up to `timeout_ns` until a server is there. LIBRPC_STATUS_NONE: none has come in time.
librpc_status librpc_client_wait_for_server(const librpc_client *client, uint64_t timeout_ns);

// A reply's payload: see librpc_sample_data().
const void *librpc_reply_data(const librpc_reply *reply);

// The length of its payload in bytes.
size_t librpc_reply_size(const librpc_reply *reply);

// The node that answered. As long as the reply.
const char *librpc_reply_server(const librpc_reply *reply);

// What else is known about a reply.
librpc_status librpc_reply_info(const librpc_reply *reply, librpc_info *info);

// Frees a reply. Null is fine.
void librpc_reply_free(librpc_reply *reply);

// Calls a service and waits for its reply, up to `timeout_ns`: then it fails with LIBRPC_STATUS_DEADLINE, and the server learns of it.
librpc_status librpc_client_call(const librpc_client *client,
                                 const void *data,
                                 size_t size,
                                 uint64_t timeout_ns,
                                 const librpc_call_options *options,
                                 librpc_reply **reply);

// Begins a call, and does not wait for its reply.
librpc_status librpc_client_start(const librpc_client *client,
                                  const void *data,
                                  size_t size,
                                  uint64_t timeout_ns,
                                  const librpc_call_options *options,
                                  librpc_pending **pending);

// Waits up to `timeout_ns` for the reply: 0 does not wait. LIBRPC_STATUS_NONE: it is not there yet. Once it, or an error of the call, has
// been returned, only librpc_pending_free() is left to do.
librpc_status librpc_pending_wait(librpc_pending *pending, uint64_t timeout_ns, librpc_reply **reply);

// Cancels a call: it ends with LIBRPC_STATUS_CANCELLED, and its server learns of it. Any thread may call it, while the handle is not freed.
void librpc_pending_cancel(const librpc_pending *pending);

// Frees a call; one that was not answered is cancelled. Null is fine.
void librpc_pending_free(librpc_pending *pending);

// Begins a call whose reply comes in parts.
librpc_status librpc_client_call_stream(const librpc_client *client,
                                        const void *data,
                                        size_t size,
                                        uint64_t timeout_ns,
                                        const librpc_call_options *options,
                                        librpc_replies **replies);

// Waits up to `timeout_ns` for the next part. LIBRPC_STATUS_NONE: it is not there yet, or the reply is over (librpc_replies_is_over()).
librpc_status librpc_replies_next(librpc_replies *replies, uint64_t timeout_ns, librpc_reply **reply);

// Whether the reply is over.
bool librpc_replies_is_over(const librpc_replies *replies);

// As librpc_pending_cancel().
void librpc_replies_cancel(const librpc_replies *replies);

// Frees a reply in parts; one that is not over is cancelled. Null is fine.
void librpc_replies_free(librpc_replies *replies);

// Calls every server of a service, and waits for all of them, up to `timeout_ns`.
librpc_status librpc_client_call_all(const librpc_client *client,
                                     const void *data,
                                     size_t size,
                                     uint64_t timeout_ns,
                                     const librpc_call_options *options,
                                     librpc_on_answer on_answer,
                                     void *context);

// The service of a client. As long as the client.
const char *librpc_client_service(const librpc_client *client);

// Opens a server of a service. Several nodes may serve the same one, and share its calls.
librpc_status librpc_serve(const librpc_node *node, const char *service, const librpc_server_options *options, librpc_server **server);

// Waits up to `timeout_ns` for the next request: 0 does not wait. LIBRPC_STATUS_NONE: the time is up, or the server was stopped.
librpc_status librpc_server_recv(const librpc_server *server, uint64_t timeout_ns, librpc_request **request);

// Stops a server, for good: each receive returns LIBRPC_STATUS_NONE. Any thread may call it, and a signal handler, while the server is not
// freed.
void librpc_server_stop(const librpc_server *server);

// Closes a server. Requests that were taken can still be answered. Null is fine.
void librpc_server_free(librpc_server *server);

// A request's payload: see librpc_sample_data().
const void *librpc_request_data(const librpc_request *request);

// The length of its payload in bytes.
size_t librpc_request_size(const librpc_request *request);

// The node that sent it. As long as the request.
const char *librpc_request_client(const librpc_request *request);

// What else is known about a request.
librpc_status librpc_request_info(const librpc_request *request, librpc_info *info);

// How long its client still waits, in ns; LIBRPC_FOREVER: without limit; 0: not any more.
uint64_t librpc_request_time_left(const librpc_request *request);

// Whether its client has cancelled it, or is gone.
bool librpc_request_is_cancelled(const librpc_request *request);

// Answers a request, and frees it, whatever it returns.
librpc_status librpc_request_reply(librpc_request *request, const void *data, size_t size);

// Answers a request with an error of the server's (LIBRPC_STATUS_FAILED at the client), and frees it, whatever it returns.
librpc_status librpc_request_fail(librpc_request *request, int32_t code, const char *message);

// Answers that this server does not know such a request (LIBRPC_STATUS_UNIMPLEMENTED at the client), and frees it.
librpc_status librpc_request_unimplemented(librpc_request *request, const char *message);

// Frees a request without an answer: its client's call fails. Null is fine.
void librpc_request_free(librpc_request *request);

// Answers a request in parts, and frees it, whatever it returns.
librpc_status librpc_request_stream(librpc_request *request, librpc_reply_stream **stream);

// Sends a part. It waits while the client has as many as it wants.
librpc_status librpc_reply_stream_send(librpc_reply_stream *stream, const void *data, size_t size);

// As librpc_reply_stream_send(), without waiting. LIBRPC_STATUS_NONE: the client has as many parts as it wants.
librpc_status librpc_reply_stream_try_send(librpc_reply_stream *stream, const void *data, size_t size);

// Whether its client has cancelled the call, or is gone.
bool librpc_reply_stream_is_cancelled(const librpc_reply_stream *stream);

// Ends a reply, and frees the stream, whatever it returns.
librpc_status librpc_reply_stream_finish(librpc_reply_stream *stream);

// Ends a reply with an error of the server's, and frees the stream, whatever it returns.
librpc_status librpc_reply_stream_fail(librpc_reply_stream *stream, int32_t code, const char *message);

// Frees a stream that was not finished: its client's call fails. Null is fine.
void librpc_reply_stream_free(librpc_reply_stream *stream);

// How many requests of a server are taken and not answered.
size_t librpc_server_in_flight(const librpc_server *server);

// An empty set.
librpc_status librpc_wait_set_open(librpc_wait_set **set);

// Adds an inbox under a token that the set does not have.
librpc_status librpc_wait_set_add_inbox(librpc_wait_set *set, uint64_t token, const librpc_inbox *inbox);

// Adds a server: reported when a request has come.
librpc_status librpc_wait_set_add_server(librpc_wait_set *set, uint64_t token, const librpc_server *server);

// Adds a call: reported when its reply, or its end, has come.
librpc_status librpc_wait_set_add_pending(librpc_wait_set *set, uint64_t token, const librpc_pending *pending);

// Adds replies: reported when a part, or the end, has come.
librpc_status librpc_wait_set_add_replies(librpc_wait_set *set, uint64_t token, const librpc_replies *replies);

// Adds a publisher: reported when it has an event.
librpc_status librpc_wait_set_add_publisher(librpc_wait_set *set, uint64_t token, const librpc_publisher *publisher);

// Adds any other descriptor: reported while it is readable. The set has a copy of it: closing it does not remove it.
librpc_status librpc_wait_set_add_fd(librpc_wait_set *set, uint64_t token, int fd);

// Removes what has this token. LIBRPC_STATUS_NONE: nothing has.
librpc_status librpc_wait_set_remove(librpc_wait_set *set, uint64_t token);

// Waits up to `timeout_ns` until something may have something, and returns the tokens of all that may. They are valid until the next call
// with this set. LIBRPC_STATUS_NONE: the time is up.
librpc_status librpc_wait_set_wait(librpc_wait_set *set, uint64_t timeout_ns, const uint64_t **tokens, size_t *count);

// Frees a set. What it waited for stays. Null is fine.
void librpc_wait_set_free(librpc_wait_set *set);

// A snapshot of a node's statistics. Does not block.
librpc_status librpc_node_stats(const librpc_node *node, librpc_stats **stats);

// How many channels a node has.
size_t librpc_stats_channels(const librpc_stats *stats);

// The counts of a channel.
librpc_status librpc_stats_channel(const librpc_stats *stats, size_t index, librpc_channel_stats *channel);

// The sums over all channels.
librpc_status librpc_stats_totals(const librpc_stats *stats, librpc_totals *totals);

// Frees a snapshot. Null is fine.
void librpc_stats_free(librpc_stats *stats);

// The nodes of a domain; null: the one that LIBRPC_DOMAIN names, otherwise the user's own.
librpc_status librpc_nodes_list(const char *domain_name, librpc_nodes **nodes);

// As librpc_nodes_list(), and asks each node for its statistics, up to `timeout_ns`. It needs no node of its own.
librpc_status librpc_nodes_observe(const char *domain_name, uint64_t timeout_ns, librpc_nodes **nodes);

// How many nodes there are.
size_t librpc_nodes_count(const librpc_nodes *nodes);

// One of them. Texts are as long as the list.
librpc_status librpc_nodes_get(const librpc_nodes *nodes, size_t index, librpc_node_info *info);

// Frees a list. Null is fine.
void librpc_nodes_free(librpc_nodes *nodes);

// Removes what dead nodes have left in a domain. Each node that opens does so, too. `count` (null: not wanted): how many there were.
librpc_status librpc_clean(const char *domain_name, size_t *count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LIBRPC_H */
