/* A request from whole to answered. */
#include "http/req.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "common/trace.h"
#include "http/private.h"

enum { PATH_SHOWN = 128, SEGMENT_SHOWN = 16, REFUSALS_LOGGED = 10, FORM_PAIRS_MAX = 32 };

/* ---- life ---- */

static bool id_ok(const char *id)
{
	size_t n = strlen(id);

	return n >= 1 && n <= 64 &&
	       strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* Random bytes for ids, fetched many at a time. */
static void id_bytes(uint8_t out[8])
{
	static uint8_t pool[512];
	static size_t left;

	if (left < 8) {
		crypt_random(pool, sizeof(pool));
		left = sizeof(pool);
	}
	left -= 8;
	memcpy(out, pool + left, 8);
}

static void make_id(char id[65], const char *theirs)
{
	uint8_t random[8];

	if (theirs && id_ok(theirs)) {
		strcpy(id, theirs);
		return;
	}
	id_bytes(random);
	hex_encode(id, random, sizeof(random));
}

struct req *req_new(
	struct http *h, struct gate *g, const char *head_bytes, const struct vet_head *v)
{
	struct arena *a = arena_new();
	struct req *r = arena_alloc(a, sizeof(*r));
	size_t size = offsetof(struct vet_head, fields) + v->field_count * sizeof(v->fields[0]);

	r->arena = a;
	r->http = h;
	r->gate = g;
	r->refs = 1;
	r->head = arena_strndup(a, head_bytes, v->len);
	r->v = arena_alloc(a, size);
	memcpy(r->v, v, size);
	r->method = arena_strndup(a, r->head, v->method_len);
	r->path = arena_strndup(a, r->head + v->path, v->path_len);
	r->query = arena_strndup(a, r->head + v->query, v->query_len);
	r->keep_alive = v->keep_alive;
	return r;
}

void req_whole(struct req *r)
{
	r->open = true;
	r->started_us = clock_us();
	r->peer = arena_strdup(r->arena, r->gate->peer); /* the gate may go first */
	make_id(r->id, req_header(r, "X-Request-Id"));
	r->traceparent = req_header(r, "traceparent");
	if (r->traceparent &&
		(!trace_parent_ok(r->traceparent) || req_header_count(r, "traceparent") > 1))
		r->traceparent = NULL;
}

void req_discard(struct req *r)
{
	r->gate = NULL;
	req_release(r);
}

void req_hold(struct req *r)
{
	r->refs++;
}

void req_release(struct req *r)
{
	if (--r->refs > 0)
		return;
	buf_free(&r->body);
	arena_free(r->arena);
}

/* Whoever still waits on its behalf finds it closed. */
void req_close(struct req *r)
{
	r->open = false;
	r->gate = NULL;
}

static void count(struct req *r, int status, int64_t us)
{
	const char *route = r->route ? r->route : "none";
	struct route_series *at =
		&r->http->series[((uintptr_t)route / 8 + (unsigned)status) % ROUTE_SERIES];
	char code[12];

	if (at->route != route || at->status != status) { /* routes are string constants */
		snprintf(code, sizeof(code), "%d", status);
		at->route = route;
		at->status = status;
		at->count = metric_series(METRIC_HTTP_REQUESTS, r->http->name, route, code);
		at->seconds = metric_series(METRIC_HTTP_SECONDS, route, NULL, NULL);
	}
	metric_add(at->count, 1);
	metric_observe_us(at->seconds, us);
}

/* Of what is long, or long between two slashes, only the beginning: it may be a token in the wrong
 * place. */
static char *shortened(struct req *r, const char *text)
{
	char *shown = arena_alloc(r->arena, PATH_SHOWN + 1);
	int segment = 0, n = 0;

	for (const char *p = text; *p && n < PATH_SHOWN; p++) {
		segment = *p == '/' ? 0 : segment + 1;
		if (segment <= SEGMENT_SHOWN)
			shown[n++] = *p;
		else if (segment == SEGMENT_SHOWN + 1)
			shown[n++] = '~';
	}
	return shown;
}

/* The route's pattern, without what a caller put in its place (an openid). */
static struct log_field where_to(struct req *r)
{
	return r->route ? LOG_STR("route", r->route) : LOG_STR("path", shortened(r, r->path));
}

/* Whoever sends no HTTP may send much of it: past so many in a second refusals are only counted. */
static bool few_enough(struct req *r)
{
	struct http *h = r->http;
	int64_t now = clock_ms();

	if (!r->refused)
		return true;
	if (now - h->refusals_since_ms >= 1000) {
		h->refusals_since_ms = now;
		h->refusals = 0;
	}
	if (h->refusals++ < REFUSALS_LOGGED)
		return true;
	h->unlogged++;
	return false;
}

static bool is_logged(const struct req *r, int status)
{
	bool failed = status >= 400;

	return failed ? r->http->log_requests != LOG_REQUESTS_NONE
		      : r->http->log_requests == LOG_REQUESTS_ALL && !r->quiet;
}

void req_tell_unlogged(struct http *h)
{
	if (h->unlogged == 0 || clock_ms() - h->refusals_since_ms < 1000)
		return;
	log_info("more requests were refused than were logged", LOG_STR("listener", h->name),
		LOG_INT("unlogged", h->unlogged));
	h->unlogged = 0;
}

void req_account(struct req *r, int status)
{
	enum log_level level = status >= 500 ? LOG_WARN : LOG_INFO;
	int64_t us = clock_us() - r->started_us;
	char client[HTTP_CLIENT_MAX];
	int n = 7;

	count(r, status, us);
	if (!is_logged(r, status) || !log_is_on(level) || !few_enough(r))
		return;
	snprintf(client, sizeof(client), "%s", r->peer);
	if (r->http->o.name_client)
		r->http->o.name_client(r->http->ctx, r, client);
	struct log_field f[16] = {
		LOG_STR("listener", r->http->name),
		LOG_STR("method", shortened(r, r->method)),
		where_to(r),
		LOG_INT("status", status),
		LOG_INT("us", us),
		LOG_STR("client", client),
		LOG_STR("id", r->id),
	};
	if (r->traceparent)
		f[n++] = (struct log_field){.key = "trace_id",
			.str = arena_strndup(r->arena, r->traceparent + TRACE_ID_AT, TRACE_ID_LEN)};
	if (r->outcome)
		f[n++] = LOG_STR("error", r->outcome);
	for (int i = 0; i < r->note_count; i++)
		f[n++] = LOG_STR(r->notes[i].key, r->notes[i].value);
	log_write(level, r->refused ? "request refused" : "request", f);
}

void req_client_gone(struct req *r)
{
	if (r->open)
		req_account(r, 499); /* nginx's number for it; nobody was there to be told */
	req_close(r);
	req_release(r);
}

void req_overdue(struct req *r)
{
	if (!r->open)
		return; /* its answer is long */
	log_error("a request was never answered: this is a fault of the server",
		LOG_STR("id", r->id), LOG_STR("route", r->route));
	req_reply_outcome(r, OC_OVERLOADED);
}

void req_refuse(struct req *r, enum outcome oc)
{
	req_whole(r);
	r->refused = true;
	r->keep_alive = false;
	if (r->http->o.before_refusal)
		r->http->o.before_refusal(r->http->ctx, r);
	req_reply_outcome(r, oc);
}

/* ---- what was asked ---- */

bool req_is_open(const struct req *r)
{
	return r->open;
}

struct arena *req_arena(struct req *r)
{
	return r->arena;
}

const char *req_id(const struct req *r)
{
	return r->id;
}

const char *req_traceparent(const struct req *r)
{
	return r->traceparent;
}

enum method req_method(const struct req *r)
{
	return r->v->method;
}

const char *req_method_name(const struct req *r)
{
	return r->method;
}

const char *req_path(const struct req *r)
{
	return r->path;
}

const char *req_query(const struct req *r)
{
	return r->query;
}

static bool field_is(const struct req *r, size_t i, const char *name)
{
	const struct vet_field *f = &r->v->fields[i];

	return strlen(name) == f->name_len && !strncasecmp(r->head + f->name, name, f->name_len);
}

const char *req_header_nth(const struct req *r, const char *name, int n)
{
	for (size_t i = 0; i < r->v->field_count; i++)
		if (field_is(r, i, name) && n-- == 0) {
			const struct vet_field *f = &r->v->fields[i];
			/* the arena's own copy: what follows a value is a blank or CR */
			char *at = (char *)(uintptr_t)(r->head + f->value);

			at[f->value_len] = '\0';
			return at;
		}
	return NULL;
}

const char *req_header(const struct req *r, const char *name)
{
	return req_header_nth(r, name, 0);
}

int req_header_count(const struct req *r, const char *name)
{
	int n = 0;

	for (size_t i = 0; i < r->v->field_count; i++)
		n += field_is(r, i, name);
	return n;
}

const char *req_body(const struct req *r, size_t *len)
{
	*len = r->body.len;
	return r->body.data ? r->body.data : "";
}

const char *req_peer(const struct req *r)
{
	return r->peer;
}

const char *req_host(struct req *r)
{
	return arena_strndup(r->arena, r->head + r->v->host, r->v->host_len);
}

/* Memory only for the value that is found: there may be as many pairs as there are bytes. */
static const char *param(struct req *r, const char *raw, const char *name)
{
	while (*raw) {
		size_t n = strcspn(raw, "&"), key = strcspn(raw, "=&");

		if (percent_equal(raw, key, true, name)) {
			char *text = arena_alloc(r->arena, n - key + 1);

			return key == n || percent_decode(text, raw + key + 1, n - key - 1, true) >=
						       0
				       ? text
				       : NULL;
		}
		raw += n + (raw[n] == '&');
	}
	return NULL;
}

const char *req_param(struct req *r, const char *name)
{
	return param(r, r->query, name);
}

const char *req_form_param(struct req *r, const char *name)
{
	return param(r, r->body.data ? r->body.data : "", name);
}

const char *req_form_wrong(const struct req *r)
{
	size_t pairs = 1, len;
	const char *body = req_body(r, &len);

	if (memchr(body, '\0', len))
		return "The form holds a NUL byte.";
	for (size_t i = 0; i < len; i++)
		pairs += body[i] == '&';
	return pairs > FORM_PAIRS_MAX ? "The form holds more than 32 pairs." : NULL;
}

/* ---- the answer ---- */

void req_set_route(struct req *r, const char *route)
{
	r->route = route;
}

const char *req_route(const struct req *r)
{
	return r->route;
}

void req_set_quiet(struct req *r)
{
	r->quiet = true;
}

void req_note(struct req *r, const char *key, const char *value)
{
	if ((size_t)r->note_count == NELEM(r->notes))
		return;
	r->notes[r->note_count].key = key;
	r->notes[r->note_count++].value = arena_strdup(r->arena, value);
}

void req_add_header(struct req *r, const char *name, const char *value)
{
	if (strpbrk(value, "\r\n") || r->header_count == HEADERS_MAX) {
		log_error("a response header was dropped: it contains a line break, or there are "
			  "too many",
			LOG_STR("name", name));
		return;
	}
	r->headers[r->header_count].name = name;
	r->headers[r->header_count++].value = arena_strdup(r->arena, value);
}

static const char *phrase(int status)
{
	static const struct { int status; const char *phrase; } known[] = {
		{200, "OK"}, {201, "Created"}, {204, "No Content"}, {302, "Found"}, {400, "Bad Request"}, {401, "Unauthorized"},
		{403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {408, "Request Timeout"},
		{413, "Content Too Large"}, {414, "URI Too Long"}, {429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"}, {500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"},
		{503, "Service Unavailable"}, {505, "HTTP Version Not Supported"},
	};

	for (size_t i = 0; i < NELEM(known); i++)
		if (known[i].status == status)
			return known[i].phrase;
	return "Unknown";
}

/* RFC 9110 section 6.6.1; made once a second */
static const char *http_date(void)
{
	static char text[40];
	static time_t made;
	time_t now = time(NULL);
	struct tm tm;

	if (now != made) {
		gmtime_r(&now, &tm);
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		made = now;
	}
	return text;
}

static void header(struct buf *b, const char *name, const char *value)
{
	buf_str(b, name);
	buf_add(b, ": ", 2);
	buf_str(b, value);
	buf_add(b, "\r\n", 2);
}

static void print_head(struct buf *b, int status, const struct req *r, const char *type, size_t len)
{
	char number[TEXT_INT_MAX];

	buf_str(b, "HTTP/1.1 ");
	buf_str(b, text_int(number, status));
	buf_add(b, " ", 1);
	buf_str(b, phrase(status));
	buf_add(b, "\r\n", 2);
	header(b, "Date", http_date());
	header(b, "X-Request-Id", r->id);
	if (r->traceparent)
		header(b, "traceparent", r->traceparent);
	/* who somebody is, and whether, changes from one moment to the next */
	header(b, "Cache-Control", "no-store");
	if (type)
		header(b, "Content-Type", type);
	if (status == 204 || status == 304)
		return;
	header(b, "Content-Length", text_int(number, (int64_t)len));
}

void req_on_answer(struct req *r, void (*fn)(void *ctx, struct req *r, int status), void *ctx)
{
	r->on_answer = fn;
	r->on_answer_ctx = ctx;
}

static void tell_of_answer(struct req *r, int status)
{
	void (*fn)(void *ctx, struct req *r, int status) = r->on_answer;

	r->on_answer = NULL;
	if (fn)
		fn(r->on_answer_ctx, r, status);
}

void req_reply(struct req *r, int status, const char *content_type, const void *body, size_t len)
{
	struct buf *b = &r->http->reply;
	struct gate *g = r->gate;
	bool close;

	tell_of_answer(r, status);
	if (!req_is_open(r))
		return;
	close = !r->keep_alive || r->http->draining;
	print_head(b, status, r, content_type, len);
	for (int i = 0; i < r->header_count; i++)
		header(b, r->headers[i].name, r->headers[i].value);
	if (close)
		header(b, "Connection", "close");
	else if (r->v->minor == 0)
		header(b, "Connection", "keep-alive");
	buf_add(b, "\r\n", 2);
	if (r->v->method != METHOD_HEAD && len)
		buf_add(b, body, len);
	req_account(r, status);
	req_close(r);
	if (r->refused)
		gate_last_word(g, b->data, b->len);
	else
		gate_answer(g, b->data, b->len, close);
	buf_clear(b);
	req_release(r);
}

void req_reply_json(struct req *r, int status, const char *json)
{
	req_reply(r, status, "application/json", json, strlen(json));
}

static void print_error(struct buf *b, const struct req_error *e, const char *id)
{
	json_open(b, NULL, '{');
	json_add_str(b, "error", outcome_code(e->oc));
	json_add_str(b, "message", e->message ? e->message : outcome_text(e->oc));
	if (e->reason)
		json_add_str(b, "reason", e->reason);
	if (e->errcode)
		json_add_int(b, "errcode", e->errcode);
	json_add_str(b, "request_id", id);
	json_close(b, '}');
}

void req_reply_error(struct req *r, const struct req_error *e)
{
	struct buf b = {0};
	int retry_after_s = e->retry_after_s ? e->retry_after_s : outcome_retry_after_s(e->oc);
	char seconds[TEXT_INT_MAX];

	if (!req_is_open(r))
		return;
	if (retry_after_s)
		req_add_header(r, "Retry-After", text_int(seconds, retry_after_s));
	r->outcome = outcome_code(e->oc);
	print_error(&b, e, r->id);
	req_reply(r, outcome_status(e->oc), "application/json", b.data, b.len);
	buf_free(&b);
}

void req_reply_outcome(struct req *r, enum outcome oc)
{
	req_reply_error(r, &(struct req_error){.oc = oc});
}
