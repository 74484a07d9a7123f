// What the headers promise about threads, memory and ends. Usage: rules DOMAIN. Run plainly, with ASan, and in valgrind: crates/c/test.
#include <librpc_v3.hpp>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

using namespace std::chrono_literals;

namespace {

std::string domain;
int tests = 0;
std::atomic<int> checks{0};

#define CHECK(what)                                                             \
    do {                                                                        \
        ++checks;                                                               \
        if (!(what)) {                                                          \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            std::exit(1);                                                       \
        }                                                                       \
    } while (false)

librpc::Node open(const std::string& id) {
    librpc::NodeOptions options;
    options.domain = domain;
    return librpc::Node::open(id, options);
}

// A function destroys its own Callback, and goes on with what it has captured.
void a_callback_ends_itself() {
    auto a = open("a"), b = open("b");
    std::optional<librpc::Callback> callback;
    std::atomic<bool> is_there{false}, done{false};
    std::string captured(100, 'c');  // on the heap
    callback = a.on_message([&callback, &is_there, &done, captured](const librpc::Message& message) {
        while (!is_there) std::this_thread::yield();
        callback.reset();
        CHECK(captured == std::string(100, 'c') && message.text() == "end");
        done = true;
    });
    is_there = true;
    auto sender = b.connect("a");
    sender.send("end");
    while (!done) std::this_thread::yield();
}

// A function stops its own Callback, and another thread destroys it meanwhile.
void a_stopped_callback_is_destroyed() {
    auto a = open("a"), b = open("b");
    std::optional<librpc::Callback> callback;
    std::atomic<bool> is_there{false}, stopped{false}, destroyed{false}, done{false};
    std::string captured(100, 'c');
    callback = a.on_message([&, captured](const librpc::Message&) {
        while (!is_there) std::this_thread::yield();
        callback->stop();
        stopped = true;
        while (!destroyed) std::this_thread::yield();
        CHECK(captured == std::string(100, 'c'));
        done = true;
    });
    is_there = true;
    auto sender = b.connect("a");
    sender.send("end");
    while (!stopped) std::this_thread::yield();
    callback.reset();
    destroyed = true;
    while (!done) std::this_thread::yield();
}

void samples_are_read_by_threads() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto sender = b.connect("a");
    for (int round = 0; round < 200; ++round) {
        sender.send("x");
        auto sample = inbox.recv_sample(10s);
        std::atomic<int> waiting{4};
        std::vector<std::thread> threads;
        for (int number = 0; number < 4; ++number) {
            threads.emplace_back([&] {
                --waiting;
                while (waiting > 0) {
                }
                CHECK(sample->sender() == "b" && sample->topic().empty() && sample->info().sender == "b");
            });
        }
        for (auto& thread : threads) thread.join();
    }
}

void payloads_are_aligned() {
    auto a = open("a"), b = open("b");
    auto at = [](librpc::Bytes payload) { return reinterpret_cast<std::uintptr_t>(payload.data()); };
    for (bool trust : {false, true}) {
        librpc::InboxOptions options;
        options.trust_publishers = trust;
        auto inbox = a.inbox(options);
        auto sender = b.connect("a");
        for (std::size_t bytes : {0, 1, 15, 64, 100, 5000, 70'000, 300'000}) {
            std::vector<char> payload(bytes);
            sender.send(payload);
            auto message = inbox.recv(10s);
            CHECK(message && message->size() == bytes && at(message->payload()) != 0 && at(message->payload()) % 16 == 0);
            sender.send(payload);
            auto sample = inbox.recv_sample(10s);
            CHECK(sample && sample->size() == bytes && at(sample->payload()) != 0 && at(sample->payload()) % 64 == 0);
        }
    }
}

// Every byte but 0 is true, also one that is no `bool`: UBSan's builds must not read it as one.
void flags_are_bytes() {
    auto a = open("a");
    librpc_inbox_options options;
    std::memset(&options, 0, sizeof options);
    options.size = sizeof options;
    std::memset(reinterpret_cast<char*>(&options) + offsetof(librpc_inbox_options, receive_own), 0x82, 1);
    librpc_inbox* inbox = nullptr;
    CHECK(librpc_subscribe(a.get(), "t", &options, &inbox) == LIBRPC_STATUS_OK);
    CHECK(a.publisher("t").publish("to itself").inboxes == 1);
    librpc_inbox_free(inbox);
    CHECK(librpc_subscribe_all(a.get(), reinterpret_cast<const char* const*>(1), 0, nullptr, &inbox) < 0);  // no pattern
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    domain = argv[1];
    for (auto test : {a_callback_ends_itself, a_stopped_callback_is_destroyed, samples_are_read_by_threads,
                      payloads_are_aligned, flags_are_bytes}) {
        try {
            test();
            ++tests;
            // A callback that has ended itself lets go of its node only when its thread ends.
            while (!librpc::nodes(domain).empty()) std::this_thread::yield();
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s\n", error.what());
            return 1;
        }
    }
    std::printf("%d tests, %d checks\n", tests, checks.load());
    return 0;
}
