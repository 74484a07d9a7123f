/*
 * The names of librpc's third generation, over librpc.hpp, for programs that move one step at a time: docs/guide/moving-from-v3.md.
 *
 *     librpc::v3::Node node("planner");
 *     node.setReceiveCallback([](const std::string& from, const std::string& topic, const void* data, std::size_t size) { ... });
 *     node.send("arm", data, size);
 *     node.broadcast("robots", "pose", data, size);
 *
 * What differs: an id has one live holder; a full inbox makes its sender wait (up to 1 s) instead of losing messages; a message may have any
 * size; nothing is left behind. `send` and `broadcast` return false where V3 lost the message, and lastError() says why.
 */
#ifndef LIBRPC_V3_HPP
#define LIBRPC_V3_HPP

#include <map>
#include <mutex>
#include <string>

#include "librpc.hpp"

#ifndef LIBRPC_RESULTS

namespace librpc::v3 {

// What getStats() returns.
struct Stats {
    std::uint64_t sent = 0, received = 0, dropped = 0;
};

class Node {
public:
    // `topic` is empty for what was sent to this node itself. A broadcast to group "robots" and topic "pose" comes as "robots/pose".
    using ReceiveCallback = std::function<void(const std::string& from, const std::string& topic, const void* data, std::size_t size)>;

    explicit Node(const std::string& id, const NodeOptions& options = {})
        : node_(librpc::Node::open(id, options)), domain_(options.domain), outbox_(node_.outbox()) {}

    // Receives what is sent to this node, and what is broadcast in these groups. Any thread of the library's may call the function, one at a
    // time. It must not throw: the node would not receive any more. Do not set another one from within it.
    void setReceiveCallback(ReceiveCallback callback, const std::vector<std::string>& groups = {}) {
        auto shared = std::make_shared<Shared>();
        shared->callback = std::move(callback);
        auto call = [shared](const Message& message) {
            std::lock_guard<std::mutex> one_at_a_time(shared->mutex);
            shared->callback(std::string(message.sender()), std::string(message.topic()), message.payload().data(), message.size());
        };
        callbacks_.clear();
        callbacks_.push_back(node_.on_message(call));
        std::vector<std::string> patterns;
        for (const std::string& group : groups) patterns.push_back(group + "/**");
        if (!patterns.empty()) callbacks_.push_back(node_.on_topics(patterns, call));
    }

    bool send(const std::string& to, const void* data, std::size_t size) {
        std::lock_guard<std::mutex> lock(mutex_);
        return tried([&] {
            auto known = destinations_.find(to);
            if (known == destinations_.end()) known = destinations_.emplace(to, outbox_.connect(to, Nanoseconds::zero())).first;
            outbox_.send(known->second, Bytes(data, size));
        });
    }
    bool send(const std::string& to, const std::string& payload) { return send(to, payload.data(), payload.size()); }

    // To every node that receives this group's broadcasts. False: it could not be published at all. Nodes that did not get it are counted
    // as dropped.
    bool broadcast(const std::string& group, const std::string& topic, const void* data, std::size_t size) {
        std::lock_guard<std::mutex> lock(mutex_);
        return tried([&] {
            std::string name = group + "/" + topic;
            auto known = topics_.find(name);
            if (known == topics_.end()) known = topics_.emplace(name, outbox_.topic(name)).first;
            outbox_.publish(known->second, Bytes(data, size));
        });
    }
    bool broadcast(const std::string& group, const std::string& topic, const std::string& payload) {
        return broadcast(group, topic, payload.data(), payload.size());
    }

    Stats getStats() const {
        librpc_totals totals = node_.stats().totals;
        return {totals.sent, totals.received, totals.dropped + totals.missed + totals.returned};
    }
    bool nodeExists(const std::string& id) const { return !findNode(id).empty(); }
    // The incarnation of a live node; empty: there is none.
    std::string findNode(const std::string& id) const {
        for (const NodeInfo& node : nodes(domain_)) {
            if (node.id == id && node.alive) return node.incarnation;
        }
        return {};
    }
    // It happens by itself; this does it now.
    std::size_t cleanupOrphanedRegistry() const { return clean(domain_); }

    // Waits until everything that was sent is processed. False: not within the limit.
    bool flush(Nanoseconds timeout) {
        std::lock_guard<std::mutex> lock(mutex_);
        return tried([&] { outbox_.flush(timeout); });
    }
    // Why the last send, broadcast or flush returned false.
    std::string lastError() const {
        std::lock_guard<std::mutex> lock(mutex_);
        return last_error_;
    }
    // The node in the names of today.
    librpc::Node& node() noexcept { return node_; }

private:
    struct Shared {
        std::mutex mutex;
        ReceiveCallback callback;
    };

    template <class Try>
    bool tried(Try what) {
        try {
            what();
            return true;
        } catch (const Error& error) {
            last_error_ = error.what();
            return false;
        }
    }

    librpc::Node node_;
    std::string domain_;
    mutable std::mutex mutex_;
    Outbox outbox_;
    std::map<std::string, Destination> destinations_;
    std::map<std::string, Topic> topics_;
    std::string last_error_;
    std::vector<Callback> callbacks_;
};

}  // namespace librpc::v3

#endif
#endif
