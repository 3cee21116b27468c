/* Sessions and codes in a real Redis, since the scripts are half of the code: a server, a
 * connection, and what the callbacks brought. */
#ifndef REAL_STORE_H
#define REAL_STORE_H

#include "unit.h"

#include "common/clock.h"
#include "common/log.h"
#include "io/redis.h"
#include "real_redis.h"
#include "store/seal.h"
#include "store/session.h"

static struct real_redis server;
static struct loop *loop;
static struct redis *redis;

/* ---- what callbacks brought ---- */

static struct {
	enum outcome oc;
	char    token[64], reason[32], openid[64], unionid[64], ip[64], agent[300], text[4096];
	int64_t expires_in_s, created_at, number;
	bool    nil;
	size_t  listed;
	char    ids[4][SESSION_ID_LEN + 1];
	int     calls;
} got;

static inline void on_create(
	void *ctx, enum outcome oc, const char *token, int64_t expires_in_s, int64_t created_ms)
{
	(void)created_ms;
	(void)ctx;
	got.oc = oc;
	snprintf(got.token, sizeof(got.token), "%s", token ? token : "");
	got.expires_in_s = expires_in_s;
	loop_stop(loop);
}

static inline void on_get(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	(void)ctx;
	got.oc = oc;
	snprintf(got.reason, sizeof(got.reason), "%s", reason ? reason : "");
	if (ses) {
		snprintf(got.openid, sizeof(got.openid), "%s", ses->openid);
		snprintf(got.unionid, sizeof(got.unionid), "%s", ses->unionid);
		got.expires_in_s = ses->expires_in_s;
		got.created_at = ses->created_at;
	}
	loop_stop(loop);
}

static inline void on_list(void *ctx, enum outcome oc, const struct session_listed *list, size_t n)
{
	(void)ctx;
	got.oc = oc;
	got.listed = n;
	for (size_t i = 0; i < n && i < NELEM(got.ids); i++) {
		assert_int_equal(strlen(list[i].id), SESSION_ID_LEN);
		strcpy(got.ids[i], list[i].id);
		snprintf(got.ip, sizeof(got.ip), "%s", list[i].ip);
		snprintf(got.agent, sizeof(got.agent), "%s", list[i].user_agent);
		got.created_at = list[i].created_at;
		got.expires_in_s = list[i].expires_in_s;
		assert_true(list[i].seen_at >= list[i].created_at);
	}
	loop_stop(loop);
}

static inline void on_done(void *ctx, enum outcome oc)
{
	(void)ctx;
	got.oc = oc;
	loop_stop(loop);
}

static inline void on_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	(void)ctx;
	got.oc = oc;
	got.text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		snprintf(got.text + strlen(got.text), sizeof(got.text) - strlen(got.text), "%s\n",
			keys[i]);
	loop_stop(loop);
}

static inline void on_raw(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	const char *s = redis_reply_str(reply, NULL);

	(void)ctx;
	got.oc = oc;
	got.nil = redis_reply_is_nil(reply);
	got.number = -99;
	redis_reply_int(reply, &got.number);
	snprintf(got.text, sizeof(got.text), "%s", s ? s : "");
	for (size_t i = 0; i < redis_reply_count(reply); i++) {
		const char *e = redis_reply_str(redis_reply_at(reply, i), NULL);
		size_t n = strlen(got.text);
		snprintf(got.text + n, sizeof(got.text) - n, "%s\n", e ? e : "");
	}
	loop_stop(loop);
}

/* ---- asking and waiting ---- */

static inline void nothing(void *ctx)
{
	loop_stop(ctx);
}

static inline void wait_ms(int64_t ms)
{
	struct timer *t = timer_new(loop, nothing, loop);

	timer_start(t, ms);
	loop_run(loop);
	timer_free(t);
}

static inline void command(const char *a, const char *b, const char *c, const char *d)
{
	const char *argv[] = {a, b, c, d};

	redis_command(redis, d ? 4 : c ? 3 : b ? 2 : 1, argv, NULL, on_raw, NULL);
	loop_run(loop);
}

static inline int lines(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static inline struct sessions_options options(void)
{
	static struct seal *plain;

	if (!plain)
		plain = seal_new(NULL, 0);
	return (struct sessions_options){.key_prefix = "t:",
		.seal = plain,
		.ttl_ms = 60000,
		.max_age_ms = 3600000,
		.timeout_ms = 2000};
}

static inline void create(struct sessions *s, const char *openid, const char *session_key)
{
	struct session_login in = {.appid = "wx1",
		.openid = openid,
		.unionid = "u1",
		.session_key = session_key,
		.ip = "192.0.2.7",
		.user_agent = "an|agent\nof two lines"};

	session_create(s, &in, on_create, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
}

static inline void get(struct sessions *s, const char *token, bool renew)
{
	session_get(s, token, renew, on_get, NULL);
	loop_run(loop);
}

static inline void end(struct sessions *s, const char *token, const char *reason)
{
	session_end(s, token, reason, on_done, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
}

static inline void list(struct sessions *s, const char *openid)
{
	session_list(s, "wx1", openid, on_list, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
}

static inline void assert_session_keys(struct sessions *s, const char *openid, const char *expected)
{
	session_keys(s, "wx1", openid, on_keys, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	assert_string_equal(got.text, expected);
}

/* ---- the server, of all tests; each begins with an empty one ---- */

static inline int start(void **state)
{
	struct redis_options o = {.unix_path = server.socket,
		.user = "",
		.password = "",
		.timeout_ms = 10000,
		.max_pending = 100};

	(void)state;
	real_redis_start(&server);
	o.unix_path = server.socket;
	loop = loop_new();
	redis = redis_new(loop, &o);
	for (int i = 0; i < 500 && !redis_is_ready(redis); i++)
		wait_ms(20);
	return redis_is_ready(redis) ? 0 : -1;
}

static inline int stop(void **state)
{
	(void)state;
	redis_free(redis);
	loop_free(loop);
	real_redis_stop(&server);
	return 0;
}

static inline int flush(void **state)
{
	(void)state;
	command("CONFIG", "SET", "maxmemory", "0");
	command("FLUSHALL", NULL, NULL, NULL);
	return 0;
}

#define T(f) cmocka_unit_test_setup(f, flush)
#define RUN(tests) (log_init(LOG_ERROR, LOG_LOGFMT), cmocka_run_group_tests(tests, start, stop))

#endif
