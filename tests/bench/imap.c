/* An IMAP server of a script: it greets, lets in whoever has the password, and
 * takes leave. As fast as one process can, so that it is not what is measured.
 *
 * usage: imap PASSWORD     (prints "port N": where it listens)
 */
#include "door.h"

#include <strings.h>

#define CAPABILITY "CAPABILITY IMAP4rev1"

enum { LINE_BYTES = 2048 };

struct client {
    int fd;
    size_t have;
    char bytes[LINE_BYTES + 1];
};

static const char *password;

static bool say(const struct client *client, const char *text) {
    size_t size = strlen(text);
    return send(client->fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static bool answer(const struct client *client, const char *tag, const char *text) {
    char line[2 * LINE_BYTES];
    snprintf(line, sizeof line, "%s %s\r\n", tag, text);
    return say(client, line);
}

/* Cut an argument off, unquoted in its place: an atom or a quoted string. After the last one
 * there is no rest. */
static char *cut(char **rest) {
    char *from = *rest, *to, *argument;

    if (from == NULL || *from != '"') return strsep(rest, " ");
    for (argument = to = ++from; *from && *from != '"'; *to++ = *from++)
        if (*from == '\\' && from[1]) from++;
    if (*from) from++;
    *rest = *from ? from + (*from == ' ') : NULL;
    *to = '\0';
    return argument;
}

static const char *judge(char *arguments) {
    char *user = cut(&arguments), *given = cut(&arguments);

    if (user == NULL || given == NULL || arguments != NULL) return "BAD two arguments";
    if (strcmp(given, password)) return "NO [AUTHENTICATIONFAILED] wrong";
    return "OK [" CAPABILITY "] welcome";
}

/* Return whether the connection goes on. */
static bool obey(const struct client *client, char *line) {
    char *rest = line, *tag = strsep(&rest, " "), *command = strsep(&rest, " ");

    if (command == NULL) return answer(client, "*", "BAD tag and command");
    if (strcasecmp(command, "LOGIN") == 0) return answer(client, tag, judge(rest));
    if (strcasecmp(command, "CAPABILITY") == 0)
        return answer(client, "*", CAPABILITY) && answer(client, tag, "OK that is all");
    if (strcasecmp(command, "LOGOUT")) return answer(client, tag, "BAD unknown command");
    answer(client, "*", "BYE");
    answer(client, tag, "OK farewell");
    return false;
}

/* Return whether the connection goes on. */
static bool listen_to(struct client *client) {
    ssize_t more =
        recv(client->fd, client->bytes + client->have, LINE_BYTES - client->have, MSG_DONTWAIT);
    if (more <= 0) return more < 0 && errno == EAGAIN;
    client->have += (size_t)more;
    for (char *end; (end = memchr(client->bytes, '\n', client->have)) != NULL;) {
        size_t size = (size_t)(end - client->bytes) + 1;
        *end = '\0';
        if (end > client->bytes && end[-1] == '\r') end[-1] = '\0';
        if (!obey(client, client->bytes)) return false;
        memmove(client->bytes, client->bytes + size, client->have -= size);
    }
    return client->have < LINE_BYTES;
}

static void leave(struct client *client) {
    close(client->fd);
    free(client);
}

static void let_in(int events, int door) {
    int fd = let_one_in(door);
    if (fd < 0) return;
    struct client *client = malloc(sizeof *client);
    if (client == NULL) fail("memory");
    client->fd = fd;
    client->have = 0;
    watch(events, fd, EPOLLIN, client);
    if (!say(client, "* OK [" CAPABILITY "] ready\r\n")) leave(client);
}

int main(int argc, char **argv) {
    struct epoll_event seen[EVENTS];

    if (argc != 2) {
        fputs("usage: imap PASSWORD\n", stderr);
        return 2;
    }
    password = argv[1];
    int events = epoll_create1(EPOLL_CLOEXEC), door = open_door();
    watch(events, door, EPOLLIN, NULL);
    for (;;) {
        int count = epoll_wait(events, seen, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct client *client = seen[i].data.ptr;
            if (client == NULL) let_in(events, door);
            else if (!listen_to(client)) leave(client);
        }
    }
}
