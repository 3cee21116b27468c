/* Doing a thing once, whichever process is told of it, and however often.
 *
 *   {prefix}p:<43 characters of SHA-256>   "w<holder>" while it is being done, then "d"
 *
 * Who gets MARK_MINE does it, then settles; the others look again until it is done. A claim whose
 * holder died ends by itself after MARK_CLAIM_MS, and the next one does it again. */
#ifndef STORE_MARK_H
#define STORE_MARK_H

#include <stdbool.h>

#include "common/outcome.h"
#include "io/redis.h"

/* Done is remembered for longer than the 20 minutes in which a signed message may be sent: its
 * timestamp may be 10 minutes off either way. */
enum { MARK_CLAIM_MS = 10000, MARK_DONE_MS = 40 * 60000 };

struct marks;

struct marks *marks_new(struct redis *r, const char *key_prefix);
void marks_free(struct marks *m); /* after redis_free; NULL is fine */

struct mark { /* filled by mark_init; lives until the last callback */
	char key[128];
	char holder[18];
};
void mark_init(const struct marks *ms, struct mark *m, const void *what, size_t len);

enum mark_state { MARK_MINE, MARK_BUSY, MARK_DONE };
/* OC_OK, or OC_STORE_UNAVAILABLE. */
typedef void (*mark_cb)(void *ctx, enum outcome oc, enum mark_state state);
void mark_try(struct marks *ms, const struct mark *m, mark_cb cb, void *ctx);

/* done false: it could not be done, and the next may try. Nobody is called back: what Redis does
 * not hear ends with the claim. */
void mark_settle(struct marks *ms, const struct mark *m, bool done);

#endif
