// Calls: clients and servers.
#ifndef LIBRPC_CALL_HPP
#define LIBRPC_CALL_HPP

#include <iterator>

#include "receive.hpp"

namespace librpc {
#ifdef LIBRPC_RESULTS
inline namespace results {
#else
inline namespace throwing {
#endif

// A reply, or a part of one.
class Reply {
public:
    explicit Reply(librpc_reply* handle) noexcept : handle_(handle) {}
    Bytes payload() const noexcept { return {librpc_reply_data(handle_.get()), librpc_reply_size(handle_.get())}; }
    std::string_view text() const noexcept { return payload().text(); }
    template <class T>
    Return<T> as() const { return payload().as<T>(); }
    // The node that answered.
    std::string_view server() const noexcept { return detail::view(librpc_reply_server(handle_.get())); }

private:
    detail::Handle<librpc_reply, librpc_reply_free> handle_;
};

namespace detail {

inline Return<std::optional<Reply>> reply(Status status, librpc_reply* handle) {
    using Some = std::optional<Reply>;
    return finish<Some>(status, [&] { return status == LIBRPC_STATUS_OK ? Some(Reply(handle)) : Some(); });
}

}  // namespace detail

// A call that is in flight. Destroyed unanswered, it is cancelled.
class Pending {
public:
    explicit Pending(librpc_pending* handle) noexcept : handle_(handle) {}
    // Empty: it is not there yet.
    Return<std::optional<Reply>> wait(Nanoseconds timeout = forever) {
        librpc_reply* reply = nullptr;
        Status status = librpc_pending_wait(handle_.get(), detail::limit(timeout), &reply);
        return detail::reply(status, reply);
    }
    // Any thread may call it.
    void cancel() const noexcept { librpc_pending_cancel(handle_.get()); }
    librpc_pending* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<librpc_pending, librpc_pending_free> handle_;
};

// The parts of a reply. `for (const Reply& part : replies)` takes them until it is over.
class Replies {
public:
    explicit Replies(librpc_replies* handle) noexcept : handle_(handle) {}
    // Empty: it is not there yet, or the reply is over.
    Return<std::optional<Reply>> next(Nanoseconds timeout = forever) {
        librpc_reply* reply = nullptr;
        Status status = librpc_replies_next(handle_.get(), detail::limit(timeout), &reply);
        return detail::reply(status, reply);
    }
    bool is_over() const noexcept { return librpc_replies_is_over(handle_.get()); }
    // Any thread may call it.
    void cancel() const noexcept { librpc_replies_cancel(handle_.get()); }
    librpc_replies* get() const noexcept { return handle_.get(); }

#ifndef LIBRPC_RESULTS
    static std::optional<Reply> step(Replies& source) { return source.next(); }
    using iterator = detail::Iterator<Replies, Reply, &Replies::step>;
    iterator begin() { return iterator(*this); }
    iterator end() noexcept { return {}; }
#endif

private:
    detail::Handle<librpc_replies, librpc_replies_free> handle_;
};

// What one server answered.
struct Answer {
    std::string node;
    std::optional<Reply> reply;
    std::optional<Error> error;
};

struct ClientOptions {
    std::optional<Schema> request, reply;
    std::uint64_t max_in_flight = 0, max_reply = 0, capacity = 0;
    librpc_wait wait = LIBRPC_WAIT_ADAPTIVE;
};

struct CallOptions {
    std::string node;         // the server; empty: any
    bool idempotent = false;  // it may be tried again on another server
};

// Calls a service. Any number of threads may use it at once.
class Client {
public:
    explicit Client(librpc_client* handle) noexcept : handle_(handle) {}
    Return<Reply> call(Bytes request, Nanoseconds timeout, const CallOptions& options = {}) const {
        librpc_reply* reply = nullptr;
        librpc_call_options raw = options_of(options);
        Status status =
            librpc_client_call(get(), request.data(), request.size(), detail::limit(timeout), &raw, &reply);
        return detail::finish<Reply>(status, [&] { return Reply(reply); });
    }
    Return<Pending> start(Bytes request, Nanoseconds timeout, const CallOptions& options = {}) const {
        librpc_pending* pending = nullptr;
        librpc_call_options raw = options_of(options);
        Status status =
            librpc_client_start(get(), request.data(), request.size(), detail::limit(timeout), &raw, &pending);
        return detail::finish<Pending>(status, [&] { return Pending(pending); });
    }
    Return<Replies> call_stream(Bytes request, Nanoseconds timeout, const CallOptions& options = {}) const {
        librpc_replies* replies = nullptr;
        librpc_call_options raw = options_of(options);
        Status status =
            librpc_client_call_stream(get(), request.data(), request.size(), detail::limit(timeout), &raw, &replies);
        return detail::finish<Replies>(status, [&] { return Replies(replies); });
    }
    // Calls every server.
    Return<std::vector<Answer>> call_all(Bytes request, Nanoseconds timeout, const CallOptions& options = {}) const {
        std::vector<Answer> answers;
        librpc_call_options raw = options_of(options);
        Status status = librpc_client_call_all(get(), request.data(), request.size(), detail::limit(timeout), &raw,
                                               keep_answer, &answers);
        return detail::finish<std::vector<Answer>>(status, [&] { return std::move(answers); });
    }
    // False: no server has come within the limit.
    Return<bool> wait_for_server(Nanoseconds timeout = forever) const {
        Status status = librpc_client_wait_for_server(get(), detail::limit(timeout));
        return detail::finish<bool>(status, [&] { return status == LIBRPC_STATUS_OK; });
    }
    std::string_view service() const noexcept { return detail::view(librpc_client_service(get())); }
    librpc_client* get() const noexcept { return handle_.get(); }

private:
    static librpc_call_options options_of(const CallOptions& from) noexcept {
        librpc_call_options raw{};
        raw.size = sizeof raw;
        raw.node = from.node.empty() ? nullptr : from.node.c_str();
        raw.idempotent = from.idempotent;
        return raw;
    }
    static void keep_answer(void* context, const librpc_answer* one) noexcept {
        Answer answer{detail::text(one->node), std::nullopt, std::nullopt};
        if (one->reply != nullptr) answer.reply.emplace(one->reply);
        if (one->error != nullptr) answer.error.emplace(*one->error);
        static_cast<std::vector<Answer>*>(context)->push_back(std::move(answer));
    }
    detail::Handle<librpc_client, librpc_client_free> handle_;
};

// A reply in parts. Destroyed unfinished, its client's call fails.
class ReplyStream {
public:
    explicit ReplyStream(librpc_reply_stream* handle) noexcept : handle_(handle) {}
    // It waits while the client has as many parts as it wants.
    Return<void> send(Bytes part) {
        return detail::finish(librpc_reply_stream_send(handle_.get(), part.data(), part.size()));
    }
    // Does not wait. False: the client has as many parts as it wants.
    Return<bool> try_send(Bytes part) {
        Status status = librpc_reply_stream_try_send(handle_.get(), part.data(), part.size());
        return detail::finish<bool>(status, [&] { return status == LIBRPC_STATUS_OK; });
    }
    bool is_cancelled() const noexcept { return librpc_reply_stream_is_cancelled(handle_.get()); }
    Return<void> finish() { return detail::finish(librpc_reply_stream_finish(handle_.release())); }
    Return<void> fail(int code, const std::string& message) {
        return detail::finish(librpc_reply_stream_fail(handle_.release(), code, message.c_str()));
    }

private:
    detail::Handle<librpc_reply_stream, librpc_reply_stream_free> handle_;
};

// A request. Any thread may answer it, in any order. Destroyed unanswered, its client's call fails.
class Request {
public:
    explicit Request(librpc_request* handle) noexcept : handle_(handle) {}
    Bytes payload() const noexcept { return {librpc_request_data(handle_.get()), librpc_request_size(handle_.get())}; }
    std::string_view text() const noexcept { return payload().text(); }
    template <class T>
    Return<T> as() const { return payload().as<T>(); }
    std::string_view client() const noexcept { return detail::view(librpc_request_client(handle_.get())); }
    Return<Info> info() const {
        librpc_info info{};
        info.size = sizeof info;
        Status status = librpc_request_info(handle_.get(), &info);
        return detail::finish<Info>(status, [&] { return Info(info); });
    }
    // How long its client still waits.
    Nanoseconds time_left() const noexcept { return detail::duration(librpc_request_time_left(handle_.get())); }
    bool is_cancelled() const noexcept { return librpc_request_is_cancelled(handle_.get()); }
    Return<void> reply(Bytes payload) {
        return detail::finish(librpc_request_reply(handle_.release(), payload.data(), payload.size()));
    }
    Return<void> fail(int code, const std::string& message) {
        return detail::finish(librpc_request_fail(handle_.release(), code, message.c_str()));
    }
    Return<void> unimplemented(const std::string& message) {
        return detail::finish(librpc_request_unimplemented(handle_.release(), message.c_str()));
    }
    Return<ReplyStream> stream() {
        librpc_reply_stream* stream = nullptr;
        Status status = librpc_request_stream(handle_.release(), &stream);
        return detail::finish<ReplyStream>(status, [&] { return ReplyStream(stream); });
    }

private:
    detail::Handle<librpc_request, librpc_request_free> handle_;
};

struct ServerOptions {
    std::optional<Schema> request, reply;
    std::uint64_t max_in_flight = 0, max_per_client = 0, max_request = 0, capacity = 0;
    librpc_wait wait = LIBRPC_WAIT_ADAPTIVE;
};

// Serves a service. Any number of threads may take requests at once.
class Server {
public:
    explicit Server(librpc_server* handle) noexcept : handle_(handle) {}
    // Empty: the time is up, or the server was stopped.
    Return<std::optional<Request>> recv(Nanoseconds timeout = forever) const {
        librpc_request* request = nullptr;
        Status status = librpc_server_recv(get(), detail::limit(timeout), &request);
        using Some = std::optional<Request>;
        return detail::finish<Some>(status, [&] { return status == LIBRPC_STATUS_OK ? Some(Request(request)) : Some(); });
    }
    // Any thread may call it, and a signal handler.
    void stop() const noexcept { librpc_server_stop(get()); }
    std::size_t in_flight() const noexcept { return librpc_server_in_flight(get()); }
    librpc_server* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<librpc_server, librpc_server_free> handle_;
};

}  // inline namespace
}  // namespace librpc

#endif
