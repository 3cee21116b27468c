#include "http/gate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/mem.h"
#include "http/private.h"

enum { READ_HIGH = 128 * 1024, LINGER_BYTES = 256 * 1024, LINGER_MS = 2000 };

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

static void forget_message(struct gate *g)
{
	if (g->head_bytes)
		mem_wipe(g->head_bytes, g->head.len);
	free(g->head_bytes);
	g->head_bytes = NULL;
	buf_free(&g->body);
	memset(&g->chunks, 0, sizeof(g->chunks));
	g->in_body = g->continued = false;
}

static evhtp_res on_connection_fini(evhtp_connection_t *c, void *arg)
{
	struct gate *g = arg;

	(void)c;
	if (g->dead)
		*g->dead = true;
	if (g->req)
		req_client_gone(g->req);
	http_gate_gone(g->http, g);
	evbuffer_free(g->in);
	forget_message(g);
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

	req_print_error(&b, oc);
	metric_add(metric_series(METRIC_HTTP_REQUESTS, g->http->name, "none",
			   oc == OC_OVERLOADED ? "503" : oc == OC_TIMEOUT ? "408" : "4xx"), 1);
	evbuffer_drain(g->in, evbuffer_get_length(g->in));
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

static bool message_whole(struct gate *g)
{
	struct vet_head *v = &g->head;
	struct req *r;

	set_state(g, GATE_BUSY, 0);
	r = req_new(g->http, g, g->head_bytes, v, g->body.data ? g->body.data : "", g->body.len);
	g->req = r;
	forget_message(g);
	return feed_evhtp(g);
}

/* Reads the body as far as it has come: PENDING, OK or the error. */
static enum outcome collect_body(struct gate *g)
{
	size_t max = g->http->o.max_body, len, used;
	enum outcome oc = OC_PENDING;
	const char *p;

	if (!g->head.chunked) {
		size_t want = (size_t)g->head.content_length - g->body.len, have = evbuffer_get_length(g->in);
		size_t take = want < have ? want : have;

		if (take) {
			buf_add(&g->body, evbuffer_pullup(g->in, (ev_ssize_t)take), take);
			evbuffer_drain(g->in, take);
		}
		return take == want ? OC_OK : OC_PENDING;
	}
	while (oc == OC_PENDING && (len = evbuffer_get_contiguous_space(g->in)) > 0) {
		p = (const char *)evbuffer_pullup(g->in, (ev_ssize_t)len);
		oc = vet_chunks(&g->chunks, p, len, max, &g->body, &used);
		evbuffer_drain(g->in, used);
	}
	return oc;
}

static enum outcome collect_head(struct gate *g)
{
	size_t len = evbuffer_get_length(g->in), skip = 0, look;
	const char *p;
	enum outcome oc;

	p = (const char *)evbuffer_pullup(g->in, len < 4 ? (ev_ssize_t)len : 4);
	while (skip < len && skip < 4 && (p[skip] == '\r' || p[skip] == '\n'))
		skip++; /* an empty line before a request: RFC 9112 section 2.2 */
	evbuffer_drain(g->in, skip);
	len -= skip;
	if (len == 0)
		return OC_PENDING;
	look = len < 2 * VET_HEAD_MAX ? len : 2 * VET_HEAD_MAX;
	p = (const char *)evbuffer_pullup(g->in, (ev_ssize_t)look);
	oc = vet_head(p, look, g->http->o.max_body, &g->head);
	if (oc != OC_OK)
		return oc;
	g->head_bytes = mem_strndup(p, g->head.len);
	evbuffer_drain(g->in, g->head.len);
	g->in_body = true;
	return OC_OK;
}

static enum outcome collect(struct gate *g)
{
	enum outcome oc = g->in_body ? OC_OK : collect_head(g);

	if (oc == OC_OK)
		oc = collect_body(g);
	if (oc == OC_PENDING && g->in_body && g->head.expect && !g->continued && evbuffer_get_length(g->in) == 0 && g->body.len == 0) {
		g->continued = true;
		bufferevent_write(g->conn->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	return oc;
}

/* Takes the next message out of what has come. */
static void gate_next(struct gate *g)
{
	enum outcome oc;

	evbuffer_add_buffer(g->in, bufferevent_get_input(g->conn->bev));
	if (g->state == GATE_IDLE) {
		if (evbuffer_get_length(g->in) == 0) {
			if (g->eof || g->http->draining)
				gate_close(g);
			return;
		}
		set_state(g, GATE_ARRIVING, g->http->o.client_timeout_ms);
	}
	oc = collect(g);
	if (oc == OC_OK)
		message_whole(g);
	else if (oc != OC_PENDING)
		refuse(g, oc);
	else if (g->eof)
		gate_close(g); /* the rest will not come */
	else if (!g->in_body && evbuffer_get_length(g->in) == 0)
		set_state(g, GATE_IDLE, g->http->o.client_timeout_ms); /* only empty lines came */
}

static void linger_read(struct gate *g)
{
	struct evbuffer *in = bufferevent_get_input(g->conn->bev);

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

bool gate_open(struct http *h, evhtp_connection_t *c, bool reject)
{
	struct gate *g = mem_alloc(sizeof(*g));
	bufferevent_event_cb ecb;
	void *arg;

	g->http = h;
	g->conn = c;
	g->rejected = reject;
	g->in = evbuffer_new();
	if (!g->in || evhtp_connection_set_hook(c, evhtp_hook_on_connection_fini, (evhtp_hook)on_connection_fini, g)) {
		if (g->in)
			evbuffer_free(g->in);
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

void gate_answer(struct gate *g, const void *p, size_t n, bool close)
{
	bufferevent_write(g->conn->bev, p, n);
	finish_request(g, close);
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
