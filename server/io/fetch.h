/* HTTP requests to WeChat: curl's multi interface on the loop, with a queue and bounds of our own.
 *
 * fetch copies everything it is given. The callback comes exactly once, never before fetch_start
 * returns; the reply is borrowed for its time. Requests past max_connections wait, and so do those
 * that would make more than FETCH_CONNECTING connections to one origin at once: many handshakes at
 * once would all miss the connect timeout. Who asked first goes first. A request's own timeout runs
 * while it waits: it waits for two thirds of it, since one begun later could hardly be answered. If
 * it never begins, or max_queue wait already, it ends with FETCH_REFUSED. fetch never sends a
 * request twice: when curl would repeat one on a new connection (a kept connection died), it ends
 * as FETCH_NO_ANSWER instead. */
#ifndef IO_FETCH_H
#define IO_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/loop.h"

struct fetch;

enum { FETCH_CONNECTING = 8 };

struct fetch_options {
	int         max_connections;    /* transfers at once */
	int         max_queue;          /* waiting beyond them */
	int         connect_timeout_ms; /* name, TCP and TLS together */
	size_t      max_reply;          /* bytes of body; more ends as FETCH_TOO_LARGE */
	const char *ca_file;            /* NULL or "" = the system's bundle */
	/* http://[user:password@]host:port, or NULL or "". The environment's is not used */
	const char *proxy;
};

enum fetch_result {
	FETCH_DONE,       /* an HTTP answer, whatever its status */
	/* no connection (name, TCP, TLS): the request cannot have reached anybody */
	FETCH_NOT_SENT,
	FETCH_NO_ANSWER,  /* sent, perhaps; no complete answer (reset, cut short, not HTTP) */
	FETCH_TIMED_OUT,  /* as NO_ANSWER, by timeout_ms; not_sent tells when it never left us */
	FETCH_TOO_LARGE,
	/* never begun: our own queue was full, or no connection became free in time */
	FETCH_REFUSED,
	FETCH_CLOSED,     /* ended by fetch_free */
};

struct fetch_request {
	const char *method;       /* "GET", "POST", ... */
	const char *url;          /* carries secrets: never logged. Also unix:/socket[:/path] */
	const char *content_type; /* NULL without a body */
	const void *body;         /* NULL = none */
	size_t      body_len;
	const char *const *headers; /* further header lines, then a NULL; NULL = none */
	int64_t     timeout_ms;   /* for all of it, waiting in the queue included */
	/* clock_us of when it was first asked, for its place in the queue; 0 = now */
	int64_t     since_us;
	/* on a new connection of its own, beside the bounds and the queue; the name is looked up
	 * again */
	bool        probe;
};

struct fetch_reply {
	enum fetch_result result;
	/* true when no byte of the request left: asking again elsewhere is safe */
	bool        not_sent;
	int         status;       /* HTTP status, 0 without an answer */
	const char *content_type; /* "" when none */
	const char *body;         /* NUL-terminated */
	size_t      body_len;
	const char *error;        /* words for the log when there was no answer, without the URL */
	int64_t     total_us;
};

typedef void (*fetch_cb)(void *ctx, const struct fetch_reply *reply);

struct fetch *fetch_new(struct loop *l, const struct fetch_options *o);
/* ends what is under way: callbacks get FETCH_CLOSED before it returns */
void fetch_free(struct fetch *f);
void fetch_start(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx);

/* origin (scheme://host:port) is given up: what waits to be sent there ends with FETCH_NOT_SENT, on
 * a later turn of the loop. */
void fetch_give_up(struct fetch *f, const char *origin);

#endif
