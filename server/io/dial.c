/* The socket of a connection: a name becomes addresses, one of them a socket, that perhaps a TLS
 * link; and after a while all anew. */
#include "io/conn_private.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "io/resolve.h"

/* --- reading and writing --- */

ssize_t conn_read(struct conn *c, void *p, size_t n)
{
	ssize_t got;

	if (!c->link)
		return read(c->fd, p, n);
	got = tls_read(c->link, p, n);
	if (got == TLS_WRITE)
		event_add(&c->writable, NULL);
	errno = got == TLS_BAD ? EPROTO : EAGAIN;
	return got < 0 ? -1 : got;
}

ssize_t conn_write(struct conn *c, const void *p, size_t n)
{
	ssize_t got;

	if (!c->link)
		return write(c->fd, p, n);
	got = tls_write(c->link, p, n);
	c->write_waits = got == TLS_READ;
	errno = got == TLS_BAD || got == TLS_END ? EPROTO : EAGAIN;
	return got <= 0 ? -1 : got;
}

const char *conn_error(struct conn *c)
{
	return c->link ? tls_why(c->link) : strerror(errno);
}

/* --- connecting --- */

void conn_retry_later(struct conn *c)
{
	int half = c->backoff_ms / 2;

	if (c->freed)
		return;
	timer_start(c->retry, half + rand_r(&c->seed) % (half + 1));
	c->backoff_ms = c->backoff_ms * 2 < BACKOFF_MAX_MS ? c->backoff_ms * 2 : BACKOFF_MAX_MS;
}

void conn_tls_step(struct conn *c)
{
	int got = tls_handshake(c->link);
	char why[WHY_MAX];

	if (got == TLS_DONE) {
		conn_greet(c);
	} else if (got == TLS_WRITE) {
		event_add(&c->writable, NULL);
	} else if (got == TLS_BAD) {
		snprintf(why, sizeof(why), "%s", tls_why(c->link)); /* which ends with the link */
		conn_try_next(c, why);
	}
}

static void connected(struct conn *c)
{
	event_add(&c->readable, NULL);
	if (!c->o.tls) {
		conn_greet(c);
		return;
	}
	c->state = ST_TLS;
	c->link = tls_open(c->o.tls, c->fd, c->o.host);
	conn_tls_step(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	int error = 0;
	socklen_t len = sizeof(error);

	(void)what;
	conn_enter(c);
	if (c->state == ST_TLS)
		conn_tls_step(c);
	else if (c->state != ST_CONNECTING)
		conn_write_some(c);
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error)
		conn_try_next(c, strerror(error));
	else
		connected(c);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between enter and leave c lives */
	conn_leave(c);
}

static void tcp_options(int fd, int timeout_ms)
{
	unsigned user_timeout = timeout_ms > 1000 ? (unsigned)timeout_ms : 1000;
	int on = 1, idle_s = 5, interval_s = 2, probes = 3;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
}

/* Starts with the next address; false with errno when that failed at once. */
static bool connect_start(struct conn *c)
{
	const struct sockaddr *sa = (const struct sockaddr *)&c->addrs[c->addr_next];
	socklen_t len = c->addr_len[c->addr_next++];
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	if (sa->sa_family != AF_UNIX)
		tcp_options(fd, c->o.timeout_ms);
	if (connect(fd, sa, len) != 0 && errno != EINPROGRESS) {
		int error = errno;

		close(fd);
		errno = error;
		return false;
	}
	c->fd = fd;
	c->state = ST_CONNECTING;
	event_assign(
		&c->readable, loop_base(c->loop), fd, EV_READ | EV_PERSIST, conn_on_readable, c);
	event_assign(&c->writable, loop_base(c->loop), fd, EV_WRITE, on_writable, c);
	event_add(&c->writable, NULL);
	c->late_set = true;
	timer_start(c->late, c->o.timeout_ms);
	return true;
}

void conn_try_next(struct conn *c, const char *why)
{
	if (c->state != ST_DOWN)
		conn_close(c);
	while (c->addr_next < c->addr_count) {
		if (connect_start(c))
			return;
		why = strerror(errno);
	}
	conn_log_trouble(c, LOG_WARN, "redis cannot be reached", why);
	conn_retry_later(c);
}

static void add_address(struct conn *c, const void *sa, socklen_t len)
{
	if (c->addr_count == ADDRESSES_MAX || len > sizeof(c->addrs[0]))
		return;
	memcpy(&c->addrs[c->addr_count], sa, len);
	c->addr_len[c->addr_count++] = len;
}

static void add_addresses(struct conn *c, const struct addrinfo *list)
{
	for (; list; list = list->ai_next)
		add_address(c, list->ai_addr, list->ai_addrlen);
}

static void on_resolved(void *ctx, const struct addrinfo *list, const char *error)
{
	struct conn *c = ctx;

	c->resolve = NULL;
	c->state = ST_DOWN;
	add_addresses(c, list);
	conn_try_next(c, error);
}

static void start_unix(struct conn *c)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (strlen(c->o.unix_path) < sizeof(un.sun_path)) {
		strcpy(un.sun_path, c->o.unix_path);
		add_address(c, &un, sizeof(un));
	}
	conn_try_next(c, "the socket's path is too long");
}

void conn_start(void *ctx)
{
	struct conn *c = ctx;
	struct addrinfo *list;

	c->addr_count = c->addr_next = 0;
	if (c->o.unix_path) {
		start_unix(c);
		return;
	}
	list = resolve_numeric(c->o.host, c->o.port);
	if (list) {
		add_addresses(c, list);
		freeaddrinfo(list);
		conn_try_next(c, "no address");
	} else {
		c->state = ST_RESOLVING;
		c->resolve = resolve_start(c->loop, c->o.host, c->o.port, on_resolved, c);
	}
}
