/* The least a server can do: an epoll loop that sends one prepared frame to every connection.
 *
 * It speaks the rig's protocol (rig.py) and no more of WebSocket than the receiver looks at: any request is answered with
 * 101, whatever comes later is read and thrown away. A connection that does not take all of a frame keeps the rest, and
 * the next round waits for it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <netinet/tcp.h>

enum { MAX_CONNECTIONS = 65536, MAX_EVENTS = 256, FRAME_HEADER = 4, SEQ_NBYTES = 8 };

static const char UPGRADED[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: -\r\n\r\n";

struct connection {
    char *rest; /* what the socket has not taken, if any: from rest_at on */
    size_t rest_at, rest_nbytes;
    int is_open;
};

static struct connection connections[MAX_CONNECTIONS]; /* by descriptor */
static int members[MAX_CONNECTIONS], nmembers, awaited, nheld, loop_fd;
static uint64_t next_seq;
static long rounds_left;
static size_t payload_nbytes, batch;
static char *frames; /* of one round */
static size_t frames_nbytes;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int fd, uint32_t events, int operation) {
    struct epoll_event event = { .events = events, .data.fd = fd };
    if (epoll_ctl(loop_fd, operation, fd, &event) < 0) fail("epoll_ctl");
}

static void answer(const char *line) {
    if (write(STDOUT_FILENO, line, strlen(line)) < 0) fail("write");
}

static void send_frame(int fd) {
    struct connection *connection = &connections[fd];
    ssize_t taken = send(fd, frames, frames_nbytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (taken == (ssize_t) frames_nbytes) return;
    if (taken < 0 && errno != EAGAIN) fail("send");
    taken = taken < 0 ? 0 : taken;
    connection->rest_nbytes = frames_nbytes - taken;
    connection->rest_at = 0;
    connection->rest = malloc(connection->rest_nbytes);
    memcpy(connection->rest, frames + taken, connection->rest_nbytes);
    watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    nheld++;
}

static void send_rest(int fd) {
    struct connection *connection = &connections[fd];
    const char *rest = connection->rest + connection->rest_at;
    ssize_t taken = send(fd, rest, connection->rest_nbytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (taken < 0 && errno != EAGAIN) fail("send");
    if (taken < 0) return;
    connection->rest_at += taken;
    connection->rest_nbytes -= taken;
    if (connection->rest_nbytes) return;
    free(connection->rest);
    watch(fd, EPOLLIN, EPOLL_CTL_MOD);
    nheld--;
}

static size_t write_header(char *at, size_t nbytes) {
    at[0] = (char) 0x82;
    if (nbytes < 126) {
        at[1] = (char) nbytes;
        return 2;
    }
    at[1] = 126;
    at[2] = (char) (nbytes >> 8);
    at[3] = (char) nbytes;
    return FRAME_HEADER;
}

static void build_frames(void) {
    frames_nbytes = 0;
    for (size_t i = 0; i < batch; i++) {
        char *at = frames + frames_nbytes + write_header(frames + frames_nbytes, payload_nbytes);
        memcpy(at, &next_seq, SEQ_NBYTES);
        for (size_t j = SEQ_NBYTES; j < payload_nbytes; j++) at[j] = (char) j;
        frames_nbytes = at + payload_nbytes - frames;
        next_seq++;
    }
}

static void do_round(void) {
    build_frames();
    for (int i = 0; i < nmembers; i++) send_frame(members[i]);
    if (--rounds_left == 0) answer("done\n");
}

static void tell_if_all_are_there(void) {
    if (awaited && nmembers >= awaited) {
        awaited = 0;
        answer("ready\n");
    }
}

static void take_command(void) {
    char line[256];
    ssize_t nbytes = read(STDIN_FILENO, line, sizeof line - 1); /* one command at a time */
    if (nbytes <= 0) exit(0);
    line[nbytes] = 0;
    if (sscanf(line, "await %d", &awaited) == 1)
        tell_if_all_are_there();
    else if (sscanf(line, "send %lu %ld %zu %zu", &next_seq, &rounds_left, &payload_nbytes, &batch) == 4)
        frames = realloc(frames, batch * (payload_nbytes + FRAME_HEADER));
    else
        fail(line);
}

static void take_connection(int listener) {
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) fail("accept4");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static void take_input(int fd) {
    char bytes[4096];
    if (recv(fd, bytes, sizeof bytes, 0) <= 0) exit(0); /* a receiver that leaves ends the measurement */
    if (connections[fd].is_open) return;
    connections[fd].is_open = 1;
    if (send(fd, UPGRADED, sizeof UPGRADED - 1, MSG_NOSIGNAL) < 0) fail("send");
    members[nmembers++] = fd;
    tell_if_all_are_there();
}

int main(void) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t address_nbytes = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *) &address, sizeof address) < 0 || listen(listener, 1024) < 0) fail("listen");
    if (getsockname(listener, (void *) &address, &address_nbytes) < 0) fail("getsockname");
    loop_fd = epoll_create1(0);
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int can_go_on = rounds_left > 0 && nheld == 0;
        int count = epoll_wait(loop_fd, events, MAX_EVENTS, can_go_on ? 0 : -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) take_connection(listener);
            else if (fd == STDIN_FILENO) take_command();
            else if (events[i].events & EPOLLOUT) send_rest(fd);
            else take_input(fd);
        }
        if (rounds_left > 0 && nheld == 0) do_round();
    }
}
