/* A load for the saslauthd mux door, shaped like libsasl2: every request is a
 * connection of its own, written with one call, answered, closed.
 */
#include "in_turn.h"

enum {
    FIELDS = 4,                /* login, password, service, realm */
    FIELD_BYTES = 256,         /* the C daemon refuses longer ones */
    REPLY_BYTES = 1024,        /* as much as libsasl2 reads */
};

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

static void usage(void) {
    fputs("usage: muxload " OPTIONS "\n"
          "               SOCKET LOGIN PASSWORD SERVICE REALM\n" ABOUT_OPTIONS, stderr);
}

static struct packet encode(char *const operands[], const char *suffix) {
    char *const *field = operands + 1;
    unsigned char bytes[FIELDS * (2 + FIELD_BYTES)];
    struct packet packet = {.size = 0};

    for (int i = 0; i < FIELDS; i++) {
        size_t head = strlen(field[i]), tail = i == 0 ? strlen(suffix) : 0;
        if (head + tail > FIELD_BYTES) refuse("a field is longer than 256 bytes");
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

int main(int argc, char **argv) {
    static struct plan plan;
    char **operands = read_options(&plan, argc, argv, 1 + FIELDS);

    go_to_path(&plan, operands[0]);
    return carry_out(&plan, operands);
}
