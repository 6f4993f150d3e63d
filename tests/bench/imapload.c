/* What an IMAP server itself can do: a load of logins with the dialogue of the
 * C daemon's rimap. Every login is a connection of its own, greeted, answered,
 * closed after a LOGOUT whose answer nobody waits for.
 */
#include "clients.h"

#define TAG "saslauthd "

enum {
    COMMAND_BYTES = 1024,
    LINE_BYTES = 4096,         /* Dovecot's capabilities are some hundred */
};

/* What has come of a connection: a line is taken out at a time. */
struct reader {
    int fd;
    size_t have, taken;
    char bytes[LINE_BYTES + 1];
};

/* Return the next line, without its end; NULL if there is none, or it is too long. */
static const char *next_line(struct reader *reader) {
    char *end;

    memmove(reader->bytes, reader->bytes + reader->taken, reader->have -= reader->taken);
    reader->taken = 0;
    while ((end = memchr(reader->bytes, '\n', reader->have)) == NULL) {
        ssize_t more =
            recv(reader->fd, reader->bytes + reader->have, LINE_BYTES - reader->have, 0);
        if (more <= 0) return NULL;
        reader->have += (size_t)more;
    }
    *end = '\0';
    reader->taken = (size_t)(end - reader->bytes) + 1;
    return reader->bytes;
}

static bool begins(const char *line, const char *with) {
    return strncmp(line, with, strlen(with)) == 0;
}

static enum verdict listen_for_verdict(struct reader *reader) {
    const char *line;

    do
        if ((line = next_line(reader)) == NULL) return NO_ANSWER;
    while (begins(line, "* "));
    if (begins(line, TAG "OK")) return SAID_OK;
    if (begins(line, TAG "NO")) return SAID_NO;
    return SAID_OTHER;
}

static enum verdict log_in(int fd, const struct packet *packet) {
    struct reader reader = {.fd = fd};
    const char *greeting = next_line(&reader);

    if (greeting == NULL) return NO_ANSWER;
    if (!begins(greeting, "* OK")) return SAID_OTHER;
    if (send(fd, packet->bytes, packet->size, MSG_NOSIGNAL) != (ssize_t)packet->size)
        return NO_ANSWER;
    return listen_for_verdict(&reader);
}

static enum verdict ask(const struct plan *plan, const struct packet *packet) {
    static const char leave[] = TAG "LOGOUT\r\n";
    int fd = dial(plan);
    if (fd < 0) return NO_ANSWER;
    enum verdict verdict = log_in(fd, packet);
    /* Who has answered may have gone. */
    if (send(fd, leave, sizeof leave - 1, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
        verdict = NO_ANSWER;
    close(fd);
    return verdict;
}

static void usage(void) {
    fputs("usage: imapload " OPTIONS "\n"
          "                PORT LOGIN PASSWORD\n" ABOUT_OPTIONS, stderr);
}

static struct packet encode(char *const operands[], const char *suffix) {
    struct packet packet = {.bytes = room(COMMAND_BYTES, 1)};

    if (strpbrk(operands[1], "\"\\\r\n") || strpbrk(operands[2], "\"\\\r\n"))
        refuse("it does not know how to quote that");
    packet.size = (size_t)snprintf((char *)packet.bytes, COMMAND_BYTES, TAG "LOGIN \"%s%s\" \"%s\"\r\n",
                                   operands[1], suffix, operands[2]);
    if (packet.size >= COMMAND_BYTES) refuse("login or password is too long");
    return packet;
}

int main(int argc, char **argv) {
    static struct plan plan;
    char **operands = read_options(&plan, argc, argv, 3);

    plan.door.internet = (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)number(operands[0], 1, 65535)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    plan.door_size = sizeof plan.door.internet;
    return carry_out(&plan, operands);
}
