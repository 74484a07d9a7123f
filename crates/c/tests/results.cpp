// The same header without exceptions: errors are values. Usage: results DOMAIN. Compiled with -DLIBRPC_RESULTS, and with -fno-exceptions.
#include <librpc.hpp>

#include <cstdio>

#define CHECK(what)                                                             \
    do {                                                                        \
        if (!(what)) {                                                          \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            return 1;                                                           \
        }                                                                       \
    } while (false)

struct Pose {
    double x, y;
};
template <>
struct librpc::TypeOf<Pose> {
    static librpc::Schema schema() { return librpc::plain("Pose"); }
};

int main(int argc, char** argv) {
    librpc::NodeOptions options;
    if (argc > 1) options.domain = argv[1];
    auto wrong = librpc::Node::open(".a", options);
    CHECK(!wrong.ok() && wrong.error().status() == LIBRPC_STATUS_INVALID_NAME);
    auto a = librpc::Node::open("a", options), b = librpc::Node::open("b", options);
    CHECK(a && b);
    auto inbox = a->inbox();
    auto sender = b->connect("a");
    CHECK(inbox && sender);
    CHECK(sender->send("hello"));
    auto message = inbox->recv(std::chrono::seconds(10));
    CHECK(message && *message && (**message).text() == "hello");
    CHECK((**message).as<Pose>().error().status() == LIBRPC_STATUS_MISMATCH);
    auto nobody = b->connect("nobody", std::chrono::nanoseconds(0));
    CHECK(!nobody && nobody.error().status() == LIBRPC_STATUS_NOT_FOUND && nobody.error().node() == "nobody");
    auto poses = librpc::subscriber_of<Pose>(*a, "pose");
    auto publisher = librpc::publisher_of<Pose>(*b, "pose");
    CHECK(poses && publisher);
    auto receipt = publisher->publish(Pose{1, 2});
    CHECK(receipt && receipt->inboxes == 1);
    auto pose = poses->recv_value(std::chrono::seconds(10));
    CHECK(pose && *pose && (*pose)->y == 2);
    auto flushed = sender->flush(std::chrono::milliseconds(1));
    CHECK(!flushed && flushed.error().status() == LIBRPC_STATUS_TIMED_OUT && flushed.error().count() == 1);
    std::printf("done\n");
    return 0;
}
