/* A load for the saslauthd mux door, shaped like libsasl2: every request is a
 * connection of its own, written with one call, answered, closed.
 *
 * Only answers count that say what was expected; the rest is reported beside
 * them. Two bounds hold at once, time and number, and no single wait is longer
 * than the one given with -w; SIGTERM ends a run before its time. One line of
 * JSON goes to standard output.
 *
 * The requests are encoded and the latency table is touched before the clients
 * start, so that the measured stretch holds little but the system calls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    FIELDS = 4,                /* login, password, service, realm */
    FIELD_BYTES = 256,         /* the C daemon refuses longer ones */
    REPLY_BYTES = 1024,        /* as much as libsasl2 reads */
    MAX_THREADS = 1024,
    MAX_USERS = 100000,
    MAX_SECONDS = 600,
    MAX_REQUESTS = 4 << 20,    /* eight bytes of latency table for each */
    PATIENCE = 10,             /* failures in a row after which a client gives up */
};

enum verdict { SAID_OK, SAID_NO, SAID_OTHER, NO_ANSWER, VERDICTS };

struct packet {
    unsigned char *bytes;
    size_t size;
};

struct plan {
    struct sockaddr_un door;
    struct timeval wait;
    struct packet *packets;
    long users, threads, requests;
    uint64_t length;           /* nanoseconds */
    enum verdict expected;
    pthread_barrier_t start;
};

/* One cache line or more for each client: their counters must not share one. */
struct client {
    _Alignas(128) struct plan *plan;
    pthread_t thread;
    long number, allowance, done;
    uint64_t *latency, began, ended;
    long count[VERDICTS];
};

static volatile sig_atomic_t is_over;

static void end_early(int number) {
    (void)number;
    is_over = 1;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *room(size_t count, size_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, 128, count * size + 1)) fail("memory");
    return memset(memory, 0, count * size + 1);
}

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- one request ------------------------------------------------------- */

static int dial(const struct plan *plan) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    /* The send deadline also bounds a connect that waits for a full backlog. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &plan->wait, sizeof plan->wait) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &plan->wait, sizeof plan->wait) == 0 &&
        connect(fd, (const struct sockaddr *)&plan->door, sizeof plan->door) == 0)
        return fd;
    close(fd);
    return -1;
}

static enum verdict listen_for_verdict(int fd) {
    unsigned char reply[2 + REPLY_BYTES];
    size_t have = 0, need = 2;

    while (have < need) {
        ssize_t more = recv(fd, reply + have, sizeof reply - have, 0);
        if (more <= 0) return NO_ANSWER;
        have += (size_t)more;
        if (have >= 2) need = 2 + ((size_t)reply[0] << 8 | reply[1]);
        if (need > sizeof reply) return SAID_OTHER;
    }
    if (need >= 4 && reply[2] == 'O' && reply[3] == 'K') return SAID_OK;
    if (need >= 4 && reply[2] == 'N' && reply[3] == 'O') return SAID_NO;
    return SAID_OTHER;
}

static enum verdict ask(const struct plan *plan, const struct packet *packet) {
    enum verdict verdict = NO_ANSWER;
    int fd = dial(plan);
    if (fd < 0) return NO_ANSWER;
    if (send(fd, packet->bytes, packet->size, MSG_NOSIGNAL) == (ssize_t)packet->size)
        verdict = listen_for_verdict(fd);
    close(fd);
    return verdict;
}

/* ---- one client -------------------------------------------------------- */

static void *run_client(void *argument) {
    struct client *me = argument;
    struct plan *plan = me->plan;
    /* Clients start evenly spread over the users, so that they ask for different ones. */
    long user = me->number * plan->users / plan->threads;
    int failures = 0;

    pthread_barrier_wait(&plan->start);
    me->began = me->ended = clock_ns();
    while (me->done < me->allowance && me->ended - me->began < plan->length && !is_over) {
        uint64_t before = me->ended;
        enum verdict verdict = ask(plan, &plan->packets[user]);
        me->ended = clock_ns();
        me->latency[me->done++] = me->ended - before;
        me->count[verdict]++;
        failures = verdict == NO_ANSWER ? failures + 1 : 0;
        if (failures == PATIENCE) break;
        if (++user == plan->users) user = 0;
    }
    return NULL;
}

/* Clients start with it blocked: a signal would break off their wait for an answer. */
static void heed_sigterm(int how) {
    struct sigaction action = {.sa_handler = end_early};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (sigaction(SIGTERM, &action, NULL) || pthread_sigmask(how, &set, NULL)) fail("SIGTERM");
}

static void run(struct plan *plan, struct client *clients) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    if (pthread_barrier_init(&plan->start, NULL, (unsigned)plan->threads)) fail("barrier");
    for (long i = 0; i < plan->threads; i++) {
        clients[i].plan = plan;
        clients[i].number = i;
        clients[i].allowance = plan->requests / plan->threads + (i < plan->requests % plan->threads);
        clients[i].latency = room((size_t)clients[i].allowance, sizeof(uint64_t));
    }
    heed_sigterm(SIG_BLOCK);
    for (long i = 0; i < plan->threads; i++)
        if ((errno = pthread_create(&clients[i].thread, &small, run_client, &clients[i])))
            fail("thread");
    heed_sigterm(SIG_UNBLOCK);
    for (long i = 0; i < plan->threads; i++) pthread_join(clients[i].thread, NULL);
}

/* ---- the report -------------------------------------------------------- */

static int by_size(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static double microseconds(const uint64_t *sorted, long count, double share) {
    if (!count) return 0;
    long place = (long)(share * (double)count);
    return (double)sorted[place < count ? place : count - 1] / 1e3;
}

static void report(const struct plan *plan, const struct client *clients) {
    long count[VERDICTS] = {0}, done = 0, filled = 0;
    uint64_t began = UINT64_MAX, ended = 0;

    for (long i = 0; i < plan->threads; i++) {
        for (int v = 0; v < VERDICTS; v++) count[v] += clients[i].count[v];
        done += clients[i].done;
        if (clients[i].began < began) began = clients[i].began;
        if (clients[i].ended > ended) ended = clients[i].ended;
    }
    uint64_t *all = room((size_t)done, sizeof *all);
    for (long i = 0; i < plan->threads; i++) {
        memcpy(all + filled, clients[i].latency, (size_t)clients[i].done * sizeof *all);
        filled += clients[i].done;
    }
    qsort(all, (size_t)done, sizeof *all, by_size);

    long right = count[plan->expected];
    double seconds = (double)(ended - began) / 1e9;
    printf("{\"threads\": %ld, \"right\": %ld, \"wrong\": %ld, \"errors\": %ld, ", plan->threads,
           right, done - right - count[NO_ANSWER], count[NO_ANSWER]);
    printf("\"ok\": %ld, \"no\": %ld, \"other\": %ld, ", count[SAID_OK], count[SAID_NO],
           count[SAID_OTHER]);
    printf("\"seconds\": %.6f, \"right_per_second\": %.1f, ", seconds,
           seconds > 0 ? (double)right / seconds : 0);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n", microseconds(all, done, .50),
           microseconds(all, done, .99), microseconds(all, done, 1));
}

/* ---- the command line -------------------------------------------------- */

static void usage(void) {
    fputs("usage: muxload [-t threads] [-s seconds] [-n requests] [-x OK|NO] [-u users]\n"
          "               [-w seconds] SOCKET LOGIN PASSWORD SERVICE REALM\n"
          "  -u users  ask for LOGIN0, LOGIN1 ... in turn\n"
          "  -w wait   the longest wait for one connect or one reply (default 10)\n",
          stderr);
    exit(2);
}

static double number(const char *text, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most)) {
        fprintf(stderr, "muxload: %s is not within %g and %g\n", text, least, most);
        usage();
    }
    return value;
}

static struct packet encode(char *const field[FIELDS], const char *suffix) {
    unsigned char bytes[FIELDS * (2 + FIELD_BYTES)];
    struct packet packet = {.size = 0};

    for (int i = 0; i < FIELDS; i++) {
        size_t head = strlen(field[i]), tail = i == 0 ? strlen(suffix) : 0;
        if (head + tail > FIELD_BYTES) {
            fputs("muxload: a field is longer than 256 bytes\n", stderr);
            exit(2);
        }
        bytes[packet.size++] = (unsigned char)((head + tail) >> 8);
        bytes[packet.size++] = (unsigned char)(head + tail);
        memcpy(bytes + packet.size, field[i], head);
        memcpy(bytes + packet.size + head, suffix, tail);
        packet.size += head + tail;
    }
    packet.bytes = room(packet.size, 1);
    memcpy(packet.bytes, bytes, packet.size);
    return packet;
}

static void encode_all(struct plan *plan, char *const field[FIELDS], bool numbered) {
    plan->packets = room((size_t)plan->users, sizeof *plan->packets);
    for (long i = 0; i < plan->users; i++) {
        char suffix[24] = "";
        if (numbered) snprintf(suffix, sizeof suffix, "%ld", i);
        plan->packets[i] = encode(field, suffix);
    }
}

int main(int argc, char **argv) {
    static struct plan plan = {.users = 1, .threads = 1, .requests = MAX_REQUESTS};
    double seconds = 60, wait = 10;
    bool numbered = false;

    for (int option; (option = getopt(argc, argv, "t:s:n:x:u:w:")) != -1;) switch (option) {
        case 't': plan.threads = (long)number(optarg, 1, MAX_THREADS); break;
        case 's': seconds = number(optarg, 0.001, MAX_SECONDS); break;
        case 'n': plan.requests = (long)number(optarg, 1, MAX_REQUESTS); break;
        case 'u': plan.users = (long)number(optarg, 1, MAX_USERS); numbered = true; break;
        case 'w': wait = number(optarg, 0.001, MAX_SECONDS); break;
        case 'x':
            if (strcmp(optarg, "OK") && strcmp(optarg, "NO")) usage();
            plan.expected = *optarg == 'O' ? SAID_OK : SAID_NO;
            break;
        default: usage();
        }
    if (argc - optind != 1 + FIELDS) usage();
    if (strlen(argv[optind]) >= sizeof plan.door.sun_path) {
        fputs("muxload: the path of the socket is too long\n", stderr);
        return 2;
    }
    plan.door.sun_family = AF_UNIX;
    strcpy(plan.door.sun_path, argv[optind]);
    plan.length = (uint64_t)(seconds * 1e9);
    plan.wait.tv_sec = (time_t)wait;
    plan.wait.tv_usec = (suseconds_t)((wait - (double)plan.wait.tv_sec) * 1e6);
    encode_all(&plan, argv + optind + 1, numbered);

    struct client *clients = room((size_t)plan.threads, sizeof *clients);
    run(&plan, clients);
    report(&plan, clients);
    return 0;
}
