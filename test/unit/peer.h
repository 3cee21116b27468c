/* A Redis played by a test, on the same loop as what is tested: it takes connections, reads
 * commands, and the test's `answers` says what comes back. And turning that loop until something
 * holds. */
#ifndef PEER_H
#define PEER_H

#include "unit.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <hiredis/hiredis.h>

#include "common/clock.h"
#include "io/loop.h"

/* BUSY_MS: what a busy machine may add to a time that is promised */
enum { PATIENCE_MS = 20000, BUSY_MS = 3000 };

struct peer_conn {
	struct peer *peer;
	struct bufferevent *bev;
	redisReader *reader;
	struct peer_conn *next;
	bool is_asking; /* ASKING was its last word */
	bool is_silent; /* from now on */
};

struct peer {
	struct loop *loop;
	/* false: it has ended the connection */
	bool (*answers)(struct peer_conn *c, const redisReply *cmd);
	bufferevent_data_cb on_written; /* NULL: nothing more to write */
	const char *door; /* said to whoever connects, who is then hung up on; NULL: come in */
	struct evconnlistener *listener;
	int port;     /* 0 until peer_listen has chosen one */
	int accepted; /* connections so far */
	struct peer_conn *conns;
};

static inline void peer_conn_end(struct peer_conn *c)
{
	struct peer_conn **p = &c->peer->conns;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	bufferevent_free(c->bev);
	redisReaderFree(c->reader);
	free(c);
}

static inline void peer_says(struct peer_conn *c, const char *s)
{
	bufferevent_write(c->bev, s, strlen(s));
}

static inline void peer_says_bulk(struct peer_conn *c, const char *s)
{
	char head[32];

	snprintf(head, sizeof(head), "$%zu\r\n", strlen(s));
	peer_says(c, head);
	peer_says(c, s);
	peer_says(c, "\r\n");
}

static inline void peer_on_read(struct bufferevent *bev, void *arg)
{
	struct peer_conn *c = arg;
	char bytes[65536];
	bool lives = true;
	size_t n;

	while ((n = bufferevent_read(bev, bytes, sizeof(bytes))) > 0)
		redisReaderFeed(c->reader, bytes, n);
	while (lives) {
		void *cmd = NULL;

		assert_int_equal(redisReaderGetReply(c->reader, &cmd), REDIS_OK);
		if (!cmd)
			return;
		lives = c->peer->answers(c, cmd);
		freeReplyObject(cmd);
	}
}

static inline void peer_on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		peer_conn_end(arg);
}

static inline void peer_on_accept(
	struct evconnlistener *li, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	struct peer *p = arg;
	struct peer_conn *c;

	(void)li, (void)sa, (void)len;
	p->accepted++;
	if (p->door) {
		assert_int_equal(write(fd, p->door, strlen(p->door)), strlen(p->door));
		close(fd);
		return;
	}
	c = mem_alloc(sizeof(*c));
	c->peer = p;
	c->bev = bufferevent_socket_new(loop_base(p->loop), fd, BEV_OPT_CLOSE_ON_FREE);
	c->reader = redisReaderCreate();
	c->next = p->conns;
	p->conns = c;
	bufferevent_setcb(c->bev, peer_on_read, p->on_written, peer_on_event, c);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

/* On its port, or on a free one. */
static inline void peer_listen(struct peer *p)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)p->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);

	p->listener = evconnlistener_new_bind(loop_base(p->loop), peer_on_accept, p,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 16, (struct sockaddr *)&in, sizeof(in));
	assert_non_null(p->listener);
	getsockname(evconnlistener_get_fd(p->listener), (struct sockaddr *)&in, &len);
	p->port = ntohs(in.sin_port);
}

/* It keeps its port for the next peer_listen. */
static inline void peer_stop(struct peer *p)
{
	if (p->listener)
		evconnlistener_free(p->listener);
	p->listener = NULL;
	while (p->conns)
		peer_conn_end(p->conns);
}

/* ---- turning the loop; a tick wakes it, so that a condition is looked at again ---- */

static inline void on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

static inline struct event *tick_new(struct loop *l)
{
	struct event *tick = event_new(loop_base(l), -1, EV_PERSIST, on_tick, NULL);

	event_add(tick, &(struct timeval){.tv_usec = 2000});
	return tick;
}

#define UNTIL(cond) \
	do { \
		int64_t give_up = clock_ms() + PATIENCE_MS; \
		while (!(cond)) { \
			if (clock_ms() > give_up) \
				fail_msg("never came: %s", #cond); \
			event_base_loop(loop_base(loop), EVLOOP_ONCE); \
		} \
	} while (0)

#endif
