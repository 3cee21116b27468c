/* A connection is a queue: commands go out in order, answers come back in order, and a ring
 * remembers who asked. Whatever breaks that order (an answer too many, one too late, bytes that are
 * not Redis') ends the connection by one path, conn_end, which tells everybody in the ring and
 * starts over. */
#include "io/conn_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "io/request.h"
#include "io/resolve.h"

enum {
	HANDSHAKE_MAX = 4,              /* AUTH, SELECT, CLIENT SETNAME, PING */
	READ_BYTES = 64 * 1024,
	LISTS_IN_LISTS_MAX = 8,
	OUT_KEPT = 256 * 1024,          /* of the output's memory, once it is sent */
	READS_A_TURN = 16,              /* then others may have the loop */
	REPLY_MAX = 1024 * 1024,        /* bytes of one reply; what we store is far smaller */
	OUTPUT_MAX = 8 * 1024 * 1024,   /* bytes waiting for the socket */
};

/* --- callbacks: who may free us meanwhile --- */

static void conn_destroy(struct conn *c)
{
	void (*on_gone)(void *) = c->o.on_gone;
	void *ctx = c->o.ctx;

	timer_free(c->late);
	timer_free(c->retry);
	event_del(&c->flush);
	buf_free(&c->out);
	free(c->ring);
	free((char *)c->o.host);
	free((char *)c->o.unix_path);
	free((char *)c->o.user);
	mem_free_secret((char *)c->o.password);
	free(c);
	on_gone(ctx);
}

void conn_enter(struct conn *c)
{
	c->depth++;
}

void conn_leave(struct conn *c)
{
	if (--c->depth == 0 && c->freed)
		conn_destroy(c);
}

/* --- the ring --- */

static struct pending *ring_head(const struct conn *c)
{
	return &c->ring[c->head];
}

static struct pending ring_pop(struct conn *c)
{
	struct pending p = *ring_head(c);

	/* An empty ring begins anew: it costs the memory of the most that ever waited. */
	c->head = --c->count ? (c->head + 1) % c->ring_size : 0;
	c->owners -= p.kind == OWNERS;
	return p;
}

static void watch_head(struct conn *c)
{
	if (c->late_set || c->count == 0)
		return;
	c->late_set = true;
	timer_start(c->late, ring_head(c)->deadline_ms - clock_ms());
}

/* --- the end of a connection --- */

/* The same trouble again is no news. */
void conn_log_trouble(struct conn *c, enum log_level level, const char *msg, const char *why)
{
	if (strcmp(why, c->trouble) == 0)
		return;
	snprintf(c->trouble, sizeof(c->trouble), "%s", why);
	log_at(level, msg, LOG_STR("address", c->address), LOG_STR("for", c->o.purpose),
		LOG_STR("reason", c->trouble));
}

void conn_close(struct conn *c)
{
	enum state was = c->state;

	if (c->fd >= 0) {
		event_del(&c->readable);
		event_del(&c->writable);
		tls_close(c->link);
		c->link = NULL;
		c->write_waits = false;
		close(c->fd);
		c->fd = -1;
	}
	event_del(&c->flush);
	if (c->reader)
		redisReaderFree(c->reader);
	c->reader = NULL;
	c->reply_bytes = 0;
	buf_free(&c->out);
	c->out_sent = 0;
	c->scripts = 0;
	timer_stop(c->late);
	c->late_set = false;
	timer_stop(c->retry);
	c->state = ST_DOWN;
	c->generation++;
	if (was == ST_UP && !c->freed)
		c->o.on_state(c->o.ctx, false);
}

static void tell_all(struct conn *c, enum conn_fate fate)
{
	while (c->count) {
		struct pending p = ring_pop(c);

		if (p.kind == OWNERS)
			p.a.fn(&p.a, fate, NULL);
	}
}

/* The connection is of no more use. May free c, if conn_free was called in a callback. */
static void conn_end(struct conn *c, const char *why, enum conn_fate fate)
{
	enum state was = c->state;
	size_t waiting = c->owners;

	/* One that lasted is sought again at once. One that greets well and breaks at the first
	 * answer is no better than none. */
	if (was == ST_UP && clock_ms() - c->up_ms >= BACKOFF_MAX_MS)
		c->backoff_ms = BACKOFF_MIN_MS;
	if (was == ST_HANDSHAKE && c->said[0])
		why = c->said;
	conn_enter(c);
	if (was == ST_UP) {
		snprintf(c->trouble, sizeof(c->trouble), "%s", why);
		log_warn("redis connection lost", LOG_STR("address", c->address),
			LOG_STR("for", c->o.purpose), LOG_STR("reason", why),
			LOG_INT("waiting", (int64_t)waiting));
	} else {
		conn_log_trouble(c, LOG_WARN, "redis cannot be reached", why);
	}
	conn_close(c);
	conn_retry_later(c);
	tell_all(c, fate);
	conn_leave(c);
}

static void conn_lost(struct conn *c, const char *why)
{
	conn_end(c, why, CONN_LOST);
}

void conn_drop(struct conn *c, const char *why)
{
	if (c->state >= ST_CONNECTING)
		conn_lost(c, why);
}

void conn_reject(struct conn *c, enum log_level level, const char *why)
{
	conn_enter(c);
	c->backoff_ms = BACKOFF_MAX_MS; /* asking often would not help */
	conn_log_trouble(c, level,
		level < LOG_ERROR ? "redis is not ready" : "redis refuses this configuration", why);
	conn_close(c);
	conn_retry_later(c);
	tell_all(c, CONN_LOST);
	conn_leave(c);
}

/* --- replies --- */

static void become_up(struct conn *c)
{
	c->state = ST_UP;
	c->up_ms = clock_ms();
	buf_free(&c->out); /* held the password */
	c->out_sent = 0;
	c->o.on_state(c->o.ctx, true);
}

static void refused(struct conn *c, const struct pending *p, const char *error)
{
	static const char *const not_yet[] = {"LOADING", "MASTERDOWN", "READONLY", "BUSY"};
	char word[REPLY_WORD_MAX], sentence[REPLY_SENTENCE_MAX];
	enum log_level level = LOG_ERROR;

	reply_word(error, word);
	reply_sentence(error, c->o.password, sentence);
	snprintf(c->said, sizeof(c->said), "%s: %s", p->a.name, sentence);
	if (p->kind == OPTIONAL)
		return;
	/* it cannot save to disk: reads go on */
	if (p->kind == LAST_OF_HANDSHAKE && !strcmp(word, "MISCONF")) {
		log_warn("redis refuses writes", LOG_STR("address", c->address),
			LOG_STR("reason", sentence));
		become_up(c);
		return;
	}
	for (size_t i = 0; i < NELEM(not_yet); i++)
		if (!strcmp(word, not_yet[i]))
			level = LOG_WARN;
	conn_reject(c, level, c->said);
}

/* Our own commands. */
static void on_own_reply(struct conn *c, const struct pending *p, const redisReply *v)
{
	if (reply_error(v))
		refused(c, p, v->str);
	else if (p->kind == OPTIONAL)
		return;
	else if (v->type != REDIS_REPLY_STATUS ||
		 strcmp(v->str, p->kind == HANDSHAKE ? "OK" : "PONG") != 0)
		conn_lost(c, "the answer is not Redis'");
	else if (p->kind == LAST_OF_HANDSHAKE)
		become_up(c);
}

static bool is_message(const redisReply *v)
{
	const redisReply *kind = redis_reply_at(v, 0);

	return redis_reply_count(v) == 3 && kind->type == REDIS_REPLY_STRING &&
	       !strcmp(kind->str, "message");
}

/* Redis says a last word before it hangs up, at times. */
static void unasked(struct conn *c, const redisReply *v)
{
	char sentence[REPLY_SENTENCE_MAX] = "an answer nobody asked for";

	if (reply_error(v))
		reply_sentence(v->str, c->o.password, sentence);
	conn_lost(c, sentence);
}

static void on_reply(struct conn *c, const redisReply *v)
{
	struct pending p;

	if (c->o.on_push && is_message(v)) {
		c->o.on_push(c->o.ctx, v);
		return;
	}
	if (c->count == 0) {
		unasked(c, v);
		return;
	}
	p = ring_pop(c);
	if (p.kind == OWNERS)
		p.a.fn(&p.a, CONN_ANSWERED, v);
	else
		on_own_reply(c, &p, v);
}

static bool is_too_long(struct conn *c)
{
	if (reply_is_being_dropped(c->reader))
		c->reply_bytes = c->reader->len - c->reader->pos;
	return c->reply_bytes > REPLY_MAX;
}

/* Feeds what came and hands out the complete replies. */
/* Newer versions of hiredis take lists in lists without end, and free them by recursion. No answer
 * that we ask for has more than four. */
static bool is_too_deep(const redisReader *reader)
{
	return reader->ridx > LISTS_IN_LISTS_MAX;
}

static void take(struct conn *c, const char *bytes, size_t n)
{
	unsigned generation = c->generation;
	void *reply;

	c->reply_bytes += n;
	if (redisReaderFeed(c->reader, bytes, n) != REDIS_OK) {
		conn_lost(c, "reader");
		return;
	}
	while (c->generation == generation) {
		reply = NULL;
		if (redisReaderGetReply(c->reader, &reply) != REDIS_OK || is_too_deep(c->reader)) {
			conn_lost(c, "the answer is not Redis'");
			return;
		}
		if (!reply)
			break;
		c->reply_bytes = 0;
		c->reply_kept = false;
		on_reply(c, reply);
		if (!c->reply_kept)
			freeReplyObject(reply);
	}
	if (c->generation == generation && is_too_long(c))
		conn_lost(c, "the answer is too long");
}

static void read_some(struct conn *c)
{
	static char bytes[READ_BYTES];
	unsigned generation = c->generation;

	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between enter and leave c lives */
	for (int i = 0; i < READS_A_TURN && c->generation == generation; i++) {
		ssize_t n = conn_read(c, bytes, sizeof(bytes));

		if (n > 0) {
			take(c, bytes, (size_t)n);
			/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between enter and leave c lives */
			if ((size_t)n < sizeof(bytes) && !c->link)
				return;
		} else if (n == 0) {
			conn_lost(c, "closed by Redis");
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			return;
		} else if (errno != EINTR) {
			conn_lost(c, conn_error(c));
		}
	}
	if (c->generation == generation && c->link && tls_has_more(c->link))
		event_active(&c->readable, EV_READ, 0);
}

void conn_on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	conn_enter(c);
	if (c->state == ST_TLS)
		conn_tls_step(c);
	else
		read_some(c);
	if (c->state >= ST_HANDSHAKE && c->write_waits)
		conn_write_some(c);
	conn_leave(c);
}

/* --- sending --- */

void conn_write_some(struct conn *c)
{
	while (c->out_sent < c->out.len) {
		ssize_t n = conn_write(c, c->out.data + c->out_sent, c->out.len - c->out_sent);

		if (n >= 0) {
			c->out_sent += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (!c->write_waits)
				event_add(&c->writable, NULL);
			return;
		} else if (errno != EINTR) {
			conn_lost(c, conn_error(c));
			return;
		}
	}
	c->out_sent = 0;
	if (c->out.cap > OUT_KEPT)
		buf_free(&c->out); /* a burst's memory need not stay */
	else
		buf_clear(&c->out);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	conn_enter(c);
	if (c->state >= ST_HANDSHAKE && !event_pending(&c->writable, EV_WRITE, NULL))
		conn_write_some(c);
	conn_leave(c);
}

/* A slow reader: what it took makes room now and then. */
static void reclaim(struct conn *c)
{
	if (c->out_sent <= c->out.len / 2)
		return;
	memmove(c->out.data, c->out.data + c->out_sent, c->out.len - c->out_sent);
	c->out.len -= c->out_sent;
	c->out_sent = 0;
}

/* The command was written to the output: who asked joins the ring. */
static void enlist(struct conn *c, enum kind kind, const struct asked *a)
{
	c->ring[(c->head + c->count) % c->ring_size] = (struct pending){
		.a = *a, .kind = kind, .deadline_ms = clock_ms() + c->o.timeout_ms};
	c->count++;
	c->owners += kind == OWNERS;
	watch_head(c);
	event_active(&c->flush, EV_TIMEOUT, 0);
}

bool conn_has_room(const struct conn *c, size_t bytes)
{
	return c->state == ST_UP && c->owners < (size_t)c->o.max_pending &&
	       c->out.len - c->out_sent + bytes <= OUTPUT_MAX;
}

bool conn_send(struct conn *c, int argc, const char *const *argv, const size_t *argvlen,
	const struct asked *a)
{
	if (!conn_has_room(c, request_bytes(argc, argv, argvlen)))
		return false;
	reclaim(c);
	request_head(&c->out, (size_t)argc);
	request_words(&c->out, argc, argv, argvlen);
	enlist(c, OWNERS, a);
	return true;
}

bool conn_send_encoded(struct conn *c, const char *word1, const char *word2, int argc,
	const char *bytes, size_t len, const struct asked *a)
{
	if (!conn_has_room(c, len))
		return false;
	reclaim(c);
	request_head(&c->out, (size_t)argc + (word1 ? 2 : 0));
	if (word1) {
		request_word(&c->out, word1, strlen(word1));
		request_word(&c->out, word2, strlen(word2));
	}
	buf_add(&c->out, bytes, len);
	enlist(c, OWNERS, a);
	return true;
}

bool conn_knows(const struct conn *c, unsigned script)
{
	return c->scripts >> script & 1;
}

void conn_learns(struct conn *c, unsigned script, bool known)
{
	c->scripts = (c->scripts & ~(UINT64_C(1) << script)) | (uint64_t)known << script;
}

/* --- time --- */

static void on_late(void *ctx)
{
	struct conn *c = ctx;

	c->late_set = false;
	if (c->state == ST_CONNECTING || c->state == ST_TLS) {
		conn_try_next(c, c->state == ST_TLS
					 ? "no TLS handshake in time (is it the port for TLS?)"
					 : "no connection in time");
		return;
	}
	/* If it was we who stood still, the answers are there. */
	conn_enter(c);
	if (c->fd >= 0)
		read_some(c);
	if (!c->freed && c->count && ring_head(c)->deadline_ms <= clock_ms())
		conn_end(c, "no answer in time", CONN_LATE);
	else if (!c->freed)
		watch_head(c);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between enter and leave c lives */
	conn_leave(c);
}

/* --- the handshake --- */

static void greet(struct conn *c, enum kind kind, int argc, const char *const *argv)
{
	request_head(&c->out, (size_t)argc);
	request_words(&c->out, argc, argv, NULL);
	enlist(c, kind, &(struct asked){.name = argv[0]});
}

#define GREET(c, kind, ...) \
	greet(c, kind, (int)NELEM(((const char *const[]){__VA_ARGS__})), \
		(const char *const[]){__VA_ARGS__})

void conn_greet(struct conn *c)
{
	char db[16], name[64] = "wxlogind";

	c->state = ST_HANDSHAKE;
	c->said[0] = '\0';
	timer_stop(c->late);
	c->late_set = false;
	c->reader = reply_reader_new();
	if (c->o.user[0])
		GREET(c, HANDSHAKE, "AUTH", c->o.user, c->o.password);
	else if (c->o.password[0])
		GREET(c, HANDSHAKE, "AUTH", c->o.password);
	snprintf(db, sizeof(db), "%d", c->o.db);
	if (c->o.db)
		GREET(c, HANDSHAKE, "SELECT", db);
	if (strcmp(c->o.purpose, "commands") != 0)
		snprintf(name, sizeof(name), "wxlogind-%s", c->o.purpose);
	GREET(c, OPTIONAL, "CLIENT", "SETNAME", name); /* some proxies and ACLs forbid it */
	GREET(c, LAST_OF_HANDSHAKE, "PING");
}

/* --- the object --- */

struct conn *conn_new(struct loop *l, const struct conn_options *o)
{
	struct conn *c = mem_alloc(sizeof(*c));

	c->loop = l;
	c->o = *o;
	c->o.unix_path = mem_strdup(o->unix_path);
	c->o.host = mem_strdup(o->host ? o->host : "127.0.0.1");
	c->o.user = mem_strdup(o->user ? o->user : "");
	c->o.password = mem_strdup(o->password ? o->password : "");
	if (o->unix_path)
		snprintf(c->address, sizeof(c->address), "%s", o->unix_path);
	else
		snprintf(c->address, sizeof(c->address),
			strchr(c->o.host, ':') ? "[%s]:%d" : "%s:%d", c->o.host, c->o.port);
	c->fd = -1;
	c->ring_size = (size_t)o->max_pending + HANDSHAKE_MAX + 1;
	c->ring = mem_alloc(c->ring_size * sizeof(*c->ring));
	c->late = timer_new(l, on_late, c);
	c->retry = timer_new(l, conn_start, c);
	event_assign(&c->flush, loop_base(l), -1, 0, on_flush, c);
	c->backoff_ms = BACKOFF_MIN_MS;
	c->seed = (unsigned)clock_us() ^ (unsigned)getpid() << 16;
	conn_start(c);
	return c;
}

void conn_free(struct conn *c)
{
	if (!c || c->freed)
		return;
	c->freed = true;
	conn_enter(c);
	resolve_cancel(c->resolve);
	conn_close(c);
	tell_all(c, CONN_LOST);
	conn_leave(c);
}

bool conn_is_up(const struct conn *c)
{
	return c->state == ST_UP && (c->count == 0 || clock_ms() < ring_head(c)->deadline_ms);
}

const char *conn_address(const struct conn *c)
{
	return c->address;
}

const char *conn_trouble(const struct conn *c)
{
	return c->trouble;
}

void conn_is_right(struct conn *c)
{
	c->trouble[0] = '\0';
	log_info("redis connected", LOG_STR("address", c->address), LOG_STR("for", c->o.purpose));
}

void conn_keep_reply(struct conn *c)
{
	c->reply_kept = true;
}
