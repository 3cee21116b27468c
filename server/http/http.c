/* Listeners, the lists of connections and of unanswered requests, and the one timer that looks after both. Every wait of a kind is
 * equally long, so a list in the order of beginning is a list in the order of ending: no timer per connection. */
#include "http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/ssl.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "http/private.h"

enum { BACKLOG = 1024, TICK_MAX_MS = 250, ACCEPT_PAUSE_MS = 100, ACCEPTS_A_TURN = 64 };

/* ---- lists ---- */

void http_list_gate(struct http *h, struct gate *g, int64_t deadline_ms)
{
	struct gate *at = h->gates ? h->gates->prev : NULL;

	g->deadline_ms = deadline_ms;
	g->listed = true;
	/* almost always the last; a lingering one ends sooner, and is not worth more than a look from the end */
	while (at && at->deadline_ms > deadline_ms)
		at = at == h->gates ? NULL : at->prev;
	if (at)
		DL_APPEND_ELEM(h->gates, at, g);
	else
		DL_PREPEND(h->gates, g);
}

void http_unlist_gate(struct http *h, struct gate *g)
{
	if (g->listed)
		DL_DELETE(h->gates, g);
	g->listed = false;
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
	http_unlist_gate(h, g);
	DL_DELETE2(h->all, g, all_prev, all_next);
	if (g->rejected)
		h->rejected--;
	else
		metric_set(h->connections_metric, --h->connections);
	maybe_drained(h);
}

static void on_tick(void *ctx)
{
	struct http *h = ctx;
	int64_t now = clock_ms(), every = h->o.client_timeout_ms / 10;

	while (h->gates && h->gates->deadline_ms <= now)
		gate_tick(h->gates);
	while (h->reqs && h->reqs->started_us / 1000 + h->o.backstop_ms <= now)
		req_overdue(h->reqs);
	timer_start(h->tick, every < 10 ? 10 : every > TICK_MAX_MS ? TICK_MAX_MS : every);
}

/* ---- accepting ---- */

static evhtp_res on_accepted(evhtp_connection_t *c, void *arg)
{
	struct listener *l = arg;
	struct http *h = l->http;
	bool reject = h->connections >= h->o.max_connections;
	struct gate *g;

	if (++l->accepted % ACCEPTS_A_TURN == 0) { /* a burst of thousands takes turns with who is here already */
		evconnlistener_disable(l->htp->server);
		timer_start(l->pause, 0);
	}
	if (reject && h->rejected >= REJECTED_MAX)
		return EVHTP_RES_ERROR; /* more than can be told so at once: just closed */
	if (!gate_open(h, c, reject))
		return EVHTP_RES_ERROR;
	g = c->hooks->on_connection_fini_arg;
	DL_APPEND2(h->all, g, all_prev, all_next);
	if (reject)
		h->rejected++;
	else
		metric_set(h->connections_metric, ++h->connections);
	return EVHTP_RES_OK;
}

/* evhtp has parsed the head we made; the request is the one its gate holds. */
static void on_request(evhtp_request_t *r, void *arg)
{
	struct http *h = arg;
	struct gate *g = r->conn->hooks->on_connection_fini_arg;

	if (g->req)
		h->handler(h->ctx, g->req);
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
	log_error("cannot accept connections", LOG_STR("listener", l->http->name), LOG_STR("cause", strerror(errno)),
		LOG_INT("connections", l->http->connections));
}

/* ---- addresses ---- */

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

static bool parse_tcp(const char *addr, union address *a, socklen_t *len)
{
	const char *colon = strrchr(addr, ':');
	char host[64], *end;
	size_t n;
	long port;

	if (!colon || !colon[1])
		return false;
	port = strtol(colon + 1, &end, 10);
	if (*end || port < 0 || port > 65535 || colon[1] < '0' || colon[1] > '9')
		return false;
	n = (size_t)(colon - addr);
	if (n >= sizeof(host))
		return false;
	memcpy(host, addr, n);
	host[n] = '\0';
	memset(a, 0, sizeof(*a));
	if (host[0] == '[' && n > 2 && host[n - 1] == ']') {
		host[n - 1] = '\0';
		a->in6.sin6_family = AF_INET6;
		a->in6.sin6_port = htons((uint16_t)port);
		*len = sizeof(a->in6);
		return inet_pton(AF_INET6, host + 1, &a->in6.sin6_addr) == 1;
	}
	a->in.sin_family = AF_INET;
	a->in.sin_port = htons((uint16_t)port);
	*len = sizeof(a->in);
	return inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &a->in.sin_addr) == 1;
}

/* A socket file that nobody listens at is what a killed server left behind; one that answers, or is no socket, is somebody's. */
static void unlink_stale(const union address *a, socklen_t len)
{
	struct stat st;
	int fd;

	if (lstat(a->un.sun_path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, &a->sa, len) && errno == ECONNREFUSED)
		unlink(a->un.sun_path);
	if (fd >= 0)
		close(fd);
}

static int open_socket(const union address *a, socklen_t len, bool reuse_port, const char **what)
{
	int on = 1, fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*what = "socket";
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->sa.sa_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted sockets inherit it */
		if (reuse_port)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	}
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	*what = "bind";
	if (bind(fd, &a->sa, len) == 0) {
		*what = "listen";
		if (listen(fd, BACKLOG) == 0)
			return fd;
	}
	on = errno;
	close(fd);
	errno = on;
	return -1;
}

static void log_listening(const struct http *h, int fd, const char *addr)
{
	union address a = {0};
	socklen_t len = sizeof(a);
	char host[INET6_ADDRSTRLEN] = "", text[80];

	snprintf(text, sizeof(text), "%s", addr);
	if (getsockname(fd, &a.sa, &len) == 0 && a.sa.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a.in.sin_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "%s:%d", host, ntohs(a.in.sin_port));
	} else if (a.sa.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a.in6.sin6_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "[%s]:%d", host, ntohs(a.in6.sin6_port));
	}
	log_info("listening", LOG_STR("listener", h->name), LOG_STR("address", text));
}

static void listener_close(struct listener *l)
{
	timer_free(l->pause);
	l->pause = NULL;
	if (l->htp && l->htp->server) {
		evhtp_unbind_socket(l->htp);
		l->htp->server = NULL;
	}
	if (l->unix_path)
		unlink(l->unix_path);
	free(l->unix_path);
	l->unix_path = NULL;
}

static bool listener_start(struct http *h, int fd, const char *unix_path)
{
	struct listener *l = &h->listeners[h->listener_count];

	l->http = h;
	l->htp = evhtp_new(loop_base(h->loop), l);
	if (!l->htp)
		return false;
	evhtp_disable_flag(l->htp, EVHTP_FLAG_ENABLE_100_CONT);
	l->htp->ssl_ctx = h->ssl_ctx;
	if (h->ssl_ctx)
		SSL_CTX_up_ref(h->ssl_ctx);
	evhtp_set_post_accept_cb(l->htp, on_accepted, l);
	evhtp_set_gencb(l->htp, on_request, h);
	l->pause = timer_new(h->loop, accept_again, l);
	if (evhtp_accept_socket(l->htp, fd, 0) != 0)
		return false;
	evconnlistener_set_error_cb(l->htp->server, on_accept_error);
	l->unix_path = mem_strdup(unix_path);
	h->listener_count++;
	return true;
}

bool http_listen(struct http *h, const char *addr, char *err, size_t err_len)
{
	bool is_unix = !strncmp(addr, "unix:", 5);
	union address a = {0};
	socklen_t len = sizeof(a.un);
	const char *what;
	int fd;

	if (h->listener_count == LISTENERS_MAX) {
		snprintf(err, err_len, "%s: more than %d addresses", addr, LISTENERS_MAX);
		return false;
	}
	if (is_unix && strlen(addr + 5) < sizeof(a.un.sun_path) && addr[5]) {
		a.un.sun_family = AF_UNIX;
		strcpy(a.un.sun_path, addr + 5);
		unlink_stale(&a, len);
	} else if (is_unix || !parse_tcp(addr, &a, &len)) {
		snprintf(err, err_len, "%s: not host:port with a numeric host, [v6]:port or unix:/path", addr);
		return false;
	}
	fd = open_socket(&a, len, h->o.reuse_port, &what);
	if (fd < 0) {
		snprintf(err, err_len, "%s: %s: %s", addr, what, strerror(errno));
		return false;
	}
	if (is_unix)
		chmod(addr + 5, 0660);
	log_listening(h, fd, addr);
	if (listener_start(h, fd, is_unix ? addr + 5 : NULL))
		return true;
	snprintf(err, err_len, "%s: evhtp does not take the socket", addr);
	close(fd);
	return false;
}

/* ---- life ---- */

static SSL_CTX *tls_context(const struct http_options *o)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	if (ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
	    SSL_CTX_use_certificate_chain_file(ctx, o->tls_cert) == 1 && SSL_CTX_use_PrivateKey_file(ctx, o->tls_key, SSL_FILETYPE_PEM) == 1)
		return ctx;
	log_error("cannot use the certificate and key for TLS", LOG_STR("certificate", o->tls_cert), LOG_STR("key", o->tls_key));
	SSL_CTX_free(ctx);
	return NULL;
}

struct http *http_new(struct loop *l, const struct http_options *o, http_handler handler, void *ctx)
{
	struct http *h;
	SSL_CTX *tls = NULL;

	if (o->tls_cert && !(tls = tls_context(o)))
		return NULL;
	h = mem_alloc(sizeof(*h));
	h->loop = l;
	h->o = *o;
	h->name = mem_strdup(o->name);
	h->handler = handler;
	h->ctx = ctx;
	h->ssl_ctx = tls;
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

int http_connections(const struct http *h)
{
	return h->connections;
}

void http_drain(struct http *h, loop_fn done, void *ctx)
{
	struct gate *g, *next;

	h->draining = true;
	h->drained = done;
	h->drained_ctx = ctx;
	for (int i = 0; i < h->listener_count; i++)
		listener_close(&h->listeners[i]);
	DL_FOREACH_SAFE2(h->all, g, next, all_next)
		if (g->state == GATE_IDLE)
			gate_close(g);
	maybe_drained(h);
}

void http_free(struct http *h)
{
	if (!h)
		return;
	h->drained = NULL;
	while (h->all)
		gate_close(h->all);
	for (int i = 0; i < h->listener_count; i++) {
		listener_close(&h->listeners[i]);
		evhtp_free(h->listeners[i].htp);
	}
	SSL_CTX_free(h->ssl_ctx);
	buf_free(&h->reply);
	timer_free(h->tick);
	free(h->name);
	free(h);
}
