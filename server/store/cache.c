/* Right by three numbers. generation: of the place that answered; another one, and its entries are
 * void. changes: one for each of a few thousand groups of ids, counting their changes, so that an
 * answer that raced a change is not kept. proven_ms: until when the place may be believed. */
#include "store/cache.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/encode.h"
#include "common/mem.h"
#include "common/metrics.h"

enum { ID_TEXT_LEN = 20, TEXT_MAX = 101, GROUPS = 4096, SWEEP_MAX = 64, NONE = 0 };

struct entry {
	int64_t  until_ms;          /* not used from here on */
	int64_t  end_ms, renew_ms, created_at;
	uint32_t next;              /* in its chain: index + 1, or NONE */
	uint32_t generation;        /* of its place */
	uint8_t  id[CACHE_ID_LEN];
	bool     used;              /* since the hand last passed */
	uint8_t  place;             /* who answered */
	uint8_t  openid, unionid;   /* where they begin in text */
	char     text[TEXT_MAX];    /* appid, openid, unionid, each with its NUL */
};
_Static_assert(sizeof(struct entry) + 2 * sizeof(uint32_t) <= CACHE_ENTRY_BYTES,
	"the documented cost of an entry");

struct cache {
	struct redis *redis;
	const struct redis_place *places;
	int64_t  lease_ms;          /* how long a proof lasts */
	uint32_t changes[GROUPS];
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

static bool is_void(const struct cache *c, const struct entry *e, int64_t now)
{
	return e->until_ms <= now || e->generation != c->places[e->place].generation;
}

static bool is_proven(const struct cache *c, unsigned place, int64_t now)
{
	return now - c->places[place].proven_ms < c->lease_ms;
}

static void forget(struct cache *c, const uint8_t id[CACHE_ID_LEN])
{
	uint32_t *link = link_to(c, id);

	c->changes[number_of(id) % GROUPS]++;
	if (*link != NONE)
		c->entries[*link - 1].until_ms = 0; /* stays in its place, for the hand to take */
}

/* The hand passes by those used since it last came. It gives up soon: any victim will do, a long
 * search will not. */
static struct entry *make_room(struct cache *c)
{
	int64_t now = clock_ms();
	struct entry *e;

	if (c->filled < c->size)
		return &c->entries[c->filled++];
	for (int i = 0;; i++) {
		e = &c->entries[c->hand];
		c->hand = (c->hand + 1) % c->size;
		if (!e->used || is_void(c, e, now) || i == SWEEP_MAX)
			break;
		e->used = false;
	}
	*link_to(c, e->id) = e->next;
	return e;
}

/* Nothing is known: because it was not asked for before, or because nobody can be believed just
 * now? */
static struct metric_series *miss_or_off(const struct cache *c, int64_t now)
{
	for (unsigned i = 0; i < REDIS_PLACES; i++)
		if (is_proven(c, i, now))
			return c->miss;
	return c->off;
}

bool cache_find(struct cache *c, const uint8_t id[CACHE_ID_LEN], struct cached *out)
{
	int64_t now = clock_ms();
	uint32_t at;
	struct entry *e;

	if (!c)
		return false;
	at = *link_to(c, id);
	e = at == NONE ? NULL : &c->entries[at - 1];
	if (!e || is_void(c, e, now) || !is_proven(c, e->place, now)) {
		metric_add(miss_or_off(c, now), 1);
		return false;
	}
	metric_add(c->hit, 1);
	e->used = true;
	*out = (struct cached){.appid = e->text,
		.openid = e->text + e->openid,
		.unionid = e->text + e->unionid,
		.created_at = e->created_at,
		.end_ms = e->end_ms,
		.renew_ms = e->renew_ms};
	return true;
}

struct cache_ticket cache_ticket(
	const struct cache *c, const uint8_t id[CACHE_ID_LEN], const char *key)
{
	unsigned place;

	if (!c)
		return (struct cache_ticket){0};
	place = redis_place_of(c->redis, key);
	return (struct cache_ticket){
		place, c->places[place].generation, c->changes[number_of(id) % GROUPS]};
}

void cache_keep(struct cache *c, const uint8_t id[CACHE_ID_LEN], const struct cache_ticket *t,
	const struct cached *what)
{
	size_t a, o, u;
	int64_t now = clock_ms(), until = now + CACHE_KEEP_MS;
	uint32_t *link;
	struct entry *e;

	if (!c || t->generation != c->places[t->place].generation ||
		t->changes != c->changes[number_of(id) % GROUPS] || !is_proven(c, t->place, now))
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
	e->place = (uint8_t)t->place;
	e->generation = t->generation;
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

/* ---- */

static bool on_changed(void *ctx, const char *key, size_t len)
{
	uint8_t id[CACHE_ID_LEN];

	if (len <= ID_TEXT_LEN || base64url_decode(id, sizeof(id), key + len - ID_TEXT_LEN,
					  ID_TEXT_LEN) != sizeof(id))
		return false;
	forget(ctx, id);
	return true;
}

struct cache *cache_new(struct redis *r, const char *key_prefix, size_t entries, int timeout_ms)
{
	struct cache *c;
	uint32_t chains = 1;

	if (entries == 0)
		return NULL;
	c = mem_alloc(sizeof(*c));
	while (chains < entries)
		chains *= 2;
	c->redis = r;
	c->size = (uint32_t)entries;
	c->chain_mask = chains - 1;
	c->entries = mem_alloc(entries * sizeof(*c->entries));
	c->chains = mem_alloc(chains * sizeof(*c->chains));
	c->lease_ms = timeout_ms < CACHE_LEASE_MS ? timeout_ms : CACHE_LEASE_MS;
	c->hit = metric_series(METRIC_SESSION_CACHE, "hit", NULL, NULL);
	c->miss = metric_series(METRIC_SESSION_CACHE, "miss", NULL, NULL);
	c->off = metric_series(METRIC_SESSION_CACHE, "off", NULL, NULL);
	c->places = redis_listen(r, key_prefix, on_changed, c);
	return c;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	mem_wipe(c->entries, c->size * sizeof(*c->entries));
	free(c->entries);
	free(c->chains);
	free(c);
}
