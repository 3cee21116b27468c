#include "io/transfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"

/* ---- what is asked ---- */

static bool is_unix(const char *url)
{
	return !strncmp(url, "unix:", 5);
}

size_t transfer_origin_len(const char *url)
{
	const char *host = strstr(url, "://");

	if (is_unix(url)) /* the socket's path holds slashes */
		return 5 + strcspn(url + 5, ":");
	host = host ? host + 3 : url;
	return (size_t)(host - url) + strcspn(host, "/?");
}

/* curl takes a URL apart, copies and prints it many times over; the long part with the secrets in
 * it is kept out of that. */
static char *target_of(const char *url)
{
	const char *path = url + transfer_origin_len(url);

	if (*path && is_unix(url))
		path++;
	return mem_strdup(*path ? path : "/");
}

static struct curl_slist *add_header(struct curl_slist *list, const char *line)
{
	list = curl_slist_append(list, line);
	if (!list)
		abort(); /* out of memory */
	return list;
}

static void set_body(struct transfer *t, const struct fetch_request *rq)
{
	struct buf line = {0};

	t->body = mem_alloc(rq->body_len + 1);
	memcpy(t->body, rq->body, rq->body_len);
	t->body_len = rq->body_len;
	t->headers = add_header(t->headers, "Expect:"); /* a round trip for nothing */
	if (!rq->content_type)
		return;
	buf_printf(&line, "Content-Type: %s", rq->content_type);
	t->headers = add_header(t->headers, line.data);
	buf_free(&line);
}

struct transfer *transfer_new(const struct fetch_request *rq, fetch_cb cb, void *ctx)
{
	struct transfer *t = mem_alloc(sizeof(*t));

	t->cb = cb;
	t->ctx = ctx;
	t->method = mem_strdup(rq->method);
	t->target = target_of(rq->url);
	t->started_us = clock_us();
	t->since_us = rq->since_us ? rq->since_us : t->started_us;
	t->deadline_ms = t->started_us / 1000 + rq->timeout_ms;
	t->probe = rq->probe;
	for (const char *const *h = rq->headers; h && *h; h++)
		t->headers = add_header(t->headers, *h);
	if (rq->body)
		set_body(t, rq);
	return t;
}

/* ---- what came of it ---- */

void transfer_fail(struct transfer *t, enum fetch_result result, const char *error)
{
	t->result = result;
	snprintf(t->error, sizeof(t->error), "%s", error);
}

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

void transfer_tell(struct transfer *t)
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

/* ---- lists ---- */

void transfers_add(struct transfers *l, struct transfer *t)
{
	t->next = NULL;
	t->prev = l->tail;
	*(l->tail ? &l->tail->next : &l->head) = t;
	l->tail = t;
	l->len++;
}

void transfers_add_in_turn(struct transfers *l, struct transfer *t)
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

void transfers_remove(struct transfers *l, struct transfer *t)
{
	*(t->prev ? &t->prev->next : &l->head) = t->next;
	*(t->next ? &t->next->prev : &l->tail) = t->prev;
	t->next = t->prev = NULL;
	l->len--;
}
