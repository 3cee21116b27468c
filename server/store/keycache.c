/* The value begins with the time it was to live, in ms and a blank: less what is left of its TTL,
 * that is its age by Redis' clock. */
#include "store/keycache.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

static struct redis_script get_script = {.text =
#include "lua/keycache_get.h"
};
static struct redis_script put_script = {.text =
#include "lua/keycache_put.h"
};

struct keycache {
	struct redis *redis;
	const struct sessions *sessions;
	const struct seal *seal;
};

struct get {
	struct keycache *kc;
	struct session_place place;
	keycache_cb cb;
	void *ctx;
};

/* The text after the number, or NULL. */
static const char *read_value(const char *text, int64_t left_ms, int64_t *age_ms)
{
	char *end;
	int64_t ttl_ms = text ? strtoll(text, &end, 10) : 0;

	if (!text || *end != ' ' || left_ms <= 0 || ttl_ms < left_ms)
		return NULL;
	*age_ms = ttl_ms - left_ms;
	return end + 1;
}

static void on_get(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;
	struct arena *a = arena_new();
	const char *bytes, *text = NULL;
	int64_t left_ms = 0, age_ms = 0;
	size_t len;

	bytes = redis_reply_str(redis_reply_at(reply, 0), &len);
	redis_reply_int(redis_reply_at(reply, 1), &left_ms);
	if (bytes && !(text = unseal_text(g->kc->seal, a, g->place.key, bytes, len)))
		log_error("a user's encryption keys in redis cannot be decrypted: is "
			  "encryption_key the same everywhere?",
			LOG_STR("key", g->place.key));
	text = read_value(text, left_ms, &age_ms);
	g->cb(g->ctx, oc, text, age_ms);
	arena_free(a);
	free(g);
}

void keycache_get(struct keycache *kc, const char *appid, const char *openid, keycache_cb cb,
	void *ctx)
{
	struct get *g = mem_alloc(sizeof(*g));

	*g = (struct get){.kc = kc, .cb = cb, .ctx = ctx};
	session_place(kc->sessions, "e", appid, openid, &g->place);
	const char *argv[] = {"1", g->place.key};
	redis_eval(kc->redis, &get_script, NELEM(argv), argv, NULL, on_get, g);
}

static void on_nothing(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	(void)ctx, (void)oc, (void)reply;
}

void keycache_put(struct keycache *kc, const char *appid, const char *openid, const char *text,
	int64_t ttl_ms)
{
	enum { VALUE_ARG = 3 };
	struct arena *a = arena_new();
	struct session_place p;
	struct sealed v;
	char ttl[TEXT_INT_MAX];

	session_place(kc->sessions, "e", appid, openid, &p);
	v = seal_text(kc->seal, a, p.key, arena_printf(a, "%" PRId64 " %s", ttl_ms, text));
	const char *argv[] = {"2", p.key, p.index, v.bytes, text_int(ttl, ttl_ms), p.base, p.name};
	size_t len[NELEM(argv)];
	for (size_t i = 0; i < NELEM(argv); i++)
		len[i] = i == VALUE_ARG ? v.len : strlen(argv[i]);
	redis_eval(kc->redis, &put_script, NELEM(argv), argv, len, on_nothing, NULL);
	arena_free(a);
}

struct keycache *keycache_new(struct redis *r, const struct sessions *s, const struct seal *seal)
{
	struct keycache *kc = mem_alloc(sizeof(*kc));

	*kc = (struct keycache){r, s, seal};
	return kc;
}

void keycache_free(struct keycache *kc)
{
	free(kc);
}
