#include "tls.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <utlist.h>

#include "common/mem.h"
#include "http/listen.h"

enum { WAITING_MAX = 1024 * 1024, WAITING_LOW = 64 * 1024 };

struct relay {
	struct relay *prev, *next;
	struct tls_front   *tls;
	struct bufferevent *client, *server;
	/* the server has closed: the client gets what is left, and close_notify */
	bool          ending;
};

struct tls_front {
	struct event_base     *base;
	SSL_CTX               *ctx;
	struct evconnlistener *listener;
	struct listen_socket outer;
	struct sockaddr_in     inner; /* of the plain server */
	struct relay          *relays;
};

static void relay_free(struct relay *r)
{
	DL_DELETE(r->tls->relays, r);
	bufferevent_free(r->client);
	bufferevent_free(r->server);
	free(r);
}

static void relay_reset(struct relay *r)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};

	setsockopt(bufferevent_getfd(r->client), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	relay_free(r);
}

/* With close_notify, which libevent leaves out. The peer's is not waited for. */
static void relay_end(struct relay *r)
{
	SSL *ssl = bufferevent_openssl_get_ssl(r->client);

	SSL_set_shutdown(ssl, SSL_RECEIVED_SHUTDOWN);
	SSL_shutdown(ssl);
	ERR_clear_error(); /* within a handshake there is nothing to end */
	relay_free(r);
}

/* Whoever does not read is not read for. */
static void pass_on(struct bufferevent *from, struct bufferevent *to)
{
	struct evbuffer *out = bufferevent_get_output(to);

	evbuffer_add_buffer(out, bufferevent_get_input(from));
	if (evbuffer_get_length(out) > WAITING_MAX)
		bufferevent_disable(from, EV_READ);
}

static void on_client_read(struct bufferevent *bev, void *arg)
{
	pass_on(bev, ((struct relay *)arg)->server);
}

static void on_server_read(struct bufferevent *bev, void *arg)
{
	pass_on(bev, ((struct relay *)arg)->client);
}

static void on_client_written(struct bufferevent *bev, void *arg)
{
	struct relay *r = arg;

	if (!r->ending)
		bufferevent_enable(r->server, EV_READ);
	else if (evbuffer_get_length(bufferevent_get_output(bev)) == 0)
		relay_end(r);
}

static void on_server_written(struct bufferevent *bev, void *arg)
{
	struct relay *r = arg;

	(void)bev;
	bufferevent_enable(r->client, EV_READ);
}

static void on_client_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		relay_free(arg);
}

static void on_server_event(struct bufferevent *bev, short what, void *arg)
{
	struct relay *r = arg;

	if (what & BEV_EVENT_ERROR) {
		relay_reset(r);
	} else if (what & BEV_EVENT_EOF) {
		pass_on(bev, r->client);
		r->ending = true;
		if (evbuffer_get_length(bufferevent_get_output(r->client)) == 0)
			relay_end(r);
	}
}

static void on_accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from,
	int from_len, void *arg)
{
	struct tls_front *t = arg;
	struct relay *r = mem_alloc(sizeof(*r));
	int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;

	(void)listener;
	(void)from;
	(void)from_len;
	r->tls = t;
	r->client = bufferevent_openssl_socket_new(
		t->base, fd, SSL_new(t->ctx), BUFFEREVENT_SSL_ACCEPTING, options);
	r->server = bufferevent_socket_new(t->base, -1, options);
	if (!r->client || !r->server)
		abort(); /* out of memory */
	bufferevent_openssl_set_allow_dirty_shutdown(r->client, 1);
	DL_APPEND(t->relays, r);
	bufferevent_setcb(r->client, on_client_read, on_client_written, on_client_event, r);
	bufferevent_setcb(r->server, on_server_read, on_server_written, on_server_event, r);
	bufferevent_setwatermark(r->client, EV_WRITE, 0, 0);
	bufferevent_setwatermark(r->server, EV_WRITE, WAITING_LOW, 0);
	bufferevent_enable(r->client, EV_READ | EV_WRITE);
	bufferevent_enable(r->server, EV_READ | EV_WRITE);
	if (bufferevent_socket_connect(r->server, (struct sockaddr *)&t->inner, sizeof(t->inner)))
		relay_free(r);
}

static SSL_CTX *context(const char *cert, const char *key)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	if (ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
		SSL_CTX_use_certificate_chain_file(ctx, cert) == 1 &&
		SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

/* A port of loopback that the system chooses, for the plain server. */
static bool open_inner(struct tls_front *t, struct http *h)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(t->inner);

	t->inner = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd >= 0 && bind(fd, (struct sockaddr *)&t->inner, len) == 0 &&
		listen(fd, SOMAXCONN) == 0 &&
		getsockname(fd, (struct sockaddr *)&t->inner, &len) == 0 && http_adopt(h, fd))
		return true;
	if (fd >= 0)
		close(fd);
	return false;
}

struct tls_front *tls_front_new(struct loop *l, const char *cert, const char *key)
{
	SSL_CTX *ctx = context(cert, key);
	struct tls_front *t;

	if (!ctx)
		return NULL;
	t = mem_alloc(sizeof(*t));
	t->base = loop_base(l);
	t->ctx = ctx;
	return t;
}

bool tls_front_listen(
	struct tls_front *t, struct http *h, const char *addr, char *err, size_t err_len)
{
	if (!open_inner(t, h)) {
		snprintf(err, err_len, "no port of loopback for the plain server");
		return false;
	}
	if (listen_open(&t->outer, addr, &(struct listen_options){.unix_mode = 0660}, err, err_len))
		t->listener = evconnlistener_new(t->base, on_accepted, t, 0, 0, t->outer.fd);
	return t->listener != NULL;
}

void tls_front_free(struct tls_front *t)
{
	if (!t)
		return;
	if (t->listener) {
		evconnlistener_free(t->listener);
		listen_end(&t->outer, false);
	}
	while (t->relays)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it takes itself off the list */
		relay_free(t->relays);
	SSL_CTX_free(t->ctx);
	free(t);
}
