/* Token buckets for any number of keys in bounded memory: count tokens a period, and up to count at
 * once.
 *
 * A table of a fixed number of buckets. When a key finds no room, the bucket that is fullest makes
 * it: the one that held its key back least. So a flood of keys can only make the limit milder,
 * never deny a key its share. Keys are hashed under a secret made with the table: nobody can choose
 * keys that meet. Processes forked after it was made share the table. */
#ifndef COMMON_BUCKET_H
#define COMMON_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BUCKET_BYTES = 16 }; /* what one costs */

struct buckets;

struct buckets *buckets_new(size_t n); /* n: how many, a power of two, 8 or more */
void buckets_free(struct buckets *b);

struct bucket_limit { /* count tokens a period; count 0: no limit */
	int64_t count, period_ms;
};

/* Takes one token of key's bucket. false: there is none; *wait_ms says when there will be. The
 * buckets of two limits have nothing in common: after a change of the limit the key has a full one.
 */
bool buckets_take(struct buckets *b, const void *key, size_t len, const struct bucket_limit *limit,
	int64_t *wait_ms);
/* Takes so many tokens more, or all that there are. */
void buckets_spend(struct buckets *b, const void *key, size_t len, const struct bucket_limit *limit,
	int64_t tokens);

#endif
