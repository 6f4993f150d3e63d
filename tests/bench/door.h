/* What the servers on loopback have in common: a port of their own, and their end. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096, EVENTS = 256 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Listen at a free port, and print it as "port N". Nobody is left behind by a
 * benchmark that is killed, and there is a descriptor for every guest. */
static int open_door(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    struct rlimit limit;
    int door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (bind(door, (struct sockaddr *)&here, size) || listen(door, BACKLOG) ||
        getsockname(door, (struct sockaddr *)&here, &size))
        fail("listen");
    printf("port %d\n", ntohs(here.sin_port));
    fflush(stdout);
    return door;
}

/* Return the next guest, -1 if there is none now. */
static int let_one_in(int door) {
    int guest = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (guest < 0 && errno != EAGAIN && errno != ECONNABORTED) fail("accept");
    return guest;
}

static void watch(int events, int fd, uint32_t for_what, void *what) {
    struct epoll_event event = {.events = for_what, .data.ptr = what};
    if (epoll_ctl(events, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}
