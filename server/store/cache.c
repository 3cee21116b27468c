/* Right by three counters. generation: the memory as a whole; another one, and every entry is void. epochs: one for each of a few
 * thousand groups of ids, counting their changes, so that an answer that raced a change is not kept. lease: until when it may be used. */
#include "store/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

#define CHANNEL "__redis__:invalidate"

enum { ID_TEXT_LEN = 20, TEXT_MAX = 102, EPOCHS = 4096, SWEEP_MAX = 64, HEARTBEAT_MS = 50, NONE = 0 };

struct entry {
	int64_t  until_ms;          /* not used from here on */
	int64_t  end_ms, renew_ms, created_at;
	uint32_t next;              /* in its chain: index + 1, or NONE */
	uint32_t generation;        /* of the memory it belongs to */
	uint8_t  id[CACHE_ID_LEN];
	bool     used;              /* since the hand last passed */
	uint8_t  openid, unionid;   /* where they begin in text */
	char     text[TEXT_MAX];    /* appid, openid, unionid, each with its NUL */
};
_Static_assert(sizeof(struct entry) + 2 * sizeof(uint32_t) <= CACHE_ENTRY_BYTES, "the documented cost of an entry");

struct cache {
	struct redis *redis;
	struct timer *heartbeat;
	char    *prefix;
	int64_t  lease_ms;          /* how long one lasts */
	bool     on;                /* subscribed */
	bool     asked;             /* a sign of life is on its way */
	int64_t  asked_ms, proven_ms; /* when it was sent; when the last answered one was */
	uint32_t generation;
	uint32_t epochs[EPOCHS];
	struct entry *entries;
	uint32_t *chains;           /* index + 1, or NONE */
	uint32_t chain_mask, size, filled, hand;
	struct metric_series *hit, *miss, *off;
};

/* ---- the table ---- */

static uint32_t number_of(const uint8_t id[CACHE_ID_LEN])
{
	uint32_t n;

	memcpy(&n, id, sizeof(n)); /* a piece of a SHA-256 is as good as any hash of it */
	return n;
}

static uint32_t *link_to(const struct cache *c, const uint8_t id[CACHE_ID_LEN])
{
	uint32_t *link = &c->chains[number_of(id) & c->chain_mask];

	while (*link != NONE && memcmp(c->entries[*link - 1].id, id, CACHE_ID_LEN) != 0)
		link = &c->entries[*link - 1].next;
	return link;
}

static void forget_all(struct cache *c)
{
	c->generation++;
}

static void forget(struct cache *c, const uint8_t id[CACHE_ID_LEN])
{
	uint32_t *link = link_to(c, id);

	c->epochs[number_of(id) % EPOCHS]++;
	if (*link != NONE)
		c->entries[*link - 1].until_ms = 0; /* stays in its place, for the hand to take */
}

/* The hand passes by those used since it last came. It gives up soon: any victim will do, a long search will not. */
static struct entry *make_room(struct cache *c)
{
	int64_t now = clock_ms();
	struct entry *e;

	if (c->filled < c->size)
		return &c->entries[c->filled++];
	for (int i = 0;; i++) {
		e = &c->entries[c->hand];
		c->hand = (c->hand + 1) % c->size;
		if (!e->used || e->until_ms <= now || e->generation != c->generation || i == SWEEP_MAX)
			break;
		e->used = false;
	}
	*link_to(c, e->id) = e->next;
	return e;
}

bool cache_find(struct cache *c, const uint8_t id[CACHE_ID_LEN], struct cached *out)
{
	int64_t now = clock_ms();
	uint32_t at;
	struct entry *e;

	if (!c)
		return false;
	if (!c->on || now - c->proven_ms >= c->lease_ms) {
		metric_add(c->off, 1);
		return false;
	}
	at = *link_to(c, id);
	e = at == NONE ? NULL : &c->entries[at - 1];
	if (!e || e->generation != c->generation || e->until_ms <= now) {
		metric_add(c->miss, 1);
		return false;
	}
	metric_add(c->hit, 1);
	e->used = true;
	*out = (struct cached){.appid = e->text, .openid = e->text + e->openid, .unionid = e->text + e->unionid,
		.created_at = e->created_at, .end_ms = e->end_ms, .renew_ms = e->renew_ms};
	return true;
}

uint64_t cache_ticket(const struct cache *c, const uint8_t id[CACHE_ID_LEN])
{
	return c ? (uint64_t)c->generation << 32 | c->epochs[number_of(id) % EPOCHS] : 0;
}

void cache_keep(struct cache *c, const uint8_t id[CACHE_ID_LEN], uint64_t ticket, const struct cached *what)
{
	size_t a, o, u;
	int64_t until = clock_ms() + CACHE_KEEP_MS;
	uint32_t *link;
	struct entry *e;

	if (!c || !c->on || ticket != cache_ticket(c, id))
		return;
	a = strlen(what->appid) + 1;
	o = strlen(what->openid) + 1;
	u = strlen(what->unionid) + 1;
	if (a + o + u > TEXT_MAX)
		return; /* longer than WeChat's: Redis will be asked for it each time */
	link = link_to(c, id);
	if (*link != NONE) {
		e = &c->entries[*link - 1];
	} else {
		e = make_room(c);
		memcpy(e->id, id, CACHE_ID_LEN);
		link = &c->chains[number_of(id) & c->chain_mask];
		e->next = *link;
		*link = (uint32_t)(e - c->entries) + 1;
	}
	e->until_ms = what->end_ms < until ? what->end_ms : until;
	e->end_ms = what->end_ms;
	e->renew_ms = what->renew_ms;
	e->created_at = what->created_at;
	e->generation = c->generation;
	e->used = false; /* a session asked about once is the first to make room */
	e->openid = (uint8_t)a;
	e->unionid = (uint8_t)(a + o);
	memcpy(e->text, what->appid, a);
	memcpy(e->text + a, what->openid, o);
	memcpy(e->text + a + o, what->unionid, u);
}

void cache_drop(struct cache *c, const uint8_t id[CACHE_ID_LEN])
{
	if (c)
		forget(c, id);
}

/* ---- what Redis tells ---- */

static void on_push(void *ctx, const struct redisReply *message)
{
	struct cache *c = ctx;
	const struct redisReply *keys = redis_reply_at(message, 2);
	const char *channel = redis_reply_str(redis_reply_at(message, 1), NULL), *key;
	uint8_t id[CACHE_ID_LEN];
	size_t len;

	if (!channel || strcmp(channel, CHANNEL) != 0)
		return;
	if (redis_reply_count(keys) == 0) { /* nil: the whole database was emptied; or somebody publishes nonsense there */
		forget_all(c);
		return;
	}
	for (size_t i = 0; i < redis_reply_count(keys); i++) {
		key = redis_reply_str(redis_reply_at(keys, i), &len);
		if (key && len > ID_TEXT_LEN && base64url_decode(id, sizeof(id), key + len - ID_TEXT_LEN, ID_TEXT_LEN) == sizeof(id))
			forget(c, id);
		else
			forget_all(c); /* no key of ours: whatever it means, this is safe */
	}
}

static void on_sign_of_life(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct cache *c = ctx;

	(void)reply;
	c->asked = false;
	if (oc != OC_OK)
		return; /* the connection is gone, and on_state has said so */
	if (!c->on) {
		c->on = true;
		forget_all(c); /* what was asked for before we were told of changes does not count */
		timer_start(c->heartbeat, HEARTBEAT_MS);
	}
	c->proven_ms = c->asked_ms;
}

/* Subscribing again to the same channel is answered in line, behind all that Redis had to tell. */
static void ask(struct cache *c)
{
	const char *argv[] = {"SUBSCRIBE", CHANNEL};

	if (c->asked)
		return;
	c->asked = true;
	c->asked_ms = clock_ms();
	redis_command(c->redis, NELEM(argv), argv, NULL, on_sign_of_life, c);
}

static void on_heartbeat(void *ctx)
{
	struct cache *c = ctx;

	ask(c);
	timer_start(c->heartbeat, HEARTBEAT_MS);
}

static void on_tracking(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	(void)reply;
	if (oc == OC_OK)
		ask(ctx);
	else
		log_warn("redis does not tell of changes: every question goes to it", LOG_STR("needs", "CLIENT TRACKING, Redis 6 or later"));
}

static void on_id(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct cache *c = ctx;
	char id[24];
	int64_t number;

	if (oc != OC_OK || !redis_reply_int(reply, &number)) {
		on_tracking(c, OC_STORE_UNAVAILABLE, NULL);
		return;
	}
	snprintf(id, sizeof(id), "%lld", (long long)number);
	const char *argv[] = {"CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST", "PREFIX", c->prefix};
	redis_command(c->redis, NELEM(argv), argv, NULL, on_tracking, c);
}

static void on_state(void *ctx, bool up)
{
	const char *argv[] = {"CLIENT", "ID"};
	struct cache *c = ctx;

	if (up) {
		redis_command(c->redis, NELEM(argv), argv, NULL, on_id, c);
		return;
	}
	c->on = false;
	forget_all(c);
	timer_stop(c->heartbeat);
}

/* ---- */

struct cache *cache_new(struct loop *l, const struct redis_options *conn, const char *key_prefix, size_t entries)
{
	struct redis_options o = *conn;
	struct cache *c;
	uint32_t chains = 1;

	if (entries == 0)
		return NULL;
	c = mem_alloc(sizeof(*c));
	while (chains < entries)
		chains *= 2;
	c->size = (uint32_t)entries;
	c->chain_mask = chains - 1;
	c->entries = mem_alloc(entries * sizeof(*c->entries));
	c->chains = mem_alloc(chains * sizeof(*c->chains));
	c->prefix = mem_strdup(key_prefix);
	c->lease_ms = o.timeout_ms < CACHE_LEASE_MS ? o.timeout_ms : CACHE_LEASE_MS;
	c->heartbeat = timer_new(l, on_heartbeat, c);
	c->hit = metric_series(METRIC_SESSION_CACHE, "hit", NULL, NULL);
	c->miss = metric_series(METRIC_SESSION_CACHE, "miss", NULL, NULL);
	c->off = metric_series(METRIC_SESSION_CACHE, "off", NULL, NULL);
	o.max_pending = 8;
	o.on_push = on_push;
	o.on_state = on_state;
	o.push_ctx = c;
	c->redis = redis_new(l, &o);
	return c;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	redis_free(c->redis);
	timer_free(c->heartbeat);
	mem_wipe(c->entries, c->size * sizeof(*c->entries));
	free(c->entries);
	free(c->chains);
	free(c->prefix);
	free(c);
}
