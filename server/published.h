/* What the supervisor read of its configuration, for its workers: the bytes of the last that was
 * good, in memory that all share. */
#ifndef PUBLISHED_H
#define PUBLISHED_H

#include <stdbool.h>

#include "common/buf.h"

struct published;

struct published *published_new(void); /* NULL: see errno */
void published_free(struct published *p);

/* The supervisor's. */
bool published_put(struct published *p, const struct buf *b); /* false: see errno */
void published_refuse(struct published *p);                   /* one was read that is not good */

/* A worker's, after the fork. */
void published_join(struct published *p); /* what was put before is what it runs */
/* false: nothing new. *refused: one was refused since the last call. */
bool published_get(struct published *p, struct buf *b, bool *refused);

#endif
