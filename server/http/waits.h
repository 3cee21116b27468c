/* Who waits, and since when: one first-in, first-out list for each kind of wait.
 *
 * All waits of a kind have the same limit, so the one that began first ends first, and entering or
 * leaving a list costs the same however many wait. The limit is given when a list is looked at: a
 * reload that changes it holds for those who already wait. */
#ifndef HTTP_WAITS_H
#define HTTP_WAITS_H

#include <stdint.h>

enum wait_kind {
	WAIT_IDLE,    /* for the first byte of a request. Empty lines are none */
	WAIT_REQUEST, /* for the rest of it, head and body: one limit, from its first byte */
	WAIT_ANSWER,  /* for the handler */
	WAIT_FLUSH,   /* for the client to take its answer */
	WAIT_LINGER,  /* for the client to read a last word before its connection closes */
	WAIT_KINDS
};

struct wait { /* embedded in who waits */
	struct wait   *prev, *next;
	enum wait_kind kind;
	int64_t        since_ms;
};

struct waits {
	struct wait *first[WAIT_KINDS];
};

/* of one that is in no list */
void waits_begin(struct waits *ws, struct wait *w, enum wait_kind kind);
/* its wait ends, another begins */
void waits_move(struct waits *ws, struct wait *w, enum wait_kind kind);
void waits_end(struct waits *ws, struct wait *w);

struct wait *waits_oldest(const struct waits *ws, enum wait_kind kind); /* NULL: nobody waits */
/* The oldest, when it has waited for limit_ms. */
struct wait *waits_overdue(const struct waits *ws, enum wait_kind kind, int64_t limit_ms);

#endif
