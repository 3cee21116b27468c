/* Server-sent events: what WeChat was asked, as it happens, and what monitor.c hears of Redis. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "fake.h"
#include "stream.h"

enum { BEAT_MS = 5000 };

struct subscriber {
	struct req *r;
};

static void drop(struct fake *f, int i)
{
	req_release(f->subs[i]->r);
	free(f->subs[i]);
	f->subs[i] = NULL;
}

void events_tell(struct fake *f, const char *p, size_t n)
{
	for (int i = 0; i < SUBSCRIBERS_MAX; i++)
		if (f->subs[i] && !req_stream_write(f->subs[i]->r, p, n)) { /* gone, or too slow */
			req_stream_end(f->subs[i]->r);
			drop(f, i);
		}
}

static void on_beat(void *ctx)
{
	struct fake *f = ctx;

	events_tell(f, ": still here\n\n", 14);
	timer_start(f->beat, BEAT_MS);
}

void events_subscribe(struct fake *f, struct req *r)
{
	/* Unlike the rest of /fake not for pages of other origins: this is what a developer's own
	 * Redis is told. */
	static const char head[] =
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
		"Connection: close\r\n\r\n: welcome\n\n";
	int i = 0;

	while (i < SUBSCRIBERS_MAX && f->subs[i])
		i++;
	if (i == SUBSCRIBERS_MAX) {
		req_reply_outcome(r, OC_OVERLOADED);
		return;
	}
	if (!f->beat) {
		f->beat = timer_new(f->loop, on_beat, f);
		timer_start(f->beat, BEAT_MS);
	}
	f->subs[i] = mem_alloc(sizeof(*f->subs[i]));
	f->subs[i]->r = r;
	req_hold(r);
	req_stream_start(r, head, sizeof(head) - 1);
}

void events_at(struct buf *b, int64_t wall_us)
{
	buf_printf(b, "{\"at\":%lld.%03d", (long long)(wall_us / 1000), (int)(wall_us % 1000));
}

void events_call(struct fake *f, uint64_t id, enum api api, const struct answer *a, int status,
	const char *fault)
{
	struct buf b = {0};

	buf_str(&b, "event: wechat\ndata: ");
	events_at(&b, clock_wall_us());
	buf_printf(&b, ",\"id\":%llu,\"api\":\"%s\",\"status\":%d,\"errcode\":%d,\"code\":",
		(unsigned long long)id, api_name(api), status, a->errcode);
	buf_json_str(&b, a->code, strlen(a->code));
	buf_printf(&b, ",\"fault\":\"%s\"}\n\n", fault ? fault : "");
	events_tell(f, b.data, b.len);
	buf_free(&b);
}

void events_answered(struct fake *f, uint64_t id)
{
	struct buf b = {0};

	buf_str(&b, "event: wechat_end\ndata: ");
	events_at(&b, clock_wall_us());
	buf_printf(&b, ",\"id\":%llu}\n\n", (unsigned long long)id);
	events_tell(f, b.data, b.len);
	buf_free(&b);
}

void events_free(struct fake *f)
{
	for (int i = 0; i < SUBSCRIBERS_MAX; i++)
		if (f->subs[i])
			/* http_free closes what is open: the loop turns no more, to end a stream in
			 * order */
			drop(f, i);
	timer_free(f->beat);
}
