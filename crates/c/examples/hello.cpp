// Two nodes in one program: one sends, the other receives. Usage: hello [DOMAIN]
#include <librpc.hpp>

#include <iostream>

int main(int argc, char** argv) {
    librpc::NodeOptions options;
    if (argc > 1) options.domain = argv[1];
    try {
        auto display = librpc::Node::open("display", options);
        auto inbox = display.inbox();
        auto camera = librpc::Node::open("camera", options);
        auto sender = camera.connect("display");
        sender.send("hello");
        auto message = inbox.recv();
        std::cout << message->sender() << ": " << message->text() << "\n";
    } catch (const librpc::Error& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
