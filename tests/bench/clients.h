/* Client threads, and the report about them.
 *
 * A load program includes this, and says how a question is put into bytes and
 * what a client does; in_turn.h has one that asks one after another. Only
 * answers count that say what was expected; the rest is reported beside them.
 * Two bounds hold at once, time and number, and no single wait is longer than
 * the one given with -w; SIGTERM ends a run before its time. One line of JSON
 * goes to standard output.
 *
 * The questions are encoded and the latency table is touched before the
 * clients start, so that the measured stretch holds little but the system calls.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_THREADS = 4096,
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
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in internet;
    } door;
    socklen_t door_size;
    struct timeval wait;
    struct packet *packets;
    long users, threads, requests;
    uint64_t length;           /* nanoseconds */
    enum verdict expected;
    bool is_numbered;          /* LOGIN0, LOGIN1 ... instead of LOGIN */
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

/* What each program says for itself. */
static void usage(void);
static struct packet encode(char *const operands[], const char *suffix);
static void *run_client(void *client);

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

static int dial(const struct plan *plan) {
    int fd = socket(plan->door.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    /* The send deadline also bounds a connect that waits for a full backlog. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &plan->wait, sizeof plan->wait) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &plan->wait, sizeof plan->wait) == 0 &&
        connect(fd, &plan->door.any, plan->door_size) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Clients start evenly spread over the users, so that they ask for different ones. */
static long first_user(const struct client *me) {
    return me->number * me->plan->users / me->plan->threads;
}

/* Tell whether neither bound is reached yet: *begun* requests, or the time. A run that is
 * ended before its time has its first requests. */
static bool may_go_on(const struct client *me, long begun) {
    return begun < me->allowance && me->ended - me->began < me->plan->length && !(is_over && begun);
}

/* ---- the clients ------------------------------------------------------- */

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

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static int by_size(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static double microseconds(const uint64_t *sorted, long count, double share) {
    if (!count) return 0;
    long place = (long)(share * (double)count);
    return (double)sorted[place < count ? place : count - 1] / 1e3;
}

static void report(const struct plan *plan, const struct client *clients, double cpu) {
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
    printf("\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"right_per_second\": %.1f, ", seconds, cpu,
           seconds > 0 ? (double)right / seconds : 0);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n", microseconds(all, done, .50),
           microseconds(all, done, .99), microseconds(all, done, 1));
}

/* ---- the command line -------------------------------------------------- */

#define OPTIONS "[-t threads] [-s seconds] [-n requests] [-x OK|NO] [-u users] [-w seconds]"
#define ABOUT_OPTIONS                                                   \
    "  -u users  ask for LOGIN0, LOGIN1 ... in turn\n"                   \
    "  -w wait   the longest wait for one connect or one reply (default 10)\n"

static void refuse(const char *why) {
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, why);
    usage();
    exit(2);
}

static double number(const char *text, double least, double most) {
    char *end, why[200];
    double value = strtod(text, &end);
    if (end != text && !*end && value >= least && value <= most) return value;
    snprintf(why, sizeof why, "%s is not within %g and %g", text, least, most);
    refuse(why);
    return 0;
}

/* Return the operands, which are to be so many. */
static char **read_options(struct plan *plan, int argc, char **argv, int operands) {
    double seconds = 60, wait = 10;

    plan->users = plan->threads = 1;
    plan->requests = MAX_REQUESTS;
    for (int option; (option = getopt(argc, argv, "t:s:n:x:u:w:")) != -1;) switch (option) {
        case 't': plan->threads = (long)number(optarg, 1, MAX_THREADS); break;
        case 's': seconds = number(optarg, 0.001, MAX_SECONDS); break;
        case 'n': plan->requests = (long)number(optarg, 1, MAX_REQUESTS); break;
        case 'u': plan->users = (long)number(optarg, 1, MAX_USERS); plan->is_numbered = true; break;
        case 'w': wait = number(optarg, 0.001, MAX_SECONDS); break;
        case 'x':
            if (strcmp(optarg, "OK") && strcmp(optarg, "NO")) refuse("-x is OK or NO");
            plan->expected = *optarg == 'O' ? SAID_OK : SAID_NO;
            break;
        default: refuse("no such option");
        }
    if (argc - optind != operands) refuse("operands are missing, or too many");
    plan->length = (uint64_t)(seconds * 1e9);
    plan->wait.tv_sec = (time_t)wait;
    plan->wait.tv_usec = (suseconds_t)((wait - (double)plan->wait.tv_sec) * 1e6);
    return argv + optind;
}

/* Doors: inline, for no program goes to both. */

static inline void go_to_port(struct plan *plan, const char *port) {
    plan->door.internet = (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)number(port, 1, 65535)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    plan->door_size = sizeof plan->door.internet;
}

static inline void go_to_path(struct plan *plan, const char *path) {
    struct sockaddr_un *door = &plan->door.local;

    if (strlen(path) >= sizeof door->sun_path) refuse("the path of the socket is too long");
    door->sun_family = AF_UNIX;
    strcpy(door->sun_path, path);
    plan->door_size = sizeof *door;
}

/* Encode the questions, ask them, and report. */
static int carry_out(struct plan *plan, char *const operands[]) {
    plan->packets = room((size_t)plan->users, sizeof *plan->packets);
    for (long i = 0; i < plan->users; i++) {
        char suffix[24] = "";
        if (plan->is_numbered) snprintf(suffix, sizeof suffix, "%ld", i);
        plan->packets[i] = encode(operands, suffix);
    }
    struct client *clients = room((size_t)plan->threads, sizeof *clients);
    double before = cpu_seconds();
    run(plan, clients);
    report(plan, clients, cpu_seconds() - before);
    return 0;
}
