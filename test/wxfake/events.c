/* Server-sent events: what WeChat was asked, as it happens, and on the local stack what Redis was told (MONITOR). */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "fake.h"

enum { BEAT_MS = 5000, LINE_MAX_BYTES = 64 * 1024 };

struct subscriber {
	struct req *r;
};

struct monitor {
	struct fake *f;
	struct bufferevent *bev;
	struct timer *again;
	struct sockaddr_in at;
};

static void drop(struct fake *f, int i)
{
	req_release(f->subs[i]->r);
	free(f->subs[i]);
	f->subs[i] = NULL;
}

static void tell(struct fake *f, const char *p, size_t n)
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

	tell(f, ": still here\n\n", 14);
	timer_start(f->beat, BEAT_MS);
}

void events_subscribe(struct fake *f, struct req *r)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
				   "Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n: welcome\n\n";
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

void events_call(struct fake *f, enum api api, const struct answer *a, int status, const char *fault)
{
	struct buf b = {0};

	buf_printf(&b, "event: wechat\ndata: {\"at\":%lld,\"api\":\"%s\",\"status\":%d,\"errcode\":%d,\"code\":", (long long)clock_wall_ms(),
		api_name(api), status, a->errcode);
	buf_json_str(&b, a->code, strlen(a->code));
	buf_printf(&b, ",\"fault\":\"%s\"}\n\n", fault ? fault : "");
	tell(f, b.data, b.len);
	buf_free(&b);
}

/* ---- MONITOR ---- */

static void monitor_connect(void *ctx);

static void on_monitor_event(struct bufferevent *bev, short what, void *ctx)
{
	struct monitor *m = ctx;

	if (what & BEV_EVENT_CONNECTED) {
		bufferevent_write(bev, "MONITOR\r\n", 9);
		return;
	}
	bufferevent_free(bev);
	m->bev = NULL;
	timer_start(m->again, 1000);
}

/* A line of MONITOR: +1339518083.107412 [0 127.0.0.1:60866] "keys" "*" */
static void on_monitor_line(struct monitor *m, const char *line)
{
	const char *bracket = strstr(line, "] "), *from = bracket ? bracket + 2 : line; /* [::1] has a ] of its own */
	struct buf b = {0};

	if (!bracket || !strcasecmp(from, "\"PING\""))
		return;
	buf_printf(&b, "event: redis\ndata: {\"at\":%lld,\"command\":", (long long)clock_wall_ms());
	buf_json_str(&b, from, strlen(from) < 2000 ? strlen(from) : 2000);
	buf_str(&b, "}\n\n");
	tell(m->f, b.data, b.len);
	buf_free(&b);
}

static void on_monitor_read(struct bufferevent *bev, void *ctx)
{
	struct evbuffer *in = bufferevent_get_input(bev);
	char *line;

	while ((line = evbuffer_readln(in, NULL, EVBUFFER_EOL_CRLF))) {
		on_monitor_line(ctx, line);
		free(line);
	}
	if (evbuffer_get_length(in) > LINE_MAX_BYTES)
		evbuffer_drain(in, evbuffer_get_length(in));
}

static void monitor_connect(void *ctx)
{
	struct monitor *m = ctx;

	m->bev = bufferevent_socket_new(loop_base(m->f->loop), -1, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(m->bev, on_monitor_read, NULL, on_monitor_event, m);
	bufferevent_enable(m->bev, EV_READ | EV_WRITE);
	if (bufferevent_socket_connect(m->bev, (struct sockaddr *)(void *)&m->at, sizeof(m->at)) == 0 || !m->bev)
		return;
	bufferevent_free(m->bev);
	m->bev = NULL;
	timer_start(m->again, 1000);
}

bool events_watch_redis(struct fake *f, const char *url, char *err, size_t err_len)
{
	struct monitor *m = mem_alloc(sizeof(*m));
	char host[64];
	int port = 6379;

	m->at.sin_family = AF_INET;
	if (sscanf(url, "redis://%63[0-9.]:%d", host, &port) < 1 || inet_pton(AF_INET, host, &m->at.sin_addr) != 1 || port < 1 || port > 65535) {
		snprintf(err, err_len, "--watch-redis: must be redis://a.b.c.d:port of this machine's Redis");
		free(m);
		return false;
	}
	m->at.sin_port = htons((uint16_t)port);
	m->f = f;
	m->again = timer_new(f->loop, monitor_connect, m);
	f->monitor = m;
	monitor_connect(m);
	return true;
}

void events_free(struct fake *f)
{
	for (int i = 0; i < SUBSCRIBERS_MAX; i++)
		if (f->subs[i])
			drop(f, i); /* http_free closes what is open: the loop turns no more, to end a stream in order */
	timer_free(f->beat);
	if (!f->monitor)
		return;
	timer_free(f->monitor->again);
	if (f->monitor->bev)
		bufferevent_free(f->monitor->bev);
	free(f->monitor);
}
