/* The helper thread's side. A batch of jobs is one transaction: read the rows they are about, let
 * each job have its way with its row, in the order they came, write what has changed. What that is
 * in SQL, the database's file knows (user_ops.h). */
#include "store/user_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/log.h"
#include "store/user_list.h"

enum { TRIES = 10, TOMBSTONE_MS = 24 * 3600 * 1000 };

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

const char *user_copy(struct arena *a, const char *text)
{
	return text ? arena_strdup(a, text) : NULL;
}

/* ---- what becomes of a row ---- */

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

static void copy_user(struct arena *a, struct user *to, const struct user_row *row)
{
	*to = row->u;
	to->exists = row->exists;
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		to->text[i] = user_copy(a, row->u.text[i]);
	to->phone_pure = user_copy(a, row->u.phone_pure);
	to->block.note = user_copy(a, row->u.block.note);
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

	/* the first login is the one at created_at exactly: a repeat of its answer is told from
	 * that */
	number[USER_last_login_at] =
		is_new || now > number[USER_created_at] ? now : number[USER_created_at] + 1;
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
	return (j->verb == VERB_SEEN || j->verb == VERB_PUT) &&
	       j->row->erased_ms >= j->patch.as_of_ms;
}

static void apply(struct user_job *j, int64_t now)
{
	struct user_row *row = j->row;
	bool writes = j->verb == VERB_SEEN || j->verb == VERB_PUT, is_new = writes && !row->exists;

	j->found = false; /* the batch may be done over */
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

/* ---- a batch ---- */

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

static size_t make_rows(
	struct user_job *const *jobs, size_t n, struct user_row *rows, bool *writing)
{
	size_t m = 0;

	*writing = false;
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || by_key(jobs[i - 1], jobs[i])) {
			rows[m] = (struct user_row){
				.u = {.appid = jobs[i]->appid, .openid = jobs[i]->openid}};
			clear(&rows[m]);
			rows[m].erased_ms = -1;
			m++;
		}
		jobs[i]->row = &rows[m - 1];
		*writing |= jobs[i]->verb != VERB_GET;
	}
	return m;
}

static void open_rows(const struct user_core *c, struct arena *a, struct user_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		phone_open(&c->ring, a, &rows[i]);
		rows[i].phone_column = rows[i].u.text[USER_phone];
		if (!user_block_holds(&rows[i].u.block, clock_wall_s()))
			rows[i].u.block = (struct user_block){0};
	}
}

static void close_rows(const struct user_core *c, struct arena *a, struct user_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (rows[i].dirty && rows[i].phone_dirty)
			phone_close(&c->ring, a, &rows[i]);
		else if (c->ring.seal->key_count)
			rows[i].phone_column = NULL;
	}
}

static enum user_status attempt(
	struct user_core *c, struct user_job *const *jobs, size_t n, bool *wrote)
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

/* Trouble is logged where it begins, once, and its end is: when something could be written. That
 * the server answers is not enough: it may be read-only, or its disk full. (A row that is refused
 * is logged each time.) */
static void note(struct user_core *c, enum user_status st, bool wrote)
{
	bool good = st == USER_DONE;

	atomic_store(&c->away, st == USER_AWAY);
	if (!good && (!c->failing || st == USER_BAD_ROW))
		log_error(st == USER_AWAY ? "the user database cannot be reached"
					  : "the user database failed",
			LOG_STR("scheme", c->ops->scheme), LOG_STR("cause", c->why));
	else if (good && wrote && c->failing)
		log_info("the user database works again", LOG_STR("scheme", c->ops->scheme));
	if (good ? wrote : st != USER_BAD_ROW)
		c->failing = !good;
}

static void settle(struct user_core *c, struct user_job *const *jobs, size_t n)
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

/* ---- what is about many rows ---- */

static enum user_status find(
	struct user_core *c, struct buf *sql, struct arena *a, struct user_row **rows, size_t *n)
{
	enum user_status st = c->ops->find(c->state, sql->data, a, rows, n);

	buf_free(sql);
	if (st == USER_DONE)
		open_rows(c, a, *rows, *n);
	return st;
}

static enum user_status sweep(struct user_core *c, const struct user_sql *s)
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

static enum user_status list(struct user_core *c, struct user_job *j)
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
static enum user_status find_stale(
	struct user_core *c, struct arena *a, struct user_row **rows, size_t *n)
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
static enum user_status seal_rows(
	struct user_core *c, struct arena *a, const struct user_row *stale, size_t n)
{
	struct user_row rows[JOBS_BATCH];
	enum user_status st;

	for (size_t i = 0; i < n; i++) {
		rows[i] = (struct user_row){
			.u = {.appid = stale[i].u.appid, .openid = stale[i].u.openid},
			.erased_ms = -1,
			.as_of_ms = INT64_MAX};
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
	const struct user *x = &((const struct user_row *)a)->u,
			  *y = &((const struct user_row *)b)->u;
	int d = strcmp(x->appid, y->appid);

	return d ? d : strcmp(x->openid, y->openid);
}

static enum user_status say_foreign(struct user_core *c)
{
	struct buf sql = {0};
	enum user_status st;
	int64_t n = 0;

	user_sql_foreign(c->ops->tables, &c->ring, &sql);
	st = c->ops->count(c->state, sql.data, &n);
	buf_free(&sql);
	if (st == USER_DONE && n > 0 && n != c->foreign)
		log_error("phone numbers are encrypted under a key that is not configured: add it "
			  "to session.encryption_key",
			LOG_INT("rows", n));
	c->foreign = st == USER_DONE ? n : c->foreign;
	return st;
}

static enum user_status seal(struct user_core *c, struct user_job *j)
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

static void run_alone(struct user_core *c, struct user_job *j)
{
	enum user_status st = USER_AGAIN;

	for (int i = 0; i < TRIES && st == USER_AGAIN; i++)
		st = j->verb == VERB_LIST ? list(c, j) : seal(c, j);
	note(c, st, false);
	j->job.oc = st == USER_DONE ? OC_OK : OC_STORE_UNAVAILABLE;
}

void user_batch_run(void *ctx, struct job *const *batch, size_t n)
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

int64_t user_batch_idle(void *ctx)
{
	struct user_core *c = ctx;
	int64_t again_ms;

	enum user_status st = c->ops->idle(c->state, &again_ms);

	atomic_store(&c->refused, st == USER_FAILED);
	atomic_store(&c->tried, true);
	/* one that is back was written to */
	note(c, st == USER_FAILED ? USER_AWAY : st, atomic_load(&c->away));
	return again_ms;
}
