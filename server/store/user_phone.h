/* Phone numbers at rest. With encryption_key they are sealed (AES-256-GCM, bound to the user), and
 * found by an HMAC under a key made of the same. Without it they are kept as they came. */
#ifndef STORE_USER_PHONE_H
#define STORE_USER_PHONE_H

#include "store/seal.h"
#include "store/user_ops.h"

enum { PHONE_TAG_LEN = SHA256_LEN, PHONE_KEY_LEN = 8 };

struct phone_key { uint8_t id[PHONE_KEY_LEN], tag_key[SHA256_LEN]; };

struct phone_ring {
	struct seal *seal;
	struct phone_key *keys; /* seal->key_count of them */
};

void phone_ring_init(struct phone_ring *r, const struct seal *seal); /* copies the keys */
void phone_ring_fini(struct phone_ring *r);                          /* wipes */

/* After a row was loaded: its number, from whichever column has it. false: it is sealed under a key
 * that is not ours; the row then has no number, and keeps what it has. */
bool phone_open(const struct phone_ring *r, struct arena *a, struct user_row *row);
/* Before a row is saved whose number changed, or lies in clear though there is a key. */
void phone_close(const struct phone_ring *r, struct arena *a, struct user_row *row);

/* What a number is found by under the i-th key; without keys, i is 0 and it is the number. */
struct user_bytes phone_tag(const struct phone_ring *r, struct arena *a, size_t i,
	const char *appid, const char *number);

#endif
