// Sending: senders, publishers, outboxes, loans.
#ifndef LIBRPC_SEND_HPP
#define LIBRPC_SEND_HPP

#include "core.hpp"

namespace librpc {
#ifdef LIBRPC_RESULTS
inline namespace results {
#else
inline namespace throwing {
#endif

// What became of the messages of a sender or a publisher: see librpc_account.
using Account = librpc_account;

// A limit of messages and bytes per second: see librpc_rate.
using Rate = librpc_rate;

// A message that came back.
struct Returned {
    std::vector<std::byte> payload;
    std::string node, topic;
    std::uint64_t sequence;
    bool was_in_work;
};

namespace detail {

inline void keep_returned(void* context, const librpc_returned* one) noexcept {
    Bytes payload(one->data, one->size);
    static_cast<std::vector<Returned>*>(context)->push_back(
        {payload.copy(), text(one->node), text(one->topic), one->sequence, one->was_in_work});
}

}  // namespace detail

// Memory for one message: fill it in place, then send or publish it. Destroyed unsent, it is given back.
class Loan {
public:
    explicit Loan(librpc_loan* handle) noexcept : handle_(handle) {}
    std::byte* data() noexcept { return static_cast<std::byte*>(librpc_loan_data(handle_.get())); }
    std::size_t size() const noexcept { return librpc_loan_size(handle_.get()); }
    std::byte* begin() noexcept { return data(); }
    std::byte* end() noexcept { return data() + size(); }
    std::byte& operator[](std::size_t index) noexcept { return data()[index]; }
    // Its memory as values of this type.
    template <class T>
    T* as() noexcept {
        static_assert(std::is_trivially_copyable_v<T>);
        return reinterpret_cast<T*>(data());
    }
#ifdef LIBRPC_HAS_SPAN
    operator std::span<std::byte>() noexcept { return {data(), size()}; }
#endif

    // Runs a function of C that takes the loan, and takes note of whether it is left.
    template <class Use>
    Status take(Use use) {
        librpc_loan* loan = handle_.release();
        Status status = use(&loan);
        handle_.reset(loan);
        return status;
    }

private:
    detail::Handle<librpc_loan, librpc_loan_free> handle_;
};

// Sends to one node.
class Sender {
public:
    explicit Sender(librpc_sender* handle) noexcept : handle_(handle) {}
    // Accepted when it returns: it survives this process from then on. It waits while the inbox is full, up to the sender's limit.
    Return<void> send(Bytes payload) { return detail::finish(librpc_sender_send(get(), payload.data(), payload.size())); }
    Return<void> send(Bytes payload, Nanoseconds timeout) {
        return detail::finish(librpc_sender_send_timeout(get(), payload.data(), payload.size(), detail::limit(timeout)));
    }
    // Does not wait. False: there is no room.
    Return<bool> try_send(Bytes payload) {
        Status status = librpc_sender_send_timeout(get(), payload.data(), payload.size(), 0);
        if (status == LIBRPC_STATUS_FULL) return false;
        return detail::finish<bool>(status, [] { return true; });
    }
    // A trivially copyable value.
    template <class T>
    Return<void> send_value(const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        return send(Bytes(&value, sizeof value));
    }
    Return<Loan> loan(std::size_t bytes) {
        librpc_loan* loan = nullptr;
        Status status = librpc_sender_loan(get(), bytes, &loan);
        return detail::finish<Loan>(status, [&] { return Loan(loan); });
    }
    // Sends a loan without a copy. If it fails, the loan is as before.
    Return<void> send(Loan& loan) {
        return detail::finish(loan.take([&](librpc_loan** raw) { return librpc_sender_send_loan(get(), raw); }));
    }
    Return<void> send(Loan&& loan) { return send(loan); }
    Return<void> flush(Nanoseconds timeout) { return detail::finish(librpc_sender_flush(get(), detail::limit(timeout))); }
    bool is_connected() const noexcept { return librpc_sender_is_connected(get()); }
    Return<Account> account() {
        Account account{};
        Status status = librpc_sender_account(get(), &account);
        return detail::finish<Account>(status, [&] { return account; });
    }
    Return<void> limit_rate(const Rate& rate) { return detail::finish(librpc_sender_limit_rate(get(), &rate)); }
    Return<void> set_redelivery(Nanoseconds limit) {
        return detail::finish(librpc_sender_set_redelivery(get(), detail::limit(limit)));
    }
    Return<std::vector<Returned>> take_returned() {
        std::vector<Returned> all;
        Status status = librpc_sender_take_returned(get(), detail::keep_returned, &all);
        return detail::finish<std::vector<Returned>>(status, [&] { return std::move(all); });
    }
    librpc_sender* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<librpc_sender, librpc_sender_free> handle_;
};

// Who got a message: see librpc_receipt.
using Receipt = librpc_receipt;

// What has happened to a subscription: see librpc_publisher_event.
struct PublisherEvent {
    explicit PublisherEvent(const librpc_publisher_event& from)
        : kind(from.kind), end(from.end), reason(from.reason), node(detail::text(from.node)),
          durable(detail::text(from.durable)), text(detail::text(from.text)), uid(from.uid), inbox(from.inbox) {}
    librpc_publisher_event_kind kind;
    librpc_subscription_end end;
    Reason reason;
    std::string node, durable, text;
    std::uint32_t uid, inbox;
};

// Publishes a topic.
class Publisher {
public:
    explicit Publisher(librpc_publisher* handle) noexcept : handle_(handle) {}
    Return<Receipt> publish(Bytes payload) {
        Receipt receipt{};
        Status status = librpc_publisher_publish(get(), payload.data(), payload.size(), &receipt);
        return detail::finish<Receipt>(status, [&] { return receipt; });
    }
    Return<Receipt> publish(Bytes payload, Nanoseconds timeout) {
        Receipt receipt{};
        Status status =
            librpc_publisher_publish_timeout(get(), payload.data(), payload.size(), detail::limit(timeout), &receipt);
        return detail::finish<Receipt>(status, [&] { return receipt; });
    }
    Return<Receipt> try_publish(Bytes payload) { return publish(payload, Nanoseconds::zero()); }
    template <class T>
    Return<Receipt> publish_value(const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        return publish(Bytes(&value, sizeof value));
    }
    Return<Loan> loan(std::size_t bytes) {
        librpc_loan* loan = nullptr;
        Status status = librpc_publisher_loan(get(), bytes, &loan);
        return detail::finish<Loan>(status, [&] { return Loan(loan); });
    }
    // Publishes a loan without a copy. If it fails, the loan is as before.
    Return<Receipt> publish(Loan& loan) {
        Receipt receipt{};
        Status status = loan.take([&](librpc_loan** raw) { return librpc_publisher_publish_loan(get(), raw, &receipt); });
        return detail::finish<Receipt>(status, [&] { return receipt; });
    }
    Return<Receipt> publish(Loan&& loan) { return publish(loan); }
    // Why inboxes did not get the last message.
    std::vector<Error> undelivered() const {
        std::vector<Error> all;
        while (const librpc_error* error = librpc_publisher_undelivered(get(), all.size())) all.emplace_back(*error);
        return all;
    }
    Return<std::size_t> subscribers() {
        std::size_t count = 0;
        Status status = librpc_publisher_subscribers(get(), &count);
        return detail::finish<std::size_t>(status, [&] { return count; });
    }
    // False: nobody has subscribed within the limit.
    Return<bool> wait_for_subscriber(Nanoseconds timeout = forever) {
        Status status = librpc_publisher_wait_for_subscriber(get(), detail::limit(timeout));
        return detail::finish<bool>(status, [&] { return status == LIBRPC_STATUS_OK; });
    }
    Return<std::optional<PublisherEvent>> recv_event(Nanoseconds timeout = forever) {
        librpc_publisher_event event{};
        Status status = librpc_publisher_recv_event(get(), detail::limit(timeout), &event);
        using Some = std::optional<PublisherEvent>;
        return detail::finish<Some>(status, [&] { return status == LIBRPC_STATUS_OK ? Some(PublisherEvent(event)) : Some(); });
    }
    Return<void> flush(Nanoseconds timeout) { return detail::finish(librpc_publisher_flush(get(), detail::limit(timeout))); }
    Return<Account> account() {
        Account account{};
        Status status = librpc_publisher_account(get(), &account);
        return detail::finish<Account>(status, [&] { return account; });
    }
    Return<void> limit_rate(const Rate& rate) { return detail::finish(librpc_publisher_limit_rate(get(), &rate)); }
    Return<void> set_redelivery(Nanoseconds limit) {
        return detail::finish(librpc_publisher_set_redelivery(get(), detail::limit(limit)));
    }
    Return<std::vector<Returned>> take_returned() {
        std::vector<Returned> all;
        Status status = librpc_publisher_take_returned(get(), detail::keep_returned, &all);
        return detail::finish<std::vector<Returned>>(status, [&] { return std::move(all); });
    }
    librpc_publisher* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<librpc_publisher, librpc_publisher_free> handle_;
};

struct SenderOptions {
    std::optional<Schema> schema;
    Nanoseconds timeout{0};  // of a send that waits for room; 0: 1 s
    bool stamp_all = false;
};

struct PublisherOptions {
    std::optional<Schema> schema;
    std::uint64_t history = 0, history_bytes = 0;
    Nanoseconds timeout{0};  // of a publish that waits for room; 0: 1 s
    bool never_waits = false, stamp_all = false;
};

// A node that an outbox sends to.
struct Destination {
    std::uint32_t number;
};

// A topic of an outbox.
struct Topic {
    std::uint32_t number;
};

// Sends to any number of nodes and topics, over one channel for each inbox.
class Outbox {
public:
    explicit Outbox(librpc_outbox* handle) noexcept : handle_(handle) {}
    Return<Destination> connect(const std::string& to, Nanoseconds timeout = std::chrono::seconds(10)) {
        Destination destination{};
        Status status = librpc_outbox_connect(get(), to.c_str(), detail::limit(timeout), &destination.number);
        return detail::finish<Destination>(status, [&] { return destination; });
    }
    Return<Topic> topic(const std::string& name, const std::optional<Schema>& schema = std::nullopt) {
        Topic topic{};
        Status status = librpc_outbox_topic(get(), name.c_str(), detail::RawSchema(schema).get(), &topic.number);
        return detail::finish<Topic>(status, [&] { return topic; });
    }
    Return<void> send(Destination to, Bytes payload, Nanoseconds timeout = std::chrono::seconds(1)) {
        return detail::finish(
            librpc_outbox_send_timeout(get(), to.number, payload.data(), payload.size(), detail::limit(timeout)));
    }
    Return<Receipt> publish(Topic topic, Bytes payload, Nanoseconds timeout = std::chrono::seconds(1)) {
        Receipt receipt{};
        Status status = librpc_outbox_publish_timeout(get(), topic.number, payload.data(), payload.size(),
                                                      detail::limit(timeout), &receipt);
        return detail::finish<Receipt>(status, [&] { return receipt; });
    }
    Return<Loan> loan(Destination to, std::size_t bytes) {
        librpc_loan* loan = nullptr;
        Status status = librpc_outbox_loan(get(), to.number, bytes, &loan);
        return detail::finish<Loan>(status, [&] { return Loan(loan); });
    }
    Return<Loan> loan(Topic topic, std::size_t bytes) {
        librpc_loan* loan = nullptr;
        Status status = librpc_outbox_topic_loan(get(), topic.number, bytes, &loan);
        return detail::finish<Loan>(status, [&] { return Loan(loan); });
    }
    Return<void> send(Destination to, Loan& loan, Nanoseconds timeout = std::chrono::seconds(1)) {
        return detail::finish(loan.take(
            [&](librpc_loan** raw) { return librpc_outbox_send_loan(get(), to.number, raw, detail::limit(timeout)); }));
    }
    Return<Receipt> publish(Topic topic, Loan& loan, Nanoseconds timeout = std::chrono::seconds(1)) {
        Receipt receipt{};
        Status status = loan.take([&](librpc_loan** raw) {
            return librpc_outbox_publish_loan(get(), topic.number, raw, detail::limit(timeout), &receipt);
        });
        return detail::finish<Receipt>(status, [&] { return receipt; });
    }
    // Why inboxes did not get the last message that was published.
    std::vector<Error> undelivered() const {
        std::vector<Error> all;
        while (const librpc_error* error = librpc_outbox_undelivered(get(), all.size())) all.emplace_back(*error);
        return all;
    }
    Return<std::size_t> subscribers(Topic topic) {
        std::size_t count = 0;
        Status status = librpc_outbox_subscribers(get(), topic.number, &count);
        return detail::finish<std::size_t>(status, [&] { return count; });
    }
    Return<void> flush(Nanoseconds timeout) { return detail::finish(librpc_outbox_flush(get(), detail::limit(timeout))); }
    Return<Account> account() {
        Account account{};
        Status status = librpc_outbox_account(get(), &account);
        return detail::finish<Account>(status, [&] { return account; });
    }
    Return<void> set_redelivery(Nanoseconds limit) {
        return detail::finish(librpc_outbox_set_redelivery(get(), detail::limit(limit)));
    }
    Return<std::vector<Returned>> take_returned() {
        std::vector<Returned> all;
        Status status = librpc_outbox_take_returned(get(), detail::keep_returned, &all);
        return detail::finish<std::vector<Returned>>(status, [&] { return std::move(all); });
    }
    librpc_outbox* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<librpc_outbox, librpc_outbox_free> handle_;
};

}  // inline namespace
}  // namespace librpc

#endif
