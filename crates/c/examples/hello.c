/* Two nodes in one program: one sends, the other receives. Usage: hello [DOMAIN] */
#include <librpc.h>
#include <stdio.h>
#include <string.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, librpc_last_error()->message);
    return 1;
}

int main(int argc, char **argv) {
    librpc_node_options options = {.size = sizeof options, .domain = argc > 1 ? argv[1] : NULL};
    librpc_node *display = NULL, *camera = NULL;
    librpc_inbox *inbox = NULL;
    librpc_sender *sender = NULL;
    librpc_message message;

    if (librpc_node_open("display", &options, &display) < 0) return failed("display");
    if (librpc_inbox_open(display, NULL, &inbox) < 0) return failed("inbox");
    if (librpc_node_open("camera", &options, &camera) < 0) return failed("camera");
    if (librpc_connect(camera, "display", 1000000000, NULL, &sender) < 0) return failed("connect");

    if (librpc_sender_send(sender, "hello", strlen("hello")) < 0) return failed("send");
    if (librpc_inbox_recv(inbox, LIBRPC_FOREVER, &message) < 0) return failed("recv");
    printf("%s: %.*s\n", librpc_message_sender(&message), (int)message.size, (const char *)message.data);

    librpc_inbox_free(inbox); /* in any order */
    librpc_sender_free(sender);
    librpc_node_free(camera);
    librpc_node_free(display);
    return 0;
}
