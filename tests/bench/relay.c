/* A way of some milliseconds: a TCP relay on loopback that delivers every byte,
 * and every end, so much later, in both directions.
 *
 * A connection itself is there at once, where a real one would take a round
 * trip: that favours who opens one for every request. What a reader does not
 * take holds up the writer, as on a real way. A connection that breaks is
 * broken at once, for both.
 *
 * usage: relay MILLISECONDS PORT     (prints "port N": where it listens itself)
 */
#include "door.h"

#include <netinet/tcp.h>
#include <sys/timerfd.h>
#include <time.h>

enum { AT_ONCE = 65536, MOST_HELD = 1 << 20, LONGEST_DELAY = 10000 };

/* Bytes that are read together are delivered together; none of them stand for the end. */
struct piece {
    struct piece *next;
    struct lane *lane;
    uint64_t due;
    size_t size, sent;
    char bytes[];
};

struct queue {
    struct piece *first, **last;
};

/* One direction: what comes from `from` goes to `to`, pieces that are due first. */
struct lane {
    struct link *link;
    int from, to;
    size_t held;
    bool has_ended, is_full, is_done;
    struct queue due;
};

/* A client and its server. Events lead to a side; what its socket reads is its lane's. */
struct link {
    struct side {
        struct link *link;
        int fd, number;
    } side[2];
    struct lane lane[2];
    unsigned pieces; /* on the way */
    bool is_closed;
    struct link *next_closed;
};

static struct queue on_the_way = {.last = &on_the_way.first};
static struct link *closed;
static uint64_t delay;
static int events, timer;

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void put(struct queue *queue, struct piece *piece) {
    piece->next = NULL;
    *queue->last = piece;
    queue->last = &piece->next;
}

static struct piece *pop(struct queue *queue) {
    struct piece *piece = queue->first;
    queue->first = piece->next;
    if (queue->first == NULL) queue->last = &queue->first;
    return piece;
}

/* Its memory stays until nothing can lead to it any more: see `bury`. */
static void drop(struct link *link) {
    if (link->is_closed) return;
    link->is_closed = true;
    for (int i = 0; i < 2; i++) {
        close(link->side[i].fd);
        while (link->lane[i].due.first) free(pop(&link->lane[i].due));
    }
    link->next_closed = closed;
    closed = link;
}

static void bury(void) {
    for (struct link **place = &closed, *link; (link = *place) != NULL;) {
        if (link->pieces) {
            place = &link->next_closed;
        } else {
            *place = link->next_closed;
            free(link);
        }
    }
}

/* ---- one lane ---------------------------------------------------------- */

static void send_off(struct lane *lane, const char *bytes, size_t size) {
    struct piece *piece = malloc(sizeof *piece + size);
    if (piece == NULL) fail("memory");
    *piece = (struct piece){.lane = lane, .due = clock_ns() + delay, .size = size};
    memcpy(piece->bytes, bytes, size);
    lane->held += size;
    lane->link->pieces++;
    put(&on_the_way, piece);
}

/* Read all there is, for the edge of an event does not come again. */
static void take(struct lane *lane) {
    static char bytes[AT_ONCE];

    while (!lane->link->is_closed && !lane->has_ended) {
        lane->is_full = lane->held >= MOST_HELD;
        if (lane->is_full) return;
        ssize_t size = recv(lane->from, bytes, sizeof bytes, 0);
        if (size < 0 && errno == EAGAIN) return;
        if (size < 0) {
            drop(lane->link);
            return;
        }
        lane->has_ended = size == 0;
        send_off(lane, bytes, (size_t)size);
    }
}

/* Return whether the piece is with its reader as a whole. */
static bool deliver(struct lane *lane, struct piece *piece) {
    if (piece->size == 0) {
        shutdown(lane->to, SHUT_WR);
        lane->is_done = true;
        return true;
    }
    ssize_t size =
        send(lane->to, piece->bytes + piece->sent, piece->size - piece->sent, MSG_NOSIGNAL);
    if (size < 0) {
        if (errno != EAGAIN) drop(lane->link);
        return false;
    }
    piece->sent += (size_t)size;
    lane->held -= (size_t)size;
    return piece->sent == piece->size;
}

static void deliver_all(struct lane *lane) {
    struct link *link = lane->link;

    while (!link->is_closed && lane->due.first && deliver(lane, lane->due.first))
        free(pop(&lane->due));
    if (link->lane[0].is_done && link->lane[1].is_done) drop(link);
    if (lane->is_full) take(lane);
}

/* ---- all of them ------------------------------------------------------- */

static void deliver_what_is_due(void) {
    uint64_t now = clock_ns();

    /* All have the same way, so who left first arrives first. */
    while (on_the_way.first && on_the_way.first->due <= now) {
        struct piece *piece = pop(&on_the_way);
        struct lane *lane = piece->lane;
        lane->link->pieces--;
        if (lane->link->is_closed) {
            free(piece);
        } else {
            put(&lane->due, piece);
            deliver_all(lane);
        }
    }
}

static void set_timer(void) {
    static uint64_t set_for;

    if (on_the_way.first == NULL || on_the_way.first->due == set_for) return;
    set_for = on_the_way.first->due;
    struct timespec due = {(time_t)(set_for / 1000000000u), (long)(set_for % 1000000000u)};
    struct itimerspec when = {.it_value = due};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL)) fail("timer");
}

static void let_in(int door, const struct sockaddr_in *server) {
    static const int yes = 1;
    int guest = let_one_in(door);
    if (guest < 0) return;
    int fd[2] = {guest, socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    struct link *link = calloc(1, sizeof *link);
    if (fd[1] < 0 || link == NULL) fail("a connection");
    for (int i = 0; i < 2; i++) {
        link->side[i] = (struct side){link, fd[i], i};
        link->lane[i] = (struct lane){.link = link, .from = fd[i], .to = fd[!i]};
        link->lane[i].due.last = &link->lane[i].due.first;
        setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
    if (connect(fd[1], (const struct sockaddr *)server, sizeof *server) && errno != EINPROGRESS)
        fail("connect");
    for (int i = 0; i < 2; i++) watch(events, fd[i], EPOLLIN | EPOLLOUT | EPOLLET, &link->side[i]);
}

static void attend(const struct side *side, uint32_t to) {
    struct link *link = side->link;

    if (to & EPOLLERR) drop(link);
    if (to & (EPOLLIN | EPOLLHUP)) take(&link->lane[side->number]);
    if (to & EPOLLOUT) deliver_all(&link->lane[!side->number]);
}

static void serve(int door, const struct sockaddr_in *server) {
    struct epoll_event seen[EVENTS];
    uint64_t ignored;

    for (;;) {
        int count = epoll_wait(events, seen, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (seen[i].data.ptr == &timer) {
                if (read(timer, &ignored, sizeof ignored) < 0 && errno != EAGAIN) fail("timer");
            } else if (seen[i].data.ptr == NULL) {
                let_in(door, server);
            } else {
                attend(seen[i].data.ptr, seen[i].events);
            }
        }
        deliver_what_is_due();
        bury();
        set_timer();
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    double milliseconds = argc == 3 ? strtod(argv[1], NULL) : -1;
    long port = argc == 3 ? strtol(argv[2], NULL, 10) : 0;

    if (!(milliseconds >= 0 && milliseconds <= LONGEST_DELAY) || port < 1 || port > 65535) {
        fputs("usage: relay MILLISECONDS PORT\n", stderr);
        return 2;
    }
    delay = (uint64_t)(milliseconds * 1e6);
    server.sin_port = htons((uint16_t)port);
    events = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (events < 0 || timer < 0) fail("epoll, timer");
    int door = open_door();
    watch(events, door, EPOLLIN, NULL);
    watch(events, timer, EPOLLIN, &timer);
    serve(door, &server);
}
