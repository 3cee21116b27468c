/* The event loop and what hangs on it. One per process; nothing here is thread-safe. */
#ifndef IO_LOOP_H
#define IO_LOOP_H

#include <event2/event.h>
#include <stdint.h>

struct loop;
struct timer;
typedef void (*loop_fn)(void *ctx);
typedef void (*loop_signal_fn)(void *ctx, int signo);

struct loop *loop_new(void);
/* after everything built on it; deferred calls that never ran are dropped */
void loop_free(struct loop *l);
/* once a process: from now on info lines of this thread leave together at the end of each turn */
void loop_buffer_log(struct loop *l);
void loop_run(struct loop *l);  /* until loop_stop */
void loop_stop(struct loop *l);
/* after loop_run: what is due runs, nothing is waited for; libevent lets go of what it has put off
 */
void loop_settle(struct loop *l);
struct event_base *loop_base(struct loop *l);

/* Calls fn(ctx) once, on a later turn of the loop, never before this returns. This is the only way
 * to put something off to the next turn. Calls that are deferred twice come twice. */
void loop_defer(struct loop *l, loop_fn fn, void *ctx);
/* before ctx is freed: forgets the calls that have not come yet */
void loop_undefer(struct loop *l, loop_fn fn, void *ctx);
/* lives as long as the loop */
void loop_on_signal(struct loop *l, int signo, loop_signal_fn fn, void *ctx);

/* One-shot timers. Starting a running timer moves it. */
struct timer *timer_new(struct loop *l, loop_fn fn, void *ctx);
void timer_start(struct timer *t, int64_t ms);
void timer_stop(struct timer *t);
/* stops it; NULL is fine; may be called inside its own callback */
void timer_free(struct timer *t);

#endif
