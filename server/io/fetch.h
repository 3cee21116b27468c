/* HTTP requests to WeChat: curl's multi interface on the loop, with a queue and bounds of our own.
 *
 * fetch copies everything it is given. The callback comes exactly once, never before fetch_start returns; the reply is
 * borrowed for its time. Requests past max_connections wait, first in first out, and their own timeout runs while they do; past
 * max_queue they end at once with FETCH_REFUSED. fetch never sends a request twice: when curl would repeat one on a
 * new connection (a kept connection died), it ends as FETCH_NO_ANSWER instead. */
#ifndef IO_FETCH_H
#define IO_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/loop.h"

struct fetch;

struct fetch_options {
	int         max_connections;    /* transfers at once */
	int         max_queue;          /* waiting beyond them */
	int         connect_timeout_ms; /* name, TCP and TLS together */
	size_t      max_reply;          /* bytes of body; more ends as FETCH_TOO_LARGE */
	const char *ca_file;            /* NULL or "" = the system's bundle */
};

enum fetch_result {
	FETCH_DONE,       /* an HTTP answer, whatever its status */
	FETCH_NOT_SENT,   /* no connection (name, TCP, TLS): the request cannot have reached anybody */
	FETCH_NO_ANSWER,  /* sent, perhaps; no complete answer (reset, cut short, not HTTP) */
	FETCH_TIMED_OUT,  /* as NO_ANSWER, by timeout_ms; not_sent tells when it never left us */
	FETCH_TOO_LARGE,
	FETCH_REFUSED,    /* our own queue is full */
};

struct fetch_request {
	const char *method;       /* "GET", "POST", ... */
	const char *url;          /* carries secrets: never logged */
	const char *content_type; /* NULL without a body */
	const void *body;         /* NULL = none */
	size_t      body_len;
	int64_t     timeout_ms;   /* for all of it, waiting in the queue included */
};

struct fetch_reply {
	enum fetch_result result;
	bool        not_sent;     /* true when no byte of the request left: asking again elsewhere is safe */
	int         status;       /* HTTP status, 0 without an answer */
	const char *content_type; /* "" when none */
	const char *body;         /* NUL-terminated */
	size_t      body_len;
	const char *error;        /* curl's words when there was no answer, without the URL */
	int64_t     total_us;
};

typedef void (*fetch_cb)(void *ctx, const struct fetch_reply *reply);

struct fetch *fetch_new(struct loop *l, const struct fetch_options *o);
void fetch_free(struct fetch *f); /* ends what is under way: callbacks get FETCH_NO_ANSWER before it returns */
void fetch_start(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx);

#endif
