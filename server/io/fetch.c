/* curl asks for sockets and one timer, the loop tells it when they stir, and finished transfers are first collected, then
 * told to their owners: no owner ever runs inside curl. Two rules guard WeChat's single-use codes: a request leaves at most
 * once (curl would repeat it when a kept connection turns out dead), and we know whether it left. Both hang on the
 * function curl calls before each sending. */
#include "io/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>
#include <openssl/x509_vfy.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "io/socks.h"

#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"

enum { READ_BYTES = 1024, KEEPALIVE_IDLE_S = 30 }; /* most answers are shorter, and of a piece that size malloc has one at hand */

/* Scheme, host and port. As many as the configuration names. */
struct origin {
	struct origin *next;
	struct fetch  *f;
	char          *url;
	int            idle;        /* kept connections that nobody uses */
};

struct transfer {
	struct fetch    *f;
	struct origin   *origin;
	struct transfer *next, *prev; /* in one of fetch's lists */
	CURL        *easy;          /* NULL unless active */
	fetch_cb     cb;
	void        *ctx;
	char        *method;
	char        *target;        /* the path and what follows it: secret */
	char        *body;          /* NULL = none */
	size_t       body_len;
	struct curl_slist *headers;
	int64_t      started_us, deadline_ms;
	struct timer *wait;         /* its deadline while queued */
	int          sendings;      /* how often curl was about to send it */
	bool         too_large;

	/* the end */
	enum fetch_result result;
	int          status;
	char        *content_type;
	struct buf   reply;
	char         error[160];
};

struct list {
	struct transfer *head, *tail;
	int              len;
};

struct fetch {
	struct loop *loop;
	CURLM       *multi;
	CURLSH      *share;         /* TLS sessions */
	struct timer *timer;        /* curl's */
	struct timer *refuse;
	struct socks *socks;
	struct origin *origins;
	struct list  active, queue, done, refused;
	CURL       **pool;          /* idle easies, as many as max_connections */
	int          pool_len;
	int          max_connections, max_queue;
	long         connect_timeout_ms;
	size_t       max_reply;
	char        *ca_file;       /* NULL = curl's own choice */
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
	struct transfer *t = arg;

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
	struct transfer *t = arg;

	(void)ip;
	(void)local_ip;
	(void)port;
	(void)local_port;
	return t->sendings++ == 0 ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
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

/* The first n of a list. What an owner adds meanwhile comes later; what fetch_free takes away is gone. */
static void tell_some(struct list *l, int n)
{
	struct transfer *t;

	while (n-- > 0 && (t = l->head)) {
		list_remove(l, t); /* NOLINT(clang-analyzer-unix.Malloc): the list holds none that was told */
		tell(t);
	}
}

static void fail(struct transfer *t, enum fetch_result result, const char *error)
{
	t->result = result;
	snprintf(t->error, sizeof(t->error), "%s", error);
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct origin *o = arg;

	(void)purpose;
	return socks_open(o->f->socks, a, &o->idle);
}

static int close_socket(void *arg, curl_socket_t fd)
{
	return socks_close(arg, fd);
}

static void set_common(struct fetch *f, CURL *e)
{
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_PROXY, ""); /* not what the environment says */
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)READ_BYTES);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, f->connect_timeout_ms);
	curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)f->max_reply);
	curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)(SOCKS_IDLE_MS / 1000 + 1));
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, f->socks);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_IDLE_S);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (f->ca_file) {
		curl_easy_setopt(e, CURLOPT_CAINFO, f->ca_file);
		/* With a directory as well, curl reads the whole bundle anew for each connection: 20 ms of the loop's. */
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	}
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* else a silent name server holds the loop */
#endif
}

static void set_request(struct transfer *t, CURL *e)
{
	bool get = strcmp(t->method, "GET") == 0, head = strcmp(t->method, "HEAD") == 0;

	curl_easy_setopt(e, CURLOPT_URL, t->origin->url);
	curl_easy_setopt(e, CURLOPT_REQUEST_TARGET, t->target);
	if (t->body || (!get && !head)) {
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, t->body ? t->body : "");
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body_len);
		if (strcmp(t->method, "POST") != 0)
			curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, t->method);
	} else if (head) {
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	}
	if (t->headers)
		curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, t->origin);
	curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_sending);
	curl_easy_setopt(e, CURLOPT_PREREQDATA, t);
	curl_easy_setopt(e, CURLOPT_PRIVATE, t);
}

static CURL *easy_new(struct fetch *f)
{
	CURL *e = curl_easy_init();

	if (!e)
		abort(); /* out of memory */
	curl_easy_setopt(e, CURLOPT_SHARE, f->share);
	return e;
}

static void easy_release(struct fetch *f, struct transfer *t)
{
	curl_multi_remove_handle(f->multi, t->easy);
	curl_easy_reset(t->easy); /* forgets the URL and its secrets; keeps the share */
	f->pool[f->pool_len++] = t->easy;
	t->easy = NULL;
}

static void refuse(struct fetch *f, struct transfer *t, enum fetch_result result, const char *error)
{
	fail(t, result, error);
	list_add(&f->refused, t);
	if (!f->freed)
		timer_start(f->refuse, 0);
}

static void launch(struct fetch *f, struct transfer *t)
{
	int64_t left_ms = t->deadline_ms - clock_ms();

	t->easy = f->pool_len ? f->pool[--f->pool_len] : easy_new(f);
	set_common(f, t->easy);
	set_request(t, t->easy);
	curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)(left_ms > 0 ? left_ms : 1));
	list_add(&f->active, t);
	if (curl_multi_add_handle(f->multi, t->easy) == CURLM_OK) /* only arms curl's timer */
		return;
	easy_release(f, t);
	list_remove(&f->active, t);
	refuse(f, t, FETCH_NOT_SENT, "curl does not take the request");
}

static void launch_waiting(struct fetch *f)
{
	struct transfer *t;

	while (!f->freed && f->active.len < f->max_connections && (t = f->queue.head)) {
		list_remove(&f->queue, t);
		timer_stop(t->wait);
		launch(f, t);
	}
}

/* --- the end of a transfer --- */

/* curl's words and OpenSSL's; never curl's error buffer, which may quote the URL. */
static void describe(struct transfer *t, CURLcode code)
{
	long verify = 0;

	snprintf(t->error, sizeof(t->error), "%s",
		t->sendings > 1 ? "the kept connection died when the request was sent" : curl_easy_strerror(code));
	if (code != CURLE_PEER_FAILED_VERIFICATION)
		return;
	curl_easy_getinfo(t->easy, CURLINFO_SSL_VERIFYRESULT, &verify);
	if (verify == X509_V_ERR_UNSPECIFIED) /* curl's own start value: OpenSSL was content, the name was not */
		snprintf(t->error, sizeof(t->error), "%s: the certificate is for another name", curl_easy_strerror(code));
	else if (verify)
		snprintf(t->error, sizeof(t->error), "%s: %s", curl_easy_strerror(code), X509_verify_cert_error_string(verify));
}

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

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
	t->status = (int)status;
	t->result = judge(t, code);
	if (t->result == FETCH_DONE) {
		t->content_type = mem_strdup(type);
	} else {
		t->status = 0; /* half an answer is none */
		buf_free(&t->reply);
		describe(t, code);
	}
	easy_release(f, t);
	list_remove(&f->active, t);
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
	struct transfer *t;
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(f->multi, &left))) {
		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
		finish(f, t, m->data.result); /* m dies here */
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

static void on_refuse(void *ctx)
{
	struct fetch *f = ctx;

	enter(f);
	tell_some(&f->refused, f->refused.len);
	leave(f);
}

static void on_wait_over(void *ctx)
{
	struct transfer *t = ctx;
	struct fetch *f = t->f;

	enter(f);
	list_remove(&f->queue, t);
	fail(t, FETCH_TIMED_OUT, "no connection became free in time");
	tell(t);
	leave(f);
}

static void choose_ca(struct fetch *f, const char *ca_file)
{
	if (ca_file && ca_file[0])
		f->ca_file = mem_strdup(ca_file);
	else if (access(SYSTEM_CA_FILE, R_OK) == 0)
		f->ca_file = mem_strdup(SYSTEM_CA_FILE);
}

struct fetch *fetch_new(struct loop *l, const struct fetch_options *o)
{
	struct fetch *f = mem_alloc(sizeof(*f));

	f->loop = l;
	f->max_connections = o->max_connections > 0 ? o->max_connections : 1;
	f->max_queue = o->max_queue;
	f->connect_timeout_ms = o->connect_timeout_ms > 0 ? o->connect_timeout_ms : 1000;
	f->max_reply = o->max_reply;
	choose_ca(f, o->ca_file);
	f->pool = mem_alloc((size_t)f->max_connections * sizeof(*f->pool));
	f->timer = timer_new(l, on_timer, f);
	f->refuse = timer_new(l, on_refuse, f);
	f->socks = socks_new(l, on_socket, f);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	f->multi = curl_multi_init();
	f->share = curl_share_init();
	if (!f->multi || !f->share)
		abort(); /* out of memory */
	curl_share_setopt(f->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)f->max_connections);
	curl_multi_setopt(f->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)f->max_connections);
	return f;
}

static void fetch_destroy(struct fetch *f)
{
	struct origin *o;

	while (f->pool_len)
		curl_easy_cleanup(f->pool[--f->pool_len]);
	curl_multi_cleanup(f->multi);
	socks_free(f->socks);
	while ((o = f->origins)) {
		f->origins = o->next;
		free(o->url);
		free(o);
	}
	curl_share_cleanup(f->share);
	curl_global_cleanup();
	timer_free(f->timer);
	timer_free(f->refuse);
	free(f->pool);
	free(f->ca_file);
	free(f);
}

void fetch_free(struct fetch *f)
{
	struct transfer *t;

	if (!f || f->freed)
		return;
	f->freed = true;
	enter(f);
	timer_stop(f->refuse);
	while ((t = f->active.head)) {
		fail(t, FETCH_NO_ANSWER, "shutting down");
		buf_free(&t->reply);
		easy_release(f, t);
		list_remove(&f->active, t);
		list_add(&f->done, t);
	}
	while ((t = f->queue.head)) {
		fail(t, FETCH_NO_ANSWER, "shutting down");
		list_remove(&f->queue, t);
		list_add(&f->done, t);
	}
	while (f->done.head || f->refused.head) {
		tell_some(&f->done, f->done.len);
		tell_some(&f->refused, f->refused.len);
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

static struct origin *origin_at(struct fetch *f, const char *url, size_t len)
{
	struct origin *o = f->origins;

	while (o && (strncmp(o->url, url, len) != 0 || o->url[len]))
		o = o->next;
	if (o)
		return o;
	o = mem_alloc(sizeof(*o));
	*o = (struct origin){.next = f->origins, .f = f, .url = mem_strndup(url, len)};
	f->origins = o;
	return o;
}

/* curl takes a URL apart, copies and prints it many times over; the long part with the secrets in it is kept out of that. */
static void split_url(struct transfer *t, const char *url)
{
	const char *host = strstr(url, "://"), *path;

	host = host ? host + 3 : url;
	path = host + strcspn(host, "/?");
	t->origin = origin_at(t->f, url, (size_t)(path - url));
	t->target = mem_strdup(*path ? path : "/");
}

static struct transfer *transfer_new(struct fetch *f, const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	struct transfer *t = mem_alloc(sizeof(*t));
	struct buf line = {0};

	t->f = f;
	t->cb = cb;
	t->ctx = ctx;
	t->method = mem_strdup(rq->method);
	split_url(t, rq->url);
	t->started_us = clock_us();
	t->deadline_ms = clock_ms() + rq->timeout_ms;
	if (!rq->body)
		return t;
	t->body = mem_alloc(rq->body_len + 1);
	memcpy(t->body, rq->body, rq->body_len);
	t->body_len = rq->body_len;
	t->headers = add_header(NULL, "Expect:"); /* a round trip for nothing */
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

	if (!f->freed && f->active.len < f->max_connections && f->queue.len == 0) {
		launch(f, t);
	} else if (!f->freed && f->queue.len < f->max_queue) {
		list_add(&f->queue, t);
		t->wait = timer_new(f->loop, on_wait_over, t);
		timer_start(t->wait, rq->timeout_ms);
	} else {
		refuse(f, t, FETCH_REFUSED, "too many requests are waiting");
	}
}
