// Nodes, which open all else; the domain in which they meet; the log.
#ifndef LIBRPC_NODE_HPP
#define LIBRPC_NODE_HPP

#include <initializer_list>

#include "call.hpp"
#include "receive.hpp"
#include "send.hpp"

namespace librpc {
#ifdef LIBRPC_RESULTS
inline namespace results {
#else
inline namespace throwing {
#endif

// A rule of admission: see librpc_rule.
struct Rule {
    librpc_rule_kind kind = LIBRPC_RULE_KIND_SAME_USER;
    std::uint32_t id = 0;
    std::string path;
    bool and_previous = false;
};

// Who may read the topics, or call the services, that match a pattern.
struct Admission {
    std::string pattern;
    std::vector<Rule> rules;
};

// Options of a node: see librpc_node_options.
struct NodeOptions {
    std::string domain;
    std::optional<std::uint32_t> shared_gid;
    std::vector<Rule> admit;
    bool admit_nobody = false;
    std::vector<Admission> readers, callers;
    std::uint64_t payload_bytes = 0, mapped_bytes_per_user = 0;
    std::uint32_t channels_per_user = 0, handshakes_per_user = 0;
    Nanoseconds handshake_timeout{0};
};

namespace detail {

// Rules on their way to C.
class RawRules {
public:
    explicit RawRules(const std::vector<Rule>& from) {
        for (const Rule& rule : from) raw_.push_back({static_cast<std::uint32_t>(rule.kind), rule.id, rule.path.c_str(), rule.and_previous});
    }
    const librpc_rule* data() const noexcept { return raw_.data(); }
    std::size_t size() const noexcept { return raw_.size(); }

private:
    std::vector<librpc_rule> raw_;
};

class RawAdmissions {
public:
    explicit RawAdmissions(const std::vector<Admission>& from) {
        rules_.reserve(from.size());
        for (const Admission& one : from) {
            rules_.emplace_back(one.rules);
            raw_.push_back({one.pattern.c_str(), rules_.back().data(), rules_.back().size()});
        }
    }
    const librpc_admission* data() const noexcept { return raw_.data(); }
    std::size_t size() const noexcept { return raw_.size(); }

private:
    std::vector<RawRules> rules_;
    std::vector<librpc_admission> raw_;
};

}  // namespace detail

// The counts of a channel. See librpc_channel_stats, whose texts `peer` and `inbox` replace.
struct ChannelStats {
    librpc_channel_stats counts;
    std::string peer, inbox;
};

// What a node reports about itself.
struct Stats {
    librpc_totals totals{};
    std::vector<ChannelStats> channels;
};

namespace detail {

inline Stats stats(const librpc_stats* from) {
    Stats stats;
    librpc_stats_totals(from, &stats.totals);
    for (std::size_t index = 0; index < librpc_stats_channels(from); ++index) {
        librpc_channel_stats counts{};
        if (librpc_stats_channel(from, index, &counts) != LIBRPC_STATUS_OK) continue;
        ChannelStats channel{counts, text(counts.peer), text(counts.inbox)};
        channel.counts.peer = channel.counts.inbox = nullptr;
        stats.channels.push_back(std::move(channel));
    }
    return stats;
}

}  // namespace detail

// A participant with an id. Any number of threads may use it at once.
class Node {
public:
    explicit Node(librpc_node* handle) noexcept : handle_(handle) {}

    static Return<Node> open(const std::string& id, const NodeOptions& options = {}) {
        detail::RawRules admit(options.admit);
        detail::RawAdmissions readers(options.readers), callers(options.callers);
        librpc_node_options raw{};
        raw.size = sizeof raw;
        raw.domain = options.domain.empty() ? nullptr : options.domain.c_str();
        raw.shared = options.shared_gid.has_value();
        raw.shared_gid = options.shared_gid.value_or(0);
        raw.admit_nobody = options.admit_nobody;
        raw.admit = admit.data();
        raw.admit_count = admit.size();
        raw.readers = readers.data();
        raw.readers_count = readers.size();
        raw.callers = callers.data();
        raw.callers_count = callers.size();
        raw.payload_bytes = options.payload_bytes;
        raw.mapped_bytes_per_user = options.mapped_bytes_per_user;
        raw.channels_per_user = options.channels_per_user;
        raw.handshakes_per_user = options.handshakes_per_user;
        raw.handshake_timeout_ns = detail::limit(options.handshake_timeout);
        librpc_node* node = nullptr;
        Status status = librpc_node_open(id.c_str(), &raw, &node);
        return detail::finish<Node>(status, [&] { return Node(node); });
    }
    std::string_view id() const noexcept { return detail::view(librpc_node_id(get())); }
    std::string_view incarnation() const noexcept { return detail::view(librpc_node_incarnation(get())); }

    // Receives what is sent to the node itself.
    Return<Inbox> inbox(const InboxOptions& options = {}) const {
        librpc_inbox* inbox = nullptr;
        Status status = detail::with(options, [&](const auto* raw) { return librpc_inbox_open(get(), raw, &inbox); });
        return detail::finish<Inbox>(status, [&] { return Inbox(inbox); });
    }
    // Subscribes to topics: `*` is one level, `**` any number.
    Return<Inbox> subscribe(const std::vector<std::string>& patterns, const InboxOptions& options = {}) const {
        auto raw_patterns = detail::pointers(patterns);
        librpc_inbox* inbox = nullptr;
        Status status = detail::with(options, [&](const auto* raw) {
            return librpc_subscribe_all(get(), raw_patterns.data(), raw_patterns.size(), raw, &inbox);
        });
        return detail::finish<Inbox>(status, [&] { return Inbox(inbox); });
    }
    Return<Inbox> subscribe(const std::string& pattern, const InboxOptions& options = {}) const {
        return subscribe(std::vector<std::string>{pattern}, options);
    }
    Return<Inbox> subscribe(std::initializer_list<const char*> patterns, const InboxOptions& options = {}) const {
        return subscribe(std::vector<std::string>(patterns.begin(), patterns.end()), options);
    }
    Return<Inbox> subscribe(const char* pattern, const InboxOptions& options = {}) const {
        return subscribe(std::string(pattern), options);
    }
    // Calls a function for each message that is sent to the node itself, in a thread of the library's.
    Return<Callback> on_message(Callback::Function function, const InboxOptions& options = {}) const {
        return on({}, false, std::move(function), options);
    }
    // Calls a function for each message of these topics.
    Return<Callback> on_topics(const std::vector<std::string>& patterns, Callback::Function function,
                               const InboxOptions& options = {}) const {
        return on(patterns, true, std::move(function), options);
    }

    // Connects to a node, and waits for it to appear.
    Return<Sender> connect(const std::string& to, Nanoseconds timeout = std::chrono::seconds(10),
                           const SenderOptions& options = {}) const {
        detail::RawSchema schema(options.schema);
        librpc_sender_options raw{};
        raw.size = sizeof raw;
        raw.schema = schema.get();
        raw.timeout_ns = detail::limit(options.timeout);
        raw.stamp_all = options.stamp_all;
        librpc_sender* sender = nullptr;
        Status status = librpc_connect(get(), to.c_str(), detail::limit(timeout), &raw, &sender);
        return detail::finish<Sender>(status, [&] { return Sender(sender); });
    }
    Return<Publisher> publisher(const std::string& topic, const PublisherOptions& options = {}) const {
        detail::RawSchema schema(options.schema);
        librpc_publisher_options raw{};
        raw.size = sizeof raw;
        raw.schema = schema.get();
        raw.history = options.history;
        raw.history_bytes = options.history_bytes;
        raw.timeout_ns = detail::limit(options.timeout);
        raw.never_waits = options.never_waits;
        raw.stamp_all = options.stamp_all;
        librpc_publisher* publisher = nullptr;
        Status status = librpc_publisher_open(get(), topic.c_str(), &raw, &publisher);
        return detail::finish<Publisher>(status, [&] { return Publisher(publisher); });
    }
    Return<Outbox> outbox() const {
        librpc_outbox* outbox = nullptr;
        Status status = librpc_outbox_open(get(), &outbox);
        return detail::finish<Outbox>(status, [&] { return Outbox(outbox); });
    }
    Return<Client> client(const std::string& service, const ClientOptions& options = {}) const {
        detail::RawSchema request(options.request), reply(options.reply);
        librpc_client_options raw{};
        raw.size = sizeof raw;
        raw.request = request.get();
        raw.reply = reply.get();
        raw.max_in_flight = options.max_in_flight;
        raw.max_reply = options.max_reply;
        raw.capacity = options.capacity;
        raw.wait = options.wait;
        librpc_client* client = nullptr;
        Status status = librpc_client_open(get(), service.c_str(), &raw, &client);
        return detail::finish<Client>(status, [&] { return Client(client); });
    }
    Return<Server> serve(const std::string& service, const ServerOptions& options = {}) const {
        detail::RawSchema request(options.request), reply(options.reply);
        librpc_server_options raw{};
        raw.size = sizeof raw;
        raw.request = request.get();
        raw.reply = reply.get();
        raw.max_in_flight = options.max_in_flight;
        raw.max_per_client = options.max_per_client;
        raw.max_request = options.max_request;
        raw.capacity = options.capacity;
        raw.wait = options.wait;
        librpc_server* server = nullptr;
        Status status = librpc_serve(get(), service.c_str(), &raw, &server);
        return detail::finish<Server>(status, [&] { return Server(server); });
    }
    Return<Stats> stats() const {
        librpc_stats* stats = nullptr;
        Status status = librpc_node_stats(get(), &stats);
        detail::Handle<librpc_stats, librpc_stats_free> freed(stats);
        return detail::finish<Stats>(status, [&] { return detail::stats(stats); });
    }
    // Waits until what it sent is processed, and leaves. An error says how many messages are not.
    Return<void> close(Nanoseconds timeout) {
        return detail::finish(librpc_node_close(handle_.release(), detail::limit(timeout)));
    }
    librpc_node* get() const noexcept { return handle_.get(); }

private:
    Return<Callback> on(const std::vector<std::string>& patterns, bool topics, Callback::Function function,
                        const InboxOptions& options) const {
        Callback callback(std::move(function));
        auto raw_patterns = detail::pointers(patterns);
        Status status = detail::with(options, [&](const auto* raw) {
            void* context = callback.state_.get();
            return topics ? librpc_subscribe_callback(get(), raw_patterns.data(), raw_patterns.size(), raw,
                                                      &Callback::call, context, &callback.handle_)
                          : librpc_inbox_callback(get(), raw, &Callback::call, context, &callback.handle_);
        });
        return detail::finish<Callback>(status, [&] { return std::move(callback); });
    }
    detail::Handle<librpc_node, librpc_node_free> handle_;
};

// Waits for several things at once, each under a token of yours: see librpc_wait_set.
class WaitSet {
public:
    explicit WaitSet(librpc_wait_set* handle) noexcept : handle_(handle) {}

    static Return<WaitSet> open() {
        librpc_wait_set* set = nullptr;
        Status status = librpc_wait_set_open(&set);
        return detail::finish<WaitSet>(status, [&] { return WaitSet(set); });
    }
    Return<void> add(std::uint64_t token, const Inbox& inbox) {
        return detail::finish(librpc_wait_set_add_inbox(get(), token, inbox.get()));
    }
    Return<void> add(std::uint64_t token, const Server& server) {
        return detail::finish(librpc_wait_set_add_server(get(), token, server.get()));
    }
    Return<void> add(std::uint64_t token, const Pending& pending) {
        return detail::finish(librpc_wait_set_add_pending(get(), token, pending.get()));
    }
    Return<void> add(std::uint64_t token, const Replies& replies) {
        return detail::finish(librpc_wait_set_add_replies(get(), token, replies.get()));
    }
    Return<void> add(std::uint64_t token, const Publisher& publisher) {
        return detail::finish(librpc_wait_set_add_publisher(get(), token, publisher.get()));
    }
    Return<void> add_fd(std::uint64_t token, int fd) { return detail::finish(librpc_wait_set_add_fd(get(), token, fd)); }
    // False: nothing has this token.
    Return<bool> remove(std::uint64_t token) {
        Status status = librpc_wait_set_remove(get(), token);
        return detail::finish<bool>(status, [&] { return status == LIBRPC_STATUS_OK; });
    }
    // The tokens of all that may have something. None: the time is up.
    Return<std::vector<std::uint64_t>> wait(Nanoseconds timeout = forever) {
        const std::uint64_t* tokens = nullptr;
        std::size_t count = 0;
        Status status = librpc_wait_set_wait(get(), detail::limit(timeout), &tokens, &count);
        using Tokens = std::vector<std::uint64_t>;
        return detail::finish<Tokens>(status, [&] { return Tokens(tokens, tokens + count); });
    }
    librpc_wait_set* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<librpc_wait_set, librpc_wait_set_free> handle_;
};

// A node of a domain.
struct NodeInfo {
    std::string id, incarnation;
    std::uint64_t opened_ns;  // since 1970
    std::uint32_t pid, uid;
    bool alive;
    std::optional<Stats> stats;  // if it was asked, and has answered
    std::string error;           // why it has not
};

namespace detail {

inline Return<std::vector<NodeInfo>> nodes(Status status, librpc_nodes* handle) {
    Handle<librpc_nodes, librpc_nodes_free> freed(handle);
    return finish<std::vector<NodeInfo>>(status, [&] {
        std::vector<NodeInfo> all;
        for (std::size_t index = 0; index < librpc_nodes_count(handle); ++index) {
            librpc_node_info info{};
            if (librpc_nodes_get(handle, index, &info) != LIBRPC_STATUS_OK) continue;
            NodeInfo node{text(info.id), text(info.incarnation), info.opened_ns, info.pid, info.uid, info.alive,
                          std::nullopt, text(info.error)};
            if (info.stats != nullptr) node.stats = stats(info.stats);
            all.push_back(std::move(node));
        }
        return all;
    });
}

inline const char* name(const std::string& domain) { return domain.empty() ? nullptr : domain.c_str(); }

}  // namespace detail

// The nodes of a domain; empty: the user's own domain.
inline Return<std::vector<NodeInfo>> nodes(const std::string& domain = {}) {
    librpc_nodes* list = nullptr;
    Status status = librpc_nodes_list(detail::name(domain), &list);
    return detail::nodes(status, list);
}

// The same with their statistics. It needs no node of its own.
inline Return<std::vector<NodeInfo>> observe(Nanoseconds timeout, const std::string& domain = {}) {
    librpc_nodes* list = nullptr;
    Status status = librpc_nodes_observe(detail::name(domain), detail::limit(timeout), &list);
    return detail::nodes(status, list);
}

// Removes what dead nodes have left, and returns how many there were.
inline Return<std::size_t> clean(const std::string& domain = {}) {
    std::size_t count = 0;
    Status status = librpc_clean(detail::name(domain), &count);
    return detail::finish<std::size_t>(status, [&] { return count; });
}

// Writes the library's log to stderr, such as "info". Once in a process.
inline Return<void> log_to_stderr(const std::string& filter) { return detail::finish(librpc_log_to_stderr(filter.c_str())); }

inline std::string_view version() noexcept { return detail::view(librpc_version()); }

}  // inline namespace
}  // namespace librpc

#endif
