#include "http/gate.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/clock.h"
#include "common/mem.h"
#include "http/private.h"

enum { READ_HIGH = 128 * 1024, AHEAD_MAX = 64 * 1024, LINGER_BYTES = 256 * 1024, LINGER_MS = 2000 };

static void gate_next(struct gate *g);

static struct gate *gate_of(evhtp_connection_t *c)
{
	return c->hooks->on_connection_fini_arg;
}

static void set_state(struct gate *g, enum gate_state state, int64_t wait_ms)
{
	g->state = state;
	http_unlist_gate(g->http, g);
	if (state != GATE_BUSY)
		http_list_gate(g->http, g, clock_ms() + wait_ms);
}

static struct evbuffer *input(struct gate *g)
{
	return bufferevent_get_input(g->conn->bev);
}

/* What was arriving will not be asked. */
static void forget_message(struct gate *g)
{
	if (g->req)
		req_discard(g->req);
	g->req = NULL;
	memset(&g->chunks, 0, sizeof(g->chunks));
	g->continued = false;
}

/* A TLS connection ends with close_notify, which libevent leaves out. The peer's is not waited for. */
static void end_tls(SSL *ssl)
{
	SSL_set_shutdown(ssl, SSL_RECEIVED_SHUTDOWN);
	SSL_shutdown(ssl);
	ERR_clear_error(); /* within a handshake there is nothing to end */
}

static evhtp_res on_connection_fini(evhtp_connection_t *c, void *arg)
{
	struct gate *g = arg;

	if (c->ssl)
		end_tls(c->ssl);
	if (g->dead)
		*g->dead = true;
	if (g->req && g->state == GATE_BUSY)
		req_client_gone(g->req);
	else
		forget_message(g);
	http_gate_gone(g->http, g);
	if (g->stash)
		evbuffer_free(g->stash);
	free(g);
	return EVHTP_RES_OK;
}

void gate_close(struct gate *g)
{
	evhtp_connection_free(g->conn);
}

/* Says why to who sent what is no request, and then reads on for a while: closing with unread bytes would reset the connection and
 * take the answer with it. */
static void refuse(struct gate *g, enum outcome oc)
{
	struct buf b = {0};

	req_print_error(&b, oc, g->req);
	metric_add(metric_series(METRIC_HTTP_REQUESTS, g->http->name, "none",
			   oc == OC_OVERLOADED ? "503" : oc == OC_TIMEOUT ? "408" : "4xx"), 1);
	evbuffer_drain(input(g), evbuffer_get_length(input(g)));
	forget_message(g);
	set_state(g, GATE_LINGER, LINGER_MS);
	bufferevent_write(g->conn->bev, b.data, b.len);
	buf_free(&b);
}

/* evhtp's parser sees this and nothing else. */
static bool feed_evhtp(struct gate *g)
{
	static const char head[] = "GET / HTTP/1.1\r\n\r\n";
	struct bufferevent *bev = g->conn->bev;
	bool dead = false;

	evbuffer_prepend(bufferevent_get_input(bev), head, sizeof(head) - 1);
	g->dead = &dead; /* cppcheck-suppress autoVariables ; cleared below while it lives */
	g->evhtp_read(bev, g->conn);
	if (dead)
		return false;
	g->dead = NULL;
	return true;
}

/* Who has sent that much ahead is not read from until it is answered: else each message would let as much again in, and one caller who
 * sends faster than it is answered would have memory without bound. */
static void bound_ahead(struct gate *g)
{
	if (!g->stash || g->eof)
		return;
	if (evbuffer_get_length(g->stash) < AHEAD_MAX)
		bufferevent_enable(g->conn->bev, EV_READ);
	else
		bufferevent_disable(g->conn->bev, EV_READ);
}

static bool message_whole(struct gate *g)
{
	set_state(g, GATE_BUSY, 0);
	if (evbuffer_get_length(input(g))) {
		if (!g->stash && !(g->stash = evbuffer_new()))
			abort(); /* out of memory */
		evbuffer_add_buffer(g->stash, input(g));
	}
	bound_ahead(g);
	memset(&g->chunks, 0, sizeof(g->chunks));
	g->continued = false;
	req_whole(g->req);
	return feed_evhtp(g);
}

/* Reads the body as far as it has come: PENDING, OK or the error. */
static enum outcome collect_body(struct gate *g)
{
	size_t max = g->http->o.max_body, len, used;
	struct evbuffer *in = input(g);
	struct buf *body = &g->req->body;
	enum outcome oc = OC_PENDING;
	const char *p;

	if (!g->req->v->chunked) {
		size_t want = (size_t)g->req->v->content_length - body->len, have = evbuffer_get_length(in);
		size_t take = want < have ? want : have;

		if (take) {
			buf_add(body, evbuffer_pullup(in, (ev_ssize_t)take), take);
			evbuffer_drain(in, take);
		}
		return take == want ? OC_OK : OC_PENDING;
	}
	while (oc == OC_PENDING && (len = evbuffer_get_contiguous_space(in)) > 0) {
		p = (const char *)evbuffer_pullup(in, (ev_ssize_t)len);
		oc = vet_chunks(&g->chunks, p, len, max, body, &used);
		evbuffer_drain(in, used);
	}
	return oc;
}

static enum outcome collect_head(struct gate *g)
{
	struct vet_head *v = &g->http->head;
	struct evbuffer *in = input(g);
	size_t len = evbuffer_get_length(in), skip = 0, look;
	const char *p;
	enum outcome oc;

	p = (const char *)evbuffer_pullup(in, len < 4 ? (ev_ssize_t)len : 4);
	while (skip < len && skip < 4 && (p[skip] == '\r' || p[skip] == '\n'))
		skip++; /* an empty line before a request: RFC 9112 section 2.2 */
	evbuffer_drain(in, skip);
	len -= skip;
	if (len == 0)
		return OC_PENDING;
	look = len < 2 * VET_HEAD_MAX ? len : 2 * VET_HEAD_MAX;
	p = (const char *)evbuffer_pullup(in, (ev_ssize_t)look);
	oc = vet_head(p, look, g->http->o.max_body, v);
	if (oc != OC_OK && oc != OC_TOO_LARGE)
		return oc;
	g->req = req_new(g->http, g, p, v); /* what is too large has a head all the same, and its X-Request-Id */
	evbuffer_drain(in, v->len);
	return oc;
}

static enum outcome collect(struct gate *g)
{
	enum outcome oc = g->req ? OC_OK : collect_head(g);

	if (oc == OC_OK)
		oc = collect_body(g);
	if (oc == OC_PENDING && g->req && g->req->v->expect && !g->continued && g->req->body.len == 0) {
		g->continued = true;
		bufferevent_write(g->conn->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	return oc;
}

/* Takes the next message out of what has come. */
static void gate_next(struct gate *g)
{
	enum outcome oc;

	if (g->stash && evbuffer_get_length(g->stash))
		evbuffer_prepend_buffer(input(g), g->stash);
	if (g->state == GATE_IDLE) {
		if (evbuffer_get_length(input(g)) == 0) {
			if (g->eof || g->http->draining)
				gate_close(g);
			return;
		}
		set_state(g, GATE_ARRIVING, g->http->o.client_timeout_ms);
	}
	oc = collect(g);
	if (oc != OC_OK)
		bound_ahead(g); /* all of the stash is in the input: read on */
	if (oc == OC_OK)
		message_whole(g);
	else if (oc != OC_PENDING)
		refuse(g, oc);
	else if (g->eof)
		gate_close(g); /* the rest will not come */
	else if (!g->req && evbuffer_get_length(input(g)) == 0)
		set_state(g, GATE_IDLE, g->http->o.client_timeout_ms); /* only empty lines came */
}

static void linger_read(struct gate *g)
{
	struct evbuffer *in = input(g);

	g->lingered += evbuffer_get_length(in);
	evbuffer_drain(in, evbuffer_get_length(in));
	if (g->lingered > LINGER_BYTES)
		gate_close(g);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct gate *g = gate_of(arg);

	(void)bev;
	if (g->state == GATE_LINGER)
		linger_read(g);
	else if (g->state == GATE_IDLE || g->state == GATE_ARRIVING)
		gate_next(g);
	/* else it waits in the input, which the watermark bounds */
}

static void on_flushed(struct bufferevent *bev, void *arg)
{
	evhtp_connection_t *c = arg;
	struct gate *g = gate_of(c);
	bool dead = false;

	if (g->state == GATE_LINGER) {
		if (g->eof)
			gate_close(g);
		else
			shutdown(bufferevent_getfd(bev), SHUT_WR);
		return;
	}
	if (!c->request || g->state != GATE_FLUSHING)
		return; /* a 100 Continue, or a piece of a stream */
	g->dead = &dead;
	g->evhtp_write(bev, c); /* evhtp ends its request, or the connection */
	if (dead)
		return;
	g->dead = NULL;
	if (c->request)
		return;
	set_state(g, GATE_IDLE, g->http->o.client_timeout_ms);
	gate_next(g);
}

/* A client that has said all it will (a FIN) still gets what it waits for; one that is gone does not. */
static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct gate *g = gate_of(arg);

	if (what & BEV_EVENT_CONNECTED)
		return; /* TLS is up */
	if (!(what & BEV_EVENT_EOF) || (what & BEV_EVENT_ERROR)) {
		gate_close(g);
		return;
	}
	g->eof = true;
	bufferevent_disable(bev, EV_READ);
	if (g->state == GATE_IDLE || g->state == GATE_ARRIVING)
		gate_next(g);
	else if (g->state == GATE_LINGER && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
		gate_close(g);
}

static void name_peer(struct gate *g)
{
	const struct sockaddr *sa = g->conn->saddr;

	strcpy(g->peer, "unix");
	if (sa && sa->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, g->peer, sizeof(g->peer));
	else if (sa && sa->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, g->peer, sizeof(g->peer));
}

bool gate_open(struct http *h, evhtp_connection_t *c, bool reject)
{
	struct gate *g = mem_alloc(sizeof(*g));
	bufferevent_event_cb ecb;
	void *arg;

	g->http = h;
	g->conn = c;
	g->rejected = reject;
	name_peer(g);
	if (evhtp_connection_set_hook(c, evhtp_hook_on_connection_fini, (evhtp_hook)on_connection_fini, g)) {
		free(g);
		return false;
	}
	bufferevent_getcb(c->bev, &g->evhtp_read, &g->evhtp_write, &ecb, &arg);
	bufferevent_setcb(c->bev, on_read, on_flushed, on_event, arg);
	bufferevent_setwatermark(c->bev, EV_READ, 0, READ_HIGH);
	set_state(g, GATE_IDLE, h->o.client_timeout_ms);
	if (reject)
		refuse(g, OC_OVERLOADED);
	return true;
}

static void finish_request(struct gate *g, bool close)
{
	evhtp_request_t *r = g->conn->request;

	g->req = NULL;
	if (close)
		evhtp_request_disable_flag(r, EVHTP_REQ_FLAG_KEEPALIVE);
	r->flags |= EVHTP_REQ_FLAG_FINISHED;
	g->unsent = gate_unsent(g);
	set_state(g, GATE_FLUSHING, g->http->o.client_timeout_ms);
}

/* Straight to the socket where nothing waits before it: the loop need not be asked whether it can be written to. */
static size_t send_now(struct gate *g, const void *p, size_t n)
{
	ssize_t sent;

	if (g->http->ssl_ctx || gate_unsent(g))
		return 0;
	sent = send(bufferevent_getfd(g->conn->bev), p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	return sent < 0 ? 0 : (size_t)sent; /* an error comes again when the loop writes */
}

void gate_answer(struct gate *g, const void *p, size_t n, bool close)
{
	size_t sent = send_now(g, p, n);

	if (sent < n)
		bufferevent_write(g->conn->bev, (const char *)p + sent, n - sent);
	finish_request(g, close);
	if (sent == n)
		bufferevent_trigger(g->conn->bev, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

void gate_write(struct gate *g, const void *p, size_t n)
{
	bufferevent_write(g->conn->bev, p, n);
}

size_t gate_unsent(const struct gate *g)
{
	return evbuffer_get_length(bufferevent_get_output(g->conn->bev));
}

void gate_finish(struct gate *g)
{
	finish_request(g, true);
	if (gate_unsent(g) == 0)
		bufferevent_trigger(g->conn->bev, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

void gate_reset(struct gate *g)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};

	setsockopt(bufferevent_getfd(g->conn->bev), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	if (g->conn->ssl)
		SSL_set_quiet_shutdown(g->conn->ssl, 1);
	g->req = NULL;
	bufferevent_trigger_event(g->conn->bev, BEV_EVENT_ERROR, BEV_TRIG_DEFER_CALLBACKS);
}

void gate_tick(struct gate *g)
{
	size_t unsent = gate_unsent(g);

	if (g->state == GATE_FLUSHING && unsent < g->unsent) { /* slow, but reading */
		g->unsent = unsent;
		set_state(g, GATE_FLUSHING, g->http->o.client_timeout_ms);
	} else if (g->state == GATE_ARRIVING) {
		refuse(g, OC_TIMEOUT);
	} else {
		gate_close(g);
	}
}
