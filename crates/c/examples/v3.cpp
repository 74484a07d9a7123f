// What a program of V3 did, with its names: nodes send to one another, broadcast in a group, and read their statistics. Usage: v3 [DOMAIN]
#include <librpc_v3.hpp>

#include <condition_variable>
#include <iostream>

int main(int argc, char** argv) {
    librpc::NodeOptions options;
    if (argc > 1) options.domain = argv[1];

    std::mutex mutex;
    std::condition_variable heard;
    int messages = 0;

    librpc::v3::Node arm("arm", options);
    arm.setReceiveCallback(
        [&](const std::string& from, const std::string& topic, const void* data, std::size_t size) {
            std::lock_guard<std::mutex> lock(mutex);
            std::cout << from << (topic.empty() ? "" : " on " + topic) << ": "
                      << std::string(static_cast<const char*>(data), size) << "\n";
            ++messages;
            heard.notify_one();
        },
        {"robots"});

    librpc::v3::Node planner("planner", options);
    if (!planner.send("arm", "go home")) std::cerr << planner.lastError() << "\n";
    if (!planner.broadcast("robots", "pose", "1 2 3")) std::cerr << planner.lastError() << "\n";
    if (planner.send("nobody", "lost")) return 1;
    std::cout << planner.lastError() << "\n";

    std::unique_lock<std::mutex> lock(mutex);
    heard.wait(lock, [&] { return messages == 2; });
    auto sent = planner.getStats();
    std::cout << "sent " << sent.sent << ", dropped " << sent.dropped << ", arm is " << (planner.nodeExists("arm") ? "there" : "gone")
              << "\n";
}
