#include "store/token.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"

enum { HASH_LEN = 22, KEY_MAX = 192, FAILED_MS = 1000, BAD_MS = 300000, ASKED_MS = 10000 };

struct tokens {
	struct redis *redis;
	const struct seal *seal;
	char *prefix;
};

static struct redis_script look_script = {.text =
#include "lua/token_look.h"
};
static struct redis_script save_script = {.text =
#include "lua/token_save.h"
};
static struct redis_script fail_script = {.text =
#include "lua/token_fail.h"
};
static struct redis_script force_script = {.text =
#include "lua/token_force.h"
};
static struct redis_script forget_script = {.text =
#include "lua/token_forget.h"
};

struct names {
	char token[KEY_MAX], lock[KEY_MAX], bad[KEY_MAX], asked[KEY_MAX], forced[KEY_MAX];
};

static void names_make(const struct tokens *t, const char *appid, struct names *n)
{
	snprintf(n->token, KEY_MAX, "%st:{%s}", t->prefix, appid);
	snprintf(n->lock, KEY_MAX, "%st:{%s}:lock", t->prefix, appid);
	snprintf(n->bad, KEY_MAX, "%st:{%s}:bad", t->prefix, appid);
	snprintf(n->asked, KEY_MAX, "%st:{%s}:asked", t->prefix, appid);
	snprintf(n->forced, KEY_MAX, "%st:{%s}:forced", t->prefix, appid);
}

static void hash_text(char out[HASH_LEN + 1], const char *token)
{
	uint8_t hash[SHA256_LEN];

	crypt_sha256(hash, token, strlen(token));
	base64url_encode(out, hash, 16);
}

/* ---- look ---- */

struct look {
	struct tokens *t;
	struct names names;
	token_look_cb cb;
	void *ctx;
};

static void read_lock(const char *lock, struct token_look *look)
{
	const char *name;
	size_t n;

	if (!lock || *lock != '!')
		return;
	name = lock + 1;
	n = strcspn(name, ":");
	look->failed = OC_WECHAT_UNAVAILABLE;
	for (int oc = OC_OK + 1; oc < OC_COUNT; oc++)
		if (strlen(outcome_code((enum outcome)oc)) == n &&
			!memcmp(outcome_code((enum outcome)oc), name, n))
			look->failed = (enum outcome)oc;
	look->errcode = name[n] ? atoi(name + n + 1) : 0;
}

static void on_nothing(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	(void)ctx;
	(void)oc;
	(void)reply; /* a lock ends by itself; what was not forgotten is met again */
}

/* Sealed under a key that we have not. It would be in the way until it ends, for hours; who looks
 * next finds none, and renews. */
static void forget(const struct look *l, const char *value, size_t len)
{
	const char *argv[] = {"1", l->names.token, value};
	const size_t argvlen[] = {1, strlen(l->names.token), len};

	log_error("an access_token in redis cannot be decrypted: is encryption_key the same "
		  "everywhere?",
		LOG_STR("key", l->names.token));
	redis_eval(l->t->redis, &forget_script, NELEM(argv), argv, argvlen, on_nothing, NULL);
}

static void on_look(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct look *l = ctx;
	struct arena *a = arena_new();
	struct token_look look = {0};
	int64_t ours = 0;
	size_t len = 0;
	const char *v = redis_reply_str(redis_reply_at(reply, 0), &len);

	redis_reply_int(redis_reply_at(reply, 1), &look.left_ms);
	redis_reply_int(redis_reply_at(reply, 2), &ours);
	look.ours = ours == 1;
	read_lock(redis_reply_str(redis_reply_at(reply, 3), NULL), &look);
	if (v && len > HASH_LEN && look.left_ms > 0) {
		look.token =
			unseal_text(l->t->seal, a, l->names.token, v + HASH_LEN, len - HASH_LEN);
		if (!look.token)
			forget(l, v, len);
	}
	l->cb(l->ctx, oc, oc == OC_OK ? &look : NULL);
	arena_free(a);
	free(l);
}

void token_look(struct tokens *t, const char *appid, const struct token_report *report,
	const char *holder, int64_t lock_ms, token_look_cb cb, void *ctx)
{
	struct look *l = mem_alloc(sizeof(*l));
	char hash[HASH_LEN + 1] = "", lock[24], ahead[24], bad_ms[24], asked_ms[24];

	l->t = t;
	l->cb = cb;
	l->ctx = ctx;
	names_make(t, appid, &l->names);
	if (report->token)
		hash_text(hash, report->token);
	snprintf(lock, sizeof(lock), "%" PRId64, lock_ms);
	snprintf(ahead, sizeof(ahead), "%d", TOKEN_AHEAD_MS);
	snprintf(bad_ms, sizeof(bad_ms), "%d", BAD_MS);
	snprintf(asked_ms, sizeof(asked_ms), "%d", ASKED_MS);
	const char *argv[] = {"4", l->names.token, l->names.lock, l->names.bad, l->names.asked,
		hash, report->drop ? "1" : "0", holder, lock, ahead, bad_ms, asked_ms};
	redis_eval(t->redis, &look_script, NELEM(argv), argv, NULL, on_look, l);
}

/* ---- save and fail ---- */

struct save {
	token_save_cb cb;
	void *ctx;
};

static void on_save(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct save *s = ctx;
	int64_t dead = 0;

	redis_reply_int(reply, &dead);
	s->cb(s->ctx, oc, dead == 1);
	free(s);
}

void token_save(struct tokens *t, const char *appid, const char *holder, const char *token,
	int64_t expires_in_s, token_save_cb cb, void *ctx)
{
	struct save *s = mem_alloc(sizeof(*s));
	struct arena *a = arena_new();
	struct names n;
	struct sealed v;
	char hash[HASH_LEN + 1], ttl[24];

	*s = (struct save){cb, ctx};
	names_make(t, appid, &n);
	hash_text(hash, token);
	v = seal_text(t->seal, a, n.token, token);
	snprintf(ttl, sizeof(ttl), "%" PRId64, expires_in_s * 1000);
	const char *argv[] = {"3", n.token, n.lock, n.bad, holder, hash, v.bytes, ttl};
	size_t len[NELEM(argv)];
	for (size_t i = 0; i < NELEM(argv); i++)
		len[i] = argv[i] == v.bytes ? v.len : strlen(argv[i]);
	redis_eval(t->redis, &save_script, NELEM(argv), argv, len, on_save, s);
	arena_free(a);
}

void token_fail(
	struct tokens *t, const char *appid, const char *holder, enum outcome why, int errcode)
{
	struct names n;
	char mark[40], ms[12];

	names_make(t, appid, &n);
	snprintf(mark, sizeof(mark), errcode ? "!%s:%d" : "!%s", outcome_code(why), errcode);
	snprintf(ms, sizeof(ms), "%d", FAILED_MS);
	const char *argv[] = {"2", n.lock, n.bad, holder, mark, ms};
	redis_eval(t->redis, &fail_script, NELEM(argv), argv, NULL, on_nothing, NULL);
}

/* ---- force ---- */

struct force {
	token_force_cb cb;
	void *ctx;
};

static void on_force(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct force *f = ctx;
	int64_t wait = TOKEN_FORCE_PAUSE_MS;

	redis_reply_int(reply, &wait);
	f->cb(f->ctx, oc, wait);
	free(f);
}

void token_force(struct tokens *t, const char *appid, token_force_cb cb, void *ctx)
{
	struct force *f = mem_alloc(sizeof(*f));
	struct names n;
	char pause[12], day[12];

	*f = (struct force){cb, ctx};
	names_make(t, appid, &n);
	snprintf(pause, sizeof(pause), "%d", TOKEN_FORCE_PAUSE_MS);
	snprintf(day, sizeof(day), "%d", TOKEN_FORCE_DAY);
	const char *argv[] = {"1", n.forced, pause, day};
	redis_eval(t->redis, &force_script, NELEM(argv), argv, NULL, on_force, f);
}

/* ---- */

struct tokens *tokens_new(struct redis *r, const char *key_prefix, const struct seal *seal)
{
	struct tokens *t = mem_alloc(sizeof(*t));

	t->redis = r;
	t->seal = seal;
	t->prefix = mem_strdup(key_prefix);
	return t;
}

void tokens_free(struct tokens *t)
{
	if (!t)
		return;
	free(t->prefix);
	free(t);
}
