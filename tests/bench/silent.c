/* Clients that connect and never say a word, held open until standard input ends.
 *
 * Prints "connected N" when all stand, and "open N" for those the server had
 * not closed at the end: a server that hangs up on its guests early would
 * otherwise look as if it could bear them. Several processes share the
 * connections, because a process may have too few descriptors.
 *
 * usage: silent SOCKET CONNECTIONS
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHARE = 4000, MAX_CONNECTIONS = 100000, WAIT_SECONDS = 10 };

struct holder {
    int tell, hear; /* the parent's ends: closing `tell` ends the holder */
};

static struct pollfd guests[SHARE];

static int enter(const struct sockaddr_un *door) {
    struct timeval wait = {.tv_sec = WAIT_SECONDS};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    if (connect(fd, (const struct sockaddr *)door, sizeof *door) == 0) return fd;
    close(fd);
    return -1;
}

static int still_open(int count) {
    int open = count;
    if (poll(guests, (nfds_t)count, 0) <= 0) return count;
    for (int i = 0; i < count; i++) open -= guests[i].revents != 0;
    return open;
}

/* Connect, tell how many came in, wait, tell how many are left. */
static void hold(const struct sockaddr_un *door, int wanted, int from, int to) {
    int count = 0, open;
    char ignored;

    for (int fd; count < wanted && (fd = enter(door)) >= 0; count++)
        guests[count] = (struct pollfd){.fd = fd, .events = POLLIN};
    if (write(to, &count, sizeof count) != sizeof count) _exit(1);
    if (read(from, &ignored, 1) < 0) _exit(1);
    open = still_open(count);
    _exit(write(to, &open, sizeof open) != sizeof open);
}

static struct holder start_holder(const struct sockaddr_un *door, int wanted) {
    int down[2], up[2];

    if (pipe2(down, O_CLOEXEC) < 0 || pipe2(up, O_CLOEXEC) < 0) {
        perror("pipe");
        exit(1);
    }
    switch (fork()) {
    case -1:
        perror("fork");
        exit(1);
    case 0:
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(down[1]);
        close(up[0]);
        hold(door, wanted, down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    return (struct holder){.tell = down[1], .hear = up[0]};
}

static void announce(const char *word, const struct holder *holders, int count) {
    long sum = 0;
    for (int i = 0; i < count; i++) {
        int part = 0;
        if (read(holders[i].hear, &part, sizeof part) == sizeof part) sum += part;
    }
    printf("%s %ld\n", word, sum);
    fflush(stdout);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_un door = {.sun_family = AF_UNIX};
    struct holder holders[MAX_CONNECTIONS / SHARE + 1];
    int wanted = argc == 3 ? atoi(argv[2]) : 0, count = 0;
    char line[256];

    if (wanted < 1 || wanted > MAX_CONNECTIONS || strlen(argv[1]) >= sizeof door.sun_path) {
        fputs("usage: silent SOCKET CONNECTIONS\n", stderr);
        return 2;
    }
    strcpy(door.sun_path, argv[1]);
    raise_descriptor_limit();
    for (; wanted > 0; wanted -= SHARE)
        holders[count++] = start_holder(&door, wanted < SHARE ? wanted : SHARE);
    announce("connected", holders, count);
    while (read(STDIN_FILENO, line, sizeof line) > 0) continue;
    /* A later holder has inherited the earlier ones' pipes: a byte wakes them, an end would not. */
    for (int i = 0; i < count; i++)
        if (write(holders[i].tell, "", 1) != 1) perror("holder");
    announce("open", holders, count);
    while (wait(NULL) > 0) continue;
    return 0;
}
