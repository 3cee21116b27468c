/* How many replicas must have what a script did, before its answer counts.
 *
 * redis.replicas says how many are enough while nothing happens. A replica that leaves may have
 * become the master: in a planned failover (SENTINEL FAILOVER, CLUSTER FAILOVER FORCE) the old
 * master goes on for up to a second, and what the replicas that are left confirm is gone when it
 * follows the new one. So whoever was up to date goes on being asked for while it may be that: for
 * FOLLOWING_GRACE_MS after it was seen last. By then the sentinels or the masters name the new
 * master, if there is one, and nothing that the old one says counts.
 *
 * A replica that follows and is slow to say so would hold up every end: where fewer have confirmed
 * for that long, they are enough, and all are asked for again every now and then. */
#ifndef IO_FOLLOWING_H
#define IO_FOLLOWING_H

#include <stdint.h>

struct redisReply;

enum {
	FOLLOWING_GRACE_MS = 3000, /* a failover is named by a majority after 1.2 s, as a rule */
	FOLLOWING_MAX = 16,        /* replicas; more are not counted */
	FOLLOWING_NAME_MAX = 80,
};

struct following {
	/* what the master had written, one to two seconds ago and within the last one */
	struct { int64_t ms, offset; } before, lately;
	struct { char name[FOLLOWING_NAME_MAX]; int64_t seen_ms; } replicas[FOLLOWING_MAX];
	int64_t short_since_ms, short_ms; /* fewer than are needed confirmed: first, and last */
	int     excused;                  /* so many are too slow to be needed */
	int64_t tried_ms;                 /* when they were asked for all the same */
};

struct following_wants { int asked, needed, least; };

void following_init(struct following *f);
/* ROLE's answer of a master; any other is ignored */
void following_look(struct following *f, const struct redisReply *role, int64_t now_ms);
/* what WAIT is to ask for, and how many are enough; replicas is the least, above 0 */
struct following_wants following_wants(struct following *f, int replicas, int64_t now_ms);
/* so many confirmed */
void following_got(struct following *f, const struct following_wants *w, int64_t have,
	int64_t now_ms);

#endif
