#include "io/following.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/quorum.h"
#include "io/reply.h"

enum { LATELY_MS = 1000 /* replicas say once a second how far they are */, TRY_MS = 10000 };

void following_init(struct following *f)
{
	*f = (struct following){.before.ms = PROOF_NEVER,
		.lately.ms = PROOF_NEVER,
		.short_since_ms = PROOF_NEVER,
		.short_ms = PROOF_NEVER};
	for (int i = 0; i < FOLLOWING_MAX; i++)
		f->replicas[i].seen_ms = PROOF_NEVER;
}

static bool counts(const struct following *f, int i, int64_t now_ms)
{
	return now_ms - f->replicas[i].seen_ms < FOLLOWING_GRACE_MS;
}

static void saw(struct following *f, const char *name, int64_t now_ms)
{
	int at = FOLLOWING_MAX;

	for (int i = 0; i < FOLLOWING_MAX; i++) {
		if (!strcmp(f->replicas[i].name, name)) {
			f->replicas[i].seen_ms = now_ms;
			return;
		}
		if (at == FOLLOWING_MAX && !counts(f, i, now_ms))
			at = i;
	}
	if (at == FOLLOWING_MAX)
		return;
	snprintf(f->replicas[at].name, FOLLOWING_NAME_MAX, "%s", name);
	f->replicas[at].seen_ms = now_ms;
}

/* One that is connected and stands still is none that follows. */
static void look_at(struct following *f, const struct redisReply *replica, int64_t now_ms)
{
	const char *host = redis_reply_str(redis_reply_at(replica, 0), NULL),
		   *port = redis_reply_str(redis_reply_at(replica, 1), NULL),
		   *offset = redis_reply_str(redis_reply_at(replica, 2), NULL);
	char name[FOLLOWING_NAME_MAX];

	if (!host || !port || !offset || strtoll(offset, NULL, 10) < f->before.offset)
		return;
	snprintf(name, sizeof(name), "%s %.60s", port, host);
	saw(f, name, now_ms);
}

void following_look(struct following *f, const struct redisReply *role, int64_t now_ms)
{
	const struct redisReply *list = redis_reply_at(role, 2);
	int64_t offset;

	if (!redis_reply_int(redis_reply_at(role, 1), &offset))
		return;
	if (now_ms - f->lately.ms >= LATELY_MS) {
		f->before.ms = f->lately.ms == PROOF_NEVER ? now_ms : f->lately.ms;
		f->before.offset = f->lately.ms == PROOF_NEVER ? offset : f->lately.offset;
		f->lately.ms = now_ms;
		f->lately.offset = offset;
	}
	for (size_t i = 0; i < redis_reply_count(list); i++)
		look_at(f, redis_reply_at(list, i), now_ms);
}

struct following_wants following_wants(struct following *f, int replicas, int64_t now_ms)
{
	int known = 0, needed;

	for (int i = 0; i < FOLLOWING_MAX; i++)
		known += counts(f, i, now_ms);
	if (replicas < 1) /* since the last reload */
		return (struct following_wants){0, 0, 0};
	needed = known - f->excused > replicas ? known - f->excused : replicas;
	if (known <= needed || now_ms - f->tried_ms < TRY_MS)
		return (struct following_wants){needed, needed, replicas};
	f->tried_ms = now_ms;
	return (struct following_wants){known, needed, replicas};
}

void following_got(
	struct following *f, const struct following_wants *w, int64_t have, int64_t now_ms)
{
	if (have >= w->asked) {
		f->short_since_ms = PROOF_NEVER;
		if (w->asked > w->needed) /* who was slow is so no more */
			f->excused = 0;
		return;
	}
	if (have >= w->needed)
		return;
	if (now_ms - f->short_ms >= FOLLOWING_GRACE_MS || f->short_since_ms == PROOF_NEVER)
		f->short_since_ms = now_ms;
	f->short_ms = now_ms;
	if (now_ms - f->short_since_ms < FOLLOWING_GRACE_MS)
		return;
	f->excused += w->needed - (have > w->least ? (int)have : w->least);
	f->short_since_ms = PROOF_NEVER;
	f->tried_ms = now_ms;
}
