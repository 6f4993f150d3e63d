/* The least a mux server can do: take the connection, read once, say OK
 * without looking, close. What is faster than this measures the machine.
 *
 * usage: floor SOCKET [PROCESSES]    (default 1)
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { REQUEST_BYTES = 2048, BACKLOG = 4096, MAX_PROCESSES = 64 };

static int open_door(const char *path) {
    struct sockaddr_un door = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof door.sun_path) return -1;
    strcpy(door.sun_path, path);
    if (bind(fd, (const struct sockaddr *)&door, sizeof door) < 0 || listen(fd, BACKLOG) < 0)
        return -1;
    return fd;
}

static void serve(int door) {
    static const unsigned char yes[] = {0, 2, 'O', 'K'};
    unsigned char request[REQUEST_BYTES];

    for (int fd; (fd = accept(door, NULL, NULL)) >= 0; close(fd))
        if (recv(fd, request, sizeof request, 0) > 0) send(fd, yes, sizeof yes, MSG_NOSIGNAL);
}

int main(int argc, char **argv) {
    int processes = argc == 3 ? atoi(argv[2]) : 1;
    if (argc < 2 || argc > 3 || processes < 1 || processes > MAX_PROCESSES) {
        fputs("usage: floor SOCKET [PROCESSES]\n", stderr);
        return 2;
    }
    int door = open_door(argv[1]);
    if (door < 0) {
        perror(argv[1]);
        return 1;
    }
    /* Nobody is left behind when the benchmark, or our first process, is killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 1; i < processes; i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            break;
        }
    serve(door);
    perror("accept");
    return 1;
}
