/* A load for a server of Dovecot's auth protocol: connections that stay open, as a mail server's do.
 *
 * Each client has one, shakes hands before the clock runs, and keeps so many
 * requests in flight, each written by itself. Right is an OK that names the user
 * who was meant; with SCRAM, one that the server's own proof went before. Who
 * closes a connection, or says what answers nothing in flight there, leaves all
 * that was in flight without an answer, and its client stops.
 *
 * gcc needs -l:libcrypto.so.3, see proofs.h.
 */
#include "clients.h"
#include "lines.h"
#include "proofs.h"

#define ABOUT "\tservice=smtp\tnologin\tlip=127.0.0.1\trip=127.0.0.1\tsecured"  /* as Postfix does */

enum { MAX_IN_FLIGHT = 64 };

struct request {
    unsigned long id;          /* 0: none is in flight here */
    uint64_t asked;
    struct user *user;
    struct exchange exchange;
};

struct connection {
    struct client *me;
    struct reader reader;
    unsigned long ids;
    long user, in_flight;
    struct request requests[MAX_IN_FLIGHT];
};

static const struct mechanism *mechanism;
static long window;

static bool say(struct connection *here, const char *line, int size) {
    return send(here->reader.fd, line, (size_t)size, MSG_NOSIGNAL) == size;
}

static void shake_hands(struct connection *here) {
    char hello[64];
    const char *line;
    /* Dovecot wants the number of a process, and one of its own for each connection. */
    int size = snprintf(hello, sizeof hello, "VERSION\t1\t0\nCPID\t%ld\n",
                        (long)getpid() + here->me->number);

    here->reader.fd = dial(here->me->plan);
    if (here->reader.fd < 0 || !say(here, hello, size)) return;
    while ((line = next_line(&here->reader)) && strcmp(line, "DONE") != 0) continue;
}

/* ---- one request ------------------------------------------------------- */

/* Write the field with the initial response, if the mechanism has one; return its length. */
static int begin(struct request *request, const struct connection *here, char *line) {
    char message[MESSAGE_BYTES];
    int size;

    if (mechanism->respond == respond_to_cram) return 0;
    if (mechanism->respond == respond_to_scram) {
        /* It is to be another each time; nobody is kept from guessing it. */
        snprintf(request->exchange.nonce, sizeof request->exchange.nonce, "%016lx%08lx%08lx",
                 (unsigned long)request->asked, here->me->number, request->id);
        size = snprintf(message, sizeof message, "n,,n=%s,r=%s", request->user->name,
                        request->exchange.nonce);
    } else
        size = snprintf(message, sizeof message, "%c%s%c%s", 0, request->user->name, 0,
                        request->user->password);
    return 6 + encode_base64(message, size, stpcpy(line, "\tresp="));
}

/* Ask for the next user; false if that cannot be said. */
static bool ask(struct connection *here, struct request *request) {
    const struct plan *plan = here->me->plan;
    char line[LINE_BYTES];

    *request = (struct request){
        .id = ++here->ids,
        .asked = clock_ns(),
        .user = (struct user *)plan->packets[here->user].bytes,
    };
    if (++here->user == plan->users) here->user = 0;
    here->in_flight++;
    int size = sprintf(line, "AUTH\t%lu\t%s" ABOUT, request->id, mechanism->name);
    size += begin(request, here, line + size);
    line[size++] = '\n';
    return say(here, line, size);
}

/* Respond to a challenge; -1 if it is none of this mechanism, 0 if that cannot be said. */
static int respond(struct connection *here, struct request *request, const char *data) {
    char challenge[MESSAGE_BYTES], response[2 * MESSAGE_BYTES], line[LINE_BYTES];
    size_t length = strlen(data);

    if (!mechanism->respond || length > MESSAGE_BYTES) return -1;
    if (decode_base64(data, (int)length, challenge) < 0) return -1;
    int size = mechanism->respond(mechanism, &request->exchange, request->user, challenge, response);
    if (size < 0) return -1;
    int end = sprintf(line, "CONT\t%lu\t", request->id);
    end += encode_base64(response, size, line + end);
    line[end++] = '\n';
    return say(here, line, end);
}

/* Tell what an OK or a FAIL, with its fields, says to *request*. */
static enum verdict judge(const struct request *request, bool is_ok, const char *fields) {
    size_t length = strlen(request->user->name);

    if (!is_ok) return strstr(fields, "\tcode=temp_fail") ? SAID_OTHER : SAID_NO;
    if (request->exchange.steps != mechanism->challenges) return SAID_OTHER;
    if (strncmp(fields, "\tuser=", 6) || strncmp(fields + 6, request->user->name, length))
        return SAID_OTHER;
    return fields[6 + length] && fields[6 + length] != '\t' ? SAID_OTHER : SAID_OK;
}

/* ---- one client -------------------------------------------------------- */

static void settle(struct connection *here, struct request *request, enum verdict verdict) {
    struct client *me = here->me;

    me->ended = clock_ns();
    me->latency[me->done++] = me->ended - request->asked;
    me->count[verdict]++;
    here->in_flight--;
    request->id = 0;
}

static struct request *with_id(struct connection *here, unsigned long id) {
    for (long i = 0; id && i < window; i++)
        if (here->requests[i].id == id) return &here->requests[i];
    return NULL;
}

/* Take one answer in, and say what follows it; false if nothing more can come. */
static bool listen_once(struct connection *here) {
    char word[5], *fields;
    const char *line = next_line(&here->reader), *tab = line ? strchr(line, '\t') : NULL;
    if (!tab || tab - line >= (long)sizeof word) return false;
    sprintf(word, "%.*s", (int)(tab - line), line);
    struct request *request = with_id(here, strtoul(tab + 1, &fields, 10));
    if (!request) return false;

    enum verdict verdict = SAID_OTHER;
    if (!strcmp(word, "CONT")) {
        int is_said = respond(here, request, *fields ? fields + 1 : fields);
        if (is_said >= 0) return is_said;
    } else if (!strcmp(word, "OK") || !strcmp(word, "FAIL"))
        verdict = judge(request, *word == 'O', fields);
    settle(here, request, verdict);
    return !may_go_on(here->me, (long)here->ids) || ask(here, request);
}

static void *run_client(void *argument) {
    struct client *me = argument;
    struct connection *here = room(1, sizeof *here);

    *here = (struct connection){.me = me, .user = first_user(me)};
    shake_hands(here);
    pthread_barrier_wait(&me->plan->start);
    me->began = me->ended = clock_ns();
    bool is_up = true;
    for (long i = 0; is_up && i < window && may_go_on(me, (long)here->ids); i++)
        is_up = ask(here, &here->requests[i]);
    while (is_up && here->in_flight) is_up = listen_once(here);
    for (long i = 0; i < window; i++)
        if (here->requests[i].id) settle(here, &here->requests[i], NO_ANSWER);
    if (here->reader.fd >= 0) close(here->reader.fd);
    free(here);
    return NULL;
}

/* ---- the command line -------------------------------------------------- */

static void usage(void) {
    fputs("usage: authload " OPTIONS "\n"
          "                SOCKET MECHANISM IN_FLIGHT LOGIN PASSWORD REALM\n" ABOUT_OPTIONS, stderr);
}

static const struct mechanism *called(const char *name) {
    for (size_t i = 0; i < sizeof MECHANISMS / sizeof *MECHANISMS; i++)
        if (!strcmp(MECHANISMS[i].name, name)) return &MECHANISMS[i];
    refuse("it does not know that mechanism");
    return NULL;
}

/* What is asked is made when it is asked: the packet is only who is asked for. */
static struct packet encode(char *const operands[], const char *suffix) {
    const char *login = operands[3], *realm = operands[5];
    struct user *user = room(1, sizeof *user);

    if (strpbrk(login, ",=\t\r\n\1") || strpbrk(realm, ",=\t\r\n\1"))
        refuse("it does not know how to quote that");
    user->password = operands[4];
    int size = snprintf(user->name, sizeof user->name, "%s%s%s%s", login, suffix,
                        *realm ? "@" : "", realm);
    if (size >= NAME_BYTES || size + strlen(user->password) + 2 >= MESSAGE_BYTES)
        refuse("login, password or realm is too long");
    if (pthread_mutex_init(&user->lock, NULL)) fail("mutex");
    return (struct packet){.bytes = (unsigned char *)user, .size = sizeof *user};
}

int main(int argc, char **argv) {
    static struct plan plan;
    char **operands = read_options(&plan, argc, argv, 6);

    go_to_path(&plan, operands[0]);
    mechanism = called(operands[1]);
    window = (long)number(operands[2], 1, MAX_IN_FLIGHT);
    return carry_out(&plan, operands);
}
