/* One request of fetch.c: what it asks, what came of it, and the lists in which such wait. Only
 * fetch.c includes it. */
#ifndef IO_TRANSFER_H
#define IO_TRANSFER_H

#include <curl/curl.h>

#include "common/buf.h"
#include "io/fetch.h"

struct transfer {
	struct fetch    *f;
	struct origin   *origin;
	struct transfer *next, *prev; /* in one of fetch's lists */
	struct easy *easy;          /* NULL unless active */
	fetch_cb     cb;
	void        *ctx;
	char        *method;
	char        *target;        /* the path and what follows it: secret */
	char        *body;          /* NULL = none */
	size_t       body_len;
	struct curl_slist *headers;
	int64_t      since_us, started_us, deadline_ms;
	struct timer *wait;         /* its deadline while queued */
	int          sendings;      /* how often curl was about to send it */
	bool         probe, too_large;

	/* the end */
	enum fetch_result result;
	int          status;
	char        *content_type;
	struct buf   reply;
	char         error[160];
};

/* How much of a URL names the host: scheme, name and port, or the socket's path. */
size_t transfer_origin_len(const char *url);
/* Copies what it is given; f and origin are the caller's to set. */
struct transfer *transfer_new(const struct fetch_request *rq, fetch_cb cb, void *ctx);
void transfer_fail(struct transfer *t, enum fetch_result result, const char *error);
void transfer_tell(struct transfer *t); /* its owner, and frees it */

struct transfers {
	struct transfer *head, *tail;
	int              len;
};

void transfers_add(struct transfers *l, struct transfer *t);
/* in the order of since_us, which is at the end almost always */
void transfers_add_in_turn(struct transfers *l, struct transfer *t);
void transfers_remove(struct transfers *l, struct transfer *t);

#endif
