/* libevent with the one thing it lacks: a first in, first out list of calls to make once the stack
 * has unwound. What is deferred during a turn runs at that turn's end, after every event it
 * brought; what those calls defer in their turn waits for the next one, so that they cannot keep
 * the loop from its sockets. */
#include "io/loop.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <event2/event_struct.h>

#include "common/log.h"
#include "common/mem.h"

struct call {
	loop_fn fn;
	void   *ctx;
};

struct calls {
	struct call *v;
	size_t       len, cap;
};

struct on_signal {
	struct event      ev;
	loop_signal_fn    fn;
	void             *ctx;
	struct on_signal *next;
};

struct loop {
	struct event_base *base;
	struct event       drain;   /* runs what was deferred */
	struct calls       waiting;
	/* the list being drained: swapped with waiting, so both keep their memory */
	struct calls       running;
	bool               armed;   /* drain will run */
	bool               draining;
	struct on_signal  *signals;
	struct event       log;     /* flushes the log at the end of a turn */
	bool               has_log;
};

struct timer {
	struct event ev;
	loop_fn      fn;
	void        *ctx;
};

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;
	struct calls now = l->waiting;

	(void)fd;
	(void)what;
	l->waiting = l->running;
	l->running = now;
	l->armed = false;
	l->draining = true;
	for (size_t i = 0; i < now.len; i++)
		if (now.v[i].fn)
			now.v[i].fn(now.v[i].ctx);
	l->running.len = 0;
	l->draining = false;
}

/* libevent's own words, which would go to standard error as they are */
static void on_libevent_said(int severity, const char *text)
{
	log_at(severity >= EVENT_LOG_ERR     ? LOG_ERROR
		: severity == EVENT_LOG_WARN ? LOG_WARN
					     : LOG_DEBUG,
		"libevent", LOG_STR("text", text));
}

struct loop *loop_new(void)
{
	struct loop *l = mem_alloc(sizeof(*l));
	struct event_config *cfg;

	/* libevent then zeroes memory itself: see mem_alloc */
	event_set_mem_functions(malloc, realloc, free);
	cfg = event_config_new();
	event_set_log_callback(on_libevent_said);
	/* A timer counts from the moment it is started, not from when the turn began: a slow turn
	 * must not shorten deadlines. */
	if (cfg && event_config_set_flag(cfg, EVENT_BASE_FLAG_NO_CACHE_TIME) == 0)
		l->base = event_base_new_with_config(cfg);
	if (cfg)
		event_config_free(cfg);
	if (!l->base) {
		log_error("libevent cannot make an event loop");
		abort();
	}
	event_assign(&l->drain, l->base, -1, 0, on_drain, l);
	signal(SIGPIPE, SIG_IGN); /* a peer that left is an error of write(), not a reason to die */
	return l;
}

void loop_free(struct loop *l)
{
	struct on_signal *s;

	if (!l)
		return;
	while ((s = l->signals)) {
		l->signals = s->next;
		event_del(&s->ev);
		free(s);
	}
	event_del(&l->drain);
	if (l->has_log) {
		log_buffer(NULL, NULL);
		event_del(&l->log);
	}
	event_base_free(l->base);
	free(l->waiting.v);
	free(l->running.v);
	free(l);
}

static void on_log(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	log_flush();
}

static void flush_soon(void *ctx)
{
	struct loop *l = ctx;

	event_active(&l->log, EV_TIMEOUT, 0);
}

void loop_buffer_log(struct loop *l)
{
	event_assign(&l->log, l->base, -1, 0, on_log, l);
	l->has_log = true;
	log_buffer(flush_soon, l);
}

void loop_run(struct loop *l)
{
	event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

void loop_stop(struct loop *l)
{
	event_base_loopbreak(l->base);
}

void loop_settle(struct loop *l)
{
	/* the end of a bufferevent is put off, and so is what comes of that */
	for (int turn = 0; turn < 3; turn++)
		event_base_loop(l->base, EVLOOP_NONBLOCK);
}

struct event_base *loop_base(struct loop *l)
{
	return l->base;
}

void loop_defer(struct loop *l, loop_fn fn, void *ctx)
{
	static const struct timeval soon = {0, 0};
	struct calls *w = &l->waiting;

	if (w->len == w->cap) {
		w->cap = w->cap ? 2 * w->cap : 64;
		w->v = mem_realloc(w->v, w->cap * sizeof(*w->v));
	}
	w->v[w->len++] = (struct call){fn, ctx};
	if (l->armed)
		return;
	l->armed = true;
	if (l->draining)
		event_add(&l->drain, &soon); /* timers are looked at after the sockets */
	else
		event_active(&l->drain, EV_TIMEOUT, 0);
}

static void forget(struct calls *c, loop_fn fn, const void *ctx)
{
	for (size_t i = 0; i < c->len; i++)
		if (c->v[i].fn == fn && c->v[i].ctx == ctx)
			c->v[i].fn = NULL;
}

void loop_undefer(struct loop *l, loop_fn fn, void *ctx)
{
	forget(&l->waiting, fn, ctx);
	forget(&l->running, fn, ctx);
}

static void on_signal_event(evutil_socket_t signo, short what, void *arg)
{
	struct on_signal *s = arg;

	(void)what;
	s->fn(s->ctx, (int)signo);
}

void loop_on_signal(struct loop *l, int signo, loop_signal_fn fn, void *ctx)
{
	struct on_signal *s = mem_alloc(sizeof(*s));

	s->fn = fn;
	s->ctx = ctx;
	s->next = l->signals;
	l->signals = s;
	evsignal_assign(&s->ev, l->base, signo, on_signal_event, s);
	evsignal_add(&s->ev, NULL);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct timer *t = arg;

	(void)fd;
	(void)what;
	t->fn(t->ctx); /* may free t */
}

struct timer *timer_new(struct loop *l, loop_fn fn, void *ctx)
{
	struct timer *t = mem_alloc(sizeof(*t));

	t->fn = fn;
	t->ctx = ctx;
	evtimer_assign(&t->ev, l->base, on_timer, t);
	return t;
}

void timer_start(struct timer *t, int64_t ms)
{
	struct timeval tv = {.tv_sec = 0};

	if (ms > 0)
		tv = (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	evtimer_add(&t->ev, &tv);
}

void timer_stop(struct timer *t)
{
	evtimer_del(&t->ev);
}

void timer_free(struct timer *t)
{
	if (!t)
		return;
	evtimer_del(&t->ev);
	free(t);
}
