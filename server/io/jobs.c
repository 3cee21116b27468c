/* Jobs pass under one lock from the queue to the batch on the thread to the list of those done,
 * which an eventfd announces to the loop. Limits are timers of the loop: who is late is told there,
 * whatever the thread is doing. */
#include "io/jobs.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/mem.h"

enum { GATHER_MAX_US = 1000, SETTLE_LOOK_US = 1000 };

TAILQ_HEAD(job_list, job);

struct jobs {
	struct jobs_options o;
	struct loop     *loop;
	struct event     ev;        /* done is not empty */
	pthread_t        thread;
	int              fd;        /* the eventfd behind ev */
	_Atomic int64_t  busy_since; /* clock_ms; 0: the thread waits */
	_Atomic bool     settled;   /* the thread has waited for work */
	pthread_mutex_t  lock;      /* for all below */
	pthread_cond_t   wake;      /* a job came, or stop */
	pthread_cond_t   gone;      /* ended became true */
	struct job_list  queue, done;
	size_t           queued;
	struct job      *batch[JOBS_BATCH];
	size_t           batch_len;
	/* of the batch before, and how long it took: the thread's own */
	size_t           last_len;
	int64_t          last_us;
	bool             threadless;
	/* ended: there is no thread, or it touches nothing any more */
	bool             stop, ended;
	bool             abandoned; /* the loop let go: the thread frees what is left */
};

/* ---- the thread ---- */

/* Those whose batch is done ask again, one after the other within a millisecond. A batch of the
 * first alone would let all the others wait for its whole length, and every second batch would be
 * one: so where the last was of several, the thread waits a little for as many, for no more than a
 * quarter of what a batch takes. */
static void gather(struct jobs *j)
{
	int64_t wait_us = j->last_us / 4 < GATHER_MAX_US ? j->last_us / 4 : GATHER_MAX_US;

	if (j->stop || j->queued == 0 || j->queued >= j->last_len)
		return;
	pthread_mutex_unlock(&j->lock);
	usleep((useconds_t)wait_us);
	pthread_mutex_lock(&j->lock);
}

static size_t take_batch(struct jobs *j)
{
	struct job *job;

	gather(j);
	for (j->batch_len = 0; j->batch_len < JOBS_BATCH && (job = TAILQ_FIRST(&j->queue));
		j->batch_len++) {
		TAILQ_REMOVE(&j->queue, job, link);
		j->queued--;
		job->waits = false;
		j->batch[j->batch_len] = job;
	}
	return j->batch_len;
}

static void hand_back(struct jobs *j)
{
	for (size_t i = 0; i < j->batch_len; i++) {
		if (j->abandoned)
			j->o.drop(j->batch[i]);
		else
			TAILQ_INSERT_TAIL(&j->done, j->batch[i], link);
	}
	j->batch_len = 0;
	if (!j->abandoned)
		eventfd_write(j->fd, 1);
}

static void wait_until(struct jobs *j, int64_t due_ms)
{
	struct timespec t = {.tv_sec = due_ms / 1000, .tv_nsec = due_ms % 1000 * 1000000};

	atomic_store(&j->settled, true);
	if (j->o.idle)
		pthread_cond_timedwait(&j->wake, &j->lock, &t);
	else
		pthread_cond_wait(&j->wake, &j->lock);
}

static void work(struct jobs *j, size_t n, int64_t *idle_due)
{
	int64_t began_us = clock_us();

	pthread_mutex_unlock(&j->lock);
	atomic_store(&j->busy_since, clock_ms());
	if (n > 0)
		j->o.run(j->o.ctx, j->batch, n);
	else
		*idle_due = j->o.idle(j->o.ctx) + clock_ms();
	atomic_store(&j->busy_since, 0);
	if (n > 0) {
		j->last_len = n;
		j->last_us = clock_us() - began_us;
	}
	pthread_mutex_lock(&j->lock);
	hand_back(j);
}

static void jobs_destroy(struct jobs *j)
{
	pthread_cond_destroy(&j->wake);
	pthread_cond_destroy(&j->gone);
	pthread_mutex_destroy(&j->lock);
	if (j->fd >= 0)
		close(j->fd);
	free(j);
}

static void *thread_main(void *arg)
{
	struct jobs *j = arg;
	int64_t idle_due = 0;
	bool abandoned;
	size_t n;

	pthread_mutex_lock(&j->lock);
	if (j->o.idle && !j->stop)
		work(j, 0, &idle_due); /* before any job: it may be what connects */
	while ((n = take_batch(j)) > 0 || !j->stop) {
		if (n > 0 || (j->o.idle && clock_ms() >= idle_due))
			work(j, n, &idle_due);
		else
			wait_until(j, idle_due);
	}
	pthread_mutex_unlock(&j->lock);
	if (j->o.end)
		j->o.end(j->o.ctx);
	crypt_thread_end();
	pthread_mutex_lock(&j->lock);
	j->ended = true;
	abandoned = j->abandoned;
	pthread_cond_signal(&j->gone);
	pthread_mutex_unlock(&j->lock);
	if (abandoned)
		jobs_destroy(j);
	return NULL;
}

/* ---- the loop ---- */

/* Calls back, unless that was done when the job became late. */
static void tell(struct job *job, enum outcome oc)
{
	if (!job->limit)
		return;
	timer_free(job->limit);
	job->limit = NULL;
	job->cb(job, oc);
}

/* oc NULL: what was made of each. */
static void tell_list(struct jobs *j, struct job_list *list, const enum outcome *oc)
{
	struct job *job;

	while ((job = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, job, link);
		tell(job, oc ? *oc : job->oc);
		j->o.drop(job);
	}
}

static void tell_done(struct jobs *j)
{
	struct job_list now = TAILQ_HEAD_INITIALIZER(now);

	pthread_mutex_lock(&j->lock);
	TAILQ_CONCAT(&now, &j->done, link);
	pthread_mutex_unlock(&j->lock);
	tell_list(j, &now, NULL);
}

static void on_done(evutil_socket_t fd, short what, void *arg)
{
	eventfd_t n;

	(void)what;
	eventfd_read(fd, &n);
	tell_done(arg);
}

static void on_late(void *ctx)
{
	struct job *job = ctx;
	struct jobs *j = job->jobs;
	bool mine;

	pthread_mutex_lock(&j->lock);
	mine = job->waits && !job->keep;
	if (mine) {
		TAILQ_REMOVE(&j->queue, job, link);
		j->queued--;
	}
	pthread_mutex_unlock(&j->lock);
	tell(job, OC_STORE_UNAVAILABLE);
	if (mine)
		j->o.drop(job);
}

static void job_init(struct jobs *j, struct job *job, enum outcome oc, job_cb cb)
{
	assert(!j->stop);
	job->oc = oc;
	job->jobs = j;
	job->limit = timer_new(j->loop, on_late, job);
	job->cb = cb;
	job->waits = false;
}

/* false: there is no room. */
static bool enqueue(struct jobs *j, struct job *job)
{
	bool room;

	pthread_mutex_lock(&j->lock);
	room = j->queued < j->o.queue_max;
	if (room) {
		TAILQ_INSERT_TAIL(&j->queue, job, link);
		j->queued++;
		job->waits = true;
		pthread_cond_signal(&j->wake);
	}
	pthread_mutex_unlock(&j->lock);
	return room;
}

/* As if the thread had done it. */
static void answer(struct jobs *j, struct job *job, enum outcome oc)
{
	job->oc = oc;
	pthread_mutex_lock(&j->lock);
	TAILQ_INSERT_TAIL(&j->done, job, link);
	pthread_mutex_unlock(&j->lock);
	eventfd_write(j->fd, 1);
}

void jobs_refuse(struct jobs *j, struct job *job, enum outcome oc, job_cb cb)
{
	job_init(j, job, oc, cb);
	answer(j, job, oc);
}

void jobs_add(struct jobs *j, struct job *job, int64_t limit_ms, bool keep, job_cb cb)
{
	job_init(j, job, OC_STORE_UNAVAILABLE, cb);
	job->keep = keep;
	if (enqueue(j, job))
		timer_start(job->limit, limit_ms);
	else
		answer(j, job, OC_OVERLOADED);
}

bool jobs_settle(struct jobs *j, int64_t limit_ms)
{
	int64_t end = clock_ms() + limit_ms;

	while (!j->threadless && !atomic_load(&j->settled) && clock_ms() < end)
		usleep(SETTLE_LOOK_US);
	return j->threadless || atomic_load(&j->settled);
}

int64_t jobs_busy_ms(struct jobs *j)
{
	int64_t since = atomic_load(&j->busy_since);

	return since ? clock_ms() - since : 0;
}

static bool thread_start(struct jobs *j)
{
	sigset_t all, before;
	bool ok;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the loop */
	ok = pthread_create(&j->thread, NULL, thread_main, j) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ok;
}

struct jobs *jobs_new(struct loop *l, const struct jobs_options *o)
{
	struct jobs *j = mem_alloc(sizeof(*j));
	pthread_condattr_t monotonic;

	j->o = *o;
	j->loop = l;
	TAILQ_INIT(&j->queue);
	TAILQ_INIT(&j->done);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&j->wake, &monotonic);
	pthread_cond_init(&j->gone, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&j->lock, NULL);
	j->threadless = j->ended = !o->run && !o->idle;
	j->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (j->fd < 0 || (!j->threadless && !thread_start(j))) {
		jobs_destroy(j);
		return NULL;
	}
	event_assign(&j->ev, loop_base(l), j->fd, EV_READ | EV_PERSIST, on_done, j);
	event_add(&j->ev, NULL);
	return j;
}

/* Takes what still waits, and shows what the thread is at: that stays the loop's to drop until
 * abandoned is set. */
static size_t stop(struct jobs *j, int64_t grace_ms, struct job_list *waiting, struct job **running)
{
	int64_t end = clock_ms() + grace_ms;
	struct timespec t = {.tv_sec = end / 1000, .tv_nsec = end % 1000 * 1000000};
	bool in_time = true;
	size_t n;

	pthread_mutex_lock(&j->lock);
	j->stop = true;
	pthread_cond_signal(&j->wake);
	while (!j->ended && in_time)
		in_time = pthread_cond_timedwait(&j->gone, &j->lock, &t) == 0;
	TAILQ_CONCAT(waiting, &j->queue, link);
	n = j->batch_len;
	memcpy(running, j->batch, n * sizeof(*running));
	pthread_mutex_unlock(&j->lock);
	return n;
}

static void let_go(struct jobs *j)
{
	pthread_t thread = j->thread;
	bool ended;

	pthread_mutex_lock(&j->lock);
	tell_list(j, &j->done, NULL); /* they were told: only to be dropped */
	ended = j->ended;
	j->abandoned = !ended;
	pthread_mutex_unlock(&j->lock);
	if (ended) {
		if (!j->threadless)
			pthread_join(thread, NULL);
		jobs_destroy(j);
	} else {
		pthread_detach(thread);
	}
}

void jobs_free(struct jobs *j, int64_t grace_ms)
{
	static const enum outcome not_done = OC_STORE_UNAVAILABLE;
	struct job_list waiting = TAILQ_HEAD_INITIALIZER(waiting);
	struct job *running[JOBS_BATCH];
	size_t n;

	if (!j)
		return;
	n = stop(j, grace_ms, &waiting, running);
	event_del(&j->ev);
	for (size_t i = 0; i < n; i++)
		/* before tell_done, which would drop those that have come back by now */
		tell(running[i], not_done);
	tell_done(j);
	tell_list(j, &waiting, &not_done);
	let_go(j);
}
