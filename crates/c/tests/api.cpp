// What the headers promise, in one process. Usage: api DOMAIN [[-]TEST]. Run plainly, with ASan, and in valgrind: crates/c/test.
#include <librpc_v3.hpp>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

using namespace std::chrono_literals;

namespace {

std::string domain;
int checks = 0;

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

template <class Try>
librpc::Error error_of(Try what) {
    try {
        what();
    } catch (const librpc::Error& error) {
        return error;
    }
    std::fprintf(stderr, "no error\n");
    std::exit(1);
}

void sends_and_receives() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto sender = b.connect("a");
    CHECK(!inbox.try_recv());
    sender.send("hello");
    auto message = inbox.recv(10s);
    CHECK(message && message->text() == "hello" && message->sender() == "b" && message->topic().empty());
    auto info = message->info();
    CHECK(info.sender == "b" && !info.topic && info.sequence == 0 && info.pid == static_cast<std::uint32_t>(getpid()));
    CHECK(info.uid == getuid() && !info.redelivered && !info.past && info.missed == 0);
    sender.send("");
    CHECK(inbox.recv(10s)->size() == 0);
    sender.send(std::vector<int>{1, 2, 3});
    auto numbers = inbox.recv(10s)->payload().array<int>();
    CHECK(numbers.second == 3 && numbers.first[2] == 3);
}

void flushes() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto sender = b.connect("a");
    sender.send("one");
    auto error = error_of([&] { sender.flush(1ms); });
    CHECK(error.status() == LIBRPC_STATUS_TIMED_OUT && error.count() == 1);
    CHECK(inbox.recv(10s));
    CHECK(!inbox.try_recv());  // the next receive: it is processed
    sender.flush(10s);
    auto account = sender.account();
    CHECK(account.sent == 1 && account.processed == 1 && account.bytes == 3);
}

void large_payloads() {
    auto a = open("a"), b = open("b");
    auto inbox = a.subscribe("camera/*");
    auto publisher = b.publisher("camera/front");
    auto loan = publisher.loan(1 << 20);
    CHECK(loan.size() == 1 << 20 && reinterpret_cast<std::uintptr_t>(loan.data()) % 64 == 0);
    std::memset(loan.data(), 7, loan.size());
    CHECK(publisher.publish(loan).inboxes == 1);
    CHECK(loan.data() == nullptr && loan.size() == 0);
    auto sample = inbox.recv_sample(10s);
    CHECK(sample && sample->size() == 1 << 20 && sample->topic() == "camera/front" && sample->sender() == "b");
    CHECK(sample->info().lent && reinterpret_cast<std::uintptr_t>(sample->payload().data()) % 64 == 0);
    { auto gone = std::move(inbox); }
    { auto gone = std::move(publisher); }
    { auto gone = std::move(a); }
    { auto gone = std::move(b); }  // the sample outlives all of them
    auto payload = sample->payload();
    CHECK(std::all_of(payload.begin(), payload.end(), [](std::byte byte) { return byte == std::byte{7}; }));
}

void an_unsent_loan_is_given_back() {
    auto a = open("a"), b = open("b");
    librpc::InboxOptions small;
    small.max_message = 100;
    auto inbox = a.inbox(small);
    auto sender = b.connect("a");
    auto loan = sender.loan(1000);
    auto error = error_of([&] { sender.send(loan); });
    CHECK(error.status() == LIBRPC_STATUS_TOO_LARGE && error.bytes() == 1000 && error.max() == 100 && error.node() == "a");
    CHECK(loan.size() == 1000);  // as before
}

void events() {
    auto a = open("a");
    auto inbox = a.inbox();
    auto b = open("b");
    {
        auto sender = b.connect("a");
        sender.send("bye");
        auto joined = inbox.recv_event(10s);
        CHECK(joined && joined->kind() == LIBRPC_EVENT_KIND_SENDER_JOINED && joined->node() == "b");
        auto message = inbox.recv_event(10s);
        CHECK(message->kind() == LIBRPC_EVENT_KIND_MESSAGE && message->message().text() == "bye");
        CHECK(message->message().sender() == "b");
    }
    auto left = inbox.recv_event(10s);
    CHECK(left->kind() == LIBRPC_EVENT_KIND_SENDER_LEFT && left->departure() == LIBRPC_DEPARTURE_CLOSED);
    auto publisher = b.publisher("t");
    auto subscription = a.subscribe("t");
    auto came = publisher.recv_event(10s);
    CHECK(came && came->kind == LIBRPC_PUBLISHER_EVENT_KIND_CAME && came->node == "a");
}

void what_does_not_arrive_is_said() {
    auto a = open("a"), b = open("b");
    librpc::InboxOptions small;
    small.max_message = 10;
    auto inbox = a.subscribe("t", small);
    auto publisher = b.publisher("t");
    auto receipt = publisher.publish("longer than ten");
    CHECK(receipt.inboxes == 0 && receipt.undelivered == 1);
    auto undelivered = publisher.undelivered();
    CHECK(undelivered.size() == 1 && undelivered[0].status() == LIBRPC_STATUS_TOO_LARGE && undelivered[0].node() == "a");
    CHECK(publisher.publish("short").inboxes == 1 && publisher.undelivered().empty());
    while (true) {
        auto event = inbox.recv_event(10s);
        CHECK(event);
        if (event->kind() == LIBRPC_EVENT_KIND_TURNED_AWAY) {
            CHECK(event->raw().too_large == 1 && event->node() == "b");
            break;
        }
    }
}

void policies() {
    auto a = open("a"), b = open("b");
    librpc::InboxOptions newest;
    newest.keep_last = 1;
    auto inbox = a.subscribe("t", newest);
    auto publisher = b.publisher("t");
    for (int number = 0; number < 10; ++number) publisher.publish_value(number);
    auto message = inbox.recv(10s);
    CHECK(message->as<int>() == 9 && message->info().missed == 9);
    CHECK(error_of([&] { message->as<double>(); }).status() == LIBRPC_STATUS_MISMATCH);
}

void history_and_options() {
    auto a = open("a"), b = open("b");
    librpc::PublisherOptions keeps;
    keeps.history = 2;
    keeps.stamp_all = true;
    auto publisher = b.publisher("map", keeps);
    for (const char* text : {"one", "two", "three"}) publisher.publish(text);
    auto inbox = a.subscribe("map");
    auto past = inbox.recv(10s);
    CHECK(past->text() == "two" && past->info().past && past->info().sent_at);
    librpc::InboxOptions none;
    none.no_history = true;
    auto fresh = a.subscribe("map", none);
    publisher.publish("four");
    CHECK(fresh.recv(10s)->text() == "four");
}

struct Pose {
    double x, y;
};

void typed();

void outboxes() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto topics = a.subscribe({"x", "y"});
    auto outbox = b.outbox();
    auto to_a = outbox.connect("a");
    auto x = outbox.topic("x");
    outbox.send(to_a, "direct");
    CHECK(outbox.publish(x, "on x").inboxes == 1);
    CHECK(inbox.recv(10s)->text() == "direct");
    auto message = topics.recv(10s);
    CHECK(message->text() == "on x" && message->topic() == "x");
    CHECK(outbox.subscribers(x) == 1);
    auto loan = outbox.loan(x, 100000);
    std::memset(loan.data(), 1, loan.size());
    CHECK(outbox.publish(x, loan).inboxes == 1);
    CHECK(topics.recv(10s)->size() == 100000);
    CHECK(error_of([&] { outbox.send(librpc::Destination{7}, "nowhere"); }).status() == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(error_of([&] { outbox.publish(librpc::Topic{7}, "nowhere"); }).status() == LIBRPC_STATUS_INVALID_ARGUMENT);
}

void redelivery() {
    auto b = open("b");
    auto a = std::make_unique<librpc::Node>(open("a"));
    auto inbox = std::make_unique<librpc::Inbox>(a->inbox());
    auto sender = b.connect("a");
    sender.set_redelivery(librpc::forever);
    sender.send("again");
    inbox.reset();
    a.reset();
    a = std::make_unique<librpc::Node>(open("a"));
    inbox = std::make_unique<librpc::Inbox>(a->inbox());
    sender.send("more");
    std::thread flushing([&] { sender.flush(30s); });  // redelivery happens in the sender's own calls
    for (const char* expected : {"again", "more"}) CHECK(inbox->recv(30s)->text() == expected);
    CHECK(!inbox->try_recv());  // the last is processed
    flushing.join();
    sender.set_redelivery(0ns);
    CHECK(sender.take_returned().empty());
}

void a_message_comes_back() {
    auto b = open("b");
    auto a = std::make_unique<librpc::Node>(open("a"));
    auto inbox = std::make_unique<librpc::Inbox>(a->inbox());
    auto sender = b.connect("a");
    sender.set_redelivery(1ns);
    sender.send("come back");
    inbox.reset();
    a.reset();
    auto error = error_of([&] { sender.flush(10s); });
    CHECK(error.status() == LIBRPC_STATUS_LOST && error.count() == 1);
    auto returned = sender.take_returned();
    CHECK(returned.size() == 1 && librpc::Bytes(returned[0].payload).text() == "come back" && returned[0].node == "a");
}

void stops() {
    auto a = open("a");
    auto inbox = a.inbox();
    std::thread stopper([&] { inbox.stop(); });
    int received = 0;
    for (const librpc::Message& message : inbox) received += message.size() > 0;
    CHECK(received == 0 && !inbox.recv());
    stopper.join();
    auto server = a.serve("s");
    std::thread other([&] { server.stop(); });
    CHECK(!server.recv());
    other.join();
}

void descriptors() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    CHECK(!inbox.try_recv());
    pollfd waiting{inbox.fd(), POLLIN, 0};
    while (inbox.try_recv()) {
    }
    CHECK(poll(&waiting, 1, 0) == 0);
    auto sender = b.connect("a");
    sender.send("wake");
    int received = 0;
    while (received == 0) {
        CHECK(poll(&waiting, 1, 10000) == 1);
        while (inbox.try_recv()) ++received;
    }
    CHECK(received == 1);
}

void callbacks() {
    auto a = open("a"), b = open("b");
    std::atomic<int> called{0};
    auto callback = a.on_message([&](const librpc::Message& message) {
        if (message.text() == "throw") throw std::runtime_error("as asked");
        CHECK(message.sender() == "b" && message.text() == "count");
        ++called;
    });
    auto sender = b.connect("a");
    sender.send("count");
    sender.send("count");
    sender.flush(10s);
    CHECK(called == 2);
    sender.send("throw");
    auto error = error_of([&] { sender.flush(10s); });
    CHECK(error.status() == LIBRPC_STATUS_LOST && error.count() == 1);  // its message stays unprocessed
    try {
        callback.stop();
        CHECK(false);
    } catch (const std::runtime_error& thrown) {
        CHECK(std::string(thrown.what()) == "as asked");
    }
    std::atomic<int> heard{0};
    auto topics = a.on_topics({"t/*"}, [&](const librpc::Message& message) { heard += message.topic() == "t/1"; });
    auto publisher = b.publisher("t/1");
    CHECK(publisher.publish("x").inboxes == 1);
    publisher.flush(10s);
    CHECK(heard == 1);
    topics.stop();
}

void calls() {
    auto a = open("a"), b = open("b");
    auto client = b.client("add");
    CHECK(client.service() == "add");
    CHECK(error_of([&] { client.call("x", 1s); }).status() == LIBRPC_STATUS_NO_SERVER);
    CHECK(!client.wait_for_server(1ms));
    auto server = a.serve("add");
    std::thread serving([&] {
        while (auto request = server.recv()) {
            CHECK(request->client() == "b" && request->time_left() > 0ns && request->info().uid == getuid());
            if (request->text() == "late") {
                while (!request->is_cancelled()) std::this_thread::yield();
            } else if (request->text() == "drop") {
                continue;
            } else if (request->text() == "unknown") {
                request->unimplemented("no such thing");
            } else {
                request->reply(std::string(request->text()) + "!");
            }
        }
    });
    auto reply = client.call("hello", 10s);
    CHECK(reply.text() == "hello!" && reply.server() == "a");
    auto late = error_of([&] { client.call("late", 20ms); });
    CHECK(late.status() == LIBRPC_STATUS_DEADLINE && late.wait() == 20ms && late.name() == "add");
    CHECK(error_of([&] { client.call("drop", 10s); }).status() == LIBRPC_STATUS_FAILED);
    CHECK(error_of([&] { client.call("unknown", 10s); }).status() == LIBRPC_STATUS_UNIMPLEMENTED);
    auto pending = client.start("late", librpc::forever);
    CHECK(!pending.wait(0ns));
    pending.cancel();
    CHECK(error_of([&] { pending.wait(10s); }).status() == LIBRPC_STATUS_CANCELLED);
    auto answers = client.call_all("all", 10s);
    CHECK(answers.size() == 1 && answers[0].node == "a" && answers[0].reply->text() == "all!" && !answers[0].error);
    librpc::CallOptions elsewhere;
    elsewhere.node = "nobody";
    CHECK(error_of([&] { client.call("x", 1s, elsewhere); }).status() == LIBRPC_STATUS_NO_SERVER);
    server.stop();
    serving.join();
}

void wait_sets() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto server = a.serve("s");
    auto publisher = a.publisher("t");
    auto set = librpc::WaitSet::open();
    int ends[2];
    CHECK(pipe(ends) == 0);
    set.add(1, inbox);
    set.add(2, server);
    set.add(3, publisher);
    set.add_fd(4, ends[0]);
    CHECK(error_of([&] { set.add(1, server); }).status() == LIBRPC_STATUS_TAKEN);
    CHECK(error_of([&] { set.add_fd(5, -1); }).status() == LIBRPC_STATUS_INVALID_ARGUMENT);
    auto drain = [&](std::uint64_t but) {  // what is reported may have nothing
        while (but != 1 && inbox.try_recv()) {
        }
        while (but != 2 && server.recv(0ns)) {
        }
        while (but != 3 && publisher.recv_event(0ns)) {
        }
    };
    auto waits_for = [&](std::uint64_t token) {
        for (;;) {
            auto tokens = set.wait(10s);
            CHECK(!tokens.empty());
            if (std::count(tokens.begin(), tokens.end(), token) == 1) return;
            drain(token);
        }
    };
    while (!set.wait(0ns).empty()) drain(0);
    auto sender = b.connect("a");
    sender.send("x");
    waits_for(1);
    CHECK(inbox.recv(10s)->text() == "x");
    auto subscription = b.subscribe("t");
    waits_for(3);
    CHECK(publisher.recv_event(10s)->node == "b");
    auto client = b.client("s");
    auto pending = client.start("ask", 10s);
    waits_for(2);
    set.add(5, pending);
    server.recv(10s)->reply("answered");
    waits_for(5);
    CHECK(pending.wait(10s)->text() == "answered");
    CHECK(write(ends[1], "!", 1) == 1);
    waits_for(4);
    CHECK(set.remove(4) && !set.remove(4));
    close(ends[0]);
    close(ends[1]);
}

void statistics() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto sender = b.connect("a");
    for (int number = 0; number < 5; ++number) sender.send_value(number);
    for (int number = 0; number < 5; ++number) CHECK(inbox.recv(10s));
    auto stats = a.stats();
    CHECK(stats.totals.received == 5 && stats.totals.bytes_received == 20 && stats.channels.size() == 1);
    CHECK(stats.channels[0].peer == "b" && stats.channels[0].inbox == "node");
    CHECK(b.stats().totals.sent == 5);
    auto known = librpc::nodes(domain);
    CHECK(known.size() == 2 && known[0].alive && known[0].pid == static_cast<std::uint32_t>(getpid()));
    auto observed = librpc::observe(10s, domain);
    CHECK(observed.size() == 2 && observed[0].stats && observed[0].error.empty());
    CHECK(librpc::clean(domain) == 0);
}

void bad_arguments() {
    librpc_node* node = reinterpret_cast<librpc_node*>(1);
    CHECK(librpc_node_open(nullptr, nullptr, &node) == LIBRPC_STATUS_INVALID_ARGUMENT && node == nullptr);
    CHECK(std::string(librpc_last_error()->message).find("id") != std::string::npos);
    CHECK(librpc_node_open("a", nullptr, nullptr) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_node_open("\xff", nullptr, &node) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_node_open("a/b", nullptr, &node) == LIBRPC_STATUS_INVALID_NAME);
    librpc_node_options options{};  // no size
    CHECK(librpc_node_open("a", &options, &node) == LIBRPC_STATUS_INVALID_ARGUMENT);
    struct {
        librpc_node_options known;
        std::uint64_t newer;
    } newer{};
    newer.known.size = sizeof newer;
    newer.known.domain = domain.c_str();
    CHECK(librpc_node_open("a", &newer.known, &node) == LIBRPC_STATUS_OK);  // what it does not know is not set
    librpc_node* other = nullptr;
    newer.newer = 1;
    CHECK(librpc_node_open("b", &newer.known, &other) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(error_of([] { open("a"); }).status() == LIBRPC_STATUS_ID_IN_USE);
    CHECK(error_of([] { open("a"); }).pid() == static_cast<std::uint32_t>(getpid()));
    librpc_inbox* inbox = nullptr;
    librpc_inbox_options wrong{};
    wrong.size = sizeof wrong;
    wrong.policy = 99;
    CHECK(librpc_inbox_open(node, &wrong, &inbox) == LIBRPC_STATUS_INVALID_ARGUMENT);
    wrong.policy = 0;
    wrong.wait = 99;
    CHECK(librpc_inbox_open(node, &wrong, &inbox) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_subscribe(node, "a//b", nullptr, &inbox) == LIBRPC_STATUS_INVALID_NAME);
    CHECK(librpc_subscribe_all(node, nullptr, 1, nullptr, &inbox) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_subscribe_all(node, nullptr, 0, nullptr, &inbox) < 0);
    CHECK(librpc_inbox_open(node, nullptr, &inbox) == LIBRPC_STATUS_OK);
    librpc_inbox* second = nullptr;
    CHECK(librpc_inbox_open(node, nullptr, &second) == LIBRPC_STATUS_TAKEN && second == nullptr);
    librpc_message message{};
    CHECK(librpc_inbox_recv(nullptr, 0, &message) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_inbox_recv(inbox, 0, nullptr) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_inbox_recv(inbox, 0, &message) == LIBRPC_STATUS_NONE);
    CHECK(librpc_message_sender(&message) == nullptr && librpc_message_sender(nullptr) == nullptr);
    librpc_sender* sender = nullptr;
    CHECK(librpc_connect(node, "nobody", 0, nullptr, &sender) == LIBRPC_STATUS_NOT_FOUND);
    CHECK(std::string(librpc_last_error()->node) == "nobody");
    CHECK(librpc_connect(node, "a", 0, nullptr, &sender) == LIBRPC_STATUS_OK);
    CHECK(librpc_sender_send(sender, nullptr, 1) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_sender_send(sender, nullptr, 0) == LIBRPC_STATUS_OK);
    CHECK(librpc_sender_send(sender, "x", SIZE_MAX) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_inbox_recv(inbox, LIBRPC_FOREVER, &message) == LIBRPC_STATUS_OK && message.size == 0);
    librpc_info info{};
    CHECK(librpc_message_info(&message, &info) == LIBRPC_STATUS_INVALID_ARGUMENT);  // no size
    info.size = offsetof(librpc_info, topic);                                       // an older header
    CHECK(librpc_message_info(&message, &info) == LIBRPC_STATUS_OK && info.topic == nullptr);
    CHECK(librpc_inbox_recv(inbox, 0, &message) == LIBRPC_STATUS_NONE);
    info.size = sizeof info;
    CHECK(librpc_message_info(&message, &info) == LIBRPC_STATUS_INVALID_ARGUMENT);  // it is not valid any more
    librpc_loan* loan = nullptr;
    CHECK(librpc_sender_send_loan(sender, &loan) == LIBRPC_STATUS_INVALID_ARGUMENT);
    CHECK(librpc_sender_loan(sender, SIZE_MAX, &loan) < 0 && loan == nullptr);
    CHECK(librpc_inbox_callback(node, nullptr, nullptr, nullptr, nullptr) == LIBRPC_STATUS_INVALID_ARGUMENT);
    librpc_schema schema{};
    schema.size = sizeof schema;
    librpc_publisher_options typed{};
    typed.size = sizeof typed;
    typed.schema = &schema;
    librpc_publisher* publisher = nullptr;
    CHECK(librpc_publisher_open(node, "t", &typed, &publisher) == LIBRPC_STATUS_INVALID_ARGUMENT);  // no name
    CHECK(librpc_inbox_fd(nullptr) == -1 && librpc_loan_data(nullptr) == nullptr && librpc_sample_size(nullptr) == 0);
    for (int status = 1; status >= -34; --status) CHECK(std::string(librpc_status_name(status)) != "unknown");
    CHECK(std::string(librpc_status_name(-35)) == "unknown");
    librpc_inbox_stop(nullptr);
    librpc_inbox_free(nullptr);
    librpc_sender_free(nullptr);
    librpc_node_free(nullptr);
    librpc_inbox_free(inbox);
    librpc_sender_free(sender);
    CHECK(librpc_node_close(node, 10000000000) == LIBRPC_STATUS_OK);
    CHECK(librpc_node_close(nullptr, 0) == LIBRPC_STATUS_INVALID_ARGUMENT);
}

void forks() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto sender = b.connect("a");
    pid_t child = fork();
    if (child == 0) {
        bool told = error_of([&] { inbox.recv(); }).status() == LIBRPC_STATUS_FORKED &&
                    error_of([&] { sender.send("x"); }).status() == LIBRPC_STATUS_FORKED;
        auto own = open("child");  // it may open its own
        auto to_a = own.connect("a", 10s);
        to_a.send("from the child");
        to_a.flush(10s);
        std::_Exit(told ? 0 : 1);
    }
    CHECK(inbox.recv(30s)->text() == "from the child");
    while (inbox.recv(1ms)) {
    }
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) inbox.recv(1ms);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void closing() {
    auto a = open("a"), b = open("b");
    auto inbox = a.inbox();
    auto sender = b.connect("a");
    sender.send("unprocessed");
    auto error = error_of([&] { b.close(1ms); });
    CHECK(error.status() == LIBRPC_STATUS_TIMED_OUT && error.count() == 1 && error.node() == "b");
    CHECK(inbox.recv(10s)->text() == "unprocessed");
    CHECK(error_of([&] { sender.send("late"); }).status() == LIBRPC_STATUS_CLOSED);
}

void admission() {
    librpc::NodeOptions closed;
    closed.domain = domain;
    closed.admit_nobody = true;
    auto a = librpc::Node::open("a", closed);
    auto inbox = a.inbox();
    auto b = open("b");
    auto error = error_of([&] {
        auto sender = b.connect("a", 1s);
        sender.send("x");
        sender.flush(10s);
    });
    CHECK(error.status() == LIBRPC_STATUS_REFUSED || error.status() == LIBRPC_STATUS_LOST);
    librpc::NodeOptions open_to_me;
    open_to_me.domain = domain;
    open_to_me.admit = {{LIBRPC_RULE_KIND_UID, getuid(), "", false}, {LIBRPC_RULE_KIND_PID, static_cast<std::uint32_t>(getpid()), "", true}};
    auto c = librpc::Node::open("c", open_to_me);
    auto theirs = c.inbox();
    auto sender = b.connect("c");
    sender.send("let me in");
    CHECK(theirs.recv(10s)->text() == "let me in");
}

void v3() {
    librpc::NodeOptions options;
    options.domain = domain;
    librpc::v3::Node a("a", options), b("b", options);
    std::mutex mutex;
    std::vector<std::string> heard;
    a.setReceiveCallback(
        [&](const std::string& from, const std::string& topic, const void* data, std::size_t size) {
            std::lock_guard<std::mutex> lock(mutex);
            heard.push_back(from + " " + topic + " " + std::string(static_cast<const char*>(data), size));
        },
        {"robots"});
    CHECK(b.send("a", "one") && b.broadcast("robots", "pose", "two") && b.flush(10s));
    std::sort(heard.begin(), heard.end());
    CHECK(heard == std::vector<std::string>({"b  one", "b robots/pose two"}));
    CHECK(!b.send("nobody", "x") && b.lastError().find("nobody") != std::string::npos);
    CHECK(a.nodeExists("b") && !a.nodeExists("c") && !a.findNode("b").empty());
    CHECK(b.getStats().sent == 2 && a.getStats().received == 2 && b.getStats().dropped == 0);
}

void the_log() {
    static std::atomic<int> entries{0};
    CHECK(librpc_log_to("===", nullptr, nullptr) == LIBRPC_STATUS_INVALID_ARGUMENT);
    auto on_log = [](void*, int level, const char* target, const char* text) {
        entries += level >= LIBRPC_LEVEL_ERROR && std::string(target).rfind("librpc", 0) == 0 && text[0] != 0;
    };
    CHECK(librpc_log_to("librpc=debug", on_log, nullptr) == LIBRPC_STATUS_OK);
    CHECK(librpc_log_to("info", on_log, nullptr) == LIBRPC_STATUS_INVALID_ARGUMENT);  // once
    { auto a = open("a"); }
    CHECK(entries > 0);
}

}  // namespace

template <>
struct librpc::TypeOf<Pose> {
    static librpc::Schema schema() { return librpc::plain("Pose"); }
};
struct Point {
    double x, y;
};
template <>
struct librpc::TypeOf<Point> {
    static librpc::Schema schema() { return librpc::plain("Point"); }
};

namespace {

void typed() {
    auto a = open("a"), b = open("b");
    auto poses = librpc::subscriber_of<Pose>(a, "pose/*");
    auto publisher = librpc::publisher_of<Pose>(b, "pose/arm");
    CHECK(publisher.publish(Pose{1, 2}).inboxes == 1);
    CHECK(poses.recv_value(10s)->y == 2);
    CHECK(!poses.recv_value(0ns));
    auto other = librpc::publisher_of<Point>(b, "pose/leg");
    CHECK(other.publish(Point{1, 2}).inboxes == 0);
    auto error = error_of([&] { poses.recv_value(10s); });
    CHECK(error.status() == LIBRPC_STATUS_MISMATCH && error.name() == "pose/leg" && error.node() == "b");
    auto inbox = librpc::inbox_of<Pose>(a);
    CHECK(error_of([&] { librpc::connect_of<Point>(b, "a"); }).status() == LIBRPC_STATUS_MISMATCH);
    auto sender = librpc::connect_of<Pose>(b, "a");
    sender.send(Pose{3, 4});
    try {
        CHECK(inbox.recv_value(10s)->x == 3);
    } catch (const librpc::Error& told) {  // of the sender of another type, once
        CHECK(told.status() == LIBRPC_STATUS_MISMATCH);
        CHECK(inbox.recv_value(10s)->x == 3);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    domain = argv[1];
    struct {
        const char* name;
        void (*test)();
    } tests[] = {
        {"sends_and_receives", sends_and_receives}, {"flushes", flushes}, {"large_payloads", large_payloads},
        {"an_unsent_loan_is_given_back", an_unsent_loan_is_given_back}, {"events", events},
        {"what_does_not_arrive_is_said", what_does_not_arrive_is_said}, {"policies", policies},
        {"history_and_options", history_and_options}, {"typed", typed}, {"outboxes", outboxes},
        {"redelivery", redelivery}, {"a_message_comes_back", a_message_comes_back}, {"stops", stops},
        {"descriptors", descriptors}, {"callbacks", callbacks}, {"calls", calls}, {"wait_sets", wait_sets}, {"statistics", statistics},
        {"bad_arguments", bad_arguments}, {"forks", forks}, {"closing", closing}, {"admission", admission}, {"v3", v3},
        {"the_log", the_log},
    };
    int passed = 0;
    for (const auto& one : tests) {
        std::string wanted = argc > 2 ? argv[2] : "";  // NAME: only this test; -NAME: all others
        if (!wanted.empty() && (wanted[0] == '-' ? wanted.substr(1) == one.name : wanted != one.name)) continue;
        try {
            one.test();
            ++passed;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s: %s\n", one.name, error.what());
            return 1;
        }
    }
    std::printf("%d tests, %d checks\n", passed, checks);
    return 0;
}
