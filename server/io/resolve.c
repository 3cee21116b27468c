/* A lookup can neither be hurried nor stopped, so the loop and the thread share the question and
 * whoever lets go last frees it: who cancels simply walks away. */
#include "io/resolve.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "common/mem.h"

struct question {
	atomic_int       refs; /* the loop's and the thread's */
	int              done; /* eventfd: wakes the loop */
	atomic_bool      answered; /* set after list and error: an eventfd orders no memory */
	char            *host;
	char             port[8];
	struct addrinfo *list;
	int              error; /* getaddrinfo's */
};

struct resolve {
	struct loop     *loop;
	struct event     ev;
	struct question *q;
	resolve_cb       cb;
	void            *ctx;
};

static int lookup(const char *host, const char *port, int flags, struct addrinfo **list)
{
	const struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};

	*list = NULL;
	return getaddrinfo(host, port, &hints, list);
}

static void question_release(struct question *q)
{
	if (atomic_fetch_sub(&q->refs, 1) != 1)
		return;
	if (q->list)
		freeaddrinfo(q->list);
	if (q->done >= 0)
		close(q->done);
	free(q->host);
	free(q);
}

static void *thread_main(void *arg)
{
	struct question *q = arg;

	q->error = lookup(q->host, q->port, AI_ADDRCONFIG, &q->list);
	/* A machine with nothing but loopback has no configured address: ask again without that
	 * filter. */
	if (q->error)
		q->error = lookup(q->host, q->port, 0, &q->list);
	atomic_store(&q->answered, true);
	eventfd_write(q->done, 1);
	question_release(q);
	return NULL;
}

static bool thread_start(struct question *q)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	bool ok;

	if (pthread_attr_init(&attr) != 0)
		return false;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the loop */
	ok = pthread_create(&thread, &attr, thread_main, q) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return ok;
}

static void tell(struct resolve *r, const struct addrinfo *list, int error)
{
	struct resolve gone = *r;

	event_del(&r->ev);
	free(r);
	gone.cb(gone.ctx, error ? NULL : list, error ? gai_strerror(error) : "");
	question_release(gone.q);
}

static void on_done(evutil_socket_t fd, short what, void *arg)
{
	struct resolve *r = arg;

	(void)fd;
	(void)what;
	if (atomic_load(&r->q->answered))
		tell(r, r->q->list, r->q->error);
}

/* Out of descriptors or threads: this is said from the loop. */
static void on_no_thread(void *ctx)
{
	tell(ctx, NULL, EAI_AGAIN);
}

struct resolve *resolve_start(struct loop *l, const char *host, int port, resolve_cb cb, void *ctx)
{
	struct resolve *r = mem_alloc(sizeof(*r));
	struct question *q = mem_alloc(sizeof(*q));

	r->loop = l;
	r->q = q;
	r->cb = cb;
	r->ctx = ctx;
	atomic_init(&q->refs, 2);
	q->host = mem_strdup(host);
	snprintf(q->port, sizeof(q->port), "%d", port);
	q->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	event_assign(&r->ev, loop_base(l), q->done, EV_READ, on_done, r);
	if (q->done >= 0)
		event_add(&r->ev, NULL);
	if (q->done < 0 || !thread_start(q)) {
		question_release(q);
		loop_defer(l, on_no_thread, r);
	}
	return r;
}

void resolve_cancel(struct resolve *r)
{
	if (!r)
		return;
	event_del(&r->ev);
	loop_undefer(r->loop, on_no_thread, r);
	question_release(r->q);
	free(r);
}

struct addrinfo *resolve_numeric(const char *host, int port)
{
	struct addrinfo *list;
	char service[8];

	snprintf(service, sizeof(service), "%d", port);
	return lookup(host, service, AI_NUMERICHOST, &list) == 0 ? list : NULL;
}
