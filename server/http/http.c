/* Accepting, and the one timer that looks after all who wait (http/waits.h): no timer for each
 * connection. */
#include "http/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "http/listen.h"
#include "http/private.h"

enum {
	TICK_MAX_MS = 250,
	LINGER_MS = 2000,
	ACCEPT_PAUSE_MS = 100,
	DRAIN_GRACE_MS = 250,
	ACCEPTS_A_TURN = 64
};

/* ---- connections ---- */

static struct gate *gate_of_wait(struct wait *w)
{
	return (struct gate *)w; /* its first member */
}

static void maybe_drained(struct http *h)
{
	if (!h->draining || h->connections + h->rejected > 0 || !h->drained)
		return;
	loop_defer(h->loop, h->drained, h->drained_ctx);
	h->drained = NULL;
}

void http_gate_gone(struct http *h, struct gate *g)
{
	waits_end(&h->waits, &g->wait);
	if (g->rejected)
		h->rejected--;
	else
		metric_set(h->connections_metric, --h->connections);
	maybe_drained(h);
}

/* The only place that says how long a wait may be. */
static int limit_ms(const struct http *h, enum wait_kind kind)
{
	return kind == WAIT_LINGER   ? LINGER_MS
	       : kind == WAIT_ANSWER ? h->o.backstop_ms
				     : h->o.client_timeout_ms;
}

static void on_tick(void *ctx)
{
	struct http *h = ctx;
	int every = h->o.client_timeout_ms / 10;
	struct wait *w;

	for (enum wait_kind kind = 0; kind < WAIT_KINDS; kind++)
		while ((w = waits_overdue(&h->waits, kind, limit_ms(h, kind))))
			gate_overdue(gate_of_wait(w));
	req_tell_unlogged(h);
	timer_start(h->tick, every < 10 ? 10 : every > TICK_MAX_MS ? TICK_MAX_MS : every);
}

/* ---- accepting ---- */

/* Room for one more, or who has been idle for longest makes it. */
static bool has_room(struct http *h)
{
	struct wait *idle = NULL;

	while (h->connections >= h->o.max_connections &&
		(idle = waits_oldest(&h->waits, WAIT_IDLE)))
		gate_close(gate_of_wait(idle));
	return h->connections < h->o.max_connections;
}

static evhtp_res on_accepted(evhtp_connection_t *c, void *arg)
{
	struct listener *l = arg;
	struct http *h = l->http;
	bool reject = !has_room(h);
	struct gate *g;

	/* a burst of thousands takes turns with who is here already; and with the other processes
	 * that listen at this socket */
	if (h->o.shared || ++l->accepted % ACCEPTS_A_TURN == 0) {
		evconnlistener_disable(l->htp->server);
		timer_start(l->pause, 0);
	}
	if (reject && h->rejected >= REJECTED_MAX)
		return EVHTP_RES_ERROR; /* more than can be told so at once: just closed */
	g = gate_open(h, c, reject);
	if (!g)
		return EVHTP_RES_ERROR;
	if (reject) {
		h->rejected++;
		gate_refuse(g, OC_OVERLOADED);
	} else {
		metric_set(h->connections_metric, ++h->connections);
	}
	return EVHTP_RES_OK;
}

static void accept_again(void *ctx)
{
	struct listener *l = ctx;

	if (l->htp && l->htp->server)
		evconnlistener_enable(l->htp->server);
}

static void on_accept_error(struct evconnlistener *server, void *arg)
{
	struct listener *l = ((evhtp_t *)arg)->arg;
	int64_t now = clock_ms();

	evconnlistener_disable(server); /* else the loop would spin on it */
	timer_start(l->pause, ACCEPT_PAUSE_MS);
	if (now - l->http->accept_logged_ms < 1000)
		return;
	l->http->accept_logged_ms = now;
	log_error("cannot accept connections", LOG_STR("listener", l->http->name),
		LOG_STR("cause", strerror(errno)), LOG_INT("connections", l->http->connections));
}

/* ---- listeners ---- */

static void listener_close(struct listener *l)
{
	timer_free(l->pause);
	l->pause = NULL;
	if (l->htp && l->htp->server) {
		evhtp_unbind_socket(l->htp);
		l->htp->server = NULL;
	}
	listen_end(&l->own, false);
}

static bool listener_start(struct http *h, int fd)
{
	struct listener *l = &h->listeners[h->listener_count];

	l->http = h;
	l->htp = evhtp_new(loop_base(h->loop), l);
	if (!l->htp)
		return false;
	evhtp_disable_flag(l->htp, EVHTP_FLAG_ENABLE_100_CONT);
	evhtp_set_post_accept_cb(l->htp, on_accepted, l);
	l->pause = timer_new(h->loop, accept_again, l);
	if (evhtp_accept_socket(l->htp, fd, 0) != 0)
		return false;
	evconnlistener_set_error_cb(l->htp->server, on_accept_error);
	l->own.fd = -1;
	h->listener_count++;
	return true;
}

bool http_adopt(struct http *h, int fd)
{
	return fd >= 0 && h->listener_count < HTTP_LISTENERS_MAX && listener_start(h, fd);
}

bool http_listen(struct http *h, const char *addr, char *err, size_t err_len)
{
	struct listen_socket s;

	if (!listen_open(&s, addr, &(struct listen_options){.unix_mode = 0660}, err, err_len))
		return false;
	if (!http_adopt(h, s.fd)) {
		snprintf(err, err_len, "%s: cannot be served: more than %d addresses", addr,
			HTTP_LISTENERS_MAX);
		listen_end(&s, false);
		return false;
	}
	s.fd = -1; /* evhtp's */
	h->listeners[h->listener_count - 1].own = s;
	return true;
}

/* ---- life ---- */

struct http *http_new(struct loop *l, const struct http_options *o, http_handler handler, void *ctx)
{
	struct http *h = mem_alloc(sizeof(*h));

	h->loop = l;
	h->o = *o;
	h->name = mem_strdup(o->name);
	h->handler = handler;
	h->ctx = ctx;
	h->connections_metric = metric_series(METRIC_CONNECTIONS, h->name, NULL, NULL);
	metric_set(h->connections_metric, 0);
	h->tick = timer_new(l, on_tick, h);
	timer_start(h->tick, 10);
	return h;
}

void http_set_limits(struct http *h, int max_connections, int client_timeout_ms, size_t max_body)
{
	h->o.max_connections = max_connections;
	h->o.client_timeout_ms = client_timeout_ms;
	h->o.max_body = max_body;
}

void http_set_log(struct http *h, enum log_requests which)
{
	h->log_requests = which;
}

int http_connections(const struct http *h)
{
	return h->connections;
}

/* A request may be on its way, or lie in the socket: those who wait for one get a moment more, and
 * are told to close with its answer. */
static void close_idle(void *ctx)
{
	struct http *h = ctx;
	struct wait *idle;

	while ((idle = waits_oldest(&h->waits, WAIT_IDLE)))
		gate_close(gate_of_wait(idle));
	maybe_drained(h);
}

void http_drain(struct http *h, loop_fn done, void *ctx)
{
	h->draining = true;
	h->drained = done;
	h->drained_ctx = ctx;
	for (int i = 0; i < h->listener_count; i++)
		listener_close(&h->listeners[i]);
	h->grace = timer_new(h->loop, close_idle, h);
	timer_start(h->grace, DRAIN_GRACE_MS);
	maybe_drained(h);
}

void http_free(struct http *h)
{
	struct wait *w;

	if (!h)
		return;
	h->drained = NULL;
	for (enum wait_kind kind = 0; kind < WAIT_KINDS; kind++)
		while ((w = waits_oldest(&h->waits, kind)))
			gate_close(gate_of_wait(w));
	for (int i = 0; i < h->listener_count; i++) {
		listener_close(&h->listeners[i]);
		evhtp_free(h->listeners[i].htp);
	}
	buf_free(&h->reply);
	timer_free(h->grace);
	timer_free(h->tick);
	free(h->name);
	free(h);
}
