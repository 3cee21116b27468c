/* The statements that both databases understand, as text. */
#ifndef STORE_USER_LIST_H
#define STORE_USER_LIST_H

#include "store/user_phone.h"

/* What all of them need: whose quoting and tables, and the keys of phone numbers. */
struct user_sql {
	const struct user_ops *ops;
	void *state;
	const struct phone_ring *ring;
};

void user_sql_list(
	const struct user_sql *s, struct buf *b, struct arena *a, const struct user_query *q);
/* Rows whose number is to be sealed anew: in clear (key NULL), or under this key. */
void user_sql_stale(
	const struct user_sql *s, struct buf *b, const struct phone_key *key, int limit);
/* How many numbers are sealed under none of our keys. */
void user_sql_foreign(const char *tables, const struct phone_ring *ring, struct buf *b);
void user_sql_drop_blocks(const struct user_sql *s, struct buf *b, int64_t now_s);
void user_sql_drop_tombstones(const struct user_sql *s, struct buf *b, int64_t before_ms);
void user_sql_bytes(struct buf *b, const void *p, size_t n); /* X'...' */

#endif
