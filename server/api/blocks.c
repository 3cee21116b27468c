#include "api/blocks.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { LOOK_MS = 500, EVERY_MS = 60000, PAGE = 100, WAIT_MS = 5000 };

struct blocked {
	const char *appid, *openid;
	int64_t until_s;
};

struct blocks {
	struct api   *api;
	struct timer *look;
	bool          closed, running;
	bool          was_up;     /* both of them, at the last look */
	int64_t       wait_ms;    /* until the next round */
	struct arena *arena;      /* of a page */
	struct blocked page[PAGE];
	size_t        n, at;
};

static void round_end(struct blocks *b)
{
	arena_free(b->arena);
	b->arena = NULL;
	b->running = false;
}

static void ask_page(struct blocks *b, const char *appid, const char *openid, user_list_cb cb)
{
	const struct user_query q = {.after_appid = appid,
		.after = openid,
		.filter = USER_BLOCKED,
		.limit = PAGE,
		.sweep = !appid};

	user_list(b->api->users, &q, WAIT_MS, cb, b);
}

static void on_page(void *ctx, enum outcome oc, const struct user *list, size_t n);
static void next_block(struct blocks *b);

static void on_lifted(void *ctx, enum outcome oc)
{
	struct blocks *b = ctx;

	(void)oc; /* the next round sees to it */
	b->at++;
	next_block(b);
}

static void on_still(void *ctx, enum outcome oc, const struct user *u)
{
	struct blocks *b = ctx;
	const struct blocked *k = &b->page[b->at];

	/* lifted while we told of it */
	if (oc == OC_OK && !b->closed && (!u || !u->block.since_s)) {
		session_unblock(b->api->sessions, k->appid, k->openid, on_lifted, b);
		return;
	}
	b->at++;
	next_block(b);
}

/* Whoever lifts a block writes SQL, then Redis. So one that SQL still has after we told Redis was
 * not lifted before that, and its own word to Redis comes after ours. */
static void on_told(void *ctx, enum outcome oc)
{
	struct blocks *b = ctx;

	if (oc == OC_OK)
		user_get(b->api->users, b->page[b->at].appid, b->page[b->at].openid, WAIT_MS,
			on_still, b);
	else
		round_end(b);
}

static void next_block(struct blocks *b)
{
	if (b->closed || b->n == 0) {
		round_end(b);
	} else if (b->at < b->n) {
		const struct blocked *k = &b->page[b->at];

		session_block(b->api->sessions, k->appid, k->openid, k->until_s, on_told, b);
	} else if (b->n == PAGE) {
		ask_page(b, b->page[PAGE - 1].appid, b->page[PAGE - 1].openid, on_page);
	} else {
		round_end(b);
	}
}

static void on_page(void *ctx, enum outcome oc, const struct user *list, size_t n)
{
	struct blocks *b = ctx;
	struct arena *a = arena_new();

	for (size_t i = 0; i < n && i < PAGE; i++)
		b->page[i] = (struct blocked){arena_strdup(a, list[i].appid),
			arena_strdup(a, list[i].openid), list[i].block.until_s};
	arena_free(b->arena);
	b->arena = a;
	b->n = oc == OC_OK ? n : 0;
	b->at = 0;
	next_block(b);
}

static void on_claimed(void *ctx, enum outcome oc)
{
	struct blocks *b = ctx;

	if (oc == OC_OK && !b->closed)
		ask_page(b, NULL, NULL, on_page);
	else
		b->running = false;
	if (oc != OC_OK && oc != OC_OVERLOADED)
		b->wait_ms = 0; /* Redis is away: at once when it is back */
}

static bool both_are_up(const struct blocks *b)
{
	return redis_is_ready(b->api->redis) && user_db_is_up(b->api->users);
}

static void look(void *ctx)
{
	struct blocks *b = ctx;
	bool up = both_are_up(b);

	b->wait_ms -= LOOK_MS;
	if (up && !b->was_up)
		b->wait_ms = 0;
	b->was_up = up;
	if (up && !b->running && b->wait_ms <= 0) {
		b->running = true;
		b->wait_ms = EVERY_MS;
		session_block_claim(b->api->sessions, on_claimed, b);
	}
	timer_start(b->look, LOOK_MS);
}

struct blocks *blocks_new(struct api *api)
{
	struct blocks *b = mem_alloc(sizeof(*b));

	b->api = api;
	b->look = timer_new(api->loop, look, b);
	if (!user_db_is_none(api->users))
		timer_start(b->look, 0);
	return b;
}

void blocks_close(struct blocks *b)
{
	if (!b)
		return;
	b->closed = true;
	timer_stop(b->look);
}

void blocks_free(struct blocks *b)
{
	if (!b)
		return;
	timer_free(b->look);
	free(b);
}
