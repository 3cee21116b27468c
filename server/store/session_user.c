/* A user's sessions: their end, their list, their session_keys; and what keeps the user from new
 * ones. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "store/session_private.h"

/* What each takes and answers: the .lua file of the name. */
static struct redis_script end_script = {.text =
#include "lua/session_end.h"
};
static struct redis_script end_user_script = {.text =
#include "lua/session_end_user.h"
};
static struct redis_script erasing_script = {.text =
#include "lua/session_erasing.h"
};
static struct redis_script block_script = {.text =
#include "lua/session_block.h"
};
static struct redis_script list_script = {.text =
#include "lua/session_list.h"
};
static struct redis_script keys_script = {.text =
#include "lua/session_keys.h"
};

enum { END_BATCH = 250, DAY_MS = 24 * 3600 * 1000 };
#define CLAIM_MS "5000"

/* ---- end ---- */

struct end {
	struct sessions *s;
	session_done_cb cb;
	void *ctx;
	char id[SESSION_ID_LEN + 1];
	struct user_names u; /* of what may take several turns */
	void (*again)(struct end *e);
	bool erasing;
	int64_t until_s;     /* of a block */
};

static struct end *end_new(struct sessions *s, const char *id, session_done_cb cb, void *ctx)
{
	struct end *e = mem_alloc(sizeof(*e));

	e->s = s;
	e->cb = cb;
	e->ctx = ctx;
	snprintf(e->id, sizeof(e->id), "%s", id);
	return e;
}

static void on_ended(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct end *e = ctx;

	(void)reply;
	session_forget_id(e->s, e->id);
	e->cb(e->ctx, oc);
	free(e);
}

void session_end(
	struct sessions *s, const char *token, const char *reason, session_done_cb cb, void *ctx)
{
	struct token_names t;

	token_names_make(s->prefix, token, NULL, &t);
	const char *argv[] = {"2", t.session, t.n.index, reason, t.id, t.n.session_base, ""};
	redis_eval_kept(s->redis, &end_script, NELEM(argv), argv, NULL, on_ended,
		end_new(s, t.id, cb, ctx));
}

void session_end_id(struct sessions *s, const char *appid, const char *openid, const char *id,
	session_done_cb cb, void *ctx)
{
	struct user_names u;
	char key[KEY_MAX];

	user_names_make(s->prefix, appid, openid, &u);
	snprintf(key, sizeof(key), "%s%s", u.n.session_base, id);
	const char *argv[] = {"2", key, u.n.index, "revoked", id, u.n.session_base, u.name};
	redis_eval_kept(
		s->redis, &end_script, NELEM(argv), argv, NULL, on_ended, end_new(s, id, cb, ctx));
}

static void on_user_ended(void *ctx, enum outcome oc, const struct redisReply *reply);

/* In one go, unless it would keep Redis from others. */
static void end_user(struct end *e)
{
	char limit[12];

	snprintf(limit, sizeof(limit), "%d", END_BATCH);
	const char *keys = e->erasing ? "3" : "1";
	const char *argv[] = {keys, e->u.n.index, e->u.n.session_base, e->u.name, "revoked", limit};
	const char *more[] = {keys, e->u.n.index, e->u.erasing, e->u.keycache, e->u.n.session_base,
		e->u.name, "revoked", limit};
	if (e->erasing)
		redis_eval_kept(
			e->s->redis, &end_user_script, NELEM(more), more, NULL, on_user_ended, e);
	else
		redis_eval_kept(
			e->s->redis, &end_user_script, NELEM(argv), argv, NULL, on_user_ended, e);
}

static void block_user(struct end *e)
{
	char limit[TEXT_INT_MAX], until[TEXT_INT_MAX], ttl[TEXT_INT_MAX];
	const char *argv[] = {"2", e->u.n.index, e->u.block, e->u.n.session_base, e->u.name,
		text_int(limit, END_BATCH), text_int(until, e->until_s),
		text_int(ttl, e->s->max_age_ms + DAY_MS)};

	redis_eval_kept(e->s->redis, &block_script, NELEM(argv), argv, NULL, on_user_ended, e);
}

static void on_user_ended(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct end *e = ctx;

	session_forget_ids(e->s, reply, 0);
	if (oc == OC_OK && redis_reply_count(reply) == END_BATCH) {
		e->again(e);
		return;
	}
	e->cb(e->ctx, oc);
	free(e);
}

static struct end *end_of_user(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx)
{
	struct end *e = end_new(s, "", cb, ctx);

	user_names_make(s->prefix, appid, openid, &e->u);
	e->again = end_user;
	return e;
}

void session_end_user(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx)
{
	end_user(end_of_user(s, appid, openid, cb, ctx));
}

/* ---- erasing ---- */

struct erasing {
	session_erasing_cb cb;
	void *ctx;
};

static void on_erasing(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct erasing *e = ctx;
	int64_t now = 0;

	if (oc == OC_OK && !redis_reply_int(reply, &now))
		oc = OC_STORE_UNAVAILABLE;
	e->cb(e->ctx, oc, now);
	free(e);
}

void session_erase_begin(
	struct sessions *s, const char *appid, const char *openid, session_erasing_cb cb, void *ctx)
{
	struct erasing *e = mem_alloc(sizeof(*e));
	char ms[TEXT_INT_MAX];
	struct user_names u;

	*e = (struct erasing){cb, ctx};
	user_names_make(s->prefix, appid, openid, &u);
	const char *argv[] = {"1", u.erasing, text_int(ms, SESSION_ERASING_MS)};
	redis_eval_kept(s->redis, &erasing_script, NELEM(argv), argv, NULL, on_erasing, e);
}

void session_erase_end(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx)
{
	struct end *e = end_of_user(s, appid, openid, cb, ctx);

	e->erasing = true;
	end_user(e);
}

/* ---- blocking ---- */

void session_block(struct sessions *s, const char *appid, const char *openid, int64_t until_s,
	session_done_cb cb, void *ctx)
{
	struct end *e = end_of_user(s, appid, openid, cb, ctx);

	e->until_s = until_s;
	e->again = block_user;
	block_user(e);
}

void session_unblock(
	struct sessions *s, const char *appid, const char *openid, session_done_cb cb, void *ctx)
{
	struct end *e = end_of_user(s, appid, openid, cb, ctx);
	const char *argv[] = {"DEL", e->u.block};

	redis_command(s->redis, NELEM(argv), argv, NULL, on_ended, e);
}

static void on_claimed(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct end *e = ctx;

	e->cb(e->ctx, oc == OC_OK && redis_reply_is_nil(reply) ? OC_OVERLOADED : oc);
	free(e);
}

void session_block_claim(struct sessions *s, session_done_cb cb, void *ctx)
{
	char key[BASE_MAX];

	text_join(key, sizeof(key), s->prefix, "blocks");
	const char *argv[] = {"SET", key, "1", "NX", "PX", CLAIM_MS};
	redis_command(s->redis, NELEM(argv), argv, NULL, on_claimed, end_new(s, "", cb, ctx));
}

/* ---- a user's session_keys ---- */

struct keys {
	struct sessions *s;
	session_keys_cb cb;
	void *ctx;
	struct user_names u;
};

static void on_keys(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct keys *k = ctx;
	struct arena *a = arena_new();
	const char *keys[SESSION_KEYS_MAX];
	size_t n = 0, len;

	for (size_t i = 0; i < redis_reply_count(reply) && n < SESSION_KEYS_MAX; i++) {
		const char *bytes = redis_reply_str(redis_reply_at(reply, i), &len);

		if (bytes && (keys[n] = unseal_text(k->s->seal, a, k->u.place, bytes, len)))
			n++;
		else if (n == 0) /* the one before may be from before encryption_key was changed */
			log_error("a session_key in redis cannot be decrypted: is encryption_key "
				  "the same everywhere?",
				LOG_STR("key", k->u.place));
	}
	k->cb(k->ctx, oc, keys, n);
	arena_free(a);
	free(k);
}

void session_keys(
	struct sessions *s, const char *appid, const char *openid, session_keys_cb cb, void *ctx)
{
	struct keys *k = mem_alloc(sizeof(*k));

	k->s = s;
	k->cb = cb;
	k->ctx = ctx;
	user_names_make(s->prefix, appid, openid, &k->u);
	const char *argv[] = {"1", k->u.n.index, k->u.n.session_base, k->u.name};
	redis_eval(s->redis, &keys_script, NELEM(argv), argv, NULL, on_keys, k);
}

/* ---- list ---- */

struct list {
	session_list_cb cb;
	void *ctx;
};

static size_t read_list(
	struct arena *a, const struct redisReply *reply, struct session_listed *list)
{
	size_t n = 0, len;

	for (size_t i = 0; i + 2 < redis_reply_count(reply); i += 3) {
		const char *id = redis_reply_str(redis_reply_at(reply, i), NULL);
		const char *text = redis_reply_str(redis_reply_at(reply, i + 1), &len);
		int64_t left_ms;
		struct value v;

		if (id && text && redis_reply_int(redis_reply_at(reply, i + 2), &left_ms) &&
			left_ms > 0 && session_value_read(a, text, len, &v))
			list[n++] = (struct session_listed){.id = id,
				.ip = v.ip,
				.user_agent = v.user_agent,
				.created_at = v.created_ms / 1000,
				.seen_at = v.seen_s,
				.expires_in_s = left_ms / 1000};
	}
	return n;
}

static void on_list(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct arena *a = arena_new();
	struct list *l = ctx;
	struct session_listed *list =
		arena_alloc(a, (redis_reply_count(reply) / 3 + 1) * sizeof(*list));

	l->cb(l->ctx, oc, list, read_list(a, reply, list));
	arena_free(a);
	free(l);
}

void session_list(
	struct sessions *s, const char *appid, const char *openid, session_list_cb cb, void *ctx)
{
	struct list *l = mem_alloc(sizeof(*l));
	struct user_names u;
	char limit[12];

	*l = (struct list){.cb = cb, .ctx = ctx};
	user_names_make(s->prefix, appid, openid, &u);
	snprintf(limit, sizeof(limit), "%d", SESSION_LIST_MAX);
	const char *argv[] = {"1", u.n.index, u.n.session_base, u.name, limit};
	redis_eval(s->redis, &list_script, NELEM(argv), argv, NULL, on_list, l);
}
