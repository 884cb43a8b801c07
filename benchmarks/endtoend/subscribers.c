/* Subscribers: as many WebSocket connections as one likes, by one thread; it counts all that comes, and writes down
 * whole what comes on some of them, with the time at which it was read. It judges nothing.
 *
 * subscribers PORT SUBPROTOCOL FILE; then on standard input, each answered by one line:
 *   connect N GROUP RCVBUF WHOLE    N more connections; answers the number of the first, or why not. RCVBUF: of their
 *                                   sockets, 0: the system's. WHOLE 1: everything of them is written down
 *   say I TIMES TEXT                send a text, so many times
 *   stall I, wake I, close I        read nothing of it; read again; close it
 *   counts GROUP                    answers what came on its connections: open subscribed errors frames bytes
 *
 * A record of FILE, packed, little-endian: connection u32, opcode u32 (0: the server closed it), time i64 (ns, UTC), nbytes u32,
 * and so many bytes. Of connections that are not written down whole, windows are left out. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 1 << 16, MAX_GROUPS = 8, MAX_EVENTS = 512, LEAST_ROOM = 1 << 12, LINE_NBYTES = 1 << 18 };
enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, WINDOW = 0x80, FIN = 0x80, MASKED = 0x80 };
enum { COMMANDS = MAX_CONNECTIONS, HANDSHAKE_S = 20 };

typedef struct {
    int fd, group, is_whole;
    char *bytes; /* the beginning of a frame that has not come as a whole */
    size_t have, room;
} Connection;

typedef struct {
    unsigned long open, subscribed, errors, frames, nbytes;
} Counts;

static Connection connections[MAX_CONNECTIONS];
static Counts counts[MAX_GROUPS];
static int nconnections, loop_fd, port;
static const char *subprotocol;
static FILE *records;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void record(uint32_t number, uint32_t opcode, int64_t time_ns, const char *bytes, uint32_t nbytes) {
    struct __attribute__((packed)) {
        uint32_t number, opcode;
        int64_t time_ns;
        uint32_t nbytes;
    } head = { number, opcode, time_ns, nbytes };
    if (fwrite(&head, sizeof head, 1, records) != 1 || fwrite(bytes, 1, nbytes, records) != nbytes) fail("records");
}

static void end(Connection *connection, int is_told) {
    if (connection->fd < 0) return;
    if (is_told) record(connection - connections, 0, now_ns(), NULL, 0);
    close(connection->fd);
    free(connection->bytes);
    connection->fd = -1;
    counts[connection->group].open--;
}

/* Sends a frame whole: a peer that takes nothing is none of ours, since a server must always read. */
static void send_frame(Connection *connection, int opcode, const char *bytes, size_t nbytes) {
    static char frame[LINE_NBYTES + 16];
    size_t head = 2;
    if (connection->fd < 0) return;
    frame[0] = (char) (FIN | opcode);
    if (nbytes < 126) {
        frame[1] = (char) (MASKED | nbytes);
    } else if (nbytes < 1 << 16) {
        frame[1] = (char) (MASKED | 126);
        frame[2] = (char) (nbytes >> 8);
        frame[3] = (char) nbytes;
        head = 4;
    } else {
        return;
    }
    memset(frame + head, 0, 4); /* the mask */
    memcpy(frame + head + 4, bytes, nbytes);
    nbytes += head + 4;
    for (size_t sent = 0; sent < nbytes;) {
        ssize_t more = send(connection->fd, frame + sent, nbytes - sent, MSG_NOSIGNAL);
        if (more < 0) {
            end(connection, 1);
            return;
        }
        sent += more;
    }
}

static int begins_with(const char *bytes, size_t nbytes, const char *what) {
    return nbytes >= strlen(what) && memcmp(bytes, what, strlen(what)) == 0;
}

static void take_frame(Connection *connection, int opcode, const char *bytes, size_t nbytes, int64_t time_ns) {
    Counts *own = &counts[connection->group];
    if (opcode == PING) {
        send_frame(connection, PONG, bytes, nbytes);
        return;
    }
    if (opcode == TEXT) {
        own->subscribed += begins_with(bytes, nbytes, "{\"op\":\"subscribed\"");
        own->errors += begins_with(bytes, nbytes, "{\"op\":\"error\"");
    }
    if (opcode == BINARY) own->frames++;
    if (connection->is_whole || opcode != BINARY || (nbytes && !((unsigned char) bytes[0] & WINDOW)))
        record(connection - connections, opcode, time_ns, bytes, nbytes);
}

/* Takes all whole frames that are there, and keeps the rest. */
static void take(Connection *connection, int64_t time_ns) {
    char *at = connection->bytes, *stop = at + connection->have;
    while (connection->fd >= 0 && stop - at >= 2) {
        const unsigned char *head = (const unsigned char *) at;
        size_t nbytes = head[1] & 0x7F, nhead = 2;
        if (nbytes == 126) nhead = 4;
        if (nbytes == 127) nhead = 10;
        if ((size_t) (stop - at) < nhead) break;
        if (nhead > 2) nbytes = 0;
        for (size_t i = 2; i < nhead; i++) nbytes = nbytes << 8 | head[i];
        if ((size_t) (stop - at) < nhead + nbytes) break;
        take_frame(connection, head[0] & 0x0F, at + nhead, nbytes, time_ns);
        at += nhead + nbytes;
    }
    if (connection->fd < 0) return;
    connection->have = stop - at;
    memmove(connection->bytes, at, connection->have);
}

static void read_some(Connection *connection) {
    if (connection->fd < 0) return;
    if (connection->have == connection->room) {
        connection->room = connection->room ? 2 * connection->room : LEAST_ROOM;
        connection->bytes = realloc(connection->bytes, connection->room);
        if (!connection->bytes) fail("realloc");
    }
    ssize_t nbytes = recv(
        connection->fd, connection->bytes + connection->have, connection->room - connection->have, MSG_DONTWAIT);
    if (nbytes < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (nbytes <= 0) {
        end(connection, 1);
        return;
    }
    counts[connection->group].nbytes += nbytes;
    connection->have += nbytes;
    take(connection, now_ns());
}

/* Returns why it failed, or NULL; blocks. */
static const char *connect_one(int group, int rcvbuf, int is_whole) {
    static char bytes[LEAST_ROOM];
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval patience = { .tv_sec = HANDSHAKE_S };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return strerror(errno);
    if (rcvbuf) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (void *) &address, sizeof address) < 0) return strerror(errno);
    int length = snprintf(bytes, sizeof bytes,
        "GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: %s\r\n\r\n", subprotocol);
    if (send(fd, bytes, length, MSG_NOSIGNAL) < 0) return strerror(errno);
    size_t have = 0;
    char *rest;
    do {
        ssize_t more = recv(fd, bytes + have, sizeof bytes - 1 - have, 0);
        if (more <= 0) return "the handshake was not answered";
        have += more;
        bytes[have] = 0;
    } while (!(rest = strstr(bytes, "\r\n\r\n")));
    if (strncmp(bytes, "HTTP/1.1 101", 12) != 0) {
        bytes[strcspn(bytes, "\r")] = 0;
        return bytes;
    }
    rest += 4;
    Connection *connection = &connections[nconnections];
    *connection = (Connection) { .fd = fd, .group = group, .is_whole = is_whole };
    counts[group].open++;
    connection->have = bytes + have - rest;
    connection->room = LEAST_ROOM;
    connection->bytes = malloc(connection->room);
    if (!connection->bytes) fail("malloc");
    memcpy(connection->bytes, rest, connection->have);
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = nconnections };
    if (epoll_ctl(loop_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    nconnections++;
    take(connection, now_ns());
    return NULL;
}

static void obey(char *line) {
    int count, group, rcvbuf, is_whole, number, times, at;
    if (sscanf(line, "connect %d %d %d %d", &count, &group, &rcvbuf, &is_whole) == 4) {
        int first = nconnections;
        const char *fault = NULL;
        while (!fault && nconnections < first + count) fault = connect_one(group, rcvbuf, is_whole);
        if (fault) printf("%s\n", fault);
        else printf("%d\n", first);
    } else if (sscanf(line, "say %d %d %n", &number, &times, &at) == 2) {
        while (times-- > 0) send_frame(&connections[number], TEXT, line + at, strlen(line + at));
        printf("said\n");
    } else if (sscanf(line, "stall %d", &number) == 1) {
        if (connections[number].fd >= 0) epoll_ctl(loop_fd, EPOLL_CTL_DEL, connections[number].fd, NULL);
        printf("stalled\n");
    } else if (sscanf(line, "wake %d", &number) == 1) {
        struct epoll_event event = { .events = EPOLLIN, .data.u32 = number };
        if (connections[number].fd >= 0) epoll_ctl(loop_fd, EPOLL_CTL_ADD, connections[number].fd, &event);
        printf("awake\n");
    } else if (sscanf(line, "close %d", &number) == 1) {
        end(&connections[number], 0);
        printf("closed\n");
    } else if (sscanf(line, "counts %d", &group) == 1) {
        Counts *own = &counts[group];
        printf("%lu %lu %lu %lu %lu\n", own->open, own->subscribed, own->errors, own->frames, own->nbytes);
    } else {
        printf("what is %.40s?\n", line);
    }
}

/* Returns whether there is more to come. */
static int read_commands(void) {
    static char lines[LINE_NBYTES];
    static size_t have;
    ssize_t more = read(STDIN_FILENO, lines + have, sizeof lines - 1 - have);
    if (more <= 0) return 0;
    have += more;
    lines[have] = 0;
    char *line = lines, *stop;
    while ((stop = strchr(line, '\n'))) {
        *stop = 0;
        obey(line);
        line = stop + 1;
    }
    have -= line - lines;
    memmove(lines, line, have);
    fflush(stdout);
    return 1;
}

int main(int argc, char **argv) {
    struct epoll_event events[MAX_EVENTS], commands = { .events = EPOLLIN, .data.u32 = COMMANDS };
    if (argc != 4) return 2;
    port = atoi(argv[1]);
    subprotocol = argv[2];
    records = fopen(argv[3], "wb");
    if (!records) fail(argv[3]);
    setvbuf(records, NULL, _IOFBF, 1 << 20);
    loop_fd = epoll_create1(0);
    if (epoll_ctl(loop_fd, EPOLL_CTL_ADD, STDIN_FILENO, &commands) < 0) fail("epoll_ctl");
    for (;;) {
        int count = epoll_wait(loop_fd, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 != COMMANDS) read_some(&connections[events[i].data.u32]);
            else if (!read_commands()) return 0;
        }
    }
}
