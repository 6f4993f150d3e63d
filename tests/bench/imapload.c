/* What an IMAP server itself can do: a load of logins with the dialogue of the
 * C daemon's rimap. Every login is a connection of its own, greeted, answered,
 * closed after a LOGOUT whose answer nobody waits for.
 */
#include "in_turn.h"
#include "lines.h"

#define TAG "saslauthd "

enum { COMMAND_BYTES = 1024 };

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

    go_to_port(&plan, operands[0]);
    return carry_out(&plan, operands);
}
