/* The request context: what everybody but http.c holds in place of evhtp's request, which may
 * vanish while we wait.
 *
 * A req begins with one reference that belongs to the unanswered caller; whoever waits for
 * something on its behalf holds another. It is answered exactly once; from then on, or once the
 * client is gone, req_is_open is false and further answers do nothing. The last release frees it
 * with its arena. A backstop deadline answers 503 for a req that nobody answered (it is our bug,
 * and logged). */
#ifndef HTTP_REQ_H
#define HTTP_REQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/outcome.h"

struct req;

enum method {
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_DELETE,
	METHOD_PATCH,
	METHOD_OPTIONS,
	METHOD_OTHER
};
#define METHOD_BIT(m) (1u << (m))
#define METHOD_ANY    (~0u)

void req_hold(struct req *r);
void req_release(struct req *r);
bool req_is_open(const struct req *r); /* unanswered, and the client is there */
struct arena *req_arena(struct req *r);

/* What was asked. Strings live as long as the req. */
const char *req_id(const struct req *r);         /* X-Request-Id: the caller's if sane, else ours */
/* the caller's, well formed; NULL when none. For what is asked on its behalf */
const char *req_traceparent(const struct req *r);
enum method req_method(const struct req *r);
const char *req_method_name(const struct req *r);
const char *req_path(const struct req *r);       /* raw, without the query */
const char *req_query(const struct req *r);      /* raw, "" when none */
/* host[:port] that was asked for; "" when it was not said */
const char *req_host(struct req *r);
/* first of that name, trimmed; NULL when none */
const char *req_header(const struct req *r, const char *name);
/* the n-th of that name, from 0 */
const char *req_header_nth(const struct req *r, const char *name, int n);
int         req_header_count(const struct req *r, const char *name);
const char *req_body(const struct req *r, size_t *len);        /* NUL-terminated, never NULL */
/* the socket's other end: "192.0.2.1", "2001:db8::1" or "unix" */
const char *req_peer(const struct req *r);

/* A parameter of the query, percent-decoded into the arena; NULL when absent or malformed, first of
 * that name. */
const char *req_param(struct req *r, const char *name);
/* The same of a body that is a form. Ask req_form_wrong first: it says what keeps the body from
 * being one, or NULL. */
const char *req_form_param(struct req *r, const char *name);
const char *req_form_wrong(const struct req *r);

/* Labels for log and metrics; route is a string constant. reason rides in the log line. */
void req_set_route(struct req *r, const char *route);
const char *req_route(const struct req *r);
void req_set_quiet(struct req *r); /* no log line, unless it fails: for what asks every second */
/* one more field of the request's log line; copied; no secrets */
void req_note(struct req *r, const char *key, const char *value);

/* Headers of the answer to come. Values with CR, LF or NUL are dropped: our bug. Copied. */
void req_add_header(struct req *r, const char *name, const char *value);

/* fn is called once, just before the answer is sent; also when the client has gone meanwhile. One
 * for each req. ctx lives as long as the req. */
void req_on_answer(struct req *r, void (*fn)(void *ctx, struct req *r, int status), void *ctx);

/* The answers. Each closes the req, writes the log line and the metrics, and gives back the
 * caller's reference. Content-Length, Date, X-Request-Id, and for HEAD the missing body are seen
 * to. */
/* content_type NULL: no body */
void req_reply(struct req *r, int status, const char *content_type, const void *body, size_t len);
void req_reply_json(struct req *r, int status, const char *json);
void req_reply_outcome(struct req *r, enum outcome oc); /* {"error","message","request_id"} */
struct req_error {
	enum outcome oc;
	const char  *message;     /* NULL = the outcome's own sentence */
	const char  *reason;      /* adds "reason" */
	int          errcode;     /* adds "errcode" when not 0 */
	int          retry_after_s; /* where waiting helps: 0 = the outcome's own */
};
void req_reply_error(struct req *r, const struct req_error *e);

#endif
