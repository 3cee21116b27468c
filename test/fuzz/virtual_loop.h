/* io/loop.h and common/clock.h with a clock that jumps: what waits costs no time, and the same
 * input takes the same way each time. Timers and deferred calls only: no sockets, no signals.
 * Included by one file of a program, in place of loop.c and clock.c. */
#ifndef VIRTUAL_LOOP_H
#define VIRTUAL_LOOP_H

#include "common/clock.h"
#include "common/mem.h"
#include "io/loop.h"

struct timer {
	struct loop *loop;
	struct timer *prev, *next;
	loop_fn fn;
	void *ctx;
	int64_t at_us;      /* -1: not running */
};

struct loop {
	struct timer *timers;
	bool stop;
};

static int64_t virtual_us = 1000000;

int64_t clock_us(void)
{
	return virtual_us;
}

int64_t clock_ms(void)
{
	return virtual_us / 1000;
}

int64_t clock_wall_ms(void)
{
	return 1760000000000 + clock_ms();
}

int64_t clock_wall_s(void)
{
	return clock_wall_ms() / 1000;
}

struct loop *loop_new(void)
{
	return mem_alloc(sizeof(struct loop));
}

void loop_free(struct loop *l)
{
	MUST(!l->timers);
	free(l);
}

void loop_stop(struct loop *l)
{
	l->stop = true;
}

struct timer *timer_new(struct loop *l, loop_fn fn, void *ctx)
{
	struct timer *t = mem_alloc(sizeof(*t));

	*t = (struct timer){.loop = l, .next = l->timers, .fn = fn, .ctx = ctx, .at_us = -1};
	if (l->timers)
		l->timers->prev = t;
	l->timers = t;
	return t;
}

void timer_start(struct timer *t, int64_t ms)
{
	t->at_us = virtual_us + (ms > 0 ? ms * 1000 : 0);
}

void timer_stop(struct timer *t)
{
	t->at_us = -1;
}

void timer_free(struct timer *t)
{
	if (!t)
		return;
	if (t->prev)
		t->prev->next = t->next;
	else
		t->loop->timers = t->next;
	if (t->next)
		t->next->prev = t->prev;
	free(t);
}

struct deferred {
	struct timer *t;
	loop_fn fn;
	void *ctx;
};

static void run_deferred(void *ctx)
{
	struct deferred d = *(struct deferred *)ctx;

	free(ctx);
	timer_free(d.t);
	d.fn(d.ctx);
}

void loop_defer(struct loop *l, loop_fn fn, void *ctx)
{
	struct deferred *d = mem_alloc(sizeof(*d));

	*d = (struct deferred){.t = timer_new(l, run_deferred, d), .fn = fn, .ctx = ctx};
	timer_start(d->t, 0);
}

/* Until it is stopped, or there is nothing left to wait for. */
void loop_run(struct loop *l)
{
	for (l->stop = false; !l->stop;) {
		struct timer *first = NULL;

		for (struct timer *t = l->timers; t; t = t->next)
			if (t->at_us >= 0 && (!first || t->at_us < first->at_us))
				first = t;
		if (!first)
			return;
		if (first->at_us > virtual_us)
			virtual_us = first->at_us;
		first->at_us = -1;
		first->fn(first->ctx);
	}
}

#endif
