/* What is kept in Redis under encryption_key: AES-256-GCM, bound to the key it is stored under.
 * Several keys: the first writes, all read, so that a key can be changed without losing what the
 * one before wrote. Without any, things are kept as they came. */
#ifndef STORE_SEAL_H
#define STORE_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/crypt.h"

enum { SEAL_MARK_LEN = 6 };

struct seal {
	uint8_t (*keys)[SEAL_KEY_LEN];
	size_t  key_count;
	struct hmac_key *mark; /* of the first key; NULL without one */
};

struct sealed {
	const char *bytes;
	size_t len;
	/* as many of the first bytes are the same whenever the same text is sealed by the same key;
	 * the rest differs */
	size_t same;
};

struct seal *seal_new(const uint8_t (*keys)[SEAL_KEY_LEN], size_t key_count); /* copies */
void seal_free(struct seal *s); /* wipes */

struct sealed seal_text(
	const struct seal *s, struct arena *a, const char *stored_under, const char *text);
/* NULL: it was not sealed by a key of ours for this place. */
const char *unseal_text(const struct seal *s, struct arena *a, const char *stored_under,
	const char *bytes, size_t len);

#endif
