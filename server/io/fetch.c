/* curl asks for sockets and one timer, the loop tells it when they stir, and finished transfers are
 * first collected, then told to their owners: no owner ever runs inside curl. Two rules guard
 * WeChat's single-use codes: a request leaves at most once (curl would repeat it when a kept
 * connection turns out dead), and we know whether it left. Both hang on the function curl calls
 * before each sending. */
#include "io/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "io/easy.h"
#include "io/socks.h"
#include "io/transfer.h"

/* Scheme, host and port. As many as the configuration names. */
struct origin {
	struct origin *next;
	char          *url;
	struct socks_group group;   /* its connections */
	int            unsent;      /* active transfers that have no connection yet */
	/* a connection failed: the name may have another address by now */
	bool           look_up;
	struct transfers waiting;   /* who asked first is first */
};

struct fetch {
	struct loop *loop;
	CURLM       *multi;
	struct easies *easies;
	struct timer *timer;        /* curl's */
	struct socks *socks;
	struct origin *origins;
	struct transfers active, done;
	struct transfers unbegun;   /* ended before they began: told on the next turn */
	bool         deferred;      /* on_unbegun will come */
	int          probes;        /* of those that are active */
	int          waiting;       /* in all origins' lists */
	int          max_connections, max_queue;
	size_t       max_reply;
	int          depth;         /* our callbacks under way: memory must outlive them */
	bool         freed;
};

/* --- curl's callbacks for a transfer --- */

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct transfer *t = ((struct easy *)arg)->ctx;

	n *= size;
	if (n > t->f->max_reply - t->reply.len) {
		t->too_large = true; /* MAXFILESIZE sees no chunked body */
		return 0;
	}
	buf_add(&t->reply, p, n);
	return n;
}

static int on_sending(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct transfer *t = ((struct easy *)arg)->ctx;

	(void)ip;
	(void)local_ip;
	(void)port;
	(void)local_port;
	if (t->sendings++ > 0)
		return CURL_PREREQFUNC_ABORT;
	t->origin->unsent--;
	easy_connected(t->f->easies, t->easy);
	return CURL_PREREQFUNC_OK;
}

/* --- the life of a transfer --- */

/* The first n of a list. What an owner adds meanwhile comes later; what fetch_free takes away is
 * gone. */
static void tell_some(struct transfers *l, int n)
{
	struct transfer *t;

	while (n-- > 0 && (t = l->head)) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the list holds none that was told */
		transfers_remove(l, t);
		transfer_tell(t);
	}
}

static void on_unbegun(void *ctx);

static void tell_unbegun_later(struct fetch *f)
{
	if (f->deferred || f->freed)
		return;
	f->deferred = true;
	loop_defer(f->loop, on_unbegun, f);
}

/* Ends one that has not begun. */
static void put_off(
	struct fetch *f, struct transfer *t, enum fetch_result result, const char *error)
{
	transfer_fail(t, result, error);
	transfers_add(&f->unbegun, t);
	tell_unbegun_later(f);
}

static void enqueue(struct fetch *f, struct transfer *t)
{
	transfers_add_in_turn(&t->origin->waiting, t);
	f->waiting++;
}

static void dequeue(struct fetch *f, struct transfer *t)
{
	transfers_remove(&t->origin->waiting, t);
	f->waiting--;
	timer_stop(t->wait);
}

static void leave_active(struct fetch *f, struct transfer *t)
{
	curl_multi_remove_handle(f->multi, t->easy->curl);
	easy_give(f->easies, t->easy);
	t->easy = NULL;
	transfers_remove(&f->active, t);
	f->probes -= t->probe;
	if (t->sendings == 0)
		t->origin->unsent--;
}

static void launch(struct fetch *f, struct transfer *t)
{
	t->easy = easy_take(f->easies,
		&(struct easy_request){
			.method = t->method,
			.origin = t->origin->url,
			.target = t->target,
			.body = t->body,
			.body_len = t->body_len,
			.headers = t->headers,
			.group = &t->origin->group,
			.probe = t->probe,
			.look_up = t->probe || t->origin->look_up,
			.ctx = t,
		},
		t->deadline_ms - clock_ms());
	t->origin->look_up = false;
	t->origin->unsent++;
	f->probes += t->probe;
	transfers_add(&f->active, t);
	if (curl_multi_add_handle(f->multi, t->easy->curl) == CURLM_OK) /* only arms curl's timer */
		return;
	leave_active(f, t);
	put_off(f, t, FETCH_NOT_SENT, "curl does not take the request");
}

/* Most find a kept connection; what does not makes one. */
static bool has_room(const struct origin *o)
{
	return o->unsent < o->group.idle + FETCH_CONNECTING;
}

static bool is_full(const struct fetch *f)
{
	return f->active.len - f->probes >= f->max_connections;
}

/* The first in line of those that may begin. */
static struct transfer *next_waiting(const struct fetch *f)
{
	struct transfer *first = NULL;

	for (const struct origin *o = f->origins; o; o = o->next)
		if (o->waiting.head && has_room(o) &&
			(!first || o->waiting.head->since_us < first->since_us))
			first = o->waiting.head;
	return first;
}

static void launch_waiting(struct fetch *f)
{
	struct transfer *t;

	while (f->waiting && !f->freed && !is_full(f) && (t = next_waiting(f))) {
		dequeue(f, t);
		launch(f, t);
	}
}

/* --- the end of a transfer --- */

static enum fetch_result judge(const struct transfer *t, CURLcode code)
{
	if (t->too_large || code == CURLE_FILESIZE_EXCEEDED)
		return FETCH_TOO_LARGE;
	if (code == CURLE_OK)
		return t->status ? FETCH_DONE : FETCH_NO_ANSWER;
	/* The connect timeout has the same number, but leaves time for another try. */
	if (code == CURLE_OPERATION_TIMEDOUT && (t->sendings || clock_ms() + 5 >= t->deadline_ms))
		return FETCH_TIMED_OUT;
	return t->sendings ? FETCH_NO_ANSWER : FETCH_NOT_SENT;
}

static void finish(struct fetch *f, struct transfer *t, CURLcode code)
{
	char *type = NULL;
	long status = 0;

	curl_easy_getinfo(t->easy->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy->curl, CURLINFO_CONTENT_TYPE, &type);
	t->status = (int)status;
	t->result = judge(t, code);
	if (t->result == FETCH_DONE) {
		t->content_type = mem_strdup(type);
	} else {
		t->status = 0; /* half an answer is none */
		buf_free(&t->reply);
		easy_describe(t->easy->curl, code, t->sendings > 0, t->error, sizeof(t->error));
		if (t->sendings > 1)
			transfer_fail(t, t->result,
				"the kept connection died when the request was sent");
		t->origin->look_up |= t->sendings == 0;
	}
	leave_active(f, t);
	transfers_add(&f->done, t);
}

static void enter(struct fetch *f)
{
	f->depth++;
}

static void fetch_destroy(struct fetch *f);

static void leave(struct fetch *f)
{
	if (--f->depth == 0 && f->freed)
		fetch_destroy(f);
}

/* What curl finished: freed places go to who waits, then the owners are told. */
static void drain(struct fetch *f)
{
	struct easy *e;
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(f->multi, &left))) {
		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &e);
		finish(f, e->ctx, m->data.result); /* m dies here */
	}
	launch_waiting(f);
	tell_some(&f->done, f->done.len);
}

/* --- curl and the loop --- */

static void on_socket(void *ctx, curl_socket_t fd, int events)
{
	struct fetch *f = ctx;
	int running;

	enter(f);
	curl_multi_socket_action(f->multi, fd, events, &running);
	drain(f);
	leave(f);
}

static void on_timer(void *ctx)
{
	on_socket(ctx, CURL_SOCKET_TIMEOUT, 0);
}

static int set_socket(CURL *e, curl_socket_t fd, int poll, void *arg, void *assigned)
{
	struct fetch *f = arg;

	(void)e; /* may be curl's own */
	(void)assigned;
	socks_watch(f->socks, fd, poll);
	return 0;
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct fetch *f = arg;

	(void)multi;
	if (ms < 0)
		timer_stop(f->timer);
	else
		timer_start(f->timer, ms);
	return 0;
}

/* --- the object --- */

static void on_unbegun(void *ctx)
{
	struct fetch *f = ctx;

	enter(f);
	f->deferred = false;
	tell_some(&f->unbegun, f->unbegun.len);
	if (f->unbegun.head)
		tell_unbegun_later(f);
	leave(f);
}

static void on_wait_over(void *ctx)
{
	struct transfer *t = ctx;
	struct fetch *f = t->f;

	enter(f);
	dequeue(f, t);
	transfer_fail(t, FETCH_REFUSED, "no connection became free in time");
	transfer_tell(t);
	leave(f);
}

struct fetch *fetch_new(struct loop *l, const struct fetch_options *o)
{
	struct fetch *f = mem_alloc(sizeof(*f));

	f->loop = l;
	f->max_connections = o->max_connections > 0 ? o->max_connections : 1;
	f->max_queue = o->max_queue;
	f->max_reply = o->max_reply;
	f->timer = timer_new(l, on_timer, f);
	f->socks = socks_new(l, on_socket, f);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	f->easies = easies_new(o, f->socks, on_body, on_sending);
	f->multi = curl_multi_init();
	if (!f->multi)
		abort(); /* out of memory */
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)f->max_connections);
	return f;
}

static void fetch_destroy(struct fetch *f)
{
	struct origin *o;

	curl_multi_cleanup(f->multi);
	easies_free(f->easies);
	socks_free(f->socks);
	while ((o = f->origins)) {
		f->origins = o->next;
		free(o->url);
		free(o);
	}
	curl_global_cleanup();
	timer_free(f->timer);
	loop_undefer(f->loop, on_unbegun, f);
	free(f);
}

void fetch_free(struct fetch *f)
{
	struct transfer *t;

	if (!f || f->freed)
		return;
	f->freed = true;
	enter(f);
	while ((t = f->active.head)) {
		transfer_fail(t, FETCH_CLOSED, "shutting down");
		buf_free(&t->reply);
		leave_active(f, t);
		transfers_add(&f->done, t);
	}
	for (struct origin *o = f->origins; o; o = o->next)
		while ((t = o->waiting.head)) {
			dequeue(f, t);
			transfer_fail(t, FETCH_CLOSED, "shutting down");
			transfers_add(&f->done, t);
		}
	while (f->done.head || f->unbegun.head) {
		tell_some(&f->done, f->done.len);
		tell_some(&f->unbegun, f->unbegun.len);
	}
	leave(f);
}

static struct origin *origin_find(struct fetch *f, const char *url, size_t len)
{
	struct origin *o = f->origins;

	while (o && (strncmp(o->url, url, len) != 0 || o->url[len]))
		o = o->next;
	return o;
}

static struct origin *origin_at(struct fetch *f, const char *url, size_t len)
{
	struct origin *o = origin_find(f, url, len);

	if (o)
		return o;
	o = mem_alloc(sizeof(*o));
	*o = (struct origin){
		.next = f->origins, .url = mem_strndup(url, len), .group = {.socks = f->socks}};
	f->origins = o;
	return o;
}

void fetch_start(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	struct transfer *t = transfer_new(rq, cb, ctx);

	t->f = f;
	t->origin = origin_at(f, rq->url, transfer_origin_len(rq->url));

	if (f->freed) {
		put_off(f, t, FETCH_CLOSED, "shutting down");
	} else if (rq->timeout_ms <= 0) {
		put_off(f, t, FETCH_REFUSED, "no time is left");
	} else if (t->probe || (!is_full(f) && has_room(t->origin) && !t->origin->waiting.head)) {
		launch(f, t);
	} else if (f->waiting < f->max_queue) {
		enqueue(f, t);
		t->wait = timer_new(f->loop, on_wait_over, t);
		timer_start(t->wait, rq->timeout_ms * 2 / 3);
	} else {
		put_off(f, t, FETCH_REFUSED, "too many requests are waiting");
	}
}

void fetch_give_up(struct fetch *f, const char *origin)
{
	struct origin *o = origin_find(f, origin, strlen(origin));
	struct transfer *t;

	while (o && (t = o->waiting.head)) {
		dequeue(f, t);
		put_off(f, t, FETCH_NOT_SENT, "the host does not answer");
	}
}
