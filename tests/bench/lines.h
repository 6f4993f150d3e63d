/* For the load programs whose protocol speaks in lines; clients.h comes first. */

enum { LINE_BYTES = 4096 };    /* Dovecot's capabilities are some hundred */

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
