// One side of an exchange, for the tests between languages (crates/c/test). Usage: peer DOMAIN ID ROLE ...
#include <librpc.hpp>

#include <cstdlib>
#include <iostream>

namespace {

constexpr auto minute = std::chrono::minutes(1);
constexpr std::size_t large = 65536;

[[noreturn]] void lie(const std::string& what, std::uint64_t number) {
    throw std::runtime_error(what + " at message " + std::to_string(number));
}

// A numbered payload: the number in 8 bytes, then its lowest byte throughout.
void fill(std::byte* payload, std::size_t size, std::uint64_t number) {
    std::memset(payload, static_cast<int>(number & 255), size);
    std::memcpy(payload, &number, sizeof number);
}

std::uint64_t number_of(librpc::Bytes payload) {
    std::uint64_t number;
    if (payload.size() < sizeof number) lie("a short payload", payload.size());
    std::memcpy(&number, payload.data(), sizeof number);
    for (std::size_t at = sizeof number; at < payload.size(); ++at) {
        if (payload[at] != static_cast<std::byte>(number & 255)) lie("a torn payload", number);
    }
    return number;
}

void receive(librpc::Inbox& inbox, std::uint64_t count) {
    for (std::uint64_t next = 0; next < count; ++next) {
        std::uint64_t number = next % 2 == 0 ? number_of(inbox.recv(minute)->payload())
                                             : number_of(inbox.recv_sample(minute)->payload());
        if (number != next) lie("another message", next);
    }
}

void watch(librpc::Inbox& inbox) {
    std::uint64_t next = 0;
    while (auto event = inbox.recv_event(minute)) {
        if (event->kind() == LIBRPC_EVENT_KIND_MESSAGE) {
            if (number_of(event->message().payload()) != next++) lie("another message", next);
        } else if (event->kind() == LIBRPC_EVENT_KIND_SENDER_LEFT) {
            std::cout << (event->departure() == LIBRPC_DEPARTURE_DIED ? "died " : "left ") << next << std::endl;
            return;
        }
    }
}

template <class To, class Loans>
void send_all(std::uint64_t count, std::size_t size, To send, Loans loan) {
    std::vector<std::byte> payload(size);
    for (std::uint64_t number = 0; number < count; ++number) {
        if (size >= large && number % 2 == 1) {
            loan(number);
        } else {
            fill(payload.data(), size, number);
            send(payload);
        }
        if (number == 0) std::cout << "begun" << std::endl;
    }
}

void answer(librpc::Request request) {
    if (request.text() == "fail") {
        request.fail(7, "as asked");
    } else if (request.text() == "stream") {
        auto stream = request.stream();
        for (std::uint64_t part = 0; part < 100; ++part) stream.send(librpc::Bytes(&part, sizeof part));
        stream.finish();
    } else {
        request.reply(request.payload());
    }
}

void call_all(const librpc::Client& client, std::uint64_t count, std::size_t size) {
    std::vector<std::byte> payload(size);
    for (std::uint64_t number = 0; number < count; ++number) {
        fill(payload.data(), size, number);
        auto reply = client.call(payload, minute);
        if (reply.payload().size() != size || number_of(reply.payload()) != number) lie("another reply", number);
    }
    try {
        client.call("fail", minute);
        lie("no failure", 7);
    } catch (const librpc::Error& error) {
        if (error.status() != LIBRPC_STATUS_FAILED || error.code() != 7) throw;
    }
    std::uint64_t parts = 0;
    auto replies = client.call_stream("stream", minute);
    for (const librpc::Reply& part : replies) {
        if (part.as<std::uint64_t>() != parts++) lie("another part", parts);
    }
    if (parts != 100) lie("a short stream", parts);
}

void run(char** argv) {
    librpc::NodeOptions options;
    options.domain = argv[1];
    auto node = librpc::Node::open(argv[2], options);
    std::string role = argv[3];
    auto number = [&](int at) { return std::strtoull(argv[at], nullptr, 10); };
    if (role == "recv" || role == "watch") {  // recv COUNT, watch
        auto inbox = node.inbox();
        std::cout << "ready" << std::endl;
        role == "watch" ? watch(inbox) : receive(inbox, number(4));
    } else if (role == "sub") {  // sub PATTERN COUNT
        auto inbox = node.subscribe(argv[4]);
        std::cout << "ready" << std::endl;
        receive(inbox, number(5));
    } else if (role == "send") {  // send TO COUNT SIZE
        auto sender = node.connect(argv[4], minute);
        send_all(
            number(5), number(6), [&](const auto& payload) { sender.send(payload); },
            [&](std::uint64_t number_now) {
                auto loan = sender.loan(number(6));
                fill(loan.data(), loan.size(), number_now);
                sender.send(std::move(loan));
            });
        sender.flush(minute);
    } else if (role == "pub") {  // pub TOPIC COUNT SIZE
        auto publisher = node.publisher(argv[4]);
        publisher.wait_for_subscriber(minute);
        auto reached = [](const librpc::Receipt& receipt) {
            if (receipt.inboxes != 1) lie("a receipt of no inbox", 0);
        };
        send_all(
            number(5), number(6), [&](const auto& payload) { reached(publisher.publish(payload)); },
            [&](std::uint64_t number_now) {
                auto loan = publisher.loan(number(6));
                fill(loan.data(), loan.size(), number_now);
                reached(publisher.publish(std::move(loan)));
            });
        publisher.flush(minute);
    } else if (role == "serve") {  // serve SERVICE
        auto server = node.serve(argv[4]);
        std::cout << "ready" << std::endl;
        while (auto request = server.recv()) answer(std::move(*request));
    } else if (role == "call") {  // call SERVICE COUNT SIZE
        auto client = node.client(argv[4]);
        client.wait_for_server(minute);
        call_all(client, number(5), number(6));
    } else {
        throw std::runtime_error("no role " + role);
    }
    std::cout << "done" << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) return 2;
    try {
        run(argv);
        return 0;
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
