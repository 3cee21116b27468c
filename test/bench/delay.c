/* delay LISTEN-PORT TO-PORT MICROSECONDS: a TCP proxy on loopback that holds what passes for so
 * long, in each direction. A network's latency, for benchmarks: it costs no bandwidth, and what
 * comes later does not overtake. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAIRS_MAX = 64, CHUNK = 64 * 1024 };

struct chunk {
	struct chunk *next;
	int64_t due_ns;
	size_t  len, sent;
	bool    is_end; /* the sender has closed */
	char    data[CHUNK];
};

struct way { /* one direction of a connection */
	int from, to;
	struct chunk *first, *last;
	bool ended;
};

static struct way ways[2 * PAIRS_MAX];
static int64_t delay_ns;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void quick(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void pair(int client, int to_port)
{
	struct sockaddr_in addr = loopback(to_port);
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(server, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		for (int i = 0; i < 2 * PAIRS_MAX; i += 2)
			if (ways[i].from < 0 && ways[i + 1].from < 0) {
				quick(client);
				quick(server);
				ways[i] = (struct way){.from = client, .to = server};
				ways[i + 1] = (struct way){.from = server, .to = client};
				return;
			}
	close(server);
	close(client);
}

static void take(struct way *w)
{
	struct chunk *c = calloc(1, sizeof(*c));
	ssize_t n = c ? recv(w->from, c->data, CHUNK, MSG_DONTWAIT) : -1;

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		free(c);
		return;
	}
	if (!c)
		abort();
	c->len = n > 0 ? (size_t)n : 0;
	c->is_end = w->ended = n <= 0;
	c->due_ns = now_ns() + delay_ns;
	if (w->last)
		w->last->next = c;
	else
		w->first = c;
	w->last = c;
}

static void give(struct way *w)
{
	struct chunk *c;

	while ((c = w->first) && c->due_ns <= now_ns()) {
		ssize_t n =
			c->is_end ? 0
				  : send(w->to, c->data + c->sent, c->len - c->sent, MSG_NOSIGNAL);

		if (c->is_end || n < 0)
			shutdown(w->to, SHUT_WR);
		c->sent += n > 0 ? (size_t)n : c->len;
		if (c->sent < c->len)
			continue;
		w->first = c->next;
		w->last = w->first ? w->last : NULL;
		free(c);
	}
}

static void forget_ended(void)
{
	for (int i = 0; i < 2 * PAIRS_MAX; i += 2) {
		struct way *a = &ways[i], *b = &ways[i + 1];

		if (a->from >= 0 && a->ended && b->ended && !a->first && !b->first) {
			close(a->from);
			close(b->from);
			a->from = b->from = -1;
		}
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = loopback(argc == 4 ? atoi(argv[1]) : 0);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (argc != 4 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) ||
		listen(listener, 16)) {
		fprintf(stderr, "usage: delay LISTEN-PORT TO-PORT MICROSECONDS\n");
		return 2;
	}
	delay_ns = atoll(argv[3]) * 1000;
	prctl(PR_SET_TIMERSLACK, 1);
	for (int i = 0; i < 2 * PAIRS_MAX; i++)
		ways[i].from = -1;
	for (;;) {
		struct pollfd fds[2 * PAIRS_MAX + 1];
		int64_t due = INT64_MAX, wait;

		for (int i = 0; i < 2 * PAIRS_MAX; i++) {
			fds[i] = (struct pollfd){
				.fd = ways[i].from >= 0 && !ways[i].ended ? ways[i].from : -1,
				.events = POLLIN};
			due = ways[i].from >= 0 && ways[i].first && ways[i].first->due_ns < due
				      ? ways[i].first->due_ns
				      : due;
		}
		fds[2 * PAIRS_MAX] = (struct pollfd){.fd = listener, .events = POLLIN};
		wait = due == INT64_MAX ? INT64_C(1000000000) : due - now_ns();
		wait = wait < 0 ? 0 : wait;
		ppoll(fds, 2 * PAIRS_MAX + 1,
			&(struct timespec){
				.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000},
			NULL);
		for (int i = 0; i < 2 * PAIRS_MAX; i++)
			if (fds[i].fd >= 0 && fds[i].revents)
				take(&ways[i]);
		for (int i = 0; i < 2 * PAIRS_MAX; i++)
			if (ways[i].from >= 0)
				give(&ways[i]);
		forget_ended();
		if (fds[2 * PAIRS_MAX].revents)
			pair(accept(listener, NULL, NULL), atoi(argv[2]));
	}
}
