// librpc.so is loaded, used and given back by a program that does not link it, as by a plugin. Usage: unload LIBRARY DOMAIN.
#include <librpc.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *domain;
static void *library;

static void *function(const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}

#define FUNCTION(name, made) memcpy(&name, &(void *){function(made)}, sizeof(void *))

static void *opens_a_node(void *unused) {
    librpc_status (*open_node)(const char *, const librpc_node_options *, librpc_node **);
    librpc_status (*open_inbox)(const librpc_node *, const librpc_inbox_options *, librpc_inbox **);
    void (*free_inbox)(librpc_inbox *);
    void (*free_node)(librpc_node *);
    FUNCTION(open_node, "librpc_node_open");
    FUNCTION(open_inbox, "librpc_inbox_open");
    FUNCTION(free_inbox, "librpc_inbox_free");
    FUNCTION(free_node, "librpc_node_free");
    librpc_node_options options = {.size = sizeof options, .domain = domain};
    librpc_node *node;
    librpc_inbox *inbox;
    if (open_node("plugin", &options, &node) < 0 || open_inbox(node, NULL, &inbox) < 0) exit(1);
    free_inbox(inbox);
    free_node(node);
    return unused;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    domain = argv[2];
    for (int round = 0; round < 3; ++round) {
        library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        pthread_t thread;
        if (pthread_create(&thread, NULL, opens_a_node, NULL) != 0 || pthread_join(thread, NULL) != 0) return 1;
        dlclose(library);
    }
    library = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
    puts(library == NULL ? "unloaded" : "still there");
    return 0;
}
