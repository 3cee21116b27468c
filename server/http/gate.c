/* Bytes are read into one buffer that all connections share, and taken from there where they make a
 * whole message, which is the usual case. Only what is left over is copied, and wiped when it was
 * taken: tokens and codes pass through here. */
#include "http/gate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/mem.h"
#include "http/private.h"

enum { READ_BYTES = 16 * 1024, AHEAD_MAX = 64 * 1024, LINGER_BYTES = 256 * 1024 };

static struct gate *gate_of(evhtp_connection_t *c)
{
	return c->hooks->on_connection_fini_arg;
}

static void set_state(struct gate *g, enum wait_kind state)
{
	waits_move(&g->http->waits, &g->wait, state);
}

static bool wants_more(const struct gate *g)
{
	return g->wait.kind == WAIT_IDLE || g->wait.kind == WAIT_REQUEST;
}

static void keep_reading(struct gate *g, bool on)
{
	if (on == g->reading)
		return;
	g->reading = on;
	if (on)
		event_add(&g->readable, NULL);
	else
		event_del(&g->readable);
}

/* ---- bytes that are not taken yet ---- */

static size_t ahead_len(const struct gate *g)
{
	return g->ahead.len - g->ahead_taken;
}

/* Reading stops while this much waits to be taken: otherwise each message would let as much again
 * in, and a client that sends faster than it is answered would get memory without bound. */
static void bound_ahead(struct gate *g)
{
	keep_reading(g, !g->eof && ahead_len(g) < AHEAD_MAX);
}

static void ahead_add(struct gate *g, const char *p, size_t n)
{
	buf_drop(&g->ahead, g->ahead_taken);
	g->ahead_taken = 0;
	buf_add(&g->ahead, p, n);
}

static void ahead_take(struct gate *g, size_t n)
{
	g->ahead_taken += n;
	if (ahead_len(g) > 0)
		return;
	buf_free(&g->ahead);
	g->ahead_taken = 0;
}

/* ---- the end of a connection ---- */

/* What was arriving will not be asked. */
static void forget_message(struct gate *g)
{
	if (g->req)
		req_discard(g->req);
	g->req = NULL;
	memset(&g->chunks, 0, sizeof(g->chunks));
	g->continued = false;
}

static evhtp_res on_connection_fini(evhtp_connection_t *c, void *arg)
{
	struct gate *g = arg;

	(void)c;
	if (g->req && g->wait.kind == WAIT_ANSWER)
		req_client_gone(g->req);
	else
		forget_message(g);
	http_gate_gone(g->http, g);
	keep_reading(g, false);
	buf_free(&g->ahead);
	free(g);
	return EVHTP_RES_OK;
}

void gate_close(struct gate *g)
{
	evhtp_connection_free(g->conn);
}

/* p: the head as far as it has come, read into http's head; NULL: nothing has. */
static void refuse(struct gate *g, enum outcome oc, const char *p)
{
	static const struct vet_head none;
	struct req *r = g->req;

	if (!r)
		r = req_new(g->http, g, p ? p : "", p ? &g->http->head : &none);
	g->req = NULL;
	req_refuse(r, oc);
}

void gate_refuse(struct gate *g, enum outcome oc)
{
	refuse(g, oc, NULL);
}

/* ---- messages ---- */

static void message_whole(struct gate *g)
{
	set_state(g, WAIT_ANSWER);
	bound_ahead(g);
	memset(&g->chunks, 0, sizeof(g->chunks));
	g->continued = false;
	req_whole(g->req);
	g->http->handler(g->http->ctx, g->req); /* the connection may end in here */
}

/* Takes the body as far as it has come: PENDING, OK or the error. */
static enum outcome collect_body(struct gate *g, const char *p, size_t n, size_t *used)
{
	struct buf *body = &g->req->body;
	size_t left;

	if (g->req->v->chunked)
		return vet_chunks(&g->chunks, p, n, g->http->o.max_body, body, used);
	left = (size_t)g->req->v->content_length - body->len;
	*used = n < left ? n : left;
	if (*used)
		buf_add(body, p, *used);
	return *used == left ? OC_OK : OC_PENDING;
}

/* What is too large has a head all the same, and its X-Request-Id. */
static enum outcome collect_head(struct gate *g, const char *p, size_t n, size_t *used)
{
	struct vet_head *v = &g->http->head;
	enum outcome oc;

	if (g->wait.kind == WAIT_IDLE)
		set_state(g, WAIT_REQUEST);
	oc = vet_head(p, n < 2 * VET_HEAD_MAX ? n : 2 * VET_HEAD_MAX, g->http->o.max_body, v);
	if (oc != OC_OK && oc != OC_TOO_LARGE)
		return oc;
	g->req = req_new(g->http, g, p, v);
	*used = v->len;
	return oc;
}

/* Empty lines before a request are no part of it (RFC 9112 section 2.2), and whoever sends nothing
 * else stays idle. */
static size_t empty_lines(const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && (p[i] == '\r' || p[i] == '\n'))
		i++;
	return i;
}

static enum outcome collect(struct gate *g, const char *p, size_t n, size_t *used)
{
	size_t more = 0;
	enum outcome oc = OC_OK;

	*used = 0;
	if (!g->req)
		oc = collect_head(g, p, n, used);
	if (oc == OC_OK)
		oc = collect_body(g, p + *used, n - *used, &more);
	*used += more;
	if (oc == OC_PENDING && g->req && g->req->v->expect && !g->continued &&
		g->req->body.len == 0) {
		g->continued = true;
		bufferevent_write(g->conn->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	return oc;
}

/* Takes of the next message what p holds; what is left waits. p is what was read just now, or what
 * waited. The connection may be gone afterwards. */
static void take(struct gate *g, const char *p, size_t n, bool waited)
{
	size_t skip = g->req ? 0 : empty_lines(p, n), used = 0;
	enum outcome oc = n > skip ? collect(g, p + skip, n - skip, &used) : OC_PENDING;

	if (oc != OC_OK && oc != OC_PENDING) {
		refuse(g, oc, p + skip);
		return;
	}
	if (waited)
		ahead_take(g, skip + used);
	else if (skip + used < n)
		ahead_add(g, p + skip + used, n - skip - used);
	if (oc == OC_OK)
		message_whole(g);
	else if (g->eof)
		gate_close(g); /* the rest will not come */
	else
		bound_ahead(g);
}

/* The connection is free for its next message. */
static void gate_next(struct gate *g)
{
	if (ahead_len(g) > 0)
		take(g, g->ahead.data + g->ahead_taken, ahead_len(g), true);
	else if (g->eof || g->http->draining)
		gate_close(g);
}

/* ---- what the socket says ---- */

static void on_bytes(struct gate *g, const char *p, size_t n)
{
	if (g->wait.kind == WAIT_LINGER) {
		g->lingered += n;
		if (g->lingered > LINGER_BYTES)
			gate_close(g);
	} else if (wants_more(g) && ahead_len(g) == 0) {
		take(g, p, n, false);
	} else {
		ahead_add(g, p, n);
		if (wants_more(g))
			gate_next(g);
		else
			bound_ahead(g);
	}
}

/* A client that has said all it will (a FIN) still gets what it waits for. */
static void on_eof(struct gate *g)
{
	g->eof = true;
	keep_reading(g, false);
	if (wants_more(g) || (g->wait.kind == WAIT_LINGER && gate_unsent(g) == 0))
		gate_close(g);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	static char bytes[READ_BYTES];
	struct gate *g = arg;
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	(void)what;
	if (n > 0) {
		on_bytes(g, bytes, (size_t)n);
		mem_wipe(bytes, (size_t)n);
	} else if (n == 0) {
		on_eof(g);
	} else if (errno != EAGAIN && errno != EINTR) {
		gate_close(g); /* a client that is gone gets nothing */
	}
}

static void on_last_word_sent(struct gate *g)
{
	if (g->eof)
		gate_close(g);
	else
		shutdown(bufferevent_getfd(g->conn->bev), SHUT_WR);
}

/* All of the answer has left: the next message, or the end. */
static void turn_over(struct gate *g)
{
	if (g->closing) {
		gate_close(g);
		return;
	}
	set_state(g, WAIT_IDLE);
	gate_next(g);
}

/* Comes also for a 100 Continue, and for a piece of an answer. */
static void on_flushed(struct bufferevent *bev, void *arg)
{
	struct gate *g = gate_of(arg);

	(void)bev;
	if (gate_unsent(g) > 0)
		return;
	if (g->wait.kind == WAIT_LINGER)
		on_last_word_sent(g);
	else if (g->wait.kind == WAIT_FLUSH)
		turn_over(g);
}

/* Of the bufferevent, which only writes: the client is gone. */
static void on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	(void)what;
	gate_close(gate_of(arg));
}

/* ---- begin ---- */

static void name_peer(struct gate *g)
{
	const struct sockaddr *sa = g->conn->saddr;

	strcpy(g->peer, "unix");
	if (sa && sa->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr,
			g->peer, sizeof(g->peer));
	else if (sa && sa->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr,
			g->peer, sizeof(g->peer));
}

struct gate *gate_open(struct http *h, evhtp_connection_t *c, bool rejected)
{
	struct gate *g = mem_alloc(sizeof(*g));

	if (evhtp_connection_set_hook(
		    c, evhtp_hook_on_connection_fini, (evhtp_hook)on_connection_fini, g)) {
		free(g);
		return NULL;
	}
	g->http = h;
	g->conn = c;
	g->rejected = rejected;
	name_peer(g);
	bufferevent_setcb(c->bev, NULL, on_flushed, on_event, c);
	bufferevent_disable(c->bev, EV_READ);
	event_assign(&g->readable, loop_base(h->loop), bufferevent_getfd(c->bev),
		EV_READ | EV_PERSIST, on_readable, g);
	keep_reading(g, true);
	waits_begin(&h->waits, &g->wait, WAIT_IDLE);
	return g;
}

/* ---- answers ---- */

static void wipe_and_free(const void *p, size_t n, void *arg)
{
	(void)arg;
	mem_wipe((void *)(uintptr_t)p, n);
	free((void *)(uintptr_t)p);
}

void gate_write(struct gate *g, const void *p, size_t n)
{
	void *copy;

	if (n == 0)
		return;
	copy = mem_alloc(n);
	memcpy(copy, p, n);
	if (evbuffer_add_reference(
		    bufferevent_get_output(g->conn->bev), copy, n, wipe_and_free, NULL))
		abort(); /* out of memory */
}

size_t gate_unsent(const struct gate *g)
{
	return evbuffer_get_length(bufferevent_get_output(g->conn->bev));
}

/* Straight to the socket where nothing waits before it: the loop need not be asked whether it can
 * be written to. */
static void send_or_write(struct gate *g, const void *p, size_t n)
{
	ssize_t sent = gate_unsent(g) ? 0
				      : send(bufferevent_getfd(g->conn->bev), p, n,
						MSG_NOSIGNAL | MSG_DONTWAIT);

	if (sent < 0)
		sent = 0; /* an error comes again when the loop writes */
	if ((size_t)sent < n)
		gate_write(g, (const char *)p + sent, n - (size_t)sent);
}

/* Nothing is left to do but to wait for the next message. */
static bool is_at_rest(const struct gate *g)
{
	return g->unsent == 0 && ahead_len(g) == 0 && !g->closing && !g->eof && !g->http->draining;
}

void gate_answered(struct gate *g, bool close)
{
	g->req = NULL;
	g->closing = close;
	g->unsent = gate_unsent(g);
	if (is_at_rest(g)) {
		set_state(g, WAIT_IDLE);
		return;
	}
	set_state(g, WAIT_FLUSH);
	/* Later, even where all was sent: whoever answered is still on the stack, and who sends
	 * many messages at once takes turns with the others. */
	if (g->unsent == 0)
		bufferevent_trigger(g->conn->bev, EV_WRITE,
			BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

void gate_answer(struct gate *g, const void *p, size_t n, bool close)
{
	send_or_write(g, p, n);
	gate_answered(g, close);
}

/* Reads on for a while: closing with unread bytes would reset the connection and take the last word
 * with it. */
void gate_last_word(struct gate *g, const void *p, size_t n)
{
	ahead_take(g, ahead_len(g));
	memset(&g->chunks, 0, sizeof(g->chunks));
	bound_ahead(g);
	set_state(g, WAIT_LINGER);
	send_or_write(g, p, n);
	if (gate_unsent(g) == 0)
		on_last_word_sent(g);
}

void gate_overdue(struct gate *g)
{
	const char *p = ahead_len(g) ? g->ahead.data + g->ahead_taken : NULL;
	size_t unsent = gate_unsent(g);

	switch (g->wait.kind) {
	case WAIT_REQUEST:
		if (p && !g->req)
			/* for what has come of its head */
			vet_head(p, ahead_len(g), g->http->o.max_body, &g->http->head);
		refuse(g, OC_TIMEOUT, p);
		break;
	case WAIT_ANSWER:
		set_state(g, WAIT_ANSWER); /* should it be a long answer under way */
		req_overdue(g->req);
		break;
	case WAIT_FLUSH:
		if (unsent < g->unsent) { /* slow, but reading */
			g->unsent = unsent;
			set_state(g, WAIT_FLUSH);
			break;
		}
		gate_close(g);
		break;
	default:
		gate_close(g);
	}
}
