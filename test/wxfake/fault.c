/* On its way out an answer may be late, broken off, or never come. A fault is played by the next
 * calls of its API, count times. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <utlist.h>

#include "common/json.h"
#include "common/mem.h"
#include "fake.h"
#include "stream.h"

enum mode {
	M_HANG,
	M_SLOW,
	M_500,
	M_RESET,
	M_DRIP,
	M_NOT_JSON,
	M_HUGE,
	M_ERRCODE,
	M_502,
	M_CLOSE,
	M_EMPTY,
	M_CHUNKED,
	M_JSON_TYPE,
	M_NO_TYPE,
	M_PLAIN
};
enum {
	DRIP_EVERY_MS = 200,
	DRIP_MAX = 300,
	HUGE_BYTES = 10 * 1024 * 1024,
	HUGE_PIECE = 64 * 1024,
	HUGE_WAITS = 500,
	HANG_MAX_MS = 60000,
	SLOW_MS = 2000
};

static const struct { const char *name; enum mode mode; unsigned shapes; } modes[] = {
	{"hang", M_HANG, 0}, {"slow", M_SLOW, 0}, {"500", M_500, 0}, {"reset", M_RESET, 0}, {"drip", M_DRIP, 0}, {"not_json", M_NOT_JSON, 0},
	{"huge", M_HUGE, 0}, {"errcode", M_ERRCODE, 0}, {"502html", M_502, 0}, {"close", M_CLOSE, 0},
	{"empty", M_EMPTY, 0}, {"chunked", M_CHUNKED, 0}, {"json_type", M_JSON_TYPE, 0}, {"no_type", M_NO_TYPE, 0},
	{"unescaped", M_PLAIN, MASK(SHAPE_UNESCAPED)}, {"errcode0", M_PLAIN, MASK(SHAPE_ERRCODE0)},
	{"quoted_errcode", M_PLAIN, MASK(SHAPE_QUOTED)}, {"old_hints", M_PLAIN, MASK(SHAPE_OLD_HINTS)}, {"extra", M_PLAIN, MASK(SHAPE_EXTRA)},
	{"missing_openid", M_PLAIN, MASK(SHAPE_MISSING)}, {"empty_fields", M_PLAIN, MASK(SHAPE_EMPTY_FIELDS)},
	{"expires_in", M_PLAIN, MASK(SHAPE_EXPIRES_IN)}, {"bom", M_PLAIN, MASK(SHAPE_BOM)}, {"truncated", M_PLAIN, MASK(SHAPE_TRUNCATED)},
};

struct fault {
	struct fault *prev, *next;
	enum api api;
	size_t   mode; /* index into modes */
	int      errcode;
	int64_t  count, delay_ms;
};

struct serving { /* an answer that takes its time */
	struct serving *prev, *next;
	struct fake *f;
	struct req  *r;
	enum api     api;
	enum mode    mode;
	const char  *name;
	uint64_t     id; /* of its events; 0 once its end was told */
	struct answer a;
	struct timer *timer;
	size_t       sent;
	int          waits; /* for a slow reader, or one that is gone */
};

bool fault_add(struct fake *f, const cJSON *o, char *err, size_t err_len)
{
	struct fault one = {.count = 1, .delay_ms = SLOW_MS, .errcode = -1}, *ft;
	const char *api, *mode = NULL;
	int64_t errcode = -1;
	size_t i = 0;
	int n = 0;

	if (json_str(o, "api", 1, 64, &api) != JSON_GOT || !api_by_name(api, &one.api)) {
		snprintf(err, err_len, "api: not known; see docs/wxfake.md");
		return false;
	}
	if (json_str(o, "mode", 1, 32, &mode) == JSON_GOT)
		while (i < NELEM(modes) && strcmp(modes[i].name, mode))
			i++;
	if (!mode || i == NELEM(modes)) {
		snprintf(err, err_len, "mode: not known; see docs/wxfake.md");
		return false;
	}
	one.mode = i;
	if (json_int(o, "errcode", INT32_MIN, INT32_MAX, &errcode) == JSON_BAD ||
		json_int(o, "count", 1, 1000000, &one.count) == JSON_BAD ||
		json_int(o, "delay_ms", 0, 60000, &one.delay_ms) == JSON_BAD) {
		snprintf(err, err_len,
			"errcode, count (1 to 1000000) and delay_ms (0 to 60000) are whole "
			"numbers");
		return false;
	}
	one.errcode = (int)errcode;
	DL_COUNT(f->faults, ft, n);
	if (n >= FAULTS_MAX) {
		snprintf(err, err_len,
			"more than %d faults wait to be played: DELETE /fake/fault first",
			FAULTS_MAX);
		return false;
	}
	ft = mem_alloc(sizeof(*ft));
	*ft = one;
	DL_APPEND(f->faults, ft);
	return true;
}

int fault_clear(struct fake *f, const char *api)
{
	struct fault *ft, *next;
	enum api which;
	int n = 0;

	if (api && !api_by_name(api, &which))
		return 0;
	DL_FOREACH_SAFE(f->faults, ft, next)
		if (!api || ft->api == which) {
			DL_DELETE(f->faults, ft);
			free(ft);
			n++;
		}
	return n;
}

void fault_list(struct fake *f, struct buf *out)
{
	struct fault *ft;

	buf_str(out, "[");
	DL_FOREACH(f->faults, ft)
	buf_printf(out, "%s{\"api\":\"%s\",\"mode\":\"%s\",\"count\":%lld}",
		ft == f->faults ? "" : ",", api_name(ft->api), modes[ft->mode].name,
		(long long)ft->count);
	buf_str(out, "]");
}

/* ---- serving ---- */

/* Told before the answer leaves: what it sets off comes later. */
static void answered(struct serving *s)
{
	if (s->id)
		events_answered(s->f, s->id);
	s->id = 0;
}

static void done(struct serving *s)
{
	answered(s);
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): s is on the list */
	DL_DELETE(s->f->servings, s);
	timer_free(s->timer);
	buf_free(&s->a.body);
	req_release(s->r);
	free(s);
}

static void whole(struct serving *s)
{
	const char *type = s->mode == M_JSON_TYPE ? "application/json; charset=utf-8"
			   : s->mode == M_NO_TYPE ? NULL
						  : s->a.type;
	const char *body = s->a.body.data ? s->a.body.data : "";

	answered(s);
	if (s->mode == M_EMPTY)
		req_reply(s->r, 200, type, "", 0);
	else
		req_reply(s->r, 200, type, body, s->a.body.len);
	done(s);
}

static void on_whole(void *ctx)
{
	whole(ctx);
}

static void on_hung(void *ctx)
{
	struct serving *s = ctx;

	answered(s);
	req_stream_reset(s->r);
	done(s);
}

static void on_drip(void *ctx)
{
	struct serving *s = ctx;
	static const char text[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "
				   "500\r\n\r\n{\"session_key\":\"";
	char byte = s->sent < sizeof(text) - 1 ? text[s->sent] : 'A';

	if (s->sent == 0)
		req_stream_start(s->r, &byte, 1);
	else if (!req_stream_write(s->r, &byte, 1) || s->sent > DRIP_MAX) {
		req_stream_end(s->r);
		done(s);
		return;
	}
	s->sent++;
	timer_start(s->timer, DRIP_EVERY_MS);
}

static void on_huge(void *ctx)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: "
				   "close\r\n\r\n{\"openid\":\"";
	struct serving *s = ctx;
	char *piece;

	if (s->sent == 0 && s->waits == 0)
		req_stream_start(s->r, head, sizeof(head) - 1);
	piece = mem_alloc(HUGE_PIECE);
	memset(piece, 'A', HUGE_PIECE);
	if (req_stream_write(s->r, piece, HUGE_PIECE))
		s->sent += HUGE_PIECE;
	else
		s->waits++;
	free(piece);
	if (s->sent < HUGE_BYTES && s->waits < HUGE_WAITS) {
		timer_start(s->timer, s->waits ? 10 : 1);
		return;
	}
	req_stream_end(s->r);
	done(s);
}

static void chunked(struct serving *s)
{
	struct buf b = {0};

	buf_printf(&b, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n",
		s->a.type);
	for (size_t i = 0; i < s->a.body.len; i++)
		buf_printf(&b, "1\r\n%c\r\n", s->a.body.data[i]);
	buf_str(&b, "0\r\n\r\n");
	req_stream_start(s->r, b.data, b.len);
	req_stream_end(s->r);
	buf_free(&b);
	done(s);
}

static void wait(struct serving *s, loop_fn then, int64_t ms)
{
	s->timer = timer_new(s->f->loop, then, s);
	timer_start(s->timer, ms);
}

static void play(struct serving *s, int64_t delay_ms)
{
	static const char html[] = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad "
				   "Gateway</body></html>";

	switch (s->mode) {
	case M_HANG:
		wait(s, on_hung, HANG_MAX_MS);
		return;
	case M_SLOW:
		wait(s, on_whole, delay_ms);
		return;
	case M_RESET:
		on_hung(s);
		return;
	case M_DRIP:
		wait(s, on_drip, 0);
		return;
	case M_HUGE:
		wait(s, on_huge, 0);
		return;
	case M_500:
	case M_502:
		answered(s);
		req_reply(s->r, s->mode == M_500 ? 500 : 502, "text/html", html, sizeof(html) - 1);
		done(s);
		return;
	case M_NOT_JSON:
		answered(s);
		req_reply(s->r, 200, "text/plain", "openid=o1&session_key=k", 23);
		done(s);
		return;
	case M_CLOSE:
		req_stream_start(s->r, "", 0);
		req_stream_end(s->r);
		done(s);
		return;
	case M_CHUNKED:
		chunked(s);
		return;
	default:
		if (s->f->latency_ms)
			wait(s, on_whole, s->f->latency_ms);
		else
			whole(s);
	}
}

static struct fault *next_fault(struct fake *f, enum api api)
{
	struct fault *ft = f->faults;

	while (ft && ft->api != api)
		ft = ft->next;
	return ft;
}

/* The call is evaluated first, whatever then becomes of the answer: a code is spent though the
 * reply is lost. A 500 and an errcode come from before that: the code stays good. */
void fault_serve(struct fake *f, struct req *r, enum api api)
{
	struct fault *ft = next_fault(f, api), one = {0};
	struct serving *s = mem_alloc(sizeof(*s));
	unsigned shapes = 0;

	f->calls[api]++;
	s->f = f;
	s->r = r;
	s->api = api;
	s->mode = M_PLAIN;
	s->id = ++f->served;
	DL_APPEND(f->servings, s);
	req_hold(r);
	if (ft) {
		one = *ft;
		s->mode = modes[ft->mode].mode;
		s->name = modes[ft->mode].name;
		shapes = modes[ft->mode].shapes;
		f->faulted++;
		if (--ft->count == 0) {
			DL_DELETE(f->faults, ft);
			free(ft);
		}
	}
	if (s->mode == M_ERRCODE)
		wechat_refuse(r, api, one.errcode, shapes, &s->a);
	else if (s->mode != M_500 && s->mode != M_502)
		wechat_answer(f, r, api, shapes, &s->a);
	events_call(f, s->id, api, &s->a,
		s->mode == M_500   ? 500
		: s->mode == M_502 ? 502
				   : 200,
		s->name);
	play(s, one.delay_ms);
}

void fault_end(struct fake *f)
{
	while (f->servings)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): done takes it off the list */
		done(f->servings);
}
