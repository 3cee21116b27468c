/* Users' rows: a batch is one transaction of prepared statements. */
#include <inttypes.h>

#include "common/clock.h"
#include "common/mem.h"
#include "store/user_sqlite.h"

/* Runs a statement that gives no rows. */
static int finish(sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	sqlite3_reset(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* ---- a batch ---- */

static int64_t number_at(sqlite3_stmt *st, int at)
{
	return sqlite3_column_type(st, at) == SQLITE_NULL ? -1 : sqlite3_column_int64(st, at);
}

static const char *text_at(sqlite3_stmt *st, int at, struct arena *a)
{
	const char *text = (const char *)sqlite3_column_text(st, at);

	return text ? arena_strdup(a, text) : NULL;
}

static void read_user(sqlite3_stmt *st, struct user_row *row, struct arena *a)
{
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		row->u.text[i] = text_at(st, USER_KEY_COUNT + i, a);
	for (int i = 0; i < USER_NUMBER_COUNT; i++)
		row->u.number[i] = number_at(st, USER_KEY_COUNT + USER_TEXT_COUNT + i);
	row->exists = row->u.number[USER_created_at] >= 0;
}

/* Columns of USER_LIST_COLUMNS, without the key. */
static void read_row(sqlite3_stmt *st, struct user_row *row, struct arena *a)
{
	read_user(st, row, a);
	for (int i = 0; i < PHONE_CELL_COUNT; i++) {
		int at = USER_PHONE_AT + i, n = sqlite3_column_bytes(st, at);

		if (sqlite3_column_type(st, at) != SQLITE_NULL)
			row->phone[i] = (struct user_bytes){
				arena_strndup(a, sqlite3_column_blob(st, at), (size_t)n),
				(size_t)n};
	}
	if (sqlite3_column_type(st, USER_BLOCK_AT) != SQLITE_NULL)
		row->u.block = (struct user_block){sqlite3_column_int64(st, USER_BLOCK_AT),
			sqlite3_column_int64(st, USER_BLOCK_AT + 1),
			text_at(st, USER_BLOCK_AT + 2, a)};
}

static void bind_key(sqlite3_stmt *st, const struct user *u)
{
	sqlite3_bind_text(st, 1, u->appid, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, u->openid, -1, SQLITE_STATIC);
}

enum user_status user_sqlite_load(
	void *state, struct user_row *rows, size_t n, bool writing, struct arena *a)
{
	struct sqlite *s = state;
	int rc = SQLITE_OK;

	if (writing && user_sqlite_log_is_full(s)) {
		snprintf(s->why, USER_WHY_MAX,
			"its write-ahead log has grown too long: somebody has been reading from "
			"the file for long");
		return USER_FAILED;
	}
	s->wait_until_ms = clock_ms() + s->timeout_ms;
	if (writing)
		rc = finish(s->st[ST_BEGIN]);
	for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
		bind_key(s->st[ST_GET], &rows[i].u);
		sqlite3_bind_blob(
			s->st[ST_GET], 3, rows[i].name, sizeof(rows[i].name), SQLITE_STATIC);
		rc = sqlite3_step(s->st[ST_GET]);
		if (rc == SQLITE_ROW) {
			read_row(s->st[ST_GET], &rows[i], a);
			rows[i].erased_ms = number_at(s->st[ST_GET], USER_LIST_COUNT);
		}
		sqlite3_reset(s->st[ST_GET]); /* or it would keep the log from starting anew */
		rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
	}
	return rc == SQLITE_OK ? USER_DONE : user_sqlite_undo(s, rc);
}

static int put(sqlite3_stmt *st, const struct user_row *row)
{
	const struct user *u = &row->u;

	bind_key(st, u);
	for (int i = 0; i < USER_TEXT_COUNT; i++) /* NULL binds NULL */
		sqlite3_bind_text(st, 1 + USER_KEY_COUNT + i,
			i == USER_phone ? row->phone_column : u->text[i], -1, SQLITE_STATIC);
	for (int i = 0; i < USER_NUMBER_COUNT; i++) {
		int at = 1 + USER_KEY_COUNT + USER_TEXT_COUNT + i;

		if (u->number[i] < 0)
			sqlite3_bind_null(st, at);
		else
			sqlite3_bind_int64(st, at, u->number[i]);
	}
	return finish(st);
}

static int put_phone(struct sqlite *s, const struct user_row *row)
{
	sqlite3_stmt *st = s->st[ST_PUT_PHONE];
	bool any = false;

	bind_key(st, &row->u);
	for (int i = 0; i < PHONE_CELL_COUNT; i++) {
		sqlite3_bind_blob(st, 1 + USER_KEY_COUNT + i, row->phone[i].p,
			(int)row->phone[i].len, SQLITE_STATIC);
		any |= row->phone[i].p != NULL;
	}
	if (any)
		return finish(st);
	bind_key(s->st[ST_DROP_PHONE], &row->u);
	return finish(s->st[ST_DROP_PHONE]);
}

static int put_erasure(struct sqlite *s, const struct user_row *row)
{
	sqlite3_stmt *st = s->st[ST_TOMBSTONE];
	int rc;

	bind_key(s->st[ST_DROP], &row->u);
	bind_key(s->st[ST_DROP_PHONE], &row->u);
	sqlite3_bind_blob(st, 1, row->name, sizeof(row->name), SQLITE_STATIC);
	sqlite3_bind_int64(st, 2, row->erased_ms);
	rc = finish(s->st[ST_DROP]);
	if (rc == SQLITE_OK)
		rc = finish(s->st[ST_DROP_PHONE]);
	return rc == SQLITE_OK ? finish(st) : rc;
}

static int put_block(struct sqlite *s, const struct user_row *row)
{
	const struct user_block *b = &row->u.block;
	sqlite3_stmt *st = s->st[b->since_s ? ST_BLOCK : ST_UNBLOCK];

	bind_key(st, &row->u);
	if (b->since_s) {
		sqlite3_bind_int64(st, 3, b->since_s);
		sqlite3_bind_int64(st, 4, b->until_s);
		sqlite3_bind_text(st, 5, b->note, -1, SQLITE_STATIC);
	}
	return finish(st);
}

static int save_row(struct sqlite *s, const struct user_row *row)
{
	int rc = row->erased ? put_erasure(s, row) : SQLITE_OK;

	if (rc == SQLITE_OK && row->dirty)
		rc = put(s->st[ST_PUT], row);
	if (rc == SQLITE_OK && row->dirty && row->phone_dirty)
		rc = put_phone(s, row);
	return rc == SQLITE_OK && row->block_dirty ? put_block(s, row) : rc;
}

enum user_status user_sqlite_save(void *state, const struct user_row *rows, size_t n)
{
	struct sqlite *s = state;
	int rc = SQLITE_OK;

	for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
		rc = save_row(s, &rows[i]);
	if (rc == SQLITE_OK)
		rc = finish(s->st[ST_COMMIT]);
	return rc == SQLITE_OK ? USER_DONE : user_sqlite_undo(s, rc);
}

/* ---- statements of user_list.c ---- */

enum user_status user_sqlite_find(
	void *state, const char *sql, struct arena *a, struct user_row **rows, size_t *n)
{
	struct sqlite *s = state;
	sqlite3_stmt *st = NULL;
	size_t room = 0;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

	*n = 0;
	s->wait_until_ms = clock_ms() + s->timeout_ms;
	while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct user_row *row;

		*rows = user_rows_grow(a, *rows, *n, &room);
		row = &(*rows)[(*n)++];
		row->u.appid = text_at(st, 0, a);
		row->u.openid = text_at(st, 1, a);
		read_row(st, row, a);
		rc = SQLITE_OK;
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? USER_DONE : user_sqlite_failed(s, rc);
}

/* ---- the statements ---- */

int user_sqlite_prepare(struct sqlite *s)
{
	static const char get[] = "SELECT " USER_LIST_COLUMNS(u)
		", (SELECT erased_ms FROM erased WHERE name = ?3)"
		   " FROM (SELECT 1) LEFT JOIN users u ON u.appid = ?1 AND u.openid = ?2"
		   " LEFT JOIN phones p ON p.appid = ?1 AND p.openid = ?2 LEFT JOIN blocks b ON "
		   "b.appid = ?1 AND b.openid = ?2";
	static const char row[] = "INSERT OR REPLACE INTO users (" USER_COLUMNS ") VALUES (?, ?"
#define X(...) ", ?"
		USER_TEXTS(X) USER_NUMBERS(X)
#undef X
		")";
	static const char *const all[ST_COUNT] = {
		[ST_BEGIN] = "BEGIN IMMEDIATE", /* a read that turned into a write would fail where another process wrote meanwhile */
		[ST_COMMIT] = "COMMIT",
		[ST_GET] = get,
		[ST_PUT] = row,
		[ST_DROP] = "DELETE FROM users WHERE appid = ? AND openid = ?",
		[ST_DROP_PHONE] = "DELETE FROM phones WHERE appid = ? AND openid = ?",
		[ST_PUT_PHONE] = "INSERT OR REPLACE INTO phones (appid, openid, sealed, tag, pure_tag, key_id) VALUES (?, ?, ?, ?, ?, ?)",
		[ST_TOMBSTONE] = "INSERT OR REPLACE INTO erased (name, erased_ms) VALUES (?, ?)",
		[ST_BLOCK] = "INSERT OR REPLACE INTO blocks (appid, openid, since_s, until_s, note) VALUES (?, ?, ?, ?, ?)",
		[ST_UNBLOCK] = "DELETE FROM blocks WHERE appid = ? AND openid = ?",
	};
	int rc = SQLITE_OK;

	for (size_t i = 0; i < NELEM(all) && rc == SQLITE_OK; i++)
		rc = sqlite3_prepare_v3(
			s->db, all[i], -1, SQLITE_PREPARE_PERSISTENT, &s->st[i], NULL);
	return rc;
}
