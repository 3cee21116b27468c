/* MySQL and MariaDB, two round trips for a batch: what reads and locks the rows goes with the beginning of the transaction, what writes
 * them with its end. Values go through the library's escaping, in the connection's character set.
 *
 * A server that has become read-only (every planned failover) is left, and its name looked up again, until one is found that takes a
 * write.
 *
 * READ COMMITTED, so that rows which are not there are not locked (a lock on the gap that two processes share, and then each waits for
 * the other to insert); a new row is a plain INSERT, and when another process was first with it the batch is done over. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mariadb/errmsg.h>
#include <mariadb/mysql.h>
#include <mariadb/mysqld_error.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypt.h"
#include "common/log.h"
#include "common/mem.h"
#include "store/user_list.h"

enum { PING_MS = 1000, BACK_OFF_FIRST_MS = 100, BACK_OFF_MAX_MS = 2000, MIGRATE_WAIT_S = 30 };

#define TABLES "wxlogind_"
#define TABLE TABLES "users"

/* Migrations, forward only: the n-th leads from version n to n + 1 (table wxlogind_schema). MySQL has no transactions for these: each
 * must be one statement, or bear to be done again. Never change one that was released. Keys are bytes: no case, no trailing blanks. */
static const char *const migrations[] = {
	"CREATE TABLE IF NOT EXISTS " TABLE " ("
	" appid VARBINARY(64) NOT NULL, openid VARBINARY(128) NOT NULL,"
	" unionid VARCHAR(128), phone VARCHAR(32), nickname VARCHAR(128), avatar_url VARCHAR(1024),"
	" province VARCHAR(64), city VARCHAR(64), country VARCHAR(64), language VARCHAR(16),"
	" gender TINYINT, created_at BIGINT NOT NULL, last_login_at BIGINT, updated_at BIGINT,"
	" PRIMARY KEY (appid, openid)) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
};

/* What came later: tables and indexes only, which a program before them passes over. So they do not
 * count in wxlogind_schema, and the program before goes on to work on the same database. Each bears to
 * be done again. */
static const char *const additions[] = {
	"CREATE TABLE IF NOT EXISTS " TABLES "phones ("
	" appid VARBINARY(64) NOT NULL, openid VARBINARY(128) NOT NULL,"
	" sealed VARBINARY(255), tag VARBINARY(64), pure_tag VARBINARY(64), key_id VARBINARY(8),"
	" PRIMARY KEY (appid, openid), KEY by_tag (tag), KEY by_pure_tag (pure_tag), KEY by_key (key_id)"
	") ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	"CREATE TABLE IF NOT EXISTS " TABLES "blocks ("
	" appid VARBINARY(64) NOT NULL, openid VARBINARY(128) NOT NULL,"
	" since_s BIGINT NOT NULL, until_s BIGINT NOT NULL, note VARCHAR(255),"
	" PRIMARY KEY (appid, openid)) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	"CREATE TABLE IF NOT EXISTS " TABLES "erased ("
	" name BINARY(32) NOT NULL PRIMARY KEY, erased_ms BIGINT NOT NULL) ENGINE=InnoDB",
	"CREATE INDEX by_phone ON " TABLE " (phone)",
	"CREATE INDEX by_unionid ON " TABLE " (unionid)",
	"CREATE TABLE IF NOT EXISTS " TABLES "additions (one TINYINT PRIMARY KEY, version INT NOT NULL) ENGINE=InnoDB",
	"REPLACE INTO " TABLES "additions VALUES (1, 1)",
};
enum { ADDITIONS = 1 };

struct mysql {
	MYSQL     *link;       /* NULL: there is no connection */
	const struct user_db_options *o;
	char      *why;
	int64_t    back_off_ms;
	struct buf sql;
};

/* ---- what went wrong ---- */

static bool is_lost(unsigned err)
{
	return err >= CR_MIN_ERROR && err <= CR_MAX_ERROR;
}

/* A server that is there, and will say the same for ever. */
static bool is_for_good(unsigned err)
{
	switch (err) {
	case ER_ACCESS_DENIED_ERROR:
	case ER_DBACCESS_DENIED_ERROR:
	case ER_BAD_DB_ERROR:
	case ER_TABLEACCESS_DENIED_ERROR:
	case CR_AUTH_PLUGIN_CANNOT_LOAD:
		return true;
	default:
		return false;
	}
}

static bool is_bad_value(unsigned err)
{
	switch (err) {
	case ER_DATA_TOO_LONG:
	case ER_TRUNCATED_WRONG_VALUE:
	case ER_TRUNCATED_WRONG_VALUE_FOR_FIELD:
	case ER_WARN_DATA_OUT_OF_RANGE:
	case ER_BAD_NULL_ERROR:
		return true;
	default:
		return false;
	}
}

/* It will not take a write until somebody decides otherwise: that is elsewhere now. */
static bool is_read_only(unsigned err)
{
	switch (err) {
	case ER_OPTION_PREVENTS_STATEMENT: /* 1290: --read-only, --super-read-only */
	case ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION: /* 1792 */
	case ER_READ_ONLY_MODE: /* 1836: innodb_read_only */
		return true;
	default:
		return false;
	}
}

static void disconnect(struct mysql *m)
{
	mysql_close(m->link);
	m->link = NULL;
}

/* After a statement about users: its error's text may quote values, so only its number is told. */
static enum user_status undo(struct mysql *m)
{
	unsigned err = mysql_errno(m->link);

	if (is_lost(err)) {
		snprintf(m->why, USER_WHY_MAX, "%s", mysql_error(m->link));
		disconnect(m);
		return USER_AWAY;
	}
	snprintf(m->why, USER_WHY_MAX, "error %u (SQLSTATE %s)%s", err, mysql_sqlstate(m->link), is_read_only(err) ? ": it is read-only" : "");
	if (is_read_only(err) || mysql_rollback(m->link)) {
		disconnect(m); /* which rolls back too */
		return USER_AWAY;
	}
	if (err == ER_DUP_ENTRY || err == ER_LOCK_DEADLOCK)
		return USER_AGAIN;
	return is_bad_value(err) ? USER_BAD_ROW : USER_FAILED;
}

/* ---- text of SQL ---- */

static void mysql_quote(void *state, struct buf *sql, const char *text)
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
		mysql_quote(m, &m->sql, s);
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
		buf_str(&m->sql, " ON DUPLICATE KEY UPDATE " USER_TEXTS(X) USER_NUMBERS(X) "openid=VALUES(openid)");
#undef X
	buf_str(&m->sql, ";");
}

/* ---- a batch ---- */

static struct user_row *row_of(struct user_row *rows, size_t n, const char *appid, const char *openid)
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
			row->phone[i] = (struct user_bytes){arena_strndup(a, v[USER_PHONE_AT + i], len[USER_PHONE_AT + i]), len[USER_PHONE_AT + i]};
	if (v[USER_BLOCK_AT])
		row->u.block = (struct user_block){number_at(v, USER_BLOCK_AT), number_at(v, USER_BLOCK_AT + 1), text_at(v, USER_BLOCK_AT + 2, a)};
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
	buf_str(&m->sql, ";SELECT " USER_LIST_COLUMNS(b) " FROM " TABLES "blocks b LEFT JOIN " TABLE " u ON u.appid=b.appid AND u.openid=b.openid"
		" LEFT JOIN " TABLES "phones p ON p.appid IS NULL WHERE u.appid IS NULL AND ");
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

/* The tombstones are read after the rows are locked: an erasure that was there first has committed. */
static enum user_status mysql_load(void *state, struct user_row *rows, size_t n, bool writing, struct arena *a)
{
	struct mysql *m = state;
	const struct asked asked = {rows, n, a};

	if (!m->link)
		return USER_AWAY;
	buf_clear(&m->sql);
	buf_str(&m->sql, writing ? "START TRANSACTION;" : "");
	buf_str(&m->sql, "SELECT " USER_LIST_COLUMNS(u) " FROM " TABLE " u LEFT JOIN " TABLES "phones p ON p.appid=u.appid AND p.openid=u.openid"
		" LEFT JOIN " TABLES "blocks b ON b.appid=u.appid AND b.openid=u.openid WHERE ");
	sql_keys(m, 'u', rows, n);
	buf_str(&m->sql, writing ? " FOR UPDATE" : "");
	sql_blocks(m, rows, n);
	if (writing)
		sql_names(m, rows, n);
	return run(m, &asked) ? USER_DONE : undo(m);
}

/* The row is made where there is none, so that it is locked: who inserts it meanwhile waits for us, and
 * then finds the tombstone (sql_not_erased). */
static void sql_erasure(struct mysql *m, const struct user_row *row)
{
	sql_key(m, "INSERT INTO " TABLE " (appid, openid, created_at) VALUES (", row);
	buf_str(&m->sql, ",0) ON DUPLICATE KEY UPDATE created_at=created_at;");
	sql_key(m, "DELETE FROM " TABLE " WHERE (appid, openid)=(", row);
	sql_key(m, ");DELETE FROM " TABLES "phones WHERE (appid, openid)=(", row);
	buf_str(&m->sql, ");INSERT INTO " TABLES "erased VALUES (");
	user_sql_bytes(&m->sql, row->name, sizeof(row->name));
	buf_printf(&m->sql, ",%" PRId64 ") ON DUPLICATE KEY UPDATE erased_ms=GREATEST(erased_ms, VALUES(erased_ms));", row->erased_ms);
}

static void sql_phone(struct mysql *m, const struct user_row *row)
{
	bool any = false;

	for (int i = 0; i < PHONE_CELL_COUNT; i++)
		any |= row->phone[i].p != NULL;
	sql_key(m, any ? "REPLACE INTO " TABLES "phones (appid, openid, sealed, tag, pure_tag, key_id) VALUES (" :
		"DELETE FROM " TABLES "phones WHERE (appid, openid)=(", row);
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

	sql_key(m, b->since_s ? "REPLACE INTO " TABLES "blocks (appid, openid, since_s, until_s, note) VALUES (" :
		"DELETE FROM " TABLES "blocks WHERE (appid, openid)=(", row);
	if (b->since_s) {
		buf_printf(&m->sql, ",%" PRId64 ",%" PRId64 ",", b->since_s, b->until_s);
		sql_text(m, b->note);
	}
	buf_str(&m->sql, ");");
}

/* After a new row is there, and so locked: where its tombstone came while we did not look, the row's key
 * is inserted once more, which fails as a duplicate, and the batch is done over. */
static void sql_not_erased(struct mysql *m, const struct user_row *row)
{
	sql_key(m, "INSERT INTO " TABLE " (appid, openid, created_at) SELECT ", row);
	buf_str(&m->sql, ",0 FROM " TABLES "erased WHERE name=");
	user_sql_bytes(&m->sql, row->name, sizeof(row->name));
	buf_printf(&m->sql, " AND erased_ms>=%" PRId64 ";", row->as_of_ms);
}

static enum user_status mysql_save(void *state, const struct user_row *rows, size_t n)
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
	st = run(m, NULL) ? USER_DONE : undo(m);
	mem_wipe(m->sql.data, m->sql.len); /* it held phone numbers, maybe */
	return st;
}

/* ---- statements of user_list.c ---- */

/* One number; -1: none, or it failed. */
static int64_t ask(struct mysql *m, const char *sql)
{
	int64_t n = -1;
	MYSQL_RES *res;
	MYSQL_ROW v;

	if (mysql_query(m->link, sql) || !(res = mysql_store_result(m->link)))
		return -1;
	v = mysql_fetch_row(res);
	if (v && v[0])
		n = strtoll(v[0], NULL, 10);
	mysql_free_result(res);
	return n;
}

static enum user_status mysql_find(void *state, const char *sql, struct arena *a, struct user_row **rows, size_t *n)
{
	struct mysql *m = state;
	size_t room = 0;
	MYSQL_RES *res;
	MYSQL_ROW v;

	*n = 0;
	if (!m->link)
		return USER_AWAY;
	if (mysql_query(m->link, sql) || !(res = mysql_store_result(m->link)))
		return undo(m);
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

static enum user_status mysql_count(void *state, const char *sql, int64_t *n)
{
	struct mysql *m = state;

	if (!m->link)
		return USER_AWAY;
	*n = ask(m, sql);
	return *n >= 0 ? USER_DONE : undo(m);
}

static enum user_status mysql_change(void *state, const char *sql)
{
	struct mysql *m = state;

	if (!m->link)
		return USER_AWAY;
	return mysql_query(m->link, sql) ? undo(m) : USER_DONE;
}

/* ---- the schema ---- */

static bool migrate_one(struct mysql *m, int64_t is)
{
	char set[96];

	snprintf(set, sizeof(set), "UPDATE wxlogind_schema SET version = %" PRId64, is + 1);
	if (mysql_query(m->link, migrations[is]) || mysql_query(m->link, set))
		return false;
	log_info(is ? "the user database's schema was migrated" : "the user database's schema was made", LOG_STR("database", m->o->database),
		LOG_INT("version", is + 1));
	return true;
}

/* Under a lock of the server's, so that of many processes one does it. */
static bool migrate_locked(struct mysql *m, int64_t *is)
{
	bool ok = !mysql_query(m->link, "CREATE TABLE IF NOT EXISTS wxlogind_schema (one TINYINT PRIMARY KEY, version INT NOT NULL) ENGINE=InnoDB") &&
		!mysql_query(m->link, "INSERT IGNORE INTO wxlogind_schema VALUES (1, 0)");

	if (ok)
		*is = ask(m, "SELECT version FROM wxlogind_schema");
	ok = ok && *is >= 0;
	for (; ok && *is < (int64_t)NELEM(migrations); ++*is)
		ok = migrate_one(m, *is);
	for (size_t i = 0; ok && i < NELEM(additions); i++)
		ok = !mysql_query(m->link, additions[i]) || mysql_errno(m->link) == ER_DUP_KEYNAME;
	return ok;
}

static enum user_status migrate(struct mysql *m)
{
	static const char version[] = "SELECT version FROM wxlogind_schema";
	char lock[80];
	int64_t is = ask(m, version), known = NELEM(migrations);
	bool ok = true;

	if (is < known || (is == known && ask(m, "SELECT version FROM " TABLES "additions") < ADDITIONS)) { /* the tables may not be there */
		snprintf(lock, sizeof(lock), "SELECT GET_LOCK(CONCAT('wxlogind.', DATABASE()), %d)", MIGRATE_WAIT_S);
		ok = ask(m, lock) == 1 && migrate_locked(m, &is);
		if (!ok)
			snprintf(m->why, USER_WHY_MAX, "its schema cannot be made: %s", mysql_error(m->link));
		ask(m, "SELECT RELEASE_LOCK(CONCAT('wxlogind.', DATABASE()))");
	}
	if (!ok)
		return USER_FAILED;
	if (is == known)
		return USER_DONE;
	user_why_newer(m->why, is, known);
	return USER_FAILED;
}

/* ---- the connection ---- */

/* A lock that another process holds is given up before the connection is. */
static unsigned lock_wait_s(const struct mysql *m)
{
	return m->o->timeout_ms >= 2000 ? (unsigned)(m->o->timeout_ms / 1000 - 1) : 1;
}

/* The library's "enforce" asks for TLS and does without where the server offers none, unless the certificate is verified. */
static void set_tls(struct mysql *m)
{
	const my_bool wanted = !m->o->path && m->o->tls != USER_TLS_OFF, verify = wanted && m->o->tls == USER_TLS_VERIFY;

	mysql_options(m->link, MYSQL_OPT_SSL_ENFORCE, &wanted);
	mysql_options(m->link, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
	if (verify && m->o->ca_file && *m->o->ca_file)
		mysql_options(m->link, MYSQL_OPT_SSL_CA, m->o->ca_file);
}

/* To the library, localhost is its own socket, whatever the port. */
static void set_transport(struct mysql *m)
{
	const unsigned tcp = MYSQL_PROTOCOL_TCP;

	if (!m->o->path && m->o->port)
		mysql_options(m->link, MYSQL_OPT_PROTOCOL, &tcp);
}

static void set_options(struct mysql *m)
{
	const unsigned seconds = lock_wait_s(m) + 1;
	const my_bool no = 0;

	mysql_options(m->link, MYSQL_SET_CHARSET_NAME, "utf8mb4");
	mysql_options(m->link, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
	mysql_options(m->link, MYSQL_OPT_READ_TIMEOUT, &seconds);
	mysql_options(m->link, MYSQL_OPT_WRITE_TIMEOUT, &seconds);
	mysql_options(m->link, MYSQL_OPT_RECONNECT, &no); /* a session's settings and locks would be lost without a word */
	set_transport(m);
	mysql_options(m->link, MYSQL_OPT_LOCAL_INFILE, &(unsigned){0}); /* a server may ask for no file of ours */
	set_tls(m);
}

/* Too long is an error, not a cut. */
static bool settle_session(struct mysql *m)
{
	char sql[96];

	snprintf(sql, sizeof(sql), "SET SESSION innodb_lock_wait_timeout=%u", lock_wait_s(m));
	return !mysql_query(m->link, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED") &&
	       !mysql_query(m->link, "SET SESSION sql_mode='STRICT_ALL_TABLES'") && !mysql_query(m->link, sql);
}

static bool tls_is_as_wanted(struct mysql *m)
{
	if (m->o->path || m->o->tls != USER_TLS_ON || mysql_get_ssl_cipher(m->link))
		return true;
	snprintf(m->why, USER_WHY_MAX, "the server offers no TLS, and tls is on");
	return false;
}

/* By a write that changes nothing. Whoever may not write this table may still write the other. */
static bool takes_writes(struct mysql *m)
{
	if (!mysql_query(m->link, "UPDATE wxlogind_schema SET version = version") || !is_read_only(mysql_errno(m->link)))
		return true;
	snprintf(m->why, USER_WHY_MAX, "%s", mysql_error(m->link));
	return false;
}

/* FAILED: the server is there, and will not have us. AWAY also where what answers is not what is wanted: another may, by that name. */
static enum user_status connect_link(struct mysql *m)
{
	const struct user_db_options *o = m->o;
	enum user_status st;
	unsigned err;

	m->link = mysql_init(NULL);
	set_options(m);
	if (mysql_real_connect(m->link, o->path ? "localhost" : o->host, o->user, o->password, o->database, (unsigned)o->port, o->path,
		    CLIENT_MULTI_STATEMENTS) && settle_session(m)) {
		st = !tls_is_as_wanted(m) ? USER_AWAY : migrate(m);
		if (st == USER_DONE && takes_writes(m))
			return USER_DONE;
		st = st == USER_DONE ? USER_AWAY : st;
	} else {
		snprintf(m->why, USER_WHY_MAX, "%s", mysql_error(m->link)); /* of connecting: names no user of ours */
		st = USER_FAILED;
	}
	err = mysql_errno(m->link);
	disconnect(m);
	return st == USER_FAILED && err && !is_for_good(err) ? USER_AWAY : st;
}

static void mysql_close_all(void *state)
{
	struct mysql *m = state;

	disconnect(m);
	buf_free(&m->sql);
	free(m);
}

/* Connecting is idle's: a name server that is silent must not keep the process from serving. */
static enum user_status mysql_open(const struct user_db_options *o, char *why, void **state)
{
	struct mysql *m = mem_alloc(sizeof(*m));

	m->o = o;
	m->why = why;
	m->back_off_ms = BACK_OFF_FIRST_MS;
	*state = m;
	return USER_AWAY;
}

/* A connection that nobody uses is looked at, so that its end is known before a login waits for it. */
static enum user_status mysql_idle(void *state, int64_t *again_ms)
{
	enum user_status st = USER_DONE;
	struct mysql *m = state;
	uint8_t jitter;

	if (m->link && mysql_ping(m->link)) {
		snprintf(m->why, USER_WHY_MAX, "%s", mysql_error(m->link));
		disconnect(m);
	}
	if (!m->link)
		st = connect_link(m);
	if (st != USER_DONE) {
		crypt_random(&jitter, 1);
		*again_ms = m->back_off_ms + m->back_off_ms * jitter / 1024;
		m->back_off_ms = m->back_off_ms * 2 < BACK_OFF_MAX_MS ? m->back_off_ms * 2 : BACK_OFF_MAX_MS;
		return st;
	}
	m->back_off_ms = BACK_OFF_FIRST_MS;
	*again_ms = PING_MS;
	return USER_DONE;
}

/* ---- asking, without a change ---- */

static bool mysql_probe(const struct user_db_options *o, char *said)
{
	struct mysql m = {.o = o, .why = said};
	int64_t tables = -1, version = 0;
	bool ok;

	m.link = mysql_init(NULL);
	set_options(&m);
	ok = mysql_real_connect(m.link, o->path ? "localhost" : o->host, o->user, o->password, o->database, (unsigned)o->port, o->path, 0) &&
		!mysql_query(m.link, "SET SESSION TRANSACTION READ ONLY");
	if (ok && !tls_is_as_wanted(&m)) {
		disconnect(&m);
		return false;
	}
	if (ok)
		tables = ask(&m, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'wxlogind_schema'");
	if (tables > 0)
		version = ask(&m, "SELECT version FROM wxlogind_schema");
	ok = ok && tables >= 0 && version >= 0;
	if (!ok)
		snprintf(said, USER_WHY_MAX, "%s", mysql_error(m.link));
	else
		ok = user_schema_said(said, version, NELEM(migrations));
	if (ok && ask(&m, "SELECT @@global.read_only") == 1) {
		snprintf(said, USER_WHY_MAX, "answers, but is read-only");
		ok = false;
	}
	disconnect(&m);
	return ok;
}

const struct user_ops user_mysql = {
	.scheme = "mysql",
	.open = mysql_open,
	.load = mysql_load,
	.save = mysql_save,
	.tables = TABLES,
	.quote = mysql_quote,
	.find = mysql_find,
	.count = mysql_count,
	.change = mysql_change,
	.idle = mysql_idle,
	.close = mysql_close_all,
	.probe = mysql_probe,
};
