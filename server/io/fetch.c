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

struct list {
	struct transfer *head, *tail;
	int              len;
};

/* Scheme, host and port. As many as the configuration names. */
struct origin {
	struct origin *next;
	char          *url;
	struct socks_group group;   /* its connections */
	int            unsent;      /* active transfers that have no connection yet */
	/* a connection failed: the name may have another address by now */
	bool           look_up;
	struct list    waiting;     /* who asked first is first */
};

struct transfer {
	struct fetch    *f;
	struct origin   *origin;
	struct transfer *next, *prev; /* in one of fetch's lists */
	struct easy *easy;          /* NULL unless active */
	fetch_cb     cb;
	void        *ctx;
	char        *method;
	char        *target;        /* the path and what follows it: secret */
	char        *body;          /* NULL = none */
	size_t       body_len;
	struct curl_slist *headers;
	int64_t      since_us, started_us, deadline_ms;
	struct timer *wait;         /* its deadline while queued */
	int          sendings;      /* how often curl was about to send it */
	bool         probe, too_large;

	/* the end */
	enum fetch_result result;
	int          status;
	char        *content_type;
	struct buf   reply;
	char         error[160];
};

struct fetch {
	struct loop *loop;
	CURLM       *multi;
	struct easies *easies;
	struct timer *timer;        /* curl's */
	struct socks *socks;
	struct origin *origins;
	struct list  active, done;
	struct list  unbegun;       /* ended before they began: told on the next turn */
	bool         deferred;      /* on_unbegun will come */
	int          probes;        /* of those that are active */
	int          waiting;       /* in all origins' lists */
	int          max_connections, max_queue;
	size_t       max_reply;
	int          depth;         /* our callbacks under way: memory must outlive them */
	bool         freed;
};

static void list_add(struct list *l, struct transfer *t)
{
	t->next = NULL;
	t->prev = l->tail;
	*(l->tail ? &l->tail->next : &l->head) = t;
	l->tail = t;
	l->len++;
}

/* In the order of since_us. Almost always at the end. */
static void list_add_in_turn(struct list *l, struct transfer *t)
{
	struct transfer *at = l->tail;

	while (at && at->since_us > t->since_us)
		at = at->prev;
	t->prev = at;
	t->next = at ? at->next : l->head;
	*(at ? &at->next : &l->head) = t;
	*(t->next ? &t->next->prev : &l->tail) = t;
	l->len++;
}

static void list_remove(struct list *l, struct transfer *t)
{
	*(t->prev ? &t->prev->next : &l->head) = t->next;
	*(t->next ? &t->next->prev : &l->tail) = t->prev;
	t->next = t->prev = NULL;
	l->len--;
}

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

static void transfer_free(struct transfer *t)
{
	timer_free(t->wait);
	free(t->method);
	mem_free_secret(t->target);
	if (t->body)
		mem_wipe(t->body, t->body_len);
	free(t->body);
	curl_slist_free_all(t->headers);
	free(t->content_type);
	buf_free(&t->reply);
	free(t);
}

static void tell(struct transfer *t)
{
	struct fetch_reply reply = {
		.result = t->result,
		.not_sent = t->sendings == 0,
		.status = t->status,
		.content_type = t->content_type ? t->content_type : "",
		.body = t->reply.data ? t->reply.data : "",
		.body_len = t->reply.len,
		.error = t->error,
		.total_us = clock_us() - t->started_us,
	};

	t->cb(t->ctx, &reply);
	transfer_free(t);
}

/* The first n of a list. What an owner adds meanwhile comes later; what fetch_free takes away is
 * gone. */
static void tell_some(struct list *l, int n)
{
	struct transfer *t;

	while (n-- > 0 && (t = l->head)) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the list holds none that was told */
		list_remove(l, t);
		tell(t);
	}
}

static void fail(struct transfer *t, enum fetch_result result, const char *error)
{
	t->result = result;
	snprintf(t->error, sizeof(t->error), "%s", error);
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
	fail(t, result, error);
	list_add(&f->unbegun, t);
	tell_unbegun_later(f);
}

static void enqueue(struct fetch *f, struct transfer *t)
{
	list_add_in_turn(&t->origin->waiting, t);
	f->waiting++;
}

static void dequeue(struct fetch *f, struct transfer *t)
{
	list_remove(&t->origin->waiting, t);
	f->waiting--;
	timer_stop(t->wait);
}

static void leave_active(struct fetch *f, struct transfer *t)
{
	curl_multi_remove_handle(f->multi, t->easy->curl);
	easy_give(f->easies, t->easy);
	t->easy = NULL;
	list_remove(&f->active, t);
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
	list_add(&f->active, t);
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
			fail(t, t->result, "the kept connection died when the request was sent");
		t->origin->look_up |= t->sendings == 0;
	}
	leave_active(f, t);
	list_add(&f->done, t);
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
	fail(t, FETCH_REFUSED, "no connection became free in time");
	tell(t);
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
		fail(t, FETCH_CLOSED, "shutting down");
		buf_free(&t->reply);
		leave_active(f, t);
		list_add(&f->done, t);
	}
	for (struct origin *o = f->origins; o; o = o->next)
		while ((t = o->waiting.head)) {
			dequeue(f, t);
			fail(t, FETCH_CLOSED, "shutting down");
			list_add(&f->done, t);
		}
	while (f->done.head || f->unbegun.head) {
		tell_some(&f->done, f->done.len);
		tell_some(&f->unbegun, f->unbegun.len);
	}
	leave(f);
}

static struct curl_slist *add_header(struct curl_slist *list, const char *line)
{
	list = curl_slist_append(list, line);
	if (!list)
		abort(); /* out of memory */
	return list;
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

/* curl takes a URL apart, copies and prints it many times over; the long part with the secrets in
 * it is kept out of that. */
static void split_url(struct transfer *t, const char *url)
{
	const char *host = strstr(url, "://"), *path;

	if (!strncmp(url, "unix:", 5)) { /* the socket's path holds slashes */
		path = url + 5 + strcspn(url + 5, ":");
		t->origin = origin_at(t->f, url, (size_t)(path - url));
		t->target = mem_strdup(*path ? path + 1 : "/");
		return;
	}
	host = host ? host + 3 : url;
	path = host + strcspn(host, "/?");
	t->origin = origin_at(t->f, url, (size_t)(path - url));
	t->target = mem_strdup(*path ? path : "/");
}

static struct transfer *transfer_new(
	struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	struct transfer *t = mem_alloc(sizeof(*t));
	struct buf line = {0};

	t->f = f;
	t->cb = cb;
	t->ctx = ctx;
	t->method = mem_strdup(rq->method);
	split_url(t, rq->url);
	t->started_us = clock_us();
	t->since_us = rq->since_us ? rq->since_us : t->started_us;
	t->deadline_ms = t->started_us / 1000 + rq->timeout_ms;
	t->probe = rq->probe;
	for (const char *const *h = rq->headers; h && *h; h++)
		t->headers = add_header(t->headers, *h);
	if (!rq->body)
		return t;
	t->body = mem_alloc(rq->body_len + 1);
	memcpy(t->body, rq->body, rq->body_len);
	t->body_len = rq->body_len;
	t->headers = add_header(t->headers, "Expect:"); /* a round trip for nothing */
	if (rq->content_type) {
		buf_printf(&line, "Content-Type: %s", rq->content_type);
		t->headers = add_header(t->headers, line.data);
		buf_free(&line);
	}
	return t;
}

void fetch_start(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	struct transfer *t = transfer_new(f, rq, cb, ctx);

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
