/* A team's own backend and the proxy before it, in one, for the page: what docs/forward-auth.md
 * describes.
 *
 * GET /fake/backend asks wxlogind's internal side who is calling, as the proxy does, and answers as
 * the backend would. The question and its answer are events. GET /fake/users tells what wxlogind
 * has counted of its calls to the user database. Both need --internal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/mem.h"
#include "fake.h"

enum { ANSWER_S = 5, ANSWER_MAX = 1024 * 1024, SHOWN = 4 };

struct question {
	struct question *prev, *next;
	struct fake *f;
	struct req *r;
	struct evhttp_connection *conn;
	uint64_t id;
	/* answer NULL: none came */
	void (*done)(struct question *q, struct evhttp_request *answer);
};

static void question_end(struct question *q)
{
	DL_DELETE(q->f->questions, q);
	req_release(q->r);
	free(q);
}

static void on_answer(struct evhttp_request *answer, void *ctx)
{
	struct question *q = ctx;
	bool answered = answer && evhttp_request_get_response_code(answer) > 0;

	q->done(q, answered ? answer : NULL);
	question_end(q);
}

static void ask(struct question *q, const char *path, const char *authorization)
{
	struct evhttp_request *rq = evhttp_request_new(on_answer, q);
	struct evkeyvalq *headers = evhttp_request_get_output_headers(rq);
	char host[160];

	q->conn = evhttp_connection_base_new(loop_base(q->f->loop), NULL, q->f->internal_host,
		(unsigned short)q->f->internal_port);
	evhttp_connection_set_timeout(q->conn, ANSWER_S);
	evhttp_connection_set_max_body_size(q->conn, ANSWER_MAX);
	evhttp_connection_free_on_completion(q->conn);
	snprintf(host, sizeof(host), "%s:%d", q->f->internal_host, q->f->internal_port);
	evhttp_add_header(headers, "Host", host);
	evhttp_add_header(headers, "Connection", "close");
	if (authorization)
		evhttp_add_header(headers, "Authorization", authorization);
	if (q->f->internal_token)
		evhttp_add_header(headers, "X-Internal-Token", q->f->internal_token);
	/* when it fails, on_answer was called */
	evhttp_make_request(q->conn, rq, EVHTTP_REQ_GET, path);
}

static struct question *question_new(struct fake *f, struct req *r)
{
	struct question *q = mem_alloc(sizeof(*q));

	q->f = f;
	q->r = r;
	req_hold(r);
	DL_APPEND(f->questions, q);
	return q;
}

/* ---- who is calling ---- */

static void tell(const struct question *q, const char *event, const char *more)
{
	struct buf b = {0};

	buf_printf(&b, "event: %s\ndata: ", event);
	events_at(&b, clock_wall_us());
	buf_printf(&b, ",\"id\":%llu%s}\n\n", (unsigned long long)q->id, more);
	events_tell(q->f, b.data, b.len);
	buf_free(&b);
}

static const char *header_of(struct evhttp_request *answer, const char *name)
{
	const char *value =
		answer ? evhttp_find_header(evhttp_request_get_input_headers(answer), name) : NULL;

	return value ? value : "";
}

static const char *shown(struct req *r, const char *openid)
{
	return arena_printf(req_arena(r), "%.*s", SHOWN, openid);
}

/* The headers and the body that docs/forward-auth.md has the proxy give. */
static void refuse(
	struct question *q, struct evhttp_request *answer, int status, const char *reason)
{
	if (status == 401) {
		req_add_header(q->r, "WWW-Authenticate", header_of(answer, "WWW-Authenticate"));
		req_reply_json(q->r, 401,
			arena_printf(req_arena(q->r),
				"{\"error\":\"invalid_session\",\"reason\":\"%s\"}", reason));
	} else {
		req_add_header(q->r, "Retry-After", "1");
		req_reply_json(q->r, 503, "{\"error\":\"store_unavailable\"}");
	}
}

static void who_is_calling(struct question *q, struct evhttp_request *answer)
{
	int status = answer ? evhttp_request_get_response_code(answer) : 0;
	const char *openid = header_of(answer, "X-Wx-Openid"),
		   *reason = header_of(answer, "X-Wx-Reason");
	struct buf more = {0};

	if (!openid_ok(openid))
		openid = "";
	if (strspn(reason, "abcdefghijklmnopqrstuvwxyz_") != strlen(reason))
		reason = "";
	buf_printf(&more, ",\"status\":%d,\"openid\":\"%s\",\"reason\":\"%s\"", status,
		shown(q->r, openid), reason);
	tell(q, "auth_end", more.data);
	buf_free(&more);
	if (status == 200)
		req_reply_json(q->r, 200,
			arena_printf(req_arena(q->r), "{\"orders\":[],\"of\":\"%s…\"}",
				shown(q->r, openid)));
	else
		refuse(q, answer, status, reason);
}

static bool has_internal(const struct fake *f, struct req *r)
{
	if (f->internal_host[0])
		return true;
	req_reply_error(r, &(struct req_error){.oc = OC_NOT_FOUND,
				   .message = "wxfake was started without --internal."});
	return false;
}

void backend_call(struct fake *f, struct req *r, const cJSON *o)
{
	struct question *q;

	(void)o;
	if (!has_internal(f, r))
		return;
	q = question_new(f, r);
	q->id = ++f->served;
	q->done = who_is_calling;
	tell(q, "auth", "");
	ask(q, "/internal/auth", req_header(r, "Authorization"));
}

/* ---- the user database, as wxlogind counts it ---- */

static void count_calls(struct question *q, struct evhttp_request *answer)
{
	static const char name[] = "wxlogind_user_requests_total{call=\"";
	struct evbuffer *in = answer ? evhttp_request_get_input_buffer(answer) : NULL;
	struct buf out = {0};
	char *line;

	buf_str(&out, "[");
	while (in && (line = evbuffer_readln(in, NULL, EVBUFFER_EOL_LF)) != NULL) {
		char call[32], outcome[32];
		unsigned long long n;

		if (!strncmp(line, name, sizeof(name) - 1) &&
			sscanf(line + sizeof(name) - 1, "%31[a-z_]\",outcome=\"%31[a-z_]\"} %llu",
				call, outcome, &n) == 3)
			buf_printf(&out, "%s{\"call\":\"%s\",\"outcome\":\"%s\",\"n\":%llu}",
				out.len > 1 ? "," : "", call, outcome, n);
		free(line);
	}
	buf_str(&out, "]");
	req_reply_json(q->r, 200, out.data);
	buf_free(&out);
}

void backend_users(struct fake *f, struct req *r, const cJSON *o)
{
	struct question *q;

	(void)o;
	if (!has_internal(f, r))
		return;
	q = question_new(f, r);
	q->done = count_calls;
	ask(q, "/metrics", NULL);
}

/* ---- its place ---- */

bool backend_at(struct fake *f, const char *url)
{
	int end = 0;

	return sscanf(url, "http://%127[A-Za-z0-9.-]:%d%n", f->internal_host, &f->internal_port,
		       &end) == 2 &&
	       !url[end] && f->internal_port > 0 && f->internal_port < 65536;
}

void backend_end(struct fake *f)
{
	struct question *q, *next;

	DL_FOREACH_SAFE(f->questions, q, next) {
		evhttp_connection_free(q->conn);
		question_end(q);
	}
}
