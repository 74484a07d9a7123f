// Messages of a type: values that are copied as they lie in memory.
#ifndef LIBRPC_TYPED_HPP
#define LIBRPC_TYPED_HPP

#include "node.hpp"

namespace librpc {
#ifdef LIBRPC_RESULTS
inline namespace results {
#else
inline namespace throwing {
#endif

// The type of the values of a topic or an inbox. Specialize it, so that both sides compare it before anything is sent:
//
//     template <> struct librpc::TypeOf<Pose> { static librpc::Schema schema() { return librpc::plain("Pose"); } };
//
// The name is that of `Plain<Pose>` in Rust. With a hash (see docs/guide/types.md), layouts are compared, too.
template <class T>
struct TypeOf;

// A type whose values are the bytes of the value as it lies in memory.
inline Schema plain(std::string name, std::optional<std::uint64_t> hash = std::nullopt) {
    return {std::move(name), LIBRPC_ENCODING_PLAIN, hash, {}};
}

// Publishes values of a type.
template <class T>
class TypedPublisher : public Publisher {
public:
    static_assert(std::is_trivially_copyable_v<T>, "values are copied byte by byte");
    explicit TypedPublisher(Publisher publisher) noexcept : Publisher(std::move(publisher)) {}
    using Publisher::publish;
    Return<Receipt> publish(const T& value) { return publish_value(value); }
};

// Sends values of a type to one node.
template <class T>
class TypedSender : public Sender {
public:
    static_assert(std::is_trivially_copyable_v<T>, "values are copied byte by byte");
    explicit TypedSender(Sender sender) noexcept : Sender(std::move(sender)) {}
    using Sender::send;
    Return<void> send(const T& value) { return send_value(value); }
};

// Receives values of a type. A message of another length is an error of its sender's: LIBRPC_STATUS_MISMATCH.
template <class T>
class TypedInbox : public Inbox {
public:
    static_assert(std::is_trivially_copyable_v<T>, "values are copied byte by byte");
    explicit TypedInbox(Inbox inbox) noexcept : Inbox(std::move(inbox)) {}
    // Empty: the time is up, or the inbox was stopped.
    Return<std::optional<T>> recv_value(Nanoseconds timeout = forever) {
        auto received = recv(timeout);
#ifdef LIBRPC_RESULTS
        if (!received) return received.error();
        if (!*received) return std::optional<T>();
        auto value = (*received)->template as<T>();
        if (!value) return value.error();
        return std::optional<T>(*value);
#else
        if (!received) return std::nullopt;
        return received->template as<T>();
#endif
    }
};

namespace detail {

template <class To, class From>
inline Return<To> wrapped(From&& from) {
#ifdef LIBRPC_RESULTS
    if (!from) return from.error();
    return To(std::move(*from));
#else
    return To(std::forward<From>(from));
#endif
}

}  // namespace detail

template <class T>
inline Return<TypedPublisher<T>> publisher_of(const Node& node, const std::string& topic, PublisherOptions options = {}) {
    options.schema = TypeOf<T>::schema();
    return detail::wrapped<TypedPublisher<T>>(node.publisher(topic, options));
}

template <class T>
inline Return<TypedInbox<T>> subscriber_of(const Node& node, const std::string& pattern, InboxOptions options = {}) {
    options.schema = TypeOf<T>::schema();
    return detail::wrapped<TypedInbox<T>>(node.subscribe(pattern, options));
}

template <class T>
inline Return<TypedInbox<T>> inbox_of(const Node& node, InboxOptions options = {}) {
    options.schema = TypeOf<T>::schema();
    return detail::wrapped<TypedInbox<T>>(node.inbox(options));
}

template <class T>
inline Return<TypedSender<T>> connect_of(const Node& node, const std::string& to,
                                         Nanoseconds timeout = std::chrono::seconds(10), SenderOptions options = {}) {
    options.schema = TypeOf<T>::schema();
    return detail::wrapped<TypedSender<T>>(node.connect(to, timeout, options));
}

}  // inline namespace
}  // namespace librpc

#endif
