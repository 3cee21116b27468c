/* HTTP listeners: the gate to callers, and the only room that knows evhtp. Takes whole, vetted
 * requests to one handler.
 *
 * One struct http per side (public, internal); each may listen on several addresses. Errors of HTTP
 * itself (400, 408, 413, 414, 431, 501, 505) are answered here in the JSON shape and never reach
 * the handler; each leaves a log line, as long as there are few. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/log.h"
#include "http/req.h"
#include "io/loop.h"

struct http;

enum { HTTP_CLIENT_MAX = 64, HTTP_LISTENERS_MAX = 16 /* of one side */ };

struct http_options {
	const char *name;            /* "public" or "internal": label of metrics and logs */
	/* one more makes room: who has been idle for longest is closed. Where nobody is idle it is
	 * told 503 overloaded, and closed */
	int max_connections;
	/* absolute for a whole request to arrive; and for an idle connection */
	int         client_timeout_ms;
	size_t      max_body;
	int         backstop_ms;     /* a req unanswered this long is answered 503 */
	bool        shared;          /* other processes accept from the same sockets */
	/* Called before an error of HTTP itself is answered, to add headers to the answer (CORS).
	 * Of the request there is what had come. May be NULL. */
	void      (*before_refusal)(void *ctx, struct req *r);
	/* Who sent the request, for its log line: where a proxy stands before us, its peer is not
	 * who is meant. NULL: the peer. */
	void      (*name_client)(void *ctx, const struct req *r, char out[HTTP_CLIENT_MAX]);
};

/* owns the answer: every path ends in one req_reply* */
typedef void (*http_handler)(void *ctx, struct req *r);

struct http *http_new(
	struct loop *l, const struct http_options *o, http_handler handler, void *ctx);
/* addr: "host:port" (numeric host, or localhost), "[v6]:port", "unix:/path". false with the cause
 * in err. A stale unix socket is replaced. */
bool http_listen(struct http *h, const char *addr, char *err, size_t err_len);
/* a socket that listens already; ours from here on, if true */
bool http_adopt(struct http *h, int fd);
/* On reload. The new ones hold at once, for those who wait already too. */
void http_set_limits(struct http *h, int max_connections, int client_timeout_ms, size_t max_body);
void http_set_log(struct http *h, enum log_requests which); /* on reload */
/* Stops accepting, closes idle connections, marks the others to close after their answer; done
 * comes (once, deferred) when none is left. */
void http_drain(struct http *h, loop_fn done, void *ctx);
int  http_connections(const struct http *h);
void http_free(struct http *h); /* closes everything; reqs still held stay until released */

#endif
