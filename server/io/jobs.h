/* One helper thread for libraries that block (SQLite, MySQL): jobs in, callbacks out.
 *
 * A job is a block of the caller's, with a struct job first, that holds copies of all its inputs.
 * With jobs_add it belongs to jobs; the thread takes what waits, up to JOBS_BATCH at once, so that
 * a batch can be one transaction. Each callback comes exactly once, on the loop, never before the
 * starter returns, and within the job's limit even though the thread is stuck; what the thread
 * makes of a job after that is dropped.
 *
 * jobs_free lets the thread finish what waits, but no longer than it is told. A thread that hangs
 * is then left behind: it holds nothing of the loop's, and frees itself and what it works on once
 * its library returns, or the process ends first. */
#ifndef IO_JOBS_H
#define IO_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/outcome.h"
#include "io/loop.h"

enum { JOBS_BATCH = 64 };

struct job;
struct jobs;
/* the job is borrowed; unless oc is what run said, look at no result in it */
typedef void (*job_cb)(struct job *job, enum outcome oc);

struct job {
	enum outcome oc; /* run sets it; never OC_PENDING */
	/* jobs' own: */
	TAILQ_ENTRY(job) link;
	struct jobs  *jobs;
	struct timer *limit; /* until the callback has come */
	job_cb        cb;
	bool          keep, waits; /* waits: in the queue; under the lock */
};

struct jobs_options {
	void   *ctx;
	size_t  queue_max;
	/* on the thread; NULL: no job is ever added. Without idle: no thread */
	void    (*run)(void *ctx, struct job *const *batch, size_t n);
	/* on the thread, when nothing waits: at once, then again after the ms it returns. NULL =
	 * none */
	int64_t (*idle)(void *ctx);
	void    (*end)(void *ctx);  /* the last call on the thread; NULL = none */
	/* frees it; on either thread, after its callback or when nobody is left to call */
	void    (*drop)(struct job *job);
};

/* copies o; NULL: no thread or descriptor to be had, no end called */
struct jobs *jobs_new(struct loop *l, const struct jobs_options *o);
/* not from a callback; what is not done by then gets OC_STORE_UNAVAILABLE; adding is over */
void jobs_free(struct jobs *j, int64_t grace_ms);

/* OC_OVERLOADED when the queue is full, OC_STORE_UNAVAILABLE after limit_ms. A job that is late
 * before the thread began it is never begun, unless keep says that it is worth doing even so. */
void jobs_add(struct jobs *j, struct job *job, int64_t limit_ms, bool keep, job_cb cb);
/* the callback only, with oc */
void jobs_refuse(struct jobs *j, struct job *job, enum outcome oc, job_cb cb);

/* Waits until the thread has done what there was to do at the start, its first idle included.
 * false: not within limit_ms. */
bool jobs_settle(struct jobs *j, int64_t limit_ms);

int64_t jobs_busy_ms(struct jobs *j); /* how long the thread has been at one batch; 0: it waits */

#endif
