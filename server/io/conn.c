/* A connection is a queue: commands go out in order, answers come back in order, and a ring remembers who asked. Whatever breaks that
 * order (an answer too many, one too late, bytes that are not Redis') ends the connection by one path, conn_end, which tells everybody
 * in the ring and starts over. */
#include "io/conn.h"

#include <errno.h>
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
#include "io/resolve.h"
#include "io/tls.h"

enum {
	ADDRESSES_MAX = 8,
	HANDSHAKE_MAX = 4,              /* AUTH, SELECT, CLIENT SETNAME, PING */
	BACKOFF_MIN_MS = 50,
	BACKOFF_MAX_MS = 1000,
	READ_BYTES = 64 * 1024,
	OUT_KEPT = 256 * 1024,          /* of the output's memory, once it is sent */
	READS_A_TURN = 16,              /* then others may have the loop */
	REPLY_MAX = 1024 * 1024,        /* bytes of one reply; what we store is far smaller */
	OUTPUT_MAX = 8 * 1024 * 1024,   /* bytes waiting for the socket */
	WHY_MAX = REPLY_SENTENCE_MAX + 40,
};

enum state { ST_DOWN, ST_RESOLVING, ST_CONNECTING, ST_TLS, ST_HANDSHAKE, ST_UP };
enum kind { OWNERS, HANDSHAKE, OPTIONAL, LAST_OF_HANDSHAKE };

struct pending {
	struct asked a;
	int64_t      deadline_ms;
	enum kind    kind;          /* all but OWNERS are our own: a.fn is NULL */
};

struct conn {
	struct loop *loop;
	struct conn_options o;      /* its strings are ours */
	char address[128];          /* for the log */

	/* the connection */
	enum state   state;
	int          fd;            /* -1 = none */
	struct tls_link *link;      /* NULL = plain */
	bool         write_waits;   /* for the socket to be readable, as TLS may ask */
	struct event readable, writable;
	struct event flush;         /* at the end of the turn */
	redisReader *reader;
	bool         reply_kept;    /* by whoever was told it */
	size_t       reply_bytes;   /* fed since the last complete reply */
	struct buf   out;
	size_t       out_sent;
	unsigned     generation;    /* tells a callback's return that the connection is another */
	uint64_t     scripts;       /* that the peer knows, a bit each */
	char         said[WHY_MAX]; /* the last error during the handshake, in case it hangs up then */

	/* who asked: a ring */
	struct pending *ring;
	size_t ring_size, head, count;
	size_t owners;              /* of them, not our own */
	struct timer *late;         /* connecting, or the head of the ring */
	bool   late_set;

	/* coming back */
	struct resolve *resolve;
	struct sockaddr_storage addrs[ADDRESSES_MAX];
	socklen_t addr_len[ADDRESSES_MAX];
	size_t addr_count, addr_next;
	struct timer *retry;
	int      backoff_ms;
	int64_t  up_ms;             /* since when it is up */
	unsigned seed;
	char     trouble[WHY_MAX];  /* logged last, so that a long outage is one line */

	int  depth;                 /* callbacks in progress: memory must outlive them */
	bool freed;
};

static void connect_next(struct conn *c, const char *why);

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

static void enter(struct conn *c)
{
	c->depth++;
}

static void leave(struct conn *c)
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
static void log_trouble(struct conn *c, enum log_level level, const char *msg, const char *why)
{
	if (strcmp(why, c->trouble) == 0)
		return;
	snprintf(c->trouble, sizeof(c->trouble), "%s", why);
	log_at(level, msg, LOG_STR("address", c->address), LOG_STR("for", c->o.purpose), LOG_STR("reason", c->trouble));
}

static void conn_close(struct conn *c)
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

static void retry_later(struct conn *c)
{
	int half = c->backoff_ms / 2;

	if (c->freed)
		return;
	timer_start(c->retry, half + rand_r(&c->seed) % (half + 1));
	c->backoff_ms = c->backoff_ms * 2 < BACKOFF_MAX_MS ? c->backoff_ms * 2 : BACKOFF_MAX_MS;
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

	/* One that lasted is sought again at once. One that greets well and breaks at the first answer is no better than none. */
	if (was == ST_UP && clock_ms() - c->up_ms >= BACKOFF_MAX_MS)
		c->backoff_ms = BACKOFF_MIN_MS;
	if (was == ST_HANDSHAKE && c->said[0])
		why = c->said;
	enter(c);
	if (was == ST_UP) {
		snprintf(c->trouble, sizeof(c->trouble), "%s", why);
		log_warn("redis connection lost", LOG_STR("address", c->address), LOG_STR("for", c->o.purpose), LOG_STR("reason", why),
			LOG_INT("waiting", (int64_t)waiting));
	} else {
		log_trouble(c, LOG_WARN, "redis is not there", why);
	}
	conn_close(c);
	retry_later(c);
	tell_all(c, fate);
	leave(c);
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
	enter(c);
	c->backoff_ms = BACKOFF_MAX_MS; /* asking often would not help */
	log_trouble(c, level, level < LOG_ERROR ? "redis is not ready" : "redis refuses this configuration", why);
	conn_close(c);
	retry_later(c);
	tell_all(c, CONN_LOST);
	leave(c);
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
	if (p->kind == LAST_OF_HANDSHAKE && !strcmp(word, "MISCONF")) { /* it cannot save to disk: reads go on */
		log_warn("redis refuses writes", LOG_STR("address", c->address), LOG_STR("reason", sentence));
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
	else if (v->type != REDIS_REPLY_STATUS || strcmp(v->str, p->kind == HANDSHAKE ? "OK" : "PONG") != 0)
		conn_lost(c, "the answer is not Redis'");
	else if (p->kind == LAST_OF_HANDSHAKE)
		become_up(c);
}

static bool is_message(const redisReply *v)
{
	const redisReply *kind = redis_reply_at(v, 0);

	return redis_reply_count(v) == 3 && kind->type == REDIS_REPLY_STRING && !strcmp(kind->str, "message");
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
		if (redisReaderGetReply(c->reader, &reply) != REDIS_OK) {
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

/* As read(), over TLS or not. */
static ssize_t socket_read(struct conn *c, void *p, size_t n)
{
	ssize_t got;

	if (!c->link)
		return read(c->fd, p, n);
	got = tls_read(c->link, p, n);
	if (got == TLS_WRITE)
		event_add(&c->writable, NULL);
	errno = got == TLS_BAD ? EPROTO : EAGAIN;
	return got < 0 ? -1 : got;
}

static ssize_t socket_write(struct conn *c, const void *p, size_t n)
{
	ssize_t got;

	if (!c->link)
		return write(c->fd, p, n);
	got = tls_write(c->link, p, n);
	c->write_waits = got == TLS_READ;
	errno = got == TLS_BAD || got == TLS_END ? EPROTO : EAGAIN;
	return got <= 0 ? -1 : got;
}

static const char *socket_error(struct conn *c)
{
	return c->link ? tls_why(c->link) : strerror(errno);
}

static void read_some(struct conn *c)
{
	static char bytes[READ_BYTES];
	unsigned generation = c->generation;

	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between enter and leave c lives */
	for (int i = 0; i < READS_A_TURN && c->generation == generation; i++) {
		ssize_t n = socket_read(c, bytes, sizeof(bytes));

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
			conn_lost(c, socket_error(c));
		}
	}
	if (c->generation == generation && c->link && tls_has_more(c->link))
		event_active(&c->readable, EV_READ, 0);
}

static void write_some(struct conn *c);
static void tls_step(struct conn *c);

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	enter(c);
	if (c->state == ST_TLS)
		tls_step(c);
	else
		read_some(c);
	if (c->state >= ST_HANDSHAKE && c->write_waits)
		write_some(c);
	leave(c);
}

/* --- sending --- */

static void write_some(struct conn *c)
{
	while (c->out_sent < c->out.len) {
		ssize_t n = socket_write(c, c->out.data + c->out_sent, c->out.len - c->out_sent);

		if (n >= 0) {
			c->out_sent += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (!c->write_waits)
				event_add(&c->writable, NULL);
			return;
		} else if (errno != EINTR) {
			conn_lost(c, socket_error(c));
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
	enter(c);
	if (c->state >= ST_HANDSHAKE && !event_pending(&c->writable, EV_WRITE, NULL))
		write_some(c);
	leave(c);
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

void conn_encode(struct buf *b, int argc, const char *const *argv, const size_t *argvlen)
{
	for (int i = 0; i < argc; i++)
		add_bulk(b, argv[i], argvlen ? argvlen[i] : strlen(argv[i]));
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
	c->ring[(c->head + c->count) % c->ring_size] =
		(struct pending){.a = *a, .kind = kind, .deadline_ms = clock_ms() + c->o.timeout_ms};
	c->count++;
	c->owners += kind == OWNERS;
	watch_head(c);
	event_active(&c->flush, EV_TIMEOUT, 0);
}

static size_t words_bytes(int argc, const char *const *argv, const size_t *argvlen)
{
	size_t n = 0;

	for (int i = 0; i < argc; i++)
		n += argvlen ? argvlen[i] : strlen(argv[i]);
	return n;
}

bool conn_has_room(const struct conn *c, size_t bytes)
{
	return c->state == ST_UP && c->owners < (size_t)c->o.max_pending && c->out.len - c->out_sent + bytes <= OUTPUT_MAX;
}

bool conn_send(struct conn *c, int argc, const char *const *argv, const size_t *argvlen, const struct asked *a)
{
	if (!conn_has_room(c, words_bytes(argc, argv, argvlen)))
		return false;
	reclaim(c);
	add_count(&c->out, '*', (size_t)argc);
	conn_encode(&c->out, argc, argv, argvlen);
	enlist(c, OWNERS, a);
	return true;
}

bool conn_send_encoded(struct conn *c, const char *word1, const char *word2, int argc, const char *bytes, size_t len,
	const struct asked *a)
{
	if (!conn_has_room(c, len))
		return false;
	reclaim(c);
	add_count(&c->out, '*', (size_t)argc + (word1 ? 2 : 0));
	if (word1) {
		add_bulk(&c->out, word1, strlen(word1));
		add_bulk(&c->out, word2, strlen(word2));
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
		connect_next(c, c->state == ST_TLS ? "no TLS handshake in time (is it the port for TLS?)" : "no connection in time");
		return;
	}
	/* If it was we who stood still, the answers are there. */
	enter(c);
	if (c->fd >= 0)
		read_some(c);
	if (!c->freed && c->count && ring_head(c)->deadline_ms <= clock_ms())
		conn_end(c, "no answer in time", CONN_LATE);
	else if (!c->freed)
		watch_head(c);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between enter and leave c lives */
	leave(c);
}

/* --- connecting --- */

static void greet(struct conn *c, enum kind kind, int argc, const char *const *argv)
{
	add_count(&c->out, '*', (size_t)argc);
	conn_encode(&c->out, argc, argv, NULL);
	enlist(c, kind, &(struct asked){.name = argv[0]});
}

#define GREET(c, kind, ...) \
	greet(c, kind, (int)NELEM(((const char *const[]){__VA_ARGS__})), (const char *const[]){__VA_ARGS__})

static void handshake(struct conn *c)
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

static void tls_step(struct conn *c)
{
	int got = tls_handshake(c->link);
	char why[WHY_MAX];

	if (got == TLS_DONE) {
		handshake(c);
	} else if (got == TLS_WRITE) {
		event_add(&c->writable, NULL);
	} else if (got == TLS_BAD) {
		snprintf(why, sizeof(why), "%s", tls_why(c->link)); /* which ends with the link */
		connect_next(c, why);
	}
}

static void connected(struct conn *c)
{
	event_add(&c->readable, NULL);
	if (!c->o.tls) {
		handshake(c);
		return;
	}
	c->state = ST_TLS;
	c->link = tls_open(c->o.tls, c->fd, c->o.host);
	tls_step(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	int error = 0;
	socklen_t len = sizeof(error);

	(void)what;
	enter(c);
	if (c->state == ST_TLS)
		tls_step(c);
	else if (c->state != ST_CONNECTING)
		write_some(c);
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error)
		connect_next(c, strerror(error));
	else
		connected(c);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between enter and leave c lives */
	leave(c);
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
static bool connect_start(struct conn *c)
{
	const struct sockaddr *sa = (const struct sockaddr *)&c->addrs[c->addr_next];
	socklen_t len = c->addr_len[c->addr_next++];
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	if (sa->sa_family != AF_UNIX)
		tcp_options(fd, c->o.timeout_ms);
	if (connect(fd, sa, len) != 0 && errno != EINPROGRESS) {
		int error = errno;

		close(fd);
		errno = error;
		return false;
	}
	c->fd = fd;
	c->state = ST_CONNECTING;
	event_assign(&c->readable, loop_base(c->loop), fd, EV_READ | EV_PERSIST, on_readable, c);
	event_assign(&c->writable, loop_base(c->loop), fd, EV_WRITE, on_writable, c);
	event_add(&c->writable, NULL);
	c->late_set = true;
	timer_start(c->late, c->o.timeout_ms);
	return true;
}

/* The next address of this round, or the end of the round. */
static void connect_next(struct conn *c, const char *why)
{
	if (c->state != ST_DOWN)
		conn_close(c);
	while (c->addr_next < c->addr_count) {
		if (connect_start(c))
			return;
		why = strerror(errno);
	}
	log_trouble(c, LOG_WARN, "redis is not there", why);
	retry_later(c);
}

static void add_address(struct conn *c, const void *sa, socklen_t len)
{
	if (c->addr_count == ADDRESSES_MAX || len > sizeof(c->addrs[0]))
		return;
	memcpy(&c->addrs[c->addr_count], sa, len);
	c->addr_len[c->addr_count++] = len;
}

static void add_addresses(struct conn *c, const struct addrinfo *list)
{
	for (; list; list = list->ai_next)
		add_address(c, list->ai_addr, list->ai_addrlen);
}

static void on_resolved(void *ctx, const struct addrinfo *list, const char *error)
{
	struct conn *c = ctx;

	c->resolve = NULL;
	c->state = ST_DOWN;
	add_addresses(c, list);
	connect_next(c, error);
}

static void start_unix(struct conn *c)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (strlen(c->o.unix_path) < sizeof(un.sun_path)) {
		strcpy(un.sun_path, c->o.unix_path);
		add_address(c, &un, sizeof(un));
	}
	connect_next(c, "the socket's path is too long");
}

static void start(void *ctx)
{
	struct conn *c = ctx;
	struct addrinfo *list;

	c->addr_count = c->addr_next = 0;
	if (c->o.unix_path) {
		start_unix(c);
		return;
	}
	list = resolve_numeric(c->o.host, c->o.port);
	if (list) {
		add_addresses(c, list);
		freeaddrinfo(list);
		connect_next(c, "no address");
	} else {
		c->state = ST_RESOLVING;
		c->resolve = resolve_start(c->loop, c->o.host, c->o.port, on_resolved, c);
	}
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
		snprintf(c->address, sizeof(c->address), strchr(c->o.host, ':') ? "[%s]:%d" : "%s:%d", c->o.host, c->o.port);
	c->fd = -1;
	c->ring_size = (size_t)o->max_pending + HANDSHAKE_MAX + 1;
	c->ring = mem_alloc(c->ring_size * sizeof(*c->ring));
	c->late = timer_new(l, on_late, c);
	c->retry = timer_new(l, start, c);
	event_assign(&c->flush, loop_base(l), -1, 0, on_flush, c);
	c->backoff_ms = BACKOFF_MIN_MS;
	c->seed = (unsigned)clock_us() ^ (unsigned)getpid() << 16;
	start(c);
	return c;
}

void conn_free(struct conn *c)
{
	if (!c || c->freed)
		return;
	c->freed = true;
	enter(c);
	resolve_cancel(c->resolve);
	conn_close(c);
	tell_all(c, CONN_LOST);
	leave(c);
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
