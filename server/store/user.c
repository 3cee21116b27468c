/* The loop's side: questions become jobs of the helper thread, which answers them (user_batch.c).
 */
#include "store/user.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "store/user_batch.h"
#include "store/user_list.h"

enum { SILENT_MS = 200, START_WAIT_MS = 1000, END_GRACE_MS = 1000, LOOK_MS = 500 };
enum {
	SEAL_FIRST_MS = 100,
	SEAL_NEXT_MS = 5,
	SEAL_RETRY_MS = 500,
	SEAL_AGAIN_MS = 60000,
	SEAL_LIMIT_MS = 30000
};

static const char *const verb_names[VERB_COUNT] = {
	"seen", "get", "put", "erase", "block", "list", "seal"};

struct user_db {
	struct user_core *core;
	struct jobs *jobs, *tender;
	struct timer *look;         /* keeps the metric true */
	struct timer *seal;         /* looks for phone numbers that are to be sealed */
	bool          sealing;      /* it has found some since it found none */
};

void user_why_newer(char *why, int64_t is, int64_t known)
{
	snprintf(why, USER_WHY_MAX,
		"its schema is version %" PRId64 ", and this wxlogind knows no newer than %" PRId64
		": run the newer wxlogind",
		is, known);
}

/* ---- the end of the thread, or of what never came to have one ---- */

static void core_free(struct user_core *c)
{
	free((char *)c->o.path);
	free((char *)c->o.host);
	free((char *)c->o.user);
	mem_free_secret((char *)c->o.password);
	free((char *)c->o.database);
	free((char *)c->o.ca_file);
	phone_ring_fini(&c->ring);
	free(c);
}

static void end(void *ctx)
{
	struct user_core *c = ctx;

	c->ops->close(c->state);
	core_free(c);
}

/* ---- the loop ---- */

bool user_db_is_none(const struct user_db *db)
{
	return !db->core->ops->load;
}

static void drop(struct job *job)
{
	arena_free(((struct user_job *)job)->arena);
}

/* A batch at a time, and what waits goes between them. */
static void on_sealed(struct user_job *j, enum outcome oc)
{
	struct user_db *db = j->db;

	if (oc == OC_OK)
		db->sealing = j->more || j->unsettled;
	timer_start(db->seal, oc == OC_OK && j->more         ? SEAL_NEXT_MS
			      : oc == OC_OK && !j->unsettled ? SEAL_AGAIN_MS
							     : SEAL_RETRY_MS);
}

static void on_job(struct job *job, enum outcome oc)
{
	struct user_job *j = (struct user_job *)job;

	metric_inc2(USER_REQUESTS, verb_names[j->verb], outcome_code(oc));
	if (j->verb == VERB_SEAL)
		on_sealed(j, oc);
	else if (j->verb == VERB_LIST)
		j->list_cb(j->ctx, oc, j->list, oc == OC_OK ? j->list_count : 0);
	else
		j->cb(j->ctx, oc, oc == OC_OK && j->found ? &j->result : NULL);
}

static struct user_job *job_new(
	enum verb verb, const char *appid, const char *openid, user_cb cb, void *ctx)
{
	struct arena *a = arena_new();
	struct user_job *j = arena_alloc(a, sizeof(*j));

	j->arena = a;
	j->verb = verb;
	j->appid = arena_strdup(a, appid);
	j->openid = arena_strdup(a, openid);
	j->cb = cb;
	j->ctx = ctx;
	return j;
}

/* While the first connection is being made nobody knows: what comes then waits for it, within its
 * limit. */
static bool is_away(struct user_core *c)
{
	return atomic_load(&c->tried) && atomic_load(&c->away);
}

static void job_start(struct user_db *db, struct user_job *j, int64_t limit_ms, bool keep)
{
	if (user_db_is_none(db))
		jobs_refuse(db->jobs, &j->job, OC_NOT_FOUND, on_job);
	else if (is_away(db->core))
		jobs_refuse(db->jobs, &j->job, OC_STORE_UNAVAILABLE, on_job);
	else
		jobs_add(db->jobs, &j->job, limit_ms, keep, on_job);
}

void user_seen(struct user_db *db, const char *appid, const char *openid, const char *unionid,
	int64_t as_of_ms, int64_t limit_ms, user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_SEEN, appid, openid, cb, ctx);

	j->patch.as_of_ms = as_of_ms;
	if (unionid) {
		j->patch.given = 1u << USER_unionid;
		j->patch.text[USER_unionid] = arena_strdup(j->arena, unionid);
	}
	job_start(db, j, limit_ms, true);
}

void user_get(struct user_db *db, const char *appid, const char *openid, int64_t limit_ms,
	user_cb cb, void *ctx)
{
	job_start(db, job_new(VERB_GET, appid, openid, cb, ctx), limit_ms, false);
}

void user_put(struct user_db *db, const char *appid, const char *openid, const struct user_patch *p,
	int64_t limit_ms, user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_PUT, appid, openid, cb, ctx);

	j->patch = *p;
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		j->patch.text[i] = p->given & 1u << i ? user_copy(j->arena, p->text[i]) : NULL;
	j->patch.phone_pure = user_copy(j->arena, p->phone_pure);
	job_start(db, j, limit_ms, p->keep);
}

void user_erase(struct user_db *db, const char *appid, const char *openid, int64_t erased_ms,
	int64_t limit_ms, user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_ERASE, appid, openid, cb, ctx);

	j->erased_ms = erased_ms;
	job_start(db, j, limit_ms, false);
}

void user_set_block(struct user_db *db, const char *appid, const char *openid,
	const struct user_block *b, int64_t limit_ms, user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_BLOCK, appid, openid, cb, ctx);

	if (b) {
		j->block = *b;
		j->block.note = user_copy(j->arena, b->note);
	}
	job_start(db, j, limit_ms, false);
}

bool user_block_holds(const struct user_block *b, int64_t now_s)
{
	return b->since_s && (!b->until_s || b->until_s > now_s);
}

void user_list(struct user_db *db, const struct user_query *q, int64_t limit_ms, user_list_cb cb,
	void *ctx)
{
	struct user_job *j = job_new(VERB_LIST, "", "", NULL, ctx);
	struct arena *a = j->arena;

	j->list_cb = cb;
	j->query = *q;
	j->query.appid = user_copy(a, q->appid);
	j->query.after_appid = user_copy(a, q->after_appid);
	j->query.after = user_copy(a, q->after);
	j->query.value = user_copy(a, q->value);
	job_start(db, j, limit_ms, false);
}

static void seal_some(void *ctx)
{
	struct user_db *db = ctx;
	struct user_job *j = job_new(VERB_SEAL, "", "", NULL, NULL);

	j->db = db;
	j->query.sweep = db->sealing; /* when it finds none: the files are to be cleaned */
	job_start(db, j, SEAL_LIMIT_MS, false);
}

bool user_db_is_up(struct user_db *db)
{
	return !user_db_is_none(db) && !atomic_load(&db->core->away) &&
	       jobs_busy_ms(db->jobs) < SILENT_MS;
}

/* ---- the object ---- */

static const struct user_ops *ops_of(const char *scheme)
{
	static const struct user_ops *const all[] = {&user_sqlite, &user_mysql, &user_none};

	for (size_t i = 0; i < NELEM(all); i++)
		if (!strcmp(all[i]->scheme, scheme))
			return all[i];
	return NULL;
}

static struct user_core *core_new(const struct user_ops *ops, const struct user_db_options *o)
{
	struct user_core *c = mem_alloc(sizeof(*c));

	c->ops = ops;
	c->o = *o;
	c->o.path = mem_strdup(o->path);
	c->o.host = mem_strdup(o->host);
	c->o.user = mem_strdup(o->user);
	c->o.password = mem_strdup(o->password);
	c->o.database = mem_strdup(o->database);
	c->o.ca_file = mem_strdup(o->ca_file);
	c->o.seal = NULL;
	phone_ring_init(&c->ring, o->seal);
	c->foreign = -1;
	return c;
}

/* AWAY: idle will connect, on the thread. */
static bool core_open(struct user_core *c)
{
	enum user_status st = c->ops->open ? c->ops->open(&c->o, c->why, &c->state) : USER_DONE;

	atomic_store(&c->away, st == USER_AWAY);
	return st != USER_FAILED;
}

static void look(void *ctx)
{
	struct user_db *db = ctx;

	metric_set(metric_series(METRIC_USERS_UP, NULL, NULL, NULL), user_db_is_up(db));
	timer_start(db->look, LOOK_MS);
}

struct user_db *user_db_new(
	struct loop *l, const struct user_db_options *o, char *why, size_t why_cap)
{
	const struct user_ops *ops = ops_of(o->scheme);
	struct user_core *c = core_new(ops, o);
	struct user_db *db;

	if (!core_open(c)) {
		snprintf(why, why_cap, "%s", c->why);
		core_free(c);
		return NULL;
	}
	db = mem_alloc(sizeof(*db));
	db->core = c;
	db->jobs = jobs_new(l, &(struct jobs_options){.ctx = c,
				       .queue_max = o->queue_max,
				       .run = ops->load ? user_batch_run : NULL,
				       .idle = ops->idle ? user_batch_idle : NULL,
				       .end = end,
				       .drop = drop});
	if (ops->tend)
		db->tender = jobs_new(l, &(struct jobs_options){.ctx = ops->tender_new(&c->o),
						 .idle = ops->tend,
						 .end = ops->tender_free});
	/* One that answers at once, and refuses us, ends the start. For one that is slow nobody
	 * waits. */
	if (db->jobs && ops->idle && jobs_settle(db->jobs, START_WAIT_MS) &&
		atomic_load(&c->refused)) {
		snprintf(why, why_cap, "%s", c->why);
		user_db_free(db);
		return NULL;
	}
	if (db->jobs && (db->tender || !ops->tend)) {
		db->look = timer_new(l, look, db);
		db->seal = timer_new(l, seal_some, db);
		if (!user_db_is_none(db)) {
			look(db);
			timer_start(db->seal, SEAL_FIRST_MS);
		}
		return db;
	}
	snprintf(why, why_cap, "no thread to be had for it");
	/* what little is left behind goes with the process, which does not start */
	user_db_free(db);
	return NULL;
}

bool user_schema_said(char *said, int64_t is, int64_t known)
{
	if (is > known)
		user_why_newer(said, is, known);
	else if (is == known)
		snprintf(said, USER_WHY_MAX, "answers; its schema is of version %" PRId64, is);
	else if (is > 0)
		snprintf(said, USER_WHY_MAX,
			"answers; its schema is of version %" PRId64
			", the start migrates it to %" PRId64,
			is, known);
	else
		snprintf(said, USER_WHY_MAX, "answers; it has no tables yet, the start makes them");
	return is <= known;
}

/* Numbers that nobody can read are an error, in a database that can be used otherwise. */
static bool probe(const struct user_ops *ops, const struct user_db_options *o, char *said)
{
	struct phone_ring ring;
	struct buf count = {0};
	int64_t foreign = 0;
	bool ok;

	phone_ring_init(&ring, o->seal);
	user_sql_foreign(ops->tables, &ring, &count);
	phone_ring_fini(&ring);
	ok = ops->probe(o, count.data, &foreign, said);
	buf_free(&count);
	if (!ok || foreign <= 0)
		return ok;
	snprintf(said, USER_WHY_MAX,
		"%" PRId64 " phone numbers are encrypted under a key that is not configured: add "
			   "it to session.encryption_key",
		foreign);
	return false;
}

bool user_db_probe(const struct user_db_options *o, char *said, size_t said_cap)
{
	const struct user_ops *ops = ops_of(o->scheme);
	char text[USER_WHY_MAX] = "no users are kept";
	bool ok = !ops->probe || probe(ops, o, text);

	snprintf(said, said_cap, "%s", text);
	return ok;
}

void user_db_free(struct user_db *db)
{
	bool threadless;

	if (!db)
		return;
	threadless = user_db_is_none(db);
	timer_free(db->look);
	jobs_free(db->jobs, END_GRACE_MS); /* and core with it, now or when the thread wakes */
	jobs_free(db->tender, END_GRACE_MS);
	timer_free(db->seal); /* after the jobs: the last may have started it */
	if (threadless)
		core_free(db->core);
	free(db);
}
