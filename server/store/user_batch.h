/* Between user.c, on the loop, and user_batch.c, on the helper thread: what the thread works on,
 * and a question with its answer. */
#ifndef STORE_USER_BATCH_H
#define STORE_USER_BATCH_H

#include <stdatomic.h>

#include "io/jobs.h"
#include "store/user_phone.h"

enum verb {
	VERB_SEEN,
	VERB_GET,
	VERB_PUT,
	VERB_ERASE,
	VERB_BLOCK,
	VERB_LIST,
	VERB_SEAL,
	VERB_COUNT
};

/* What the thread works on, and frees at its end: it may outlive struct user_db. */
struct user_core {
	const struct user_ops *ops;
	struct user_db_options o;   /* copies */
	void         *state;        /* of ops */
	struct phone_ring ring;
	/* numbers that no key of ours opens, as it was said last; -1: not yet */
	int64_t       foreign;
	_Atomic bool refused; /* it was there, and would not have us */
	_Atomic bool  away, tried; /* tried: idle has come back, so away is a fact */
	/* and it was said in the log; until something is written again */
	bool          failing;
	char          why[USER_WHY_MAX];
};

struct user_job {
	struct job    job;
	struct arena *arena;       /* holds it all, this too */
	enum verb     verb;
	const char   *appid, *openid;
	struct user_patch patch;
	struct user_block block;   /* since_s 0: lift it */
	int64_t       erased_ms;
	struct user_query query;
	struct user  *list;
	size_t        list_count;
	bool          more;        /* numbers are left to be sealed */
	bool          unsettled;   /* they are sealed, but the files still hold them in clear */
	size_t        came;        /* its place in the batch */
	struct user_row *row;      /* while run has it */
	struct user   result;
	bool          found;
	user_cb       cb;
	user_list_cb  list_cb;
	struct user_db *db;
	void         *ctx;
};

const char *user_copy(struct arena *a, const char *text); /* NULL stays NULL */

/* As struct jobs_options has them; ctx is the core. */
void user_batch_run(void *ctx, struct job *const *batch, size_t n);
int64_t user_batch_idle(void *ctx);

#endif
