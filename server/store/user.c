/* A batch of jobs is one transaction: read the rows they are about, let each job have its way with its row, in the order they came, write
 * what has changed. What that is in SQL, the database's file knows (user_ops.h). */
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
#include "io/jobs.h"
#include "store/user_ops.h"

enum { SILENT_MS = 200, START_WAIT_MS = 1000, END_GRACE_MS = 1000, LOOK_MS = 500, TRIES = 10 };
enum verb { VERB_SEEN, VERB_GET, VERB_PUT, VERB_COUNT };

static const char *const verb_names[VERB_COUNT] = {"seen", "get", "put"};

/* What the thread works on, and frees at its end: it may outlive struct user_db. */
struct core {
	const struct user_ops *ops;
	struct user_db_options o;   /* copies */
	void         *state;        /* of ops */
	_Atomic bool refused; /* it was there, and would not have us */
	_Atomic bool  away;
	bool          failing;      /* and it was said in the log; until something is written again */
	char          why[USER_WHY_MAX];
};

struct user_db {
	struct core *core;
	struct jobs *jobs, *tender;
	struct timer *look;         /* keeps the metric true */
};

struct user_job {
	struct job    job;
	struct arena *arena;       /* holds it all, this too */
	enum verb     verb;
	const char   *appid, *openid;
	struct user_patch patch;
	size_t        came;        /* its place in the batch */
	struct user_row *row;      /* while run has it */
	struct user   result;
	bool          found;
	user_cb       cb;
	void         *ctx;
};

void user_why_newer(char *why, int64_t is, int64_t known)
{
	snprintf(why, USER_WHY_MAX, "its schema is version %" PRId64 ", and this wxlogind knows no newer than %" PRId64 ": run the newer wxlogind",
		is, known);
}

/* ---- the thread: what becomes of a row ---- */

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static void change(struct user_row *row, const struct user_patch *p)
{
	struct user *u = &row->u;

	for (int i = 0; i < USER_TEXT_COUNT; i++) {
		if (!(p->given & 1u << i) || same(u->text[i], p->text[i]))
			continue;
		u->text[i] = p->text[i];
		row->dirty = true;
	}
	if (p->gender_given && u->number[USER_gender] != p->gender) {
		u->number[USER_gender] = p->gender;
		row->dirty = true;
	}
}

static void copy_result(struct user_job *j, bool is_new)
{
	j->found = j->row->exists;
	j->result = j->row->u;
	j->result.appid = j->appid;
	j->result.openid = j->openid;
	j->result.is_new = is_new;
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		if (j->result.text[i])
			j->result.text[i] = arena_strdup(j->arena, j->result.text[i]);
}

static void apply(struct user_job *j, int64_t now)
{
	struct user_row *row = j->row;
	int64_t *number = row->u.number;
	bool is_new = false;

	if (j->verb != VERB_GET && !row->exists) {
		is_new = row->exists = row->is_new = row->dirty = true;
		number[USER_created_at] = now;
	}
	if (j->verb == VERB_SEEN) {
		/* the first login is the one at created_at exactly: a repeat of its answer is told from that */
		number[USER_last_login_at] = is_new || now > number[USER_created_at] ? now : number[USER_created_at] + 1;
		row->dirty = true;
		change(row, &j->patch);
	} else if (j->verb == VERB_PUT) {
		bool before = row->dirty;

		row->dirty = is_new;
		change(row, &j->patch);
		if (row->dirty)
			number[USER_updated_at] = now;
		row->dirty |= before;
	}
	copy_result(j, is_new);
}

/* ---- the thread: a batch ---- */

static int by_key(const struct user_job *a, const struct user_job *b)
{
	int d = strcmp(a->appid, b->appid);

	return d ? d : strcmp(a->openid, b->openid);
}

/* All processes take rows in one order, so that they do not wait for one another in a ring. */
static int by_key_then_came(const void *a, const void *b)
{
	const struct user_job *x = *(struct user_job *const *)a, *y = *(struct user_job *const *)b;
	int d = by_key(x, y);

	return d ? d : x->came < y->came ? -1 : 1;
}

static size_t make_rows(struct user_job *const *jobs, size_t n, struct user_row *rows, bool *writing)
{
	size_t m = 0;

	*writing = false;
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || by_key(jobs[i - 1], jobs[i])) {
			rows[m] = (struct user_row){.u = {.appid = jobs[i]->appid, .openid = jobs[i]->openid}};
			for (int k = 0; k < USER_NUMBER_COUNT; k++)
				rows[m].u.number[k] = -1;
			m++;
		}
		jobs[i]->row = &rows[m - 1];
		*writing |= jobs[i]->verb != VERB_GET;
	}
	return m;
}

static enum user_status attempt(struct core *c, struct user_job *const *jobs, size_t n, bool *wrote)
{
	struct arena *a = arena_new();
	struct user_row rows[JOBS_BATCH];
	int64_t now = clock_wall_ms();
	bool writing;
	size_t m = make_rows(jobs, n, rows, &writing);
	enum user_status st = c->ops->load(c->state, rows, m, writing, a);

	*wrote = writing;

	if (st == USER_DONE) {
		for (size_t i = 0; i < n; i++)
			apply(jobs[i], now);
		if (writing)
			st = c->ops->save(c->state, rows, m);
	}
	arena_free(a);
	return st;
}

/* Trouble is logged where it begins, once, and its end is: when something could be written. That the server answers is not enough: it
 * may be read-only, or its disk full. (A row that is refused is logged each time.) */
static void note(struct core *c, enum user_status st, bool wrote)
{
	bool good = st == USER_DONE;

	atomic_store(&c->away, st == USER_AWAY);
	if (!good && (!c->failing || st == USER_BAD_ROW))
		log_error(st == USER_AWAY ? "the user database is away" : "the user database failed", LOG_STR("scheme", c->ops->scheme),
			LOG_STR("cause", c->why));
	else if (good && wrote && c->failing)
		log_info("the user database works again", LOG_STR("scheme", c->ops->scheme));
	if (good ? wrote : st != USER_BAD_ROW)
		c->failing = !good;
}

static void settle(struct core *c, struct user_job *const *jobs, size_t n)
{
	enum user_status st = USER_AGAIN;
	bool wrote = false;

	for (int i = 0; i < TRIES && st == USER_AGAIN; i++)
		st = attempt(c, jobs, n, &wrote);
	if (st == USER_BAD_ROW && n > 1) {
		for (size_t i = 0; i < n; i++)
			settle(c, jobs + i, 1);
		return;
	}
	note(c, st, wrote);
	for (size_t i = 0; i < n; i++)
		jobs[i]->job.oc = st == USER_DONE ? OC_OK : OC_STORE_UNAVAILABLE;
}

static void run(void *ctx, struct job *const *batch, size_t n)
{
	struct user_job *jobs[JOBS_BATCH];

	for (size_t i = 0; i < n; i++) {
		jobs[i] = (struct user_job *)batch[i];
		jobs[i]->came = i;
	}
	/* cppcheck-suppress uninitvar ; n of them are set, and n is 1 at least */
	qsort(jobs, n, sizeof(jobs[0]), by_key_then_came);
	settle(ctx, jobs, n);
}

static int64_t idle(void *ctx)
{
	struct core *c = ctx;
	int64_t again_ms;

	enum user_status st = c->ops->idle(c->state, &again_ms);

	atomic_store(&c->refused, st == USER_FAILED);
	note(c, st == USER_FAILED ? USER_AWAY : st, atomic_load(&c->away)); /* one that is back was written to */
	return again_ms;
}

/* ---- the end of the thread, or of what never came to have one ---- */

static void core_free(struct core *c)
{
	free((char *)c->o.path);
	free((char *)c->o.host);
	free((char *)c->o.user);
	mem_free_secret((char *)c->o.password);
	free((char *)c->o.database);
	free((char *)c->o.ca_file);
	free(c);
}

static void end(void *ctx)
{
	struct core *c = ctx;

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

static void on_job(struct job *job, enum outcome oc)
{
	struct user_job *j = (struct user_job *)job;

	metric_inc2(USER_REQUESTS, verb_names[j->verb], outcome_code(oc));
	j->cb(j->ctx, oc, oc == OC_OK && j->found ? &j->result : NULL);
}

static struct user_job *job_new(enum verb verb, const char *appid, const char *openid, user_cb cb, void *ctx)
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

static void job_start(struct user_db *db, struct user_job *j, int64_t limit_ms, bool keep)
{
	if (user_db_is_none(db))
		jobs_refuse(db->jobs, &j->job, OC_NOT_FOUND, on_job);
	else if (atomic_load(&db->core->away))
		jobs_refuse(db->jobs, &j->job, OC_STORE_UNAVAILABLE, on_job);
	else
		jobs_add(db->jobs, &j->job, limit_ms, keep, on_job);
}

void user_seen(struct user_db *db, const char *appid, const char *openid, const char *unionid, int64_t limit_ms, user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_SEEN, appid, openid, cb, ctx);

	if (unionid) {
		j->patch.given = 1u << USER_unionid;
		j->patch.text[USER_unionid] = arena_strdup(j->arena, unionid);
	}
	job_start(db, j, limit_ms, true);
}

void user_get(struct user_db *db, const char *appid, const char *openid, int64_t limit_ms, user_cb cb, void *ctx)
{
	job_start(db, job_new(VERB_GET, appid, openid, cb, ctx), limit_ms, false);
}

void user_put(struct user_db *db, const char *appid, const char *openid, const struct user_patch *p, int64_t limit_ms, user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_PUT, appid, openid, cb, ctx);

	j->patch = *p;
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		j->patch.text[i] = p->given & 1u << i && p->text[i] ? arena_strdup(j->arena, p->text[i]) : NULL;
	job_start(db, j, limit_ms, p->keep);
}

bool user_db_is_up(struct user_db *db)
{
	return !user_db_is_none(db) && !atomic_load(&db->core->away) && jobs_busy_ms(db->jobs) < SILENT_MS;
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

static struct core *core_new(const struct user_ops *ops, const struct user_db_options *o)
{
	struct core *c = mem_alloc(sizeof(*c));

	c->ops = ops;
	c->o = *o;
	c->o.path = mem_strdup(o->path);
	c->o.host = mem_strdup(o->host);
	c->o.user = mem_strdup(o->user);
	c->o.password = mem_strdup(o->password);
	c->o.database = mem_strdup(o->database);
	c->o.ca_file = mem_strdup(o->ca_file);
	return c;
}

/* AWAY: idle will connect, on the thread. */
static bool core_open(struct core *c)
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

struct user_db *user_db_new(struct loop *l, const struct user_db_options *o, char *why, size_t why_cap)
{
	const struct user_ops *ops = ops_of(o->scheme);
	struct core *c = core_new(ops, o);
	struct user_db *db;

	if (!core_open(c)) {
		snprintf(why, why_cap, "%s", c->why);
		core_free(c);
		return NULL;
	}
	db = mem_alloc(sizeof(*db));
	db->core = c;
	db->jobs = jobs_new(l, &(struct jobs_options){.ctx = c, .queue_max = o->queue_max, .run = ops->load ? run : NULL,
		.idle = ops->idle ? idle : NULL, .end = end, .drop = drop});
	if (ops->tend)
		db->tender = jobs_new(l, &(struct jobs_options){.ctx = ops->tender_new(&c->o), .idle = ops->tend, .end = ops->tender_free});
	/* One that answers at once, and refuses us, ends the start. For one that is slow nobody waits. */
	if (db->jobs && ops->idle && jobs_settle(db->jobs, START_WAIT_MS) && atomic_load(&c->refused)) {
		snprintf(why, why_cap, "%s", c->why);
		user_db_free(db);
		return NULL;
	}
	if (db->jobs && (db->tender || !ops->tend)) {
		db->look = timer_new(l, look, db);
		if (!user_db_is_none(db))
			look(db);
		return db;
	}
	snprintf(why, why_cap, "no thread to be had for it");
	user_db_free(db); /* what little is left behind goes with the process, which does not start */
	return NULL;
}

bool user_schema_said(char *said, int64_t is, int64_t known)
{
	if (is > known)
		user_why_newer(said, is, known);
	else if (is == known)
		snprintf(said, USER_WHY_MAX, "answers; its schema is of version %" PRId64, is);
	else if (is > 0)
		snprintf(said, USER_WHY_MAX, "answers; its schema is of version %" PRId64 ", the start migrates it to %" PRId64, is, known);
	else
		snprintf(said, USER_WHY_MAX, "answers; it has no tables yet, the start makes them");
	return is <= known;
}

bool user_db_probe(const struct user_db_options *o, char *said, size_t said_cap)
{
	const struct user_ops *ops = ops_of(o->scheme);
	char text[USER_WHY_MAX] = "no users are kept";
	bool ok = !ops->probe || ops->probe(o, text);

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
	if (threadless)
		core_free(db->core);
	free(db);
}
