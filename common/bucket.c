/* A bucket is one number, the time at which it will be full again (the "theoretical arrival time"
 * of the generic cell rate algorithm, ITU-T I.371): taking a token moves it on by one token's time,
 * and it may lie at most one period ahead. */
#include "common/bucket.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/mem.h"

enum { WAYS = 8, SECRET_LEN = 16, KEY_MAX = 112 };

struct bucket {
	uint64_t key; /* a piece of its hash */
	_Atomic(int64_t)
		full_us; /* by clock_us; in the past: it is full, and as good as not there */
};
_Static_assert(sizeof(struct bucket) == BUCKET_BYTES, "the documented cost of a bucket");

struct buckets {
	struct bucket *all;
	size_t sets;
	uint8_t secret[SECRET_LEN];
};

struct buckets *buckets_new(size_t n)
{
	struct buckets *b = mem_alloc(sizeof(*b));

	b->sets = n / WAYS;
	b->all = mem_shared(n * sizeof(*b->all));
	crypt_random(b->secret, sizeof(b->secret));
	return b;
}

void buckets_free(struct buckets *b)
{
	if (!b)
		return;
	mem_shared_free(b->all, b->sets * WAYS * sizeof(*b->all));
	free(b);
}

/* A limit is part of the name: after a change of the limit its keys have new buckets, and the new
 * limit holds at once. */
static struct bucket *find(
	struct buckets *b, const void *key, size_t len, const struct bucket_limit *limit)
{
	struct {
		uint8_t secret[SECRET_LEN];
		struct bucket_limit limit;
		uint8_t key[KEY_MAX];
	} name;
	uint8_t hash[SHA256_LEN];
	uint64_t piece[2];
	struct bucket *set, *fullest;

	len = len < KEY_MAX ? len : KEY_MAX;
	memcpy(name.secret, b->secret, SECRET_LEN);
	name.limit = *limit;
	memcpy(name.key, key, len);
	crypt_sha256(hash, &name, offsetof(__typeof__(name), key) + len);
	memcpy(piece, hash, sizeof(piece));
	set = fullest = &b->all[piece[0] % b->sets * WAYS];
	for (int i = 0; i < WAYS; i++) {
		if (set[i].key == piece[1])
			return &set[i];
		if (set[i].full_us < fullest->full_us)
			fullest = &set[i];
	}
	/* should another process see half of this, it takes a bucket that is full or nearly so */
	fullest->key = piece[1];
	fullest->full_us = 0;
	return fullest;
}

bool buckets_take(struct buckets *b, const void *key, size_t len, const struct bucket_limit *limit,
	int64_t *wait_ms)
{
	int64_t now = clock_us(), period_us = limit->period_ms * 1000, was, full_us;
	struct bucket *at;

	if (limit->count == 0)
		return true;
	at = find(b, key, len, limit);
	was = at->full_us;
	do {
		full_us = (was > now ? was : now) + period_us / limit->count;
		if (full_us - now > period_us) {
			*wait_ms = (full_us - now - period_us + 999) / 1000;
			return false;
		}
	} while (!atomic_compare_exchange_weak(&at->full_us, &was, full_us));
	return true;
}

void buckets_spend(struct buckets *b, const void *key, size_t len, const struct bucket_limit *limit,
	int64_t tokens)
{
	int64_t now = clock_us(), period_us = limit->period_ms * 1000, was, full_us;
	struct bucket *at;

	if (limit->count == 0)
		return;
	at = find(b, key, len, limit);
	was = at->full_us;
	do {
		full_us = (was > now ? was : now) + period_us / limit->count * tokens;
		if (full_us - now > period_us)
			full_us = now + period_us;
	} while (!atomic_compare_exchange_weak(&at->full_us, &was, full_us));
}
