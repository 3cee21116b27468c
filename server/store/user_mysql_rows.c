/* Users' rows: a batch as SQL, two round trips for each. What reads and locks the rows goes with
 * the beginning of the transaction, what writes them with its end. Values go through the library's
 * escaping, in the connection's character set.
 *
 * A new row is a plain INSERT; when another process was first with it the batch is done over. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "store/user_mysql.h"

/* ---- text of SQL ---- */

void user_mysql_quote(void *state, struct buf *sql, const char *text)
{
	size_t n = strlen(text);
	char *out = mem_alloc(2 * n + 1);
	struct mysql *m = state;

	n = m->link ? mysql_real_escape_string(m->link, out, text, n) : 0;
	buf_str(sql, "'");
	buf_add(sql, out, n);
	buf_str(sql, "'");
	mem_free_secret(out);
}

static void sql_text(struct mysql *m, const char *s)
{
	if (s)
		user_mysql_quote(m, &m->sql, s);
	else
		buf_str(&m->sql, "NULL");
}

static void sql_number(struct mysql *m, int64_t v)
{
	if (v < 0)
		buf_str(&m->sql, "NULL");
	else
		buf_printf(&m->sql, "%" PRId64, v);
}

static void sql_key(struct mysql *m, const char *before, const struct user_row *row)
{
	buf_str(&m->sql, before);
	sql_text(m, row->u.appid);
	buf_str(&m->sql, ",");
	sql_text(m, row->u.openid);
}

static void sql_row(struct mysql *m, const struct user_row *row)
{
	const struct user *u = &row->u;

	buf_str(&m->sql, "(");
	sql_text(m, u->appid);
	buf_str(&m->sql, ",");
	sql_text(m, u->openid);
	for (int i = 0; i < USER_TEXT_COUNT; i++) {
		buf_str(&m->sql, ",");
		sql_text(m, i == USER_phone ? row->phone_column : u->text[i]);
	}
	for (int i = 0; i < USER_NUMBER_COUNT; i++) {
		buf_str(&m->sql, ",");
		sql_number(m, u->number[i]);
	}
	buf_str(&m->sql, ")");
}

/* A list for each app: the server reads that in half the time of as many pairs. */
static void sql_keys(struct mysql *m, char table, const struct user_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && !strcmp(rows[i].u.appid, rows[i - 1].u.appid)) {
			buf_str(&m->sql, ",");
		} else {
			buf_printf(&m->sql, "%s(%c.appid=", i ? ")) OR " : "(", table);
			sql_text(m, rows[i].u.appid);
			buf_printf(&m->sql, " AND %c.openid IN (", table);
		}
		sql_text(m, rows[i].u.openid);
	}
	buf_str(&m->sql, ")))");
}

/* The rows of one kind, as one statement; none: nothing. */
static void sql_insert(struct mysql *m, const struct user_row *rows, size_t n, bool is_new)
{
	const char *before = "INSERT INTO " TABLE " (" USER_COLUMNS ") VALUES ";

	for (size_t i = 0; i < n; i++) {
		if (!rows[i].dirty || rows[i].is_new != is_new)
			continue;
		buf_str(&m->sql, before);
		sql_row(m, &rows[i]);
		before = ",";
	}
	if (*before != ',')
		return;
#define X(name, ...) #name "=VALUES(" #name "),"
	if (!is_new)
		buf_str(&m->sql, " ON DUPLICATE KEY UPDATE " USER_TEXTS(X)
					 USER_NUMBERS(X) "openid=VALUES(openid)");
#undef X
	buf_str(&m->sql, ";");
}

/* ---- a batch ---- */

static struct user_row *row_of(
	struct user_row *rows, size_t n, const char *appid, const char *openid)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(rows[i].u.appid, appid) && !strcmp(rows[i].u.openid, openid))
			return &rows[i];
	return NULL;
}

static int64_t number_at(MYSQL_ROW v, int at)
{
	return v[at] ? strtoll(v[at], NULL, 10) : -1;
}

static const char *text_at(MYSQL_ROW v, int at, struct arena *a)
{
	return v[at] ? arena_strdup(a, v[at]) : NULL;
}

/* Columns of USER_LIST_COLUMNS, without the key. */
static void read_row(MYSQL_ROW v, const unsigned long *len, struct user_row *row, struct arena *a)
{
	for (int i = 0; i < USER_TEXT_COUNT; i++)
		row->u.text[i] = text_at(v, USER_KEY_COUNT + i, a);
	for (int i = 0; i < USER_NUMBER_COUNT; i++)
		row->u.number[i] = number_at(v, USER_KEY_COUNT + USER_TEXT_COUNT + i);
	row->exists = row->u.number[USER_created_at] >= 0;
	for (int i = 0; i < PHONE_CELL_COUNT; i++)
		if (v[USER_PHONE_AT + i])
			row->phone[i] = (struct user_bytes){
				arena_strndup(a, v[USER_PHONE_AT + i], len[USER_PHONE_AT + i]),
				len[USER_PHONE_AT + i]};
	if (v[USER_BLOCK_AT])
		row->u.block = (struct user_block){number_at(v, USER_BLOCK_AT),
			number_at(v, USER_BLOCK_AT + 1), text_at(v, USER_BLOCK_AT + 2, a)};
}

static void read_tombstone(MYSQL_ROW v, const unsigned long *len, struct user_row *rows, size_t n)
{
	for (size_t i = 0; i < n && len[0] == USER_ERASED_NAME_LEN; i++)
		if (!memcmp(rows[i].name, v[0], USER_ERASED_NAME_LEN))
			rows[i].erased_ms = number_at(v, 1);
}

/* Rows that were asked for by their keys. */
struct asked {
	struct user_row *rows;
	size_t n;
	struct arena *a;
};

static void take_rows(MYSQL_RES *res, const struct asked *asked)
{
	MYSQL_ROW v;

	while ((v = mysql_fetch_row(res))) {
		const unsigned long *len = mysql_fetch_lengths(res);
		struct user_row *row;

		if (mysql_num_fields(res) == 2)
			read_tombstone(v, len, asked->rows, asked->n);
		else if ((row = row_of(asked->rows, asked->n, v[0], v[1])))
			read_row(v, len, row, asked->a);
	}
}

/* All that m->sql says, with one trip. */
static bool run(struct mysql *m, const struct asked *asked)
{
	int more;

	if (mysql_real_query(m->link, m->sql.data, m->sql.len))
		return false;
	do {
		MYSQL_RES *res = mysql_store_result(m->link);

		if (!res && mysql_field_count(m->link) > 0)
			return false;
		if (res && asked)
			take_rows(res, asked);
		mysql_free_result(res);
		more = mysql_next_result(m->link);
	} while (more == 0);
	return more < 0;
}

/* Blocks of users that there is no row of. */
static void sql_blocks(struct mysql *m, const struct user_row *rows, size_t n)
{
	/* clang-format off: as the statement reads */
	buf_str(&m->sql, ";SELECT " USER_LIST_COLUMNS(b) " FROM " TABLES "blocks b"
		" LEFT JOIN " TABLE " u ON u.appid=b.appid AND u.openid=b.openid"
		" LEFT JOIN " TABLES "phones p ON p.appid IS NULL"
		" WHERE u.appid IS NULL AND ");
	/* clang-format on */
	sql_keys(m, 'b', rows, n);
}

static void sql_names(struct mysql *m, const struct user_row *rows, size_t n)
{
	buf_str(&m->sql, ";SELECT name, erased_ms FROM " TABLES "erased WHERE name IN (");
	for (size_t i = 0; i < n; i++) {
		buf_str(&m->sql, i ? "," : "");
		user_sql_bytes(&m->sql, rows[i].name, sizeof(rows[i].name));
	}
	buf_str(&m->sql, ")");
}

/* The tombstones are read after the rows are locked: an erasure that was there first has committed.
 */
enum user_status user_mysql_load(
	void *state, struct user_row *rows, size_t n, bool writing, struct arena *a)
{
	struct mysql *m = state;
	const struct asked asked = {rows, n, a};

	if (!m->link)
		return USER_AWAY;
	buf_clear(&m->sql);
	buf_str(&m->sql, writing ? "START TRANSACTION;" : "");
	/* clang-format off: as the statement reads */
	buf_str(&m->sql, "SELECT " USER_LIST_COLUMNS(u) " FROM " TABLE " u"
		" LEFT JOIN " TABLES "phones p ON p.appid=u.appid AND p.openid=u.openid"
		" LEFT JOIN " TABLES "blocks b ON b.appid=u.appid AND b.openid=u.openid"
		" WHERE ");
	/* clang-format on */
	sql_keys(m, 'u', rows, n);
	buf_str(&m->sql, writing ? " FOR UPDATE" : "");
	sql_blocks(m, rows, n);
	if (writing)
		sql_names(m, rows, n);
	return run(m, &asked) ? USER_DONE : user_mysql_undo(m);
}

/* The row is made where there is none, so that it is locked: who inserts it meanwhile waits for us,
 * and then finds the tombstone (sql_not_erased). */
static void sql_erasure(struct mysql *m, const struct user_row *row)
{
	sql_key(m, "INSERT INTO " TABLE " (appid, openid, created_at) VALUES (", row);
	buf_str(&m->sql, ",0) ON DUPLICATE KEY UPDATE created_at=created_at;");
	sql_key(m, "DELETE FROM " TABLE " WHERE (appid, openid)=(", row);
	sql_key(m, ");DELETE FROM " TABLES "phones WHERE (appid, openid)=(", row);
	buf_str(&m->sql, ");INSERT INTO " TABLES "erased VALUES (");
	user_sql_bytes(&m->sql, row->name, sizeof(row->name));
	buf_printf(&m->sql,
		",%" PRId64
		") ON DUPLICATE KEY UPDATE erased_ms=GREATEST(erased_ms, VALUES(erased_ms));",
		row->erased_ms);
}

static void sql_phone(struct mysql *m, const struct user_row *row)
{
	bool any = false;

	for (int i = 0; i < PHONE_CELL_COUNT; i++)
		any |= row->phone[i].p != NULL;
	sql_key(m,
		any ? "REPLACE INTO " TABLES
		      "phones (appid, openid, sealed, tag, pure_tag, key_id) VALUES ("
		    : "DELETE FROM " TABLES "phones WHERE (appid, openid)=(",
		row);
	for (int i = 0; i < PHONE_CELL_COUNT && any; i++) {
		buf_str(&m->sql, row->phone[i].p ? "," : ",NULL");
		if (row->phone[i].p)
			user_sql_bytes(&m->sql, row->phone[i].p, row->phone[i].len);
	}
	buf_str(&m->sql, ");");
}

static void sql_block(struct mysql *m, const struct user_row *row)
{
	const struct user_block *b = &row->u.block;

	sql_key(m,
		b->since_s ? "REPLACE INTO " TABLES
			     "blocks (appid, openid, since_s, until_s, note) VALUES ("
			   : "DELETE FROM " TABLES "blocks WHERE (appid, openid)=(",
		row);
	if (b->since_s) {
		buf_printf(&m->sql, ",%" PRId64 ",%" PRId64 ",", b->since_s, b->until_s);
		sql_text(m, b->note);
	}
	buf_str(&m->sql, ");");
}

/* After a new row is there, and so locked: where its tombstone came while we did not look, the
 * row's key is inserted once more, which fails as a duplicate, and the batch is done over. */
static void sql_not_erased(struct mysql *m, const struct user_row *row)
{
	sql_key(m, "INSERT INTO " TABLE " (appid, openid, created_at) SELECT ", row);
	buf_str(&m->sql, ",0 FROM " TABLES "erased WHERE name=");
	user_sql_bytes(&m->sql, row->name, sizeof(row->name));
	buf_printf(&m->sql, " AND erased_ms>=%" PRId64 ";", row->as_of_ms);
}

enum user_status user_mysql_save(void *state, const struct user_row *rows, size_t n)
{
	struct mysql *m = state;
	enum user_status st;

	buf_clear(&m->sql);
	for (size_t i = 0; i < n; i++)
		if (rows[i].erased)
			sql_erasure(m, &rows[i]);
	sql_insert(m, rows, n, false);
	sql_insert(m, rows, n, true);
	for (size_t i = 0; i < n; i++) {
		if (rows[i].dirty && rows[i].is_new)
			sql_not_erased(m, &rows[i]);
		if (rows[i].dirty && rows[i].phone_dirty)
			sql_phone(m, &rows[i]);
		if (rows[i].block_dirty)
			sql_block(m, &rows[i]);
	}
	buf_str(&m->sql, "COMMIT");
	st = run(m, NULL) ? USER_DONE : user_mysql_undo(m);
	mem_wipe(m->sql.data, m->sql.len); /* it held phone numbers, maybe */
	return st;
}

/* ---- statements of user_list.c ---- */

enum user_status user_mysql_find(
	void *state, const char *sql, struct arena *a, struct user_row **rows, size_t *n)
{
	struct mysql *m = state;
	size_t room = 0;
	MYSQL_RES *res;
	MYSQL_ROW v;

	*n = 0;
	if (!m->link)
		return USER_AWAY;
	if (mysql_query(m->link, sql) || !(res = mysql_store_result(m->link)))
		return user_mysql_undo(m);
	while ((v = mysql_fetch_row(res))) {
		struct user_row *row;

		*rows = user_rows_grow(a, *rows, *n, &room);
		row = &(*rows)[(*n)++];
		row->u.appid = text_at(v, 0, a);
		row->u.openid = text_at(v, 1, a);
		read_row(v, mysql_fetch_lengths(res), row, a);
	}
	mysql_free_result(res);
	return USER_DONE;
}
