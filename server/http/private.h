/* What the files of this room share. */
#ifndef HTTP_PRIVATE_H
#define HTTP_PRIVATE_H

#include "common/buf.h"
#include "common/metrics.h"
#include "http/gate.h"
#include "http/listen.h"

enum { REJECTED_MAX = 64, ROUTE_SERIES = 64, HEADERS_MAX = 16 };

struct listener {
	struct http *http;
	evhtp_t *htp;
	struct listen_socket own; /* that http_listen opened */
	struct timer *pause; /* after accept failed, or took enough for one turn */
	unsigned accepted;
};

struct http {
	struct loop *loop;
	char   *name;
	struct http_options o;
	http_handler handler;
	void   *ctx;
	struct listener listeners[HTTP_LISTENERS_MAX];
	int     listener_count;
	struct waits waits;  /* every connection is in one of them */
	int     connections, rejected;
	struct timer *tick;
	bool    draining;
	struct timer *grace; /* of idle connections, once it drains */
	loop_fn drained;
	void   *drained_ctx;
	struct metric_series *connections_metric;
	struct vet_head head;        /* the one being read: no connection needs its own */
	struct buf reply;            /* the one being written */
	/* found before */
	struct route_series {
		const char *route;
		int status;
		struct metric_series *count, *seconds;
	} series[ROUTE_SERIES];
	int64_t accept_logged_ms;
	int64_t refusals_since_ms;   /* the second in which refusals are counted */
	enum log_requests log_requests;
	int     refusals, unlogged;  /* in it; and those that left no line */
};

void http_gate_gone(struct http *h, struct gate *g);

struct req {
	int     refs;
	bool    open;                /* whole, unanswered, and the client is there */
	/* no request of HTTP, or one too many: answered by this room */
	bool    refused;
	struct arena *arena;
	struct http *http;
	struct gate *gate;           /* NULL once answered (to its end) or gone */
	char    id[65];
	const char *traceparent;     /* the caller's, or NULL */
	const char *head;            /* the vetted head's bytes */
	struct vet_head *v;
	const char *method, *path, *query, *peer, *route;
	struct buf body;
	bool    keep_alive;
	int64_t started_us;
	struct { const char *name, *value; } headers[HEADERS_MAX]; /* of the answer to come */
	int     header_count;
	int     status;
	const char *outcome;         /* for the log line */
	bool    quiet;               /* no line while it succeeds */
	void    (*on_answer)(void *ctx, struct req *r, int status); /* see req_on_answer */
	void    *on_answer_ctx;
	struct { const char *key, *value; } notes[4];
	int     note_count;
};

/* A head becomes a req that holds a copy of it, while its body is still coming; then it is whole,
 * and unanswered. */
struct req *req_new(
	struct http *h, struct gate *g, const char *head_bytes, const struct vet_head *v);
void req_whole(struct req *r);
void req_discard(struct req *r);     /* it will not be whole */
void req_client_gone(struct req *r); /* the connection ended before the answer */
void req_overdue(struct req *r);     /* the backstop */
/* instead of req_whole: answers it, and gives back the reference */
void req_refuse(struct req *r, enum outcome oc);
void req_account(struct req *r, int status); /* one log line and two metrics */
void req_close(struct req *r);       /* from here nobody can answer it */
void req_tell_unlogged(struct http *h);

#endif
