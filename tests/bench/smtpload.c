/* A load for a submission server: logins with PLAIN and an initial response.
 * Every login is a connection of its own: greeting, EHLO, AUTH, QUIT, each
 * answered before the next word, as RFC 5321 has it. A login is right if all of
 * that was, the farewell too.
 */
#include "in_turn.h"
#include "lines.h"

enum {
    MESSAGE_BYTES = 768,
    COMMAND_BYTES = 64 + MESSAGE_BYTES / 3 * 4,
};

enum code { NONE, GREETING = 220, FAREWELL = 221, LET_IN = 235, FINE = 250, REFUSED = 535 };

/* Return the code in the last line of the server's reply; NONE if it is no reply. */
static int listen_for_code(struct reader *reader) {
    const char *line;

    do
        if ((line = next_line(reader)) == NULL) return NONE;
    while (strlen(line) > 3 && line[3] == '-');
    return atoi(line);
}

static int code_after(struct reader *reader, const void *command, size_t size) {
    if (send(reader->fd, command, size, MSG_NOSIGNAL) != (ssize_t)size) return NONE;
    return listen_for_code(reader);
}

static enum verdict unless(int code) {
    return code == NONE ? NO_ANSWER : SAID_OTHER;
}

static enum verdict log_in(struct reader *reader, const struct packet *packet) {
    static const char hello[] = "EHLO client.test.example\r\n", leave[] = "QUIT\r\n";
    int code, farewell;

    if ((code = listen_for_code(reader)) != GREETING) return unless(code);
    if ((code = code_after(reader, hello, sizeof hello - 1)) != FINE) return unless(code);
    code = code_after(reader, packet->bytes, packet->size);
    if (code != LET_IN && code != REFUSED) return unless(code);
    farewell = code_after(reader, leave, sizeof leave - 1);
    if (farewell != FAREWELL) return unless(farewell);
    return code == LET_IN ? SAID_OK : SAID_NO;
}

static enum verdict ask(const struct plan *plan, const struct packet *packet) {
    struct reader reader = {.fd = dial(plan)};
    if (reader.fd < 0) return NO_ANSWER;
    enum verdict verdict = log_in(&reader, packet);
    close(reader.fd);
    return verdict;
}

static void usage(void) {
    fputs("usage: smtpload " OPTIONS "\n"
          "                PORT LOGIN PASSWORD REALM\n" ABOUT_OPTIONS, stderr);
}

/* Write the base64 of *from* and return its length. */
static size_t encode_base64(const unsigned char *from, size_t size, char *to) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *end = to;

    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        unsigned three = (unsigned)from[i] << 16 | (left > 1 ? (unsigned)from[i + 1] << 8 : 0) |
                         (left > 2 ? from[i + 2] : 0);
        *end++ = digits[three >> 18];
        *end++ = digits[three >> 12 & 63];
        *end++ = left > 1 ? digits[three >> 6 & 63] : '=';
        *end++ = left > 2 ? digits[three & 63] : '=';
    }
    return (size_t)(end - to);
}

/* A realm that is not empty is part of the name: SMTP has no other place for it. */
static struct packet encode(char *const operands[], const char *suffix) {
    const char *login = operands[1], *password = operands[2], *realm = operands[3];
    char message[MESSAGE_BYTES];
    char *command = room(COMMAND_BYTES, 1);

    int size = snprintf(message, sizeof message, "%c%s%s%s%s%c%s", 0, login, suffix,
                        *realm ? "@" : "", realm, 0, password);
    if (size >= MESSAGE_BYTES) refuse("login, password or realm is too long");
    size_t end = (size_t)sprintf(command, "AUTH PLAIN ");
    end += encode_base64((unsigned char *)message, (size_t)size, command + end);
    end += (size_t)sprintf(command + end, "\r\n");
    return (struct packet){.bytes = (unsigned char *)command, .size = end};
}

int main(int argc, char **argv) {
    static struct plan plan;
    char **operands = read_options(&plan, argc, argv, 4);

    go_to_port(&plan, operands[0]);
    return carry_out(&plan, operands);
}
