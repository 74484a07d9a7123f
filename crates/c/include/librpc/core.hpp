// What everything else uses: errors, results, bytes, types.
#ifndef LIBRPC_CORE_HPP
#define LIBRPC_CORE_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__has_include)
#if __has_include(<span>) && __cplusplus >= 202002L
#include <span>
#define LIBRPC_HAS_SPAN 1
#endif
#endif

#include "../librpc.h"

#if !defined(__cpp_exceptions) && !defined(LIBRPC_RESULTS)
#define LIBRPC_RESULTS 1
#endif

namespace librpc {
#ifdef LIBRPC_RESULTS
inline namespace results {
#else
inline namespace throwing {
#endif

using Nanoseconds = std::chrono::nanoseconds;

// No time limit.
inline constexpr Nanoseconds forever = Nanoseconds::max();

using Status = librpc_status;
using Reason = librpc_reason;

namespace detail {

inline std::uint64_t limit(Nanoseconds time) {
    if (time == forever) return LIBRPC_FOREVER;
    return time.count() < 0 ? 0 : static_cast<std::uint64_t>(time.count());
}

inline Nanoseconds duration(std::uint64_t ns) {
    constexpr auto most = static_cast<std::uint64_t>(Nanoseconds::max().count());
    return Nanoseconds(static_cast<Nanoseconds::rep>(ns < most ? ns : most));
}

inline std::string text(const char* from) { return from == nullptr ? std::string() : std::string(from); }
inline std::string_view view(const char* from) { return from == nullptr ? std::string_view() : std::string_view(from); }

}  // namespace detail

// What is known about an error. What does not apply is zero or empty.
class Error : public std::runtime_error {
public:
    explicit Error(const librpc_error& from)
        : std::runtime_error(from.message), status_(from.status), code_(from.code), node_(detail::text(from.node)),
          name_(detail::text(from.name)), bytes_(from.bytes), max_(from.max), count_(from.count), wait_ns_(from.wait_ns),
          pid_(from.pid), uid_(from.uid), reason_(from.reason), taken_(from.taken) {}
    Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}

    Status status() const noexcept { return status_; }
    // A server's code (LIBRPC_STATUS_FAILED), or an errno (LIBRPC_STATUS_OS).
    int code() const noexcept { return code_; }
    // The node on the other side.
    const std::string& node() const noexcept { return node_; }
    // The topic, service or other name.
    const std::string& name() const noexcept { return name_; }
    std::uint64_t bytes() const noexcept { return bytes_; }
    std::uint64_t max() const noexcept { return max_; }
    // Messages that were lost, not delivered or not processed.
    std::uint64_t count() const noexcept { return count_; }
    Nanoseconds wait() const noexcept { return detail::duration(wait_ns_); }
    std::uint32_t pid() const noexcept { return pid_; }
    std::uint32_t uid() const noexcept { return uid_; }
    Reason reason() const noexcept { return reason_; }
    // LIBRPC_STATUS_SERVER_DIED: the server had begun with the call.
    bool taken() const noexcept { return taken_; }

private:
    Status status_;
    int code_ = 0;
    std::string node_, name_;
    std::uint64_t bytes_ = 0, max_ = 0, count_ = 0, wait_ns_ = 0;
    std::uint32_t pid_ = 0, uid_ = 0;
    Reason reason_ = LIBRPC_REASON_NONE;
    bool taken_ = false;
};

// A value, or why there is none: what functions return with LIBRPC_RESULTS.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : value_(std::move(value)) {}
    Result(Error error) : error_(std::make_shared<const Error>(std::move(error))) {}
    explicit operator bool() const noexcept { return value_.has_value(); }
    bool ok() const noexcept { return value_.has_value(); }
    T& value() { return *value_; }
    const T& value() const { return *value_; }
    T& operator*() { return *value_; }
    T* operator->() { return &*value_; }
    // Only where there is no value.
    const Error& error() const { return *error_; }

private:
    std::optional<T> value_;
    std::shared_ptr<const Error> error_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::make_shared<const Error>(std::move(error))) {}
    explicit operator bool() const noexcept { return error_ == nullptr; }
    bool ok() const noexcept { return error_ == nullptr; }
    const Error& error() const { return *error_; }

private:
    std::shared_ptr<const Error> error_;
};

#ifdef LIBRPC_RESULTS
template <class T>
using Return = Result<T>;
#else
template <class T>
using Return = T;
#endif

namespace detail {

inline Error last_error(Status status) {
    const librpc_error* last = librpc_last_error();
    return last != nullptr ? Error(*last) : Error(status, librpc_status_name(static_cast<int>(status)));
}

// What a function returns: the value if it went well, or the error.
template <class T, class Make>
inline Return<T> finish(Status status, Make make) {
    if (status < 0) {
#ifdef LIBRPC_RESULTS
        return Return<T>(last_error(status));
#else
        throw last_error(status);
#endif
    }
    return make();
}

inline Return<void> finish(Status status) {
    if (status < 0) {
#ifdef LIBRPC_RESULTS
        return Return<void>(last_error(status));
#else
        throw last_error(status);
#endif
    }
    return Return<void>();
}

template <class T>
inline Return<T> failed(Error error) {
#ifdef LIBRPC_RESULTS
    return Return<T>(std::move(error));
#else
    throw error;
#endif
}

// A handle that is freed with a function of its own.
template <class T, void (*Free)(T*)>
struct Freed {
    void operator()(T* handle) const noexcept { Free(handle); }
};
template <class T, void (*Free)(T*)>
using Handle = std::unique_ptr<T, Freed<T, Free>>;

}  // namespace detail

// Bytes that somebody else owns: a payload. Texts and containers of trivially copyable values become bytes by themselves.
class Bytes {
public:
    constexpr Bytes() noexcept = default;
    Bytes(const void* data, std::size_t size) noexcept : data_(static_cast<const std::byte*>(data)), size_(size) {}
    Bytes(std::string_view text) noexcept : Bytes(text.data(), text.size()) {}
    Bytes(const std::string& text) noexcept : Bytes(text.data(), text.size()) {}
    Bytes(const char* text) noexcept : Bytes(text, std::strlen(text)) {}
    template <class C, class V = std::remove_pointer_t<decltype(std::declval<const C&>().data())>,
              class = decltype(std::declval<const C&>().size()),
              std::enable_if_t<std::is_trivially_copyable_v<std::remove_cv_t<V>>, int> = 0>
    Bytes(const C& container) noexcept : Bytes(container.data(), container.size() * sizeof(V)) {}

    const std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    const std::byte* begin() const noexcept { return data_; }
    const std::byte* end() const noexcept { return data_ + size_; }
    std::byte operator[](std::size_t index) const noexcept { return data_[index]; }
    std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }
    std::vector<std::byte> copy() const { return {begin(), end()}; }
#ifdef LIBRPC_HAS_SPAN
    operator std::span<const std::byte>() const noexcept { return {data_, size_}; }
#endif

    // The bytes as a value of this type; an error if it is not as long.
    template <class T>
    Return<T> as() const {
        static_assert(std::is_trivially_copyable_v<T> && std::is_default_constructible_v<T>);
        if (size_ != sizeof(T)) {
            return detail::failed<T>(Error(LIBRPC_STATUS_MISMATCH, "the payload has " + std::to_string(size_) +
                                                                       " bytes, the type " + std::to_string(sizeof(T))));
        }
        T value;
        std::memcpy(&value, data_, sizeof(T));
        return value;
    }

    // The bytes as an array of values, in place. The payload of a message is aligned to 16 bytes, that of a sample, a request or a reply to
    // 64; a value that needs more is not read in place. What is left over at the end is not shown.
    template <class T>
    std::pair<const T*, std::size_t> array() const noexcept {
        static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 64);
        return {reinterpret_cast<const T*>(data_), size_ / sizeof(T)};
    }

private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

// The type of a topic, a service or an inbox.
struct Schema {
    std::string name;
    std::uint32_t encoding = LIBRPC_ENCODING_RAW;
    std::optional<std::uint64_t> hash;
    std::string definition;

    librpc_schema raw() const noexcept {
        librpc_schema raw{};
        raw.size = sizeof raw;
        raw.name = name.c_str();
        raw.encoding = encoding;
        raw.has_hash = hash.has_value();
        raw.hash = hash.value_or(0);
        raw.definition = definition.empty() ? nullptr : definition.data();
        raw.definition_size = definition.size();
        return raw;
    }
};

namespace detail {

// A type on its way to C: null if there is none.
class RawSchema {
public:
    explicit RawSchema(const std::optional<Schema>& from) {
        if (from) raw_ = from->raw();
    }
    const librpc_schema* get() const noexcept { return raw_.name == nullptr ? nullptr : &raw_; }

private:
    librpc_schema raw_{};
};

}  // namespace detail

#ifndef LIBRPC_RESULTS
namespace detail {

// Walks through what a source hands out one by one, until there is nothing more.
template <class Source, class Item, std::optional<Item> (*Next)(Source&)>
class Iterator {
public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Item;
    using difference_type = std::ptrdiff_t;
    using pointer = const Item*;
    using reference = const Item&;
    Iterator() noexcept = default;
    explicit Iterator(Source& source) : source_(&source) { ++*this; }
    reference operator*() const noexcept { return *item_; }
    pointer operator->() const noexcept { return &*item_; }
    Iterator& operator++() {
        item_ = Next(*source_);
        if (!item_) source_ = nullptr;
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& one, const Iterator& other) noexcept { return one.source_ == other.source_; }
    friend bool operator!=(const Iterator& one, const Iterator& other) noexcept { return !(one == other); }

private:
    Source* source_ = nullptr;
    std::optional<Item> item_;
};

}  // namespace detail
#endif

}  // inline namespace
}  // namespace librpc

#endif
