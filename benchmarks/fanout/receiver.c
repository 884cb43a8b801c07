/* Subscribers: as many WebSocket connections as one likes, each of which compares every byte with what must come.
 *
 * receiver PORT; then on standard input, each answered by one line:
 *   connect N                          have N connections
 *   expect FIRST COUNT NBYTES          what comes next on each: messages of these sequence numbers and this size
 *   await                              until all of it has come on all of them, and nothing else */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, MAX_EVENTS = 256, FRAME_HEADER = 4, SEQ_NBYTES = 8, READ_NBYTES = 1 << 16 };
enum { TIMEOUT_MS = 20000, QUIET_MS = 2 };

static size_t offsets[MAX_CONNECTIONS]; /* by descriptor: how much of what is expected has come */
static int nconnections, ncomplete, loop_fd;
static char *expected, bytes[READ_NBYTES];
static size_t expected_nbytes;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void connect_one(int port) {
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *) &address, sizeof address) < 0) fail("connect");
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0) fail("send");
    size_t nbytes = 0;
    do {
        ssize_t more = recv(fd, bytes + nbytes, sizeof bytes - 1 - nbytes, 0);
        if (more <= 0) fail("handshake");
        nbytes += more;
        bytes[nbytes] = 0;
    } while (!strstr(bytes, "\r\n\r\n"));
    if (strncmp(bytes, "HTTP/1.1 101", 12) != 0) fail(bytes);
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
    if (epoll_ctl(loop_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    nconnections++;
}

static void expect(uint64_t first, size_t count, size_t nbytes) {
    expected = realloc(expected, count * (nbytes + FRAME_HEADER));
    expected_nbytes = 0;
    for (uint64_t seq = first; seq < first + count; seq++) {
        char *at = expected + expected_nbytes;
        *at++ = (char) 0x82; /* FIN, binary */
        if (nbytes < 126) {
            *at++ = (char) nbytes;
        } else {
            *at++ = 126;
            *at++ = (char) (nbytes >> 8);
            *at++ = (char) nbytes;
        }
        memcpy(at, &seq, SEQ_NBYTES);
        for (size_t i = SEQ_NBYTES; i < nbytes; i++) at[i] = (char) i;
        expected_nbytes = at + nbytes - expected;
    }
    memset(offsets, 0, sizeof offsets);
    ncomplete = 0;
}

/* Returns why it fails, or NULL. */
static const char *take(int fd) {
    ssize_t nbytes = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (nbytes <= 0) return "a connection was closed";
    if ((size_t) nbytes > expected_nbytes - offsets[fd]) return "more has come than was expected";
    if (memcmp(bytes, expected + offsets[fd], nbytes) != 0) return "other bytes have come than were expected";
    offsets[fd] += nbytes;
    ncomplete += offsets[fd] == expected_nbytes;
    return NULL;
}

static const char *await(void) {
    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int is_complete = ncomplete == nconnections;
        int count = epoll_wait(loop_fd, events, MAX_EVENTS, is_complete ? QUIET_MS : TIMEOUT_MS);
        if (count == 0) return is_complete ? NULL : "it has not come in time";
        for (int i = 0; i < count; i++) {
            const char *fault = take(events[i].data.fd);
            if (fault) return fault;
        }
    }
}

int main(int argc, char **argv) {
    char line[256];
    int wanted, port = argc > 1 ? atoi(argv[1]) : 0;
    uint64_t first;
    size_t count, nbytes;
    loop_fd = epoll_create1(0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "connect %d", &wanted) == 1) {
            while (nconnections < wanted) connect_one(port);
            printf("%d\n", nconnections);
        } else if (sscanf(line, "expect %lu %zu %zu", &first, &count, &nbytes) == 3) {
            expect(first, count, nbytes);
            printf("%zu\n", expected_nbytes);
        } else {
            const char *fault = await();
            printf("%s\n", fault ? fault : "all");
        }
    }
}
