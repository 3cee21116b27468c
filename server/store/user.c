/* A batch of jobs is one transaction: read the rows they are about, let each job have its way with its row, in the order they came, write
 * what has changed. What that is in SQL, the database's file knows (user_ops.h). */
#include "store/user.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "io/jobs.h"
#include "store/user_list.h"

enum { SILENT_MS = 200, START_WAIT_MS = 1000, END_GRACE_MS = 1000, LOOK_MS = 500, TRIES = 10 };
enum { TOMBSTONE_MS = 24 * 3600 * 1000, SEAL_FIRST_MS = 100, SEAL_NEXT_MS = 5, SEAL_RETRY_MS = 500, SEAL_AGAIN_MS = 60000, SEAL_LIMIT_MS = 30000 };
enum verb { VERB_SEEN, VERB_GET, VERB_PUT, VERB_ERASE, VERB_BLOCK, VERB_LIST, VERB_SEAL, VERB_COUNT };

static const char *const verb_names[VERB_COUNT] = {"seen", "get", "put", "erase", "block", "list", "seal"};

/* What the thread works on, and frees at its end: it may outlive struct user_db. */
struct core {
	const struct user_ops *ops;
	struct user_db_options o;   /* copies */
	void         *state;        /* of ops */
	struct phone_ring ring;
	int64_t       foreign;      /* numbers that no key of ours opens, as it was said last; -1: not yet */
	_Atomic bool refused; /* it was there, and would not have us */
	_Atomic bool  away, tried; /* tried: idle has come back, so away is a fact */
	bool          failing;      /* and it was said in the log; until something is written again */
	char          why[USER_WHY_MAX];
};

struct user_db {
	struct core *core;
	struct jobs *jobs, *tender;
	struct timer *look;         /* keeps the metric true */
	struct timer *seal;         /* looks for phone numbers that are to be sealed */
	bool          sealing;      /* it has found some since it found none */
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

struct user_row *user_rows_grow(struct arena *a, struct user_row *rows, size_t n, size_t *room)
{
	struct user_row *more;

	if (n < *room)
		return rows;
	*room = *room ? 2 * *room : 16;
	more = arena_alloc(a, *room * sizeof(*more));
	if (n)
		memcpy(more, rows, n * sizeof(*more));
	return more;
}

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
		row->phone_dirty |= i == USER_phone;
	}
	if (p->given & 1u << USER_phone && !same(u->phone_pure, p->phone_pure)) {
		u->phone_pure = p->phone_pure;
		row->dirty = row->phone_dirty = true;
	}
	if (p->gender_given && u->number[USER_gender] != p->gender) {
		u->number[USER_gender] = p->gender;
		row->dirty = true;
	}
	if (p->created_at && u->number[USER_created_at] != p->created_at) {
		u->number[USER_created_at] = p->created_at;
		row->dirty = true;
	}
}

static const char *copy(struct arena *a, const char *text)
{
	return text ? arena_strdup(a, text) : NULL;
}

static void copy_user(struct arena *a, struct user *to, const struct user_row *row)
{
	*to = row->u;
	to->exists = row->exists;
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		to->text[i] = copy(a, row->u.text[i]);
	to->phone_pure = copy(a, row->u.phone_pure);
	to->block.note = copy(a, row->u.block.note);
}

static void copy_result(struct user_job *j, bool is_new)
{
	j->found = j->row->exists || j->row->u.block.since_s;
	copy_user(j->arena, &j->result, j->row);
	j->result.appid = j->appid;
	j->result.openid = j->openid;
	j->result.is_new = is_new;
}

static void make(struct user_row *row, const struct user_job *j, int64_t now)
{
	row->exists = row->is_new = row->dirty = true;
	row->as_of_ms = j->patch.as_of_ms;
	row->u.number[USER_created_at] = now;
}

static void see(struct user_row *row, const struct user_job *j, bool is_new, int64_t now)
{
	int64_t *number = row->u.number;

	/* the first login is the one at created_at exactly: a repeat of its answer is told from that */
	number[USER_last_login_at] = is_new || now > number[USER_created_at] ? now : number[USER_created_at] + 1;
	row->dirty = true;
	change(row, &j->patch);
}

static void put(struct user_row *row, const struct user_job *j, bool is_new, int64_t now)
{
	bool before = row->dirty;

	row->dirty = is_new;
	change(row, &j->patch);
	if (row->dirty)
		row->u.number[USER_updated_at] = now;
	row->dirty |= before;
}

static void clear(struct user_row *row)
{
	for (int k = 0; k < USER_TEXT_COUNT; k++)
		row->u.text[k] = NULL;
	for (int k = 0; k < USER_NUMBER_COUNT; k++)
		row->u.number[k] = -1;
	row->u.phone_pure = NULL;
}

static void erase(struct user_row *row, const struct user_job *j)
{
	clear(row);
	row->exists = row->is_new = row->dirty = row->phone_dirty = false;
	row->erased = true;
	if (j->erased_ms > row->erased_ms)
		row->erased_ms = j->erased_ms;
}

static void set_block(struct user_row *row, const struct user_job *j)
{
	struct user_block *b = &row->u.block;
	int64_t since_s = b->since_s && j->block.since_s ? b->since_s : j->block.since_s;

	*b = j->block;
	b->since_s = since_s;
	row->block_dirty = true;
}

/* The one rule against late writes. */
static bool comes_too_late(const struct user_job *j)
{
	return (j->verb == VERB_SEEN || j->verb == VERB_PUT) && j->row->erased_ms >= j->patch.as_of_ms;
}

static void apply(struct user_job *j, int64_t now)
{
	struct user_row *row = j->row;
	bool writes = j->verb == VERB_SEEN || j->verb == VERB_PUT, is_new = writes && !row->exists;

	if (comes_too_late(j))
		return;
	if (j->verb == VERB_SEEN && row->u.block.since_s) { /* who is blocked does not log in */
		copy_result(j, false);
		return;
	}
	if (is_new)
		make(row, j, now);
	else if (writes && j->patch.as_of_ms < row->as_of_ms)
		row->as_of_ms = j->patch.as_of_ms;
	if (j->verb == VERB_SEEN)
		see(row, j, is_new, now);
	else if (j->verb == VERB_PUT)
		put(row, j, is_new, now);
	else if (j->verb == VERB_ERASE)
		erase(row, j);
	else if (j->verb == VERB_BLOCK)
		set_block(row, j);
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

static void name_rows(struct user_row *rows, size_t n)
{
	char user[USER_APPID_MAX + USER_OPENID_MAX + 2];

	for (size_t i = 0; i < n; i++) {
		snprintf(user, sizeof(user), "%s\n%s", rows[i].u.appid, rows[i].u.openid);
		crypt_sha256(rows[i].name, user, strlen(user));
	}
}

static size_t make_rows(struct user_job *const *jobs, size_t n, struct user_row *rows, bool *writing)
{
	size_t m = 0;

	*writing = false;
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || by_key(jobs[i - 1], jobs[i])) {
			rows[m] = (struct user_row){.u = {.appid = jobs[i]->appid, .openid = jobs[i]->openid}};
			clear(&rows[m]);
			rows[m].erased_ms = -1;
			m++;
		}
		jobs[i]->row = &rows[m - 1];
		*writing |= jobs[i]->verb != VERB_GET;
	}
	return m;
}

static void open_rows(const struct core *c, struct arena *a, struct user_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		phone_open(&c->ring, a, &rows[i]);
		rows[i].phone_column = rows[i].u.text[USER_phone];
		if (!user_block_holds(&rows[i].u.block, clock_wall_s()))
			rows[i].u.block = (struct user_block){0};
	}
}

static void close_rows(const struct core *c, struct arena *a, struct user_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (rows[i].dirty && rows[i].phone_dirty)
			phone_close(&c->ring, a, &rows[i]);
		else if (c->ring.seal->key_count)
			rows[i].phone_column = NULL;
	}
}

static enum user_status attempt(struct core *c, struct user_job *const *jobs, size_t n, bool *wrote)
{
	struct arena *a = arena_new();
	struct user_row rows[JOBS_BATCH];
	int64_t now = clock_wall_ms();
	bool writing;
	size_t m = make_rows(jobs, n, rows, &writing);
	enum user_status st;

	if (writing)
		name_rows(rows, m);
	st = c->ops->load(c->state, rows, m, writing, a);
	*wrote = writing;

	if (st == USER_DONE) {
		open_rows(c, a, rows, m);
		for (size_t i = 0; i < n; i++)
			apply(jobs[i], now);
		if (writing) {
			close_rows(c, a, rows, m);
			st = c->ops->save(c->state, rows, m);
		}
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
		log_error(st == USER_AWAY ? "the user database cannot be reached" : "the user database failed", LOG_STR("scheme", c->ops->scheme),
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

/* ---- the thread: what is about many rows ---- */

static enum user_status find(struct core *c, struct buf *sql, struct arena *a, struct user_row **rows, size_t *n)
{
	enum user_status st = c->ops->find(c->state, sql->data, a, rows, n);

	buf_free(sql);
	if (st == USER_DONE)
		open_rows(c, a, *rows, *n);
	return st;
}

static enum user_status sweep(struct core *c, const struct user_sql *s)
{
	struct buf sql = {0};
	enum user_status st;

	user_sql_drop_blocks(s, &sql, clock_wall_s());
	st = c->ops->change(c->state, sql.data);
	buf_clear(&sql);
	user_sql_drop_tombstones(s, &sql, clock_wall_ms() - TOMBSTONE_MS);
	if (st == USER_DONE)
		st = c->ops->change(c->state, sql.data);
	buf_free(&sql);
	return st;
}

static enum user_status list(struct core *c, struct user_job *j)
{
	const struct user_sql s = {c->ops, c->state, &c->ring};
	struct user_row *rows = NULL;
	struct buf sql = {0};
	enum user_status st = j->query.sweep ? sweep(c, &s) : USER_DONE;

	user_sql_list(&s, &sql, j->arena, &j->query);
	if (st != USER_DONE) {
		buf_free(&sql);
		return st;
	}
	st = find(c, &sql, j->arena, &rows, &j->list_count);
	j->list = arena_alloc(j->arena, (j->list_count + 1) * sizeof(*j->list));
	for (size_t i = 0; i < j->list_count; i++) {
		j->list[i] = rows[i].u;
		j->list[i].exists = rows[i].exists;
	}
	return st;
}

/* One batch of what is to be sealed anew: in clear first, then under each older key. */
static enum user_status find_stale(struct core *c, struct arena *a, struct user_row **rows, size_t *n)
{
	const struct user_sql s = {c->ops, c->state, &c->ring};
	enum user_status st = USER_DONE;

	*n = 0;
	for (size_t i = 0; i < c->ring.seal->key_count && st == USER_DONE && *n == 0; i++) {
		struct buf sql = {0};

		user_sql_stale(&s, &sql, i ? &c->ring.keys[i] : NULL, JOBS_BATCH);
		st = find(c, &sql, a, rows, n);
	}
	return st;
}

/* Read again, in a transaction: somebody may have changed them since. */
static enum user_status seal_rows(struct core *c, struct arena *a, const struct user_row *stale, size_t n)
{
	struct user_row rows[JOBS_BATCH];
	enum user_status st;

	for (size_t i = 0; i < n; i++) {
		rows[i] = (struct user_row){.u = {.appid = stale[i].u.appid, .openid = stale[i].u.openid}, .erased_ms = -1, .as_of_ms = INT64_MAX};
		clear(&rows[i]);
	}
	name_rows(rows, n);
	st = c->ops->load(c->state, rows, n, true, a);
	if (st != USER_DONE)
		return st;
	open_rows(c, a, rows, n);
	for (size_t i = 0; i < n; i++)
		rows[i].dirty = rows[i].phone_dirty = rows[i].exists && rows[i].u.text[USER_phone];
	close_rows(c, a, rows, n);
	return c->ops->save(c->state, rows, n);
}

static int by_row(const void *a, const void *b)
{
	const struct user *x = &((const struct user_row *)a)->u, *y = &((const struct user_row *)b)->u;
	int d = strcmp(x->appid, y->appid);

	return d ? d : strcmp(x->openid, y->openid);
}

static enum user_status say_foreign(struct core *c)
{
	struct buf sql = {0};
	enum user_status st;
	int64_t n = 0;

	user_sql_foreign(c->ops->tables, &c->ring, &sql);
	st = c->ops->count(c->state, sql.data, &n);
	buf_free(&sql);
	if (st == USER_DONE && n > 0 && n != c->foreign)
		log_error("phone numbers are encrypted under a key that is not configured: add it to session.encryption_key",
			LOG_INT("rows", n));
	c->foreign = st == USER_DONE ? n : c->foreign;
	return st;
}

static enum user_status seal(struct core *c, struct user_job *j)
{
	struct user_row *rows = NULL;
	size_t n = 0;
	enum user_status st = find_stale(c, j->arena, &rows, &n);

	if (st != USER_DONE)
		return st;
	if (n == 0) {
		j->unsettled = j->query.sweep && c->ops->settle && !c->ops->settle(c->state);
		return say_foreign(c);
	}
	j->more = true;
	qsort(rows, n, sizeof(*rows), by_row);
	return seal_rows(c, j->arena, rows, n);
}

static void run_alone(struct core *c, struct user_job *j)
{
	enum user_status st = USER_AGAIN;

	for (int i = 0; i < TRIES && st == USER_AGAIN; i++)
		st = j->verb == VERB_LIST ? list(c, j) : seal(c, j);
	note(c, st, false);
	j->job.oc = st == USER_DONE ? OC_OK : OC_STORE_UNAVAILABLE;
}

static void run(void *ctx, struct job *const *batch, size_t n)
{
	struct user_job *jobs[JOBS_BATCH];
	size_t m = 0;

	for (size_t i = 0; i < n; i++) {
		struct user_job *j = (struct user_job *)batch[i];

		j->came = i;
		if (j->verb < VERB_LIST)
			jobs[m++] = j;
	}
	/* cppcheck-suppress uninitvar ; m of them are set */
	qsort(jobs, m, sizeof(jobs[0]), by_key_then_came);
	if (m > 0)
		settle(ctx, jobs, m);
	for (size_t i = 0; i < n; i++)
		if (((struct user_job *)batch[i])->verb >= VERB_LIST)
			run_alone(ctx, (struct user_job *)batch[i]);
}

static int64_t idle(void *ctx)
{
	struct core *c = ctx;
	int64_t again_ms;

	enum user_status st = c->ops->idle(c->state, &again_ms);

	atomic_store(&c->refused, st == USER_FAILED);
	atomic_store(&c->tried, true);
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
	phone_ring_fini(&c->ring);
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

/* A batch at a time, and what waits goes between them. */
static void on_sealed(struct user_job *j, enum outcome oc)
{
	struct user_db *db = j->db;

	if (oc == OC_OK)
		db->sealing = j->more || j->unsettled;
	timer_start(db->seal, oc == OC_OK && j->more ? SEAL_NEXT_MS : oc == OC_OK && !j->unsettled ? SEAL_AGAIN_MS : SEAL_RETRY_MS);
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

/* While the first connection is being made nobody knows: what comes then waits for it, within its limit. */
static bool is_away(struct core *c)
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

void user_seen(struct user_db *db, const char *appid, const char *openid, const char *unionid, int64_t as_of_ms, int64_t limit_ms,
	user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_SEEN, appid, openid, cb, ctx);

	j->patch.as_of_ms = as_of_ms;
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
		j->patch.text[i] = p->given & 1u << i ? copy(j->arena, p->text[i]) : NULL;
	j->patch.phone_pure = copy(j->arena, p->phone_pure);
	job_start(db, j, limit_ms, p->keep);
}

void user_erase(struct user_db *db, const char *appid, const char *openid, int64_t erased_ms, int64_t limit_ms, user_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_ERASE, appid, openid, cb, ctx);

	j->erased_ms = erased_ms;
	job_start(db, j, limit_ms, false);
}

void user_set_block(struct user_db *db, const char *appid, const char *openid, const struct user_block *b, int64_t limit_ms, user_cb cb,
	void *ctx)
{
	struct user_job *j = job_new(VERB_BLOCK, appid, openid, cb, ctx);

	if (b) {
		j->block = *b;
		j->block.note = copy(j->arena, b->note);
	}
	job_start(db, j, limit_ms, false);
}

bool user_block_holds(const struct user_block *b, int64_t now_s)
{
	return b->since_s && (!b->until_s || b->until_s > now_s);
}

void user_list(struct user_db *db, const struct user_query *q, int64_t limit_ms, user_list_cb cb, void *ctx)
{
	struct user_job *j = job_new(VERB_LIST, "", "", NULL, ctx);
	struct arena *a = j->arena;

	j->list_cb = cb;
	j->query = *q;
	j->query.appid = copy(a, q->appid);
	j->query.after_appid = copy(a, q->after_appid);
	j->query.after = copy(a, q->after);
	j->query.value = copy(a, q->value);
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
	c->o.seal = NULL;
	phone_ring_init(&c->ring, o->seal);
	c->foreign = -1;
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
		db->seal = timer_new(l, seal_some, db);
		if (!user_db_is_none(db)) {
			look(db);
			timer_start(db->seal, SEAL_FIRST_MS);
		}
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
	timer_free(db->seal); /* after the jobs: the last may have started it */
	if (threadless)
		core_free(db->core);
	free(db);
}
