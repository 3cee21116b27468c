/* Server-sent events: what WeChat was asked, as it happens, and on the local stack what Redis was told (MONITOR). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "common/clock.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "fake.h"
#include "io/resolve.h"

enum { BEAT_MS = 5000, LINE_MAX_BYTES = 64 * 1024 };

struct subscriber {
	struct req *r;
};

struct monitor {
	struct fake *f;
	struct bufferevent *bev;
	struct timer *again;
	struct resolve *resolve;
	char host[256], user[128], password[256]; /* "" = none */
	int port;
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

/* As an array of strings, whatever they hold. */
static void send_auth(struct monitor *m)
{
	struct evbuffer *out = bufferevent_get_output(m->bev);
	const char *user = *m->user ? m->user : "default"; /* Redis 6 and later */

	evbuffer_add_printf(out, "*3\r\n$4\r\nAUTH\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(user), user, strlen(m->password), m->password);
}

static void on_monitor_event(struct bufferevent *bev, short what, void *ctx)
{
	struct monitor *m = ctx;

	if (what & BEV_EVENT_CONNECTED) {
		if (*m->password)
			send_auth(m);
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
		if (*line == '-')
			log_warn("Redis refuses to be watched", LOG_STR("answer", line));
		on_monitor_line(ctx, line);
		free(line);
	}
	if (evbuffer_get_length(in) > LINE_MAX_BYTES)
		evbuffer_drain(in, evbuffer_get_length(in));
}

static void on_monitor_address(void *ctx, const struct addrinfo *list, const char *error)
{
	struct monitor *m = ctx;

	(void)error; /* a stack comes up in any order: ask again */
	m->resolve = NULL;
	m->bev = list ? bufferevent_socket_new(loop_base(m->f->loop), -1, BEV_OPT_CLOSE_ON_FREE) : NULL;
	if (m->bev) {
		bufferevent_setcb(m->bev, on_monitor_read, NULL, on_monitor_event, m);
		bufferevent_enable(m->bev, EV_READ | EV_WRITE);
		if (bufferevent_socket_connect(m->bev, list->ai_addr, (int)list->ai_addrlen) == 0 || !m->bev)
			return;
		bufferevent_free(m->bev);
		m->bev = NULL;
	}
	timer_start(m->again, 1000);
}

static void monitor_connect(void *ctx)
{
	struct monitor *m = ctx;

	m->resolve = resolve_start(m->f->loop, m->host, m->port, on_monitor_address, m);
}

static bool decode_into(char *out, size_t cap, const char *s, size_t n)
{
	return n < cap && percent_decode(out, s, n, false) >= 0;
}

/* redis://[[user]:password@]host[:port], and a database that does not matter: MONITOR shows all of them */
static bool monitor_url(struct monitor *m, const char *url)
{
	const char *rest = url + 8, *at, *host, *colon;
	size_t n;
	int end = 0;

	if (strncmp(url, "redis://", 8))
		return false;
	at = strrchr(rest, '@');
	host = at ? at + 1 : rest;
	if (at) {
		const char *sep = memchr(rest, ':', (size_t)(at - rest));

		if (!sep || !decode_into(m->user, sizeof(m->user), rest, (size_t)(sep - rest)) ||
		    !decode_into(m->password, sizeof(m->password), sep + 1, (size_t)(at - sep - 1)))
			return false;
	}
	n = strcspn(host, ":/");
	if (!decode_into(m->host, sizeof(m->host), host, n) || !*m->host)
		return false;
	colon = host + n;
	m->port = 6379;
	if (*colon == ':' && (sscanf(colon, ":%5d%n", &m->port, &end) != 1 || m->port < 1 || m->port > 65535))
		return false;
	colon += end;
	return *colon == '\0' || (*colon == '/' && colon[1 + strspn(colon + 1, "0123456789")] == '\0');
}

bool events_watch_redis(struct fake *f, const char *url, char *err, size_t err_len)
{
	struct monitor *m = mem_alloc(sizeof(*m));

	if (!monitor_url(m, url)) {
		snprintf(err, err_len, "--watch-redis: must be redis://[[user]:password@]host[:port]");
		mem_wipe(m, sizeof(*m));
		free(m);
		return false;
	}
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
	resolve_cancel(f->monitor->resolve);
	if (f->monitor->bev)
		bufferevent_free(f->monitor->bev);
	mem_wipe(f->monitor, sizeof(*f->monitor));
	free(f->monitor);
}
