/* One Redis, played on the same loop, that behaves or does not; a store that is connected to it,
 * and a caller. */
#ifndef ONE_REDIS_H
#define ONE_REDIS_H

#include "peer.h"

#include <event2/buffer.h>

#include "common/log.h"
#include "io/redis.h"

enum { TIMEOUT_MS = 300 };

/* ---- the peer: answers ECHO, and GET with whatever the test says ---- */

static struct {
	char         commands[4096];   /* names seen, "AUTH a b;PING;" */
	bool         frozen;           /* reads, says nothing */
	bool         knows_script;
	const char  *ping;             /* NULL = PONG */
	const char  *password;         /* NULL = none asked for */
	const char  *role;             /* the raw answer to ROLE; NULL = a master's */
	const char  *info;             /* to INFO; NULL = unknown command */
	bool         no_role;          /* ROLE is unknown */
	const char  *get;              /* the raw answer to GET */
	bool         close_after_get;
	bool         endless;          /* after GET's answer, bytes for ever */
} fake;

static struct loop *loop;
static struct event *tick;

static inline void on_endless(struct bufferevent *bev, void *arg)
{
	static char bytes[32 * 1024];

	(void)arg;
	if (fake.endless)
		bufferevent_write(bev, bytes, sizeof(bytes));
}

static inline bool auth_is_good(const redisReply *cmd)
{
	return fake.password && strcmp(cmd->element[cmd->elements - 1]->str, fake.password) == 0;
}

/* False when the connection is gone. */
static inline bool fake_answers(struct peer_conn *c, const redisReply *cmd)
{
	const char *name = cmd->element[0]->str;
	size_t used = strlen(fake.commands);

	/* ROLE comes all the time */
	for (size_t i = 0; i < cmd->elements && used < 4000 && strcmp(name, "ROLE") != 0; i++)
		used += (size_t)snprintf(fake.commands + used, sizeof(fake.commands) - used,
			"%.20s%s", cmd->element[i]->str, i + 1 < cmd->elements ? " " : ";");
	/* nothing stands between bytes without an end */
	if (fake.frozen || (fake.endless && strcmp(name, "GET") != 0))
		return true;
	if (!strcmp(name, "AUTH")) {
		peer_says(c, auth_is_good(cmd) ? "+OK\r\n"
					       : "-WRONGPASS invalid username-password pair\r\n");
	} else if (!strcmp(name, "PING")) {
		peer_says(c, fake.ping ? fake.ping : "+PONG\r\n");
	} else if (!strcmp(name, "ROLE") && !fake.no_role) {
		peer_says(c, fake.role ? fake.role : "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
	} else if (!strcmp(name, "INFO") && fake.info) {
		peer_says(c, fake.info);
	} else if (!strcmp(name, "SELECT")) {
		peer_says(c, "+OK\r\n");
	} else if (!strcmp(name, "ECHO")) {
		peer_says_bulk(c, cmd->element[1]->str);
	} else if (!strcmp(name, "EVALSHA") && !fake.knows_script) {
		peer_says(c, "-NOSCRIPT No matching script. Please use EVAL.\r\n");
	} else if (!strcmp(name, "EVALSHA") || !strcmp(name, "EVAL")) {
		fake.knows_script = true;
		peer_says(c, ":7\r\n");
	} else if (!strcmp(name, "GET")) {
		peer_says(c, fake.get);
		if (fake.close_after_get) {
			evbuffer_write(bufferevent_get_output(c->bev), bufferevent_getfd(c->bev));
			peer_conn_end(c);
			return false;
		}
	} else {
		/* CLIENT SETNAME too: it must not matter */
		peer_says(c, "-ERR unknown command\r\n");
	}
	return true;
}

static struct peer peer;

static inline int setup(void **state)
{
	(void)state;
	log_init(LOG_ERROR, LOG_LOGFMT);
	memset(&fake, 0, sizeof(fake));
	loop = loop_new();
	tick = tick_new(loop);
	peer = (struct peer){.loop = loop, .answers = fake_answers, .on_written = on_endless};
	peer_listen(&peer);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	peer_stop(&peer);
	event_free(tick);
	loop_free(loop);
	return 0;
}

static struct redis_host host;

static inline struct redis_options options(void)
{
	host = (struct redis_host){"127.0.0.1", peer.port};
	return (struct redis_options){.hosts = &host,
		.host_count = 1,
		.key_prefix = "t:",
		.timeout_ms = TIMEOUT_MS,
		.max_pending = 1000};
}

static inline struct redis *connected(void)
{
	struct redis_options o = options();
	struct redis *r = redis_new(loop, &o);

	assert_false(redis_is_ready(r));
	UNTIL(redis_is_ready(r));
	return r;
}

static inline void say_for_ever(const char **answer, const char *says, const char *expected)
{
	struct redis_options o = options();
	struct redis *r;

	*answer = says;
	peer.accepted = 0;
	r = redis_new(loop, &o);
	UNTIL(peer.accepted == 2); /* it was sent away, and came again */
	assert_false(redis_is_ready(r));
	if (!strstr(redis_trouble(r), expected))
		fail_msg("trouble: %s", redis_trouble(r));
	*answer = NULL;
	UNTIL(redis_is_ready(r));
	assert_string_equal(redis_trouble(r), "");
	redis_free(r);
}

/* ---- a caller ---- */

struct answer {
	int          calls;
	enum outcome oc;
	int          type;
	char         text[64];
	int          order;      /* the how-manieth callback this was */
	struct redis *again;     /* sends another command in the callback */
	struct redis *free_it;   /* frees in the callback */
};

static int callbacks;
static struct answer second;

static inline void on_answer(void *ctx, enum outcome oc, const struct redisReply *v)
{
	struct answer *a = ctx;
	const char *s = redis_reply_str(v, NULL);

	a->calls++;
	a->oc = oc;
	a->order = callbacks++;
	a->type = v ? v->type : 0;
	snprintf(a->text, sizeof(a->text), "%s", s ? s : "");
	if (oc == OC_OK)
		assert_non_null(v);
	else
		assert_null(v);
	if (a->again)
		redis_command(a->again, 1, (const char *[]){"PING"}, NULL, on_answer, &second);
	if (a->free_it)
		redis_free(a->free_it);
}

static inline void ask(struct redis *r, const char *name, const char *arg, struct answer *a)
{
	const char *argv[] = {name, arg};
	int before = a->calls;

	redis_command(r, arg ? 2 : 1, argv, NULL, on_answer, a);
	assert_int_equal(a->calls, before); /* never before it returns */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
