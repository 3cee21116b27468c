/* The connection is a line of people: commands go out in order, answers come back in order, and a ring remembers who waits.
 * Whatever breaks that order (an answer too many, one too late, bytes that are not Redis') ends the connection by one path,
 * conn_lost, which tells everybody in the ring and starts over. */
#include "io/redis.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event_struct.h>
#include <hiredis/hiredis.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "io/resolve.h"

enum {
	ADDRESSES_MAX = 8,
	HANDSHAKE_MAX = 4,              /* AUTH, SELECT, CLIENT SETNAME, PING */
	BACKOFF_MIN_MS = 50,
	BACKOFF_MAX_MS = 1000,
	WATCH_MS = 250,                 /* an idle connection is asked this often whether it lives */
	READ_BYTES = 64 * 1024,
	OUT_KEPT = 256 * 1024,          /* of the output's memory, once it is sent */
	READS_A_TURN = 16,              /* then others may have the loop */
	REPLY_MAX = 1024 * 1024,        /* bytes of one reply; what we store is far smaller */
	ELEMENTS_MAX = 4096,            /* of one array */
	OUTPUT_MAX = 8 * 1024 * 1024,   /* bytes waiting for the socket */
	KINDS = 8,                      /* of errors told apart when logging */
	WORD_MAX = 24,
};

enum state { ST_DOWN, ST_RESOLVING, ST_CONNECTING, ST_HANDSHAKE, ST_READY };
enum kind { USER, HANDSHAKE, OPTIONAL, LAST_OF_HANDSHAKE, WATCHDOG };

struct pending {
	redis_cb  cb;               /* NULL unless kind is USER */
	void     *ctx;
	int64_t   deadline_ms;
	enum kind kind;
	char      name[WORD_MAX];   /* the command, for the log */
	struct eval *eval;          /* a script that was named by its hash; else NULL */
};

/* What it takes to send a script's text after all. */
struct eval {
	const struct redis_script *script;
	int    argc;
	size_t len;
	char   args[];              /* as they were sent */
};

struct refused {
	redis_cb cb;
	void    *ctx;
};

struct redis {
	struct loop *loop;

	/* where and as whom */
	char *host;                 /* NULL for a unix socket */
	int   port;
	char *unix_path;
	char *user, *password;
	int   db;
	int   timeout_ms;
	int   max_pending;
	char  address[128];         /* for the log */
	void (*on_push)(void *ctx, const struct redisReply *message);
	void (*on_state)(void *ctx, bool up);
	void *push_ctx;

	/* the connection */
	enum state   state;
	int          fd;            /* -1 = none */
	struct event readable, writable;
	struct event flush;         /* at the end of the turn */
	redisReader *reader;
	size_t       reply_bytes;   /* fed since the last complete reply */
	struct buf   out;
	size_t       out_sent;
	unsigned     generation;    /* tells a callback's return that the connection is another */

	/* who waits: a ring */
	struct pending *ring;
	size_t ring_size, head, count;
	size_t users;               /* of them, callers' */
	struct timer *late;         /* connecting, or the head of the ring */
	bool   late_set;
	struct timer *watch;

	/* refused before they were sent; told next turn */
	struct refused *refused;
	size_t refused_told, refused_len, refused_cap;
	struct timer *refuse;

	/* coming back */
	struct resolve *resolve;
	struct sockaddr_storage addrs[ADDRESSES_MAX];
	socklen_t addr_len[ADDRESSES_MAX];
	size_t addr_count, addr_next;
	struct timer *retry;
	int      backoff_ms;
	int64_t  ready_ms;          /* since when the connection is ready */
	unsigned seed;
	char     trouble[96];       /* logged last, so that a long outage is one line */

	struct { char word[WORD_MAX]; int64_t at_ms; } kinds[KINDS];

	int  depth;                 /* callbacks under way: memory must outlive them */
	bool freed;

	struct metric_series *ok, *error, *timeout, *unavailable, *connected;
};

static void connect_next(struct redis *r, const char *why);
static void conn_lost(struct redis *r, const char *why, struct metric_series *outcome);
static void send_text(struct redis *r, const struct pending *p);

/* --- callbacks: the one way out, and who may free us meanwhile --- */

static void redis_destroy(struct redis *r)
{
	timer_free(r->late);
	timer_free(r->watch);
	timer_free(r->refuse);
	timer_free(r->retry);
	event_del(&r->flush);
	buf_free(&r->out);
	free(r->ring);
	free(r->refused);
	free(r->host);
	free(r->unix_path);
	free(r->user);
	mem_free_secret(r->password);
	free(r);
}

static void enter(struct redis *r)
{
	r->depth++;
}

static void leave(struct redis *r)
{
	if (--r->depth == 0 && r->freed)
		redis_destroy(r);
}

static void tell_refused(struct redis *r)
{
	/* Who is refused again by its callback waits for another turn; redis_free in a callback tells the rest. */
	for (size_t n = r->refused_len; r->refused_told < n && r->refused_len;) {
		struct refused one = r->refused[r->refused_told++];

		one.cb(one.ctx, OC_STORE_UNAVAILABLE, NULL);
	}
	r->refused_len -= r->refused_told;
	if (r->refused_len)
		memmove(r->refused, r->refused + r->refused_told, r->refused_len * sizeof(*r->refused));
	r->refused_told = 0;
}

static void on_refuse(void *ctx)
{
	struct redis *r = ctx;

	enter(r);
	tell_refused(r);
	leave(r);
}

static void refuse(struct redis *r, redis_cb cb, void *ctx)
{
	metric_add(r->unavailable, 1);
	if (r->refused_len == r->refused_cap) {
		r->refused_cap = r->refused_cap ? 2 * r->refused_cap : 16;
		r->refused = mem_realloc(r->refused, r->refused_cap * sizeof(*r->refused));
	}
	timer_start(r->refuse, 0);
	r->refused[r->refused_len++] = (struct refused){cb, ctx};
}

/* --- the ring --- */

static struct pending *ring_head(const struct redis *r)
{
	return &r->ring[r->head];
}

static void eval_free(struct eval *e)
{
	if (e)
		mem_wipe(e->args, e->len);
	free(e);
}

static struct pending ring_pop(struct redis *r)
{
	struct pending p = *ring_head(r);

	r->head = --r->count ? (r->head + 1) % r->ring_size : 0; /* an empty ring begins anew: it costs the memory of the most that ever waited */
	r->users -= p.kind == USER;
	return p;
}

static void watch_head(struct redis *r)
{
	if (r->late_set || r->count == 0)
		return;
	r->late_set = true;
	timer_start(r->late, ring_head(r)->deadline_ms - clock_ms());
}

/* --- logging --- */

/* An error's first word, which Redis makes of capitals: what follows may quote our arguments. */
static void first_word(char out[WORD_MAX], const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && n < WORD_MAX - 1 && (isupper((unsigned char)s[n]) || isdigit((unsigned char)s[n]) || s[n] == '_')) {
		out[n] = s[n];
		n++;
	}
	out[n] = '\0';
	if (n == 0)
		strcpy(out, "?");
}

static void log_kind(struct redis *r, const char *command, const char *word)
{
	int64_t now = clock_ms();
	size_t slot = 0;

	for (size_t i = 0; i < KINDS; i++) {
		if (strcmp(r->kinds[i].word, word) == 0) {
			slot = i;
			if (now - r->kinds[i].at_ms < 1000)
				return;
			break;
		}
		if (r->kinds[i].at_ms < r->kinds[slot].at_ms)
			slot = i;
	}
	memcpy(r->kinds[slot].word, word, WORD_MAX);
	r->kinds[slot].at_ms = now;
	log_warn("redis refused a command", LOG_STR("command", command), LOG_STR("error", word));
}

static const char *purpose(const struct redis *r)
{
	return r->on_push ? "invalidation" : "commands";
}

/* The same trouble again is no news. */
static void log_trouble(struct redis *r, enum log_level level, const char *msg, const char *why)
{
	char now[sizeof(r->trouble)];

	snprintf(now, sizeof(now), "%s", why);
	if (strcmp(now, r->trouble) == 0)
		return;
	memcpy(r->trouble, now, sizeof(now));
	log_at(level, msg, LOG_STR("address", r->address), LOG_STR("for", purpose(r)), LOG_STR("reason", r->trouble));
}

/* --- the end of a connection --- */

static void conn_close(struct redis *r)
{
	enum state was = r->state;

	if (r->fd >= 0) {
		event_del(&r->readable);
		event_del(&r->writable);
		close(r->fd);
		r->fd = -1;
	}
	event_del(&r->flush);
	if (r->reader)
		redisReaderFree(r->reader);
	r->reader = NULL;
	r->reply_bytes = 0;
	buf_free(&r->out);
	r->out_sent = 0;
	timer_stop(r->late);
	r->late_set = false;
	timer_stop(r->watch);
	r->state = ST_DOWN;
	r->generation++;
	if (!r->on_push)
		metric_set(r->connected, 0);
	else if (was == ST_READY && !r->freed)
		r->on_state(r->push_ctx, false);
}

static void retry_later(struct redis *r)
{
	int half = r->backoff_ms / 2;

	if (r->freed)
		return;
	timer_start(r->retry, half + rand_r(&r->seed) % (half + 1));
	r->backoff_ms = r->backoff_ms * 2 < BACKOFF_MAX_MS ? r->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void fail_pending(struct redis *r, struct metric_series *outcome)
{
	enter(r);
	while (r->count) {
		struct pending p = ring_pop(r);

		eval_free(p.eval);
		if (p.kind != USER)
			continue;
		metric_add(outcome, 1);
		p.cb(p.ctx, OC_STORE_UNAVAILABLE, NULL);
	}
	leave(r);
}

/* The connection is of no more use. May free r, if redis_free was called in a callback. */
static void conn_lost(struct redis *r, const char *why, struct metric_series *outcome)
{
	enum state was = r->state;
	size_t waiting = r->users;

	/* One that lasted is sought again at once. One that greets well and breaks at the first answer is no better than none. */
	if (was == ST_READY && clock_ms() - r->ready_ms >= BACKOFF_MAX_MS)
		r->backoff_ms = BACKOFF_MIN_MS;
	conn_close(r);
	if (was == ST_READY) {
		snprintf(r->trouble, sizeof(r->trouble), "%s", why);
		log_warn("redis connection lost", LOG_STR("address", r->address), LOG_STR("for", purpose(r)), LOG_STR("reason", why),
			LOG_INT("waiting", (int64_t)waiting));
	} else {
		log_trouble(r, LOG_WARN, "redis is not there", why);
	}
	retry_later(r);
	fail_pending(r, outcome);
}

/* Redis is there but will not have us, or not yet: asking often would not help. */
static void conn_refused(struct redis *r, const char *command, const char *word)
{
	bool not_yet = !strcmp(word, "LOADING") || !strcmp(word, "MASTERDOWN") || !strcmp(word, "READONLY") || !strcmp(word, "BUSY");
	char why[2 * WORD_MAX + 2];

	snprintf(why, sizeof(why), "%s: %s", command, word);
	r->backoff_ms = BACKOFF_MAX_MS;
	conn_close(r);
	if (not_yet)
		log_trouble(r, LOG_WARN, "redis is not ready", why);
	else
		log_trouble(r, LOG_ERROR, "redis refuses this configuration", why);
	retry_later(r);
	fail_pending(r, r->unavailable);
}

/* --- replies --- */

/* hiredis allocates an array when it is announced: a short line must not buy gigabytes. */
#if HIREDIS_MAJOR >= 1
typedef size_t array_len;
#else
typedef int array_len;
#endif
static redisReplyObjectFunctions bounded;
static void *(*unbounded_array)(const redisReadTask *, array_len);

static void *bounded_array(const redisReadTask *task, array_len n)
{
	return n > ELEMENTS_MAX ? NULL : unbounded_array(task, n);
}

static redisReader *reader_new(void)
{
	redisReader *reader = redisReaderCreate();

	if (!reader)
		abort(); /* out of memory */
	if (!unbounded_array) {
		bounded = *reader->fn;
		unbounded_array = bounded.createArray;
		bounded.createArray = bounded_array;
	}
	reader->fn = &bounded;
	return reader;
}

static void become_ready(struct redis *r)
{
	r->state = ST_READY;
	r->ready_ms = clock_ms();
	r->trouble[0] = '\0';
	buf_free(&r->out); /* held the password */
	r->out_sent = 0;
	log_info("redis connected", LOG_STR("address", r->address), LOG_STR("for", purpose(r)));
	if (r->on_push) {
		r->on_state(r->push_ctx, true);
		return;
	}
	metric_set(r->connected, 1);
	timer_start(r->watch, WATCH_MS);
}

/* Our own commands. */
static void on_own_reply(struct redis *r, const struct pending *p, const redisReply *v)
{
	char word[WORD_MAX];

	if (p->kind == OPTIONAL)
		return;
	if (v->type == REDIS_REPLY_ERROR) {
		first_word(word, v->str, v->len);
		conn_refused(r, p->name, word);
		return;
	}
	if (v->type != REDIS_REPLY_STATUS || strcmp(v->str, p->kind == HANDSHAKE ? "OK" : "PONG") != 0) {
		conn_lost(r, "the answer is not Redis'", r->unavailable);
		return;
	}
	if (p->kind == LAST_OF_HANDSHAKE)
		become_ready(r);
}

static void on_user_reply(struct redis *r, const struct pending *p, const redisReply *v)
{
	char word[WORD_MAX];

	if (v->type != REDIS_REPLY_ERROR) {
		metric_add(r->ok, 1);
		p->cb(p->ctx, OC_OK, v);
		return;
	}
	first_word(word, v->str, v->len);
	if (p->eval && !strcmp(word, "NOSCRIPT") && r->state == ST_READY) {
		send_text(r, p);
		return;
	}
	metric_add(r->error, 1);
	log_kind(r, p->name, word);
	p->cb(p->ctx, OC_STORE_UNAVAILABLE, NULL);
	/* A master that became a replica: the address may lead to the new one by now. */
	if (r->state == ST_READY && !strcmp(word, "READONLY"))
		conn_refused(r, p->name, word);
}

static bool is_message(const redisReply *v)
{
	const redisReply *kind = redis_reply_at(v, 0);

	return redis_reply_count(v) == 3 && kind->type == REDIS_REPLY_STRING && !strcmp(kind->str, "message");
}

static void on_reply(struct redis *r, const redisReply *v)
{
	struct pending p;

	if (r->on_push && is_message(v)) {
		r->on_push(r->push_ctx, v);
		return;
	}
	if (r->count == 0) {
		conn_lost(r, "an answer nobody asked for", r->unavailable);
		return;
	}
	p = ring_pop(r);
	if (p.kind == USER)
		on_user_reply(r, &p, v);
	else
		on_own_reply(r, &p, v);
	eval_free(p.eval);
}

/* Feeds what came and hands out the complete replies. */
static void take(struct redis *r, const char *bytes, size_t n)
{
	unsigned generation = r->generation;
	void *reply;

	r->reply_bytes += n;
	if (redisReaderFeed(r->reader, bytes, n) != REDIS_OK) {
		conn_lost(r, "reader", r->unavailable);
		return;
	}
	while (r->generation == generation) {
		reply = NULL;
		if (redisReaderGetReply(r->reader, &reply) != REDIS_OK) {
			conn_lost(r, "the answer is not Redis'", r->unavailable);
			return;
		}
		if (!reply)
			break;
		r->reply_bytes = 0;
		on_reply(r, reply);
		freeReplyObject(reply);
	}
	if (r->generation == generation && r->reply_bytes > REPLY_MAX)
		conn_lost(r, "the answer is too long", r->unavailable);
}

static void read_some(struct redis *r)
{
	static char bytes[READ_BYTES];
	unsigned generation = r->generation;

	for (int i = 0; i < READS_A_TURN && r->generation == generation; i++) {
		ssize_t n = read(r->fd, bytes, sizeof(bytes));

		if (n > 0) {
			take(r, bytes, (size_t)n);
			if ((size_t)n < sizeof(bytes))
				return;
		} else if (n == 0) {
			conn_lost(r, "closed by Redis", r->unavailable);
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			return;
		} else if (errno != EINTR) {
			conn_lost(r, strerror(errno), r->unavailable);
		}
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct redis *r = arg;

	(void)fd;
	(void)what;
	enter(r);
	read_some(r);
	leave(r);
}

/* --- sending --- */

static void write_some(struct redis *r)
{
	while (r->out_sent < r->out.len) {
		ssize_t n = write(r->fd, r->out.data + r->out_sent, r->out.len - r->out_sent);

		if (n >= 0) {
			r->out_sent += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			event_add(&r->writable, NULL);
			return;
		} else if (errno != EINTR) {
			conn_lost(r, strerror(errno), r->unavailable);
			return;
		}
	}
	r->out_sent = 0;
	if (r->out.cap > OUT_KEPT)
		buf_free(&r->out); /* a burst's memory need not stay */
	else
		buf_clear(&r->out);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct redis *r = arg;

	(void)fd;
	(void)what;
	enter(r);
	if (r->state >= ST_HANDSHAKE && !event_pending(&r->writable, EV_WRITE, NULL))
		write_some(r);
	leave(r);
}

/* "*3" or "$12", and the line's end. */
static void add_count(struct buf *b, char what, size_t n)
{
	char text[24], *p = text + sizeof(text);

	*--p = '\n';
	*--p = '\r';
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	*--p = what;
	buf_add(b, p, (size_t)(text + sizeof(text) - p));
}

static void add_bulk(struct buf *b, const char *p, size_t n)
{
	add_count(b, '$', n);
	buf_add(b, p, n);
	buf_add(b, "\r\n", 2);
}

static void add_bulks(struct buf *b, int argc, const char *const *argv, const size_t *argvlen)
{
	for (int i = 0; i < argc; i++)
		add_bulk(b, argv[i], argvlen ? argvlen[i] : strlen(argv[i]));
}

/* A slow reader: what it took makes room now and then. */
static void reclaim(struct redis *r)
{
	if (r->out_sent <= r->out.len / 2)
		return;
	memmove(r->out.data, r->out.data + r->out_sent, r->out.len - r->out_sent);
	r->out.len -= r->out_sent;
	r->out_sent = 0;
}

/* The command was written to the output: its sender joins the ring. */
static struct pending *enlist(struct redis *r, enum kind kind, const char *name, redis_cb cb, void *ctx)
{
	struct pending *p = &r->ring[(r->head + r->count) % r->ring_size];
	size_t n = strnlen(name, WORD_MAX - 1);

	*p = (struct pending){.cb = cb, .ctx = ctx, .kind = kind, .deadline_ms = clock_ms() + r->timeout_ms};
	memcpy(p->name, name, n);
	r->count++;
	r->users += kind == USER;
	watch_head(r);
	event_active(&r->flush, EV_TIMEOUT, 0);
	return p;
}

static void push(struct redis *r, enum kind kind, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	reclaim(r);
	add_count(&r->out, '*', (size_t)argc);
	add_bulks(&r->out, argc, argv, argvlen);
	enlist(r, kind, argv[0], cb, ctx);
}

#define PUSH(r, kind, ...) \
	push(r, kind, (int)NELEM(((const char *const[]){__VA_ARGS__})), (const char *const[]){__VA_ARGS__}, NULL, NULL, NULL)

static size_t command_bytes(int argc, const char *const *argv, const size_t *argvlen)
{
	size_t n = 0;

	for (int i = 0; i < argc; i++)
		n += argvlen ? argvlen[i] : strlen(argv[i]);
	return n;
}

static bool has_room(const struct redis *r, int argc, const char *const *argv, const size_t *argvlen)
{
	return r->state == ST_READY && r->users < (size_t)r->max_pending &&
	       r->out.len - r->out_sent + command_bytes(argc, argv, argvlen) <= OUTPUT_MAX;
}

void redis_command(struct redis *r, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	if (has_room(r, argc, argv, argvlen))
		push(r, USER, argc, argv, argvlen, cb, ctx);
	else
		refuse(r, cb, ctx);
}

/* --- scripts --- */

static struct eval *eval_new(const struct redis_script *s, int argc, const char *args, size_t len)
{
	struct eval *e = mem_alloc(sizeof(*e) + len);

	e->script = s;
	e->argc = argc;
	e->len = len;
	memcpy(e->args, args, len);
	return e;
}

static void make_hash(struct redis_script *s)
{
	uint8_t hash[SHA1_LEN];

	crypt_sha1(hash, s->text, strlen(s->text));
	hex_encode(s->hash, hash, sizeof(hash));
}

static void add_eval(struct redis *r, int argc, const char *command, const char *script)
{
	reclaim(r);
	add_count(&r->out, '*', (size_t)argc + 2);
	add_bulk(&r->out, command, strlen(command));
	add_bulk(&r->out, script, strlen(script));
}

void redis_eval(struct redis *r, struct redis_script *s, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	bool known = s->told == r && s->generation == r->generation;
	size_t args;

	if (!has_room(r, argc, argv, argvlen)) {
		refuse(r, cb, ctx);
		return;
	}
	if (!s->hash[0])
		make_hash(s);
	s->told = r;
	s->generation = r->generation;
	add_eval(r, argc, known ? "EVALSHA" : "EVAL", known ? s->hash : s->text);
	args = r->out.len;
	add_bulks(&r->out, argc, argv, argvlen);
	enlist(r, USER, "EVAL", cb, ctx)->eval = known ? eval_new(s, argc, r->out.data + args, r->out.len - args) : NULL;
}

/* Redis forgot the script. Nothing was done, so nothing is done twice; but what was sent meanwhile comes before it. */
static void send_text(struct redis *r, const struct pending *p)
{
	const struct eval *e = p->eval;

	add_eval(r, e->argc, "EVAL", e->script->text);
	buf_add(&r->out, e->args, e->len);
	enlist(r, USER, "EVAL", p->cb, p->ctx);
}

/* --- time --- */

static void on_late(void *ctx)
{
	struct redis *r = ctx;

	r->late_set = false;
	if (r->state == ST_CONNECTING) {
		connect_next(r, "no connection in time");
		return;
	}
	/* If it was we who stood still, the answers are there. */
	enter(r);
	if (r->fd >= 0)
		read_some(r);
	if (!r->freed && r->count && ring_head(r)->deadline_ms <= clock_ms())
		conn_lost(r, "no answer in time", r->timeout);
	else if (!r->freed)
		watch_head(r);
	leave(r);
}

static void on_watch(void *ctx)
{
	struct redis *r = ctx;

	if (r->count == 0)
		PUSH(r, WATCHDOG, "PING");
	timer_start(r->watch, WATCH_MS);
}

/* --- connecting --- */

static void handshake(struct redis *r)
{
	char db[16];

	r->state = ST_HANDSHAKE;
	timer_stop(r->late);
	r->late_set = false;
	r->reader = reader_new();
	event_add(&r->readable, NULL);
	if (r->user[0])
		PUSH(r, HANDSHAKE, "AUTH", r->user, r->password);
	else if (r->password[0])
		PUSH(r, HANDSHAKE, "AUTH", r->password);
	snprintf(db, sizeof(db), "%d", r->db);
	if (r->db)
		PUSH(r, HANDSHAKE, "SELECT", db);
	PUSH(r, OPTIONAL, "CLIENT", "SETNAME", r->on_push ? "wxlogind-invalidation" : "wxlogind"); /* some proxies and ACLs forbid it */
	PUSH(r, LAST_OF_HANDSHAKE, "PING");
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct redis *r = arg;
	int error = 0;
	socklen_t len = sizeof(error);

	(void)what;
	enter(r);
	if (r->state != ST_CONNECTING)
		write_some(r);
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error)
		connect_next(r, strerror(error));
	else
		handshake(r);
	leave(r);
}

static void tcp_options(int fd, int timeout_ms)
{
	unsigned user_timeout = timeout_ms > 1000 ? (unsigned)timeout_ms : 1000;
	int on = 1, idle_s = 5, interval_s = 2, probes = 3;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
}

/* Starts with the next address; false with errno when that failed at once. */
static bool connect_start(struct redis *r)
{
	const struct sockaddr *sa = (const struct sockaddr *)&r->addrs[r->addr_next];
	socklen_t len = r->addr_len[r->addr_next++];
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	if (sa->sa_family != AF_UNIX)
		tcp_options(fd, r->timeout_ms);
	if (connect(fd, sa, len) != 0 && errno != EINPROGRESS) {
		int error = errno;

		close(fd);
		errno = error;
		return false;
	}
	r->fd = fd;
	r->state = ST_CONNECTING;
	event_assign(&r->readable, loop_base(r->loop), fd, EV_READ | EV_PERSIST, on_readable, r);
	event_assign(&r->writable, loop_base(r->loop), fd, EV_WRITE, on_writable, r);
	event_add(&r->writable, NULL);
	r->late_set = true;
	timer_start(r->late, r->timeout_ms);
	return true;
}

/* The next address of this round, or the end of the round. */
static void connect_next(struct redis *r, const char *why)
{
	if (r->state != ST_DOWN)
		conn_close(r);
	while (r->addr_next < r->addr_count) {
		if (connect_start(r))
			return;
		why = strerror(errno);
	}
	log_trouble(r, LOG_WARN, "redis is not there", why);
	retry_later(r);
}

static void add_address(struct redis *r, const void *sa, socklen_t len)
{
	if (r->addr_count == ADDRESSES_MAX || len > sizeof(r->addrs[0]))
		return;
	memcpy(&r->addrs[r->addr_count], sa, len);
	r->addr_len[r->addr_count++] = len;
}

static void add_addresses(struct redis *r, const struct addrinfo *list)
{
	for (; list; list = list->ai_next)
		add_address(r, list->ai_addr, list->ai_addrlen);
}

static void on_resolved(void *ctx, const struct addrinfo *list, const char *error)
{
	struct redis *r = ctx;

	r->resolve = NULL;
	r->state = ST_DOWN;
	add_addresses(r, list);
	connect_next(r, error);
}

static void start_unix(struct redis *r)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (strlen(r->unix_path) < sizeof(un.sun_path)) {
		strcpy(un.sun_path, r->unix_path);
		add_address(r, &un, sizeof(un));
	}
	connect_next(r, "the socket's path is too long");
}

static void start(void *ctx)
{
	struct redis *r = ctx;
	struct addrinfo *list;

	r->addr_count = r->addr_next = 0;
	if (r->unix_path) {
		start_unix(r);
		return;
	}
	list = resolve_numeric(r->host, r->port);
	if (list) {
		add_addresses(r, list);
		freeaddrinfo(list);
		connect_next(r, "no address");
	} else {
		r->state = ST_RESOLVING;
		r->resolve = resolve_start(r->loop, r->host, r->port, on_resolved, r);
	}
}

/* --- the object --- */

static void series_init(struct redis *r)
{
	r->ok = metric_series(METRIC_REDIS_COMMANDS, "ok", NULL, NULL);
	r->error = metric_series(METRIC_REDIS_COMMANDS, "error", NULL, NULL);
	r->timeout = metric_series(METRIC_REDIS_COMMANDS, "timeout", NULL, NULL);
	r->unavailable = metric_series(METRIC_REDIS_COMMANDS, "unavailable", NULL, NULL);
	r->connected = metric_series(METRIC_REDIS_CONNECTED, NULL, NULL, NULL);
	if (!r->on_push)
		metric_set(r->connected, 0);
}

struct redis *redis_new(struct loop *l, const struct redis_options *o)
{
	struct redis *r = mem_alloc(sizeof(*r));

	r->loop = l;
	r->unix_path = mem_strdup(o->unix_path);
	r->host = mem_strdup(o->host ? o->host : "127.0.0.1");
	r->port = o->port;
	r->user = mem_strdup(o->user ? o->user : "");
	r->password = mem_strdup(o->password ? o->password : "");
	r->db = o->db;
	r->timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : 500;
	r->max_pending = o->max_pending > 0 ? o->max_pending : 1024;
	r->on_push = o->on_push;
	r->on_state = o->on_state;
	r->push_ctx = o->push_ctx;
	if (r->unix_path)
		snprintf(r->address, sizeof(r->address), "%s", r->unix_path);
	else
		snprintf(r->address, sizeof(r->address), "%s:%d", r->host, r->port);
	r->fd = -1;
	r->ring_size = (size_t)r->max_pending + HANDSHAKE_MAX + 1;
	r->ring = mem_alloc(r->ring_size * sizeof(*r->ring));
	r->late = timer_new(l, on_late, r);
	r->watch = timer_new(l, on_watch, r);
	r->refuse = timer_new(l, on_refuse, r);
	r->retry = timer_new(l, start, r);
	event_assign(&r->flush, loop_base(l), -1, 0, on_flush, r);
	r->backoff_ms = BACKOFF_MIN_MS;
	r->seed = (unsigned)clock_us() ^ (unsigned)getpid() << 16;
	series_init(r);
	start(r);
	return r;
}

void redis_free(struct redis *r)
{
	if (!r || r->freed)
		return;
	r->freed = true;
	enter(r);
	resolve_cancel(r->resolve);
	timer_stop(r->retry);
	conn_close(r);
	fail_pending(r, r->unavailable);
	while (r->refused_len) /* NOLINT(clang-analyzer-unix.Malloc): r lives until leave */
		tell_refused(r);
	leave(r);
}

bool redis_is_ready(const struct redis *r)
{
	return r->state == ST_READY && (r->count == 0 || clock_ms() < ring_head(r)->deadline_ms);
}

/* --- reading replies --- */

bool redis_reply_is_nil(const struct redisReply *v)
{
	return v && v->type == REDIS_REPLY_NIL;
}

const char *redis_reply_str(const struct redisReply *v, size_t *len)
{
	bool is = v && (v->type == REDIS_REPLY_STRING || v->type == REDIS_REPLY_STATUS);

	if (len)
		*len = is ? v->len : 0;
	return is ? v->str : NULL;
}

bool redis_reply_int(const struct redisReply *v, int64_t *out)
{
	if (!v || v->type != REDIS_REPLY_INTEGER)
		return false;
	*out = v->integer;
	return true;
}

size_t redis_reply_count(const struct redisReply *v)
{
	return v && v->type == REDIS_REPLY_ARRAY ? v->elements : 0;
}

const struct redisReply *redis_reply_at(const struct redisReply *v, size_t i)
{
	return i < redis_reply_count(v) ? v->element[i] : NULL;
}
