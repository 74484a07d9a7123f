/* A fixed number of 64-byte messages from one node to another, on one thread, as crates/librpc/examples/instructions.rs does: for
 * bench/instructions --c, which counts what C costs. Usage: instructions DOMAIN send|publish BATCHES */
#include <librpc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 8
#define PAYLOAD_BYTES 64

static const unsigned char payload[PAYLOAD_BYTES] = {7};

static void check(librpc_status status) {
    if (status != LIBRPC_STATUS_OK) {
        fprintf(stderr, "%s\n", status < 0 ? librpc_last_error()->message : "nothing came");
        exit(1);
    }
}

/* callgrind looks for these by name. */

__attribute__((noinline)) void send_batch(librpc_sender *sender) {
    for (int at = 0; at < BATCH; ++at) {
        if (librpc_sender_send(sender, payload, sizeof payload) != LIBRPC_STATUS_OK) exit(1);
    }
}

__attribute__((noinline)) void publish_batch(librpc_publisher *publisher) {
    for (int at = 0; at < BATCH; ++at) {
        librpc_receipt receipt;
        if (librpc_publisher_publish(publisher, payload, sizeof payload, &receipt) != LIBRPC_STATUS_OK || receipt.inboxes != 1) exit(1);
    }
}

__attribute__((noinline)) void receive_batch(librpc_inbox *inbox) {
    for (int at = 0; at < BATCH; ++at) {
        librpc_message message;
        if (librpc_inbox_recv(inbox, LIBRPC_FOREVER, &message) != LIBRPC_STATUS_OK || message.size != sizeof payload) exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    long batches = atol(argv[3]);
    librpc_node_options options = {.size = sizeof options, .domain = argv[1]};
    librpc_inbox_options spinning = {.size = sizeof spinning, .wait = LIBRPC_WAIT_SPIN};
    librpc_node *here, *there;
    librpc_inbox *inbox;
    librpc_message message;
    check(librpc_node_open("here", &options, &here));
    check(librpc_node_open("there", &options, &there));
    if (!strcmp(argv[2], "send")) {
        librpc_sender *sender;
        check(librpc_inbox_open(there, &spinning, &inbox));
        check(librpc_connect(here, "there", LIBRPC_FOREVER, NULL, &sender));
        check(librpc_sender_send(sender, payload, sizeof payload));
        check(librpc_inbox_recv(inbox, LIBRPC_FOREVER, &message));
        for (long at = 0; at < batches; ++at) {
            send_batch(sender);
            receive_batch(inbox);
        }
        librpc_sender_free(sender);
    } else {
        librpc_publisher *publisher;
        check(librpc_subscribe(there, "topic", &spinning, &inbox));
        check(librpc_publisher_open(here, "topic", NULL, &publisher));
        check(librpc_publisher_publish(publisher, payload, sizeof payload, NULL));
        check(librpc_inbox_recv(inbox, LIBRPC_FOREVER, &message));
        for (long at = 0; at < batches; ++at) {
            publish_batch(publisher);
            receive_batch(inbox);
        }
        librpc_publisher_free(publisher);
    }
    librpc_inbox_free(inbox);
    librpc_node_free(here);
    librpc_node_free(there);
    return 0;
}
