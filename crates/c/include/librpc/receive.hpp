// Receiving: inboxes, messages, samples, events, callbacks.
#ifndef LIBRPC_RECEIVE_HPP
#define LIBRPC_RECEIVE_HPP

#include <functional>
#include <iterator>

#include "core.hpp"

namespace librpc {
#ifdef LIBRPC_RESULTS
inline namespace results {
#else
inline namespace throwing {
#endif

// What is known about a message. Texts are as long as the message.
struct Info {
    explicit Info(const librpc_info& from)
        : sender(detail::view(from.sender)), sequence(from.sequence), missed(from.missed), pid(from.pid), uid(from.uid),
          gid(from.gid), redelivered(from.redelivered), past(from.past), lent(from.lent) {
        if (from.topic != nullptr) topic = from.topic;
        if (from.sent_at_ns != 0) sent_at = detail::duration(from.sent_at_ns);
    }
    std::string_view sender;
    std::optional<std::string_view> topic;
    std::uint64_t sequence, missed;
    // On CLOCK_MONOTONIC.
    std::optional<Nanoseconds> sent_at;
    std::uint32_t pid, uid, gid;
    bool redelivered, past, lent;
};

// A message. It is valid until the next receive at its inbox.
class Message {
public:
    explicit Message(const librpc_message& from) noexcept : message_(from) {}
    Bytes payload() const noexcept { return {message_.data, message_.size}; }
    std::string_view text() const noexcept { return payload().text(); }
    std::size_t size() const noexcept { return message_.size; }
    template <class T>
    Return<T> as() const { return payload().as<T>(); }
    std::string_view sender() const { return detail::view(librpc_message_sender(&message_)); }
    // Empty: it was sent to the node itself.
    std::string_view topic() const { return detail::view(librpc_message_topic(&message_)); }
    Return<Info> info() const {
        librpc_info info{};
        info.size = sizeof info;
        Status status = librpc_message_info(&message_, &info);
        return detail::finish<Info>(status, [&] { return Info(info); });
    }

private:
    librpc_message message_;
};

// A message that is owned. A large payload stays where its sender has put it until the sample is destroyed, in any thread.
class Sample {
public:
    explicit Sample(librpc_sample* handle) noexcept : handle_(handle) {}
    Bytes payload() const noexcept { return {librpc_sample_data(handle_.get()), size()}; }
    std::string_view text() const noexcept { return payload().text(); }
    std::size_t size() const noexcept { return librpc_sample_size(handle_.get()); }
    template <class T>
    Return<T> as() const { return payload().as<T>(); }
    std::string_view sender() const { return detail::view(librpc_sample_sender(handle_.get())); }
    std::string_view topic() const { return detail::view(librpc_sample_topic(handle_.get())); }
    Return<Info> info() const {
        librpc_info info{};
        info.size = sizeof info;
        Status status = librpc_sample_info(handle_.get(), &info);
        return detail::finish<Info>(status, [&] { return Info(info); });
    }

private:
    detail::Handle<librpc_sample, librpc_sample_free> handle_;
};

// Options of an inbox: see librpc_inbox_options.
struct InboxOptions {
    std::uint64_t capacity = 0, max_message = 0, keep_last = 0, history = 0;
    librpc_policy policy = LIBRPC_POLICY_DEFAULT;
    librpc_wait wait = LIBRPC_WAIT_ADAPTIVE;
    std::string durable;
    std::optional<Schema> schema;
    bool no_history = false, explicit_ack = false, receive_own = false, trust_publishers = false;
};

namespace detail {

template <class Use>
inline auto with(const InboxOptions& from, Use use) {
    RawSchema schema(from.schema);
    librpc_inbox_options raw{};
    raw.size = sizeof raw;
    raw.capacity = from.capacity;
    raw.max_message = from.max_message;
    raw.keep_last = from.keep_last;
    raw.history = from.history;
    raw.policy = from.policy;
    raw.wait = from.wait;
    raw.durable = from.durable.empty() ? nullptr : from.durable.c_str();
    raw.schema = schema.get();
    raw.no_history = from.no_history;
    raw.explicit_ack = from.explicit_ack;
    raw.receive_own = from.receive_own;
    raw.trust_publishers = from.trust_publishers;
    return use(&raw);
}

inline std::vector<const char*> pointers(const std::vector<std::string>& texts) {
    std::vector<const char*> pointers;
    for (const std::string& text : texts) pointers.push_back(text.c_str());
    return pointers;
}

}  // namespace detail

// What happens at an inbox: see librpc_event. It is valid until the next receive.
class Event {
public:
    explicit Event(const librpc_event& from) noexcept : event_(from) {}
    librpc_event_kind kind() const noexcept { return event_.kind; }
    librpc_departure departure() const noexcept { return event_.departure; }
    // Only if it is a message.
    Message message() const noexcept { return Message(event_.message); }
    std::string_view node() const noexcept { return detail::view(event_.node); }
    std::string_view topic() const noexcept { return detail::view(event_.topic); }
    std::string_view text() const noexcept { return detail::view(event_.text); }
    // The numbers.
    const librpc_event& raw() const noexcept { return event_; }

private:
    librpc_event event_;
};

// Receives messages. `for (const Message& message : inbox)` receives until it is stopped.
class Inbox {
public:
    explicit Inbox(librpc_inbox* handle) noexcept : handle_(handle) {}

    // Waits for the next message. Empty: the time is up, or the inbox was stopped.
    Return<std::optional<Message>> recv(Nanoseconds timeout = forever) {
        librpc_message message;
        return some<Message>(librpc_inbox_recv(get(), detail::limit(timeout), &message), message);
    }
    Return<std::optional<Message>> try_recv() { return recv(Nanoseconds::zero()); }
    Return<std::optional<Message>> recv_latest(Nanoseconds timeout = forever) {
        librpc_message message;
        return some<Message>(librpc_inbox_recv_latest(get(), detail::limit(timeout), &message), message);
    }
    Return<std::optional<Sample>> recv_sample(Nanoseconds timeout = forever) {
        librpc_sample* sample = nullptr;
        return some<Sample>(librpc_inbox_recv_sample(get(), detail::limit(timeout), &sample), sample);
    }
    Return<std::optional<Event>> recv_event(Nanoseconds timeout = forever) {
        librpc_event event;
        return some<Event>(librpc_inbox_recv_event(get(), detail::limit(timeout), &event), event);
    }
    Return<void> ack() { return detail::finish(librpc_inbox_ack(get())); }
    // For poll() and epoll: see librpc_inbox_fd().
    int fd() const { return librpc_inbox_fd(get()); }
    // Any thread may call it, and a signal handler.
    void stop() const noexcept { librpc_inbox_stop(get()); }
    librpc_inbox* get() const noexcept { return handle_.get(); }

#ifndef LIBRPC_RESULTS
    static std::optional<Message> step(Inbox& source) { return source.recv(); }
    using iterator = detail::Iterator<Inbox, Message, &Inbox::step>;
    iterator begin() { return iterator(*this); }
    iterator end() noexcept { return {}; }
#endif

private:
    template <class T, class From>
    static Return<std::optional<T>> some(Status status, const From& from) {
        return detail::finish<std::optional<T>>(
            status, [&] { return status == LIBRPC_STATUS_OK ? std::optional<T>(T(from)) : std::optional<T>(); });
    }

    detail::Handle<librpc_inbox, librpc_inbox_free> handle_;
};

// A function that is called for each message, in a thread of the library's. Destroying it stops it, and waits until the function has
// returned; the function itself may stop or destroy it, too, which does not wait. What it throws ends it: its message stays unprocessed, the
// inbox closes, and stop() throws it again. So look at stop(), or catch in the function.
class Callback {
public:
    using Function = std::function<void(const Message&)>;

    Callback(Callback&& other) noexcept : state_(std::move(other.state_)), handle_(std::exchange(other.handle_, nullptr)) {}
    Callback& operator=(Callback&& other) noexcept {
        std::swap(state_, other.state_);
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Callback() {
        if (handle_ != nullptr) librpc_callback_stop(handle_);
    }
    // Stops it, and waits until it has returned.
    Return<void> stop() {
        if (handle_ == nullptr) return Return<void>();
        Status status = librpc_callback_stop(std::exchange(handle_, nullptr));
#if defined(__cpp_exceptions) && !defined(LIBRPC_RESULTS)
        if (state_->thrown) std::rethrow_exception(std::exchange(state_->thrown, nullptr));
#endif
        return detail::finish(status);
    }

private:
    friend class Node;
    struct State : std::enable_shared_from_this<State> {
        Function function;
        std::exception_ptr thrown;
    };
    explicit Callback(Function function) : state_(std::make_shared<State>()) { state_->function = std::move(function); }
    static int call(void* context, const librpc_message* message) noexcept {
        // The function may destroy its own Callback, and then nobody waits for it: it keeps what it runs on.
        std::shared_ptr<State> state = static_cast<State*>(context)->shared_from_this();
#ifdef __cpp_exceptions
        try {
            state->function(Message(*message));
            return 0;
        } catch (...) {
            state->thrown = std::current_exception();
            return 1;
        }
#else
        state->function(Message(*message));
        return 0;
#endif
    }
    std::shared_ptr<State> state_;
    librpc_callback* handle_ = nullptr;
};

}  // inline namespace
}  // namespace librpc

#endif
