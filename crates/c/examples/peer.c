/* One side of an exchange, for the tests between languages (crates/c/test). Usage: peer DOMAIN ID ROLE ... */
#define _POSIX_C_SOURCE 200809L
#include <librpc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE 60000000000ull
#define LARGE 65536

static void check(librpc_status status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, librpc_last_error()->message);
        exit(1);
    }
}

static void lie(const char *what, unsigned long long number) {
    fprintf(stderr, "%s at message %llu\n", what, number);
    exit(1);
}

/* A numbered payload: the number in 8 bytes, then its lowest byte throughout. */
static void fill(unsigned char *payload, size_t size, uint64_t number) {
    memset(payload, (int)(number & 255), size);
    memcpy(payload, &number, sizeof number);
}

static uint64_t number_of(const void *payload, size_t size) {
    uint64_t number;
    if (size < sizeof number) lie("a short payload", size);
    memcpy(&number, payload, sizeof number);
    for (size_t at = sizeof number; at < size; ++at) {
        if (((const unsigned char *)payload)[at] != (number & 255)) lie("a torn payload", number);
    }
    return number;
}

static void say(const char *line) {
    puts(line);
    fflush(stdout);
}

static void receive(librpc_inbox *inbox, uint64_t count) {
    for (uint64_t next = 0; next < count; ++next) {
        if (next % 2 == 0) {
            librpc_message message;
            check(librpc_inbox_recv(inbox, MINUTE, &message), "recv");
            if (number_of(message.data, message.size) != next) lie("another message", next);
        } else {
            librpc_sample *sample;
            check(librpc_inbox_recv_sample(inbox, MINUTE, &sample), "recv_sample");
            if (number_of(librpc_sample_data(sample), librpc_sample_size(sample)) != next) lie("another message", next);
            librpc_sample_free(sample);
        }
    }
}

static void watch(librpc_inbox *inbox) {
    uint64_t next = 0;
    for (;;) {
        librpc_event event;
        check(librpc_inbox_recv_event(inbox, MINUTE, &event), "recv_event");
        if (event.kind == LIBRPC_EVENT_KIND_MESSAGE) {
            if (number_of(event.message.data, event.message.size) != next++) lie("another message", next);
        } else if (event.kind == LIBRPC_EVENT_KIND_SENDER_LEFT) {
            printf("%s %llu\n", event.departure == LIBRPC_DEPARTURE_DIED ? "died" : "left", (unsigned long long)next);
            return;
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const char *role = argv[3];
    librpc_node_options options = {.size = sizeof options, .domain = argv[1]};
    librpc_node *node;
    check(librpc_node_open(argv[2], &options, &node), "open");

    if (!strcmp(role, "recv") || !strcmp(role, "sub") || !strcmp(role, "watch")) { /* recv COUNT, sub PATTERN COUNT, watch */
        librpc_inbox *inbox;
        if (!strcmp(role, "sub"))
            check(librpc_subscribe(node, argv[4], NULL, &inbox), "subscribe");
        else
            check(librpc_inbox_open(node, NULL, &inbox), "inbox");
        say("ready");
        if (!strcmp(role, "watch"))
            watch(inbox);
        else
            receive(inbox, strtoull(argv[argc - 1], NULL, 10));
        librpc_inbox_free(inbox);
    } else if (!strcmp(role, "send") || !strcmp(role, "pub")) { /* send TO COUNT SIZE, pub TOPIC COUNT SIZE */
        uint64_t count = strtoull(argv[5], NULL, 10);
        size_t size = strtoull(argv[6], NULL, 10);
        unsigned char *payload = malloc(size);
        librpc_sender *sender = NULL;
        librpc_publisher *publisher = NULL;
        if (!strcmp(role, "send")) {
            check(librpc_connect(node, argv[4], MINUTE, NULL, &sender), "connect");
        } else {
            check(librpc_publisher_open(node, argv[4], NULL, &publisher), "publisher");
            check(librpc_publisher_wait_for_subscriber(publisher, MINUTE), "wait");
        }
        for (uint64_t number = 0; number < count; ++number) {
            librpc_receipt receipt = {0};
            if (size >= LARGE && number % 2 == 1) { /* filled in place */
                librpc_loan *loan;
                check(sender ? librpc_sender_loan(sender, size, &loan) : librpc_publisher_loan(publisher, size, &loan), "loan");
                fill(librpc_loan_data(loan), librpc_loan_size(loan), number);
                check(sender ? librpc_sender_send_loan(sender, &loan) : librpc_publisher_publish_loan(publisher, &loan, &receipt),
                      "send a loan");
                if (loan != NULL) lie("a loan that is left", number);
            } else {
                fill(payload, size, number);
                check(sender ? librpc_sender_send(sender, payload, size)
                             : librpc_publisher_publish(publisher, payload, size, &receipt),
                      "send");
            }
            if (publisher != NULL && receipt.inboxes != 1) lie("a receipt of no inbox", number);
            if (number == 0) say("begun");
        }
        check(sender ? librpc_sender_flush(sender, MINUTE) : librpc_publisher_flush(publisher, MINUTE), "flush");
        librpc_sender_free(sender);
        librpc_publisher_free(publisher);
        free(payload);
    } else if (!strcmp(role, "serve")) { /* serve SERVICE */
        librpc_server *server;
        check(librpc_serve(node, argv[4], NULL, &server), "serve");
        say("ready");
        for (;;) {
            librpc_request *request;
            librpc_status status = librpc_server_recv(server, LIBRPC_FOREVER, &request);
            check(status, "recv");
            size_t size = librpc_request_size(request);
            const char *data = librpc_request_data(request);
            if (size == 4 && !memcmp(data, "fail", 4)) {
                check(librpc_request_fail(request, 7, "as asked"), "fail");
            } else if (size == 6 && !memcmp(data, "stream", 6)) {
                librpc_reply_stream *stream;
                check(librpc_request_stream(request, &stream), "stream");
                for (uint64_t part = 0; part < 100; ++part) check(librpc_reply_stream_send(stream, &part, sizeof part), "part");
                check(librpc_reply_stream_finish(stream), "finish");
            } else {
                check(librpc_request_reply(request, data, size), "reply");
            }
        }
    } else if (!strcmp(role, "call")) { /* call SERVICE COUNT SIZE */
        librpc_client *client;
        librpc_reply *reply;
        check(librpc_client_open(node, argv[4], NULL, &client), "client");
        check(librpc_client_wait_for_server(client, MINUTE), "wait");
        size_t size = strtoull(argv[6], NULL, 10);
        unsigned char *payload = malloc(size);
        for (uint64_t number = 0; number < strtoull(argv[5], NULL, 10); ++number) {
            fill(payload, size, number);
            check(librpc_client_call(client, payload, size, MINUTE, NULL, &reply), "call");
            if (librpc_reply_size(reply) != size || number_of(librpc_reply_data(reply), size) != number) lie("another reply", number);
            librpc_reply_free(reply);
        }
        librpc_status status = librpc_client_call(client, "fail", 4, MINUTE, NULL, &reply);
        if (status != LIBRPC_STATUS_FAILED || librpc_last_error()->code != 7 || reply != NULL) lie("no failure", 7);
        librpc_replies *replies;
        check(librpc_client_call_stream(client, "stream", 6, MINUTE, NULL, &replies), "call_stream");
        uint64_t parts = 0;
        while ((status = librpc_replies_next(replies, MINUTE, &reply)) == LIBRPC_STATUS_OK) {
            uint64_t part;
            memcpy(&part, librpc_reply_data(reply), sizeof part);
            if (part != parts++) lie("another part", parts);
            librpc_reply_free(reply);
        }
        check(status, "next");
        if (parts != 100 || !librpc_replies_is_over(replies)) lie("a short stream", parts);
        librpc_replies_free(replies);
        librpc_client_free(client);
        free(payload);
    } else {
        return 2;
    }
    librpc_node_free(node);
    say("done");
    return 0;
}
