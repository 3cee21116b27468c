/* What the files of this room share. */
#ifndef HTTP_PRIVATE_H
#define HTTP_PRIVATE_H

#include "common/buf.h"
#include "common/metrics.h"
#include "http/gate.h"

enum { LISTENERS_MAX = 16, REJECTED_MAX = 64 };

struct listener {
	struct http *http;
	evhtp_t *htp;
	char    *unix_path;
	struct timer *pause; /* after accept failed */
};

struct http {
	struct loop *loop;
	char   *name;
	struct http_options o;
	http_handler handler;
	void   *ctx;
	struct listener listeners[LISTENERS_MAX];
	int     listener_count;
	struct gate *gates;  /* by deadline */
	struct gate *all;    /* every connection */
	int     connections, rejected;
	struct req *reqs;    /* unanswered, oldest first */
	struct timer *tick;
	bool    draining;
	loop_fn drained;
	void   *drained_ctx;
	void   *ssl_ctx;
	struct metric_series *connections_metric;
	int64_t accept_logged_ms;
};

void http_list_gate(struct http *h, struct gate *g, int64_t deadline_ms);
void http_unlist_gate(struct http *h, struct gate *g);
void http_gate_gone(struct http *h, struct gate *g);

struct req {
	struct req *prev, *next;     /* http's list of the unanswered */
	int     refs;
	bool    open;                /* unanswered, and the client is there */
	bool    streaming;
	struct arena *arena;
	struct http *http;
	struct gate *gate;           /* NULL once answered or gone */
	char    id[65];
	const char *head;            /* the vetted head's bytes */
	struct vet_head *v;
	const char *method, *path, *query, *body, *peer, *route;
	size_t  body_len;
	bool    keep_alive;
	int64_t started_us;
	struct buf out;              /* headers of the answer to come */
	int     status;
	const char *outcome;         /* for the log line */
	struct { const char *key, *value; } notes[4];
	int     note_count;
};

/* A whole message becomes a req with the caller's reference. Takes head bytes; copies body. */
struct req *req_new(struct http *h, struct gate *g, const char *head_bytes, const struct vet_head *v, const char *body, size_t body_len);
void req_client_gone(struct req *r); /* the connection ended before the answer */
void req_overdue(struct req *r);     /* the backstop */
/* A whole answer to what was no request: written into b. */
void req_print_error(struct buf *b, enum outcome oc);

#endif
