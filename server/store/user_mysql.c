/* MySQL and MariaDB: the connection, its schema, and what an error means. Users' rows are
 * user_mysql_rows.c's.
 *
 * A server that has become read-only (every planned failover) is left, and its name looked up
 * again, until one is found that takes a write.
 *
 * READ COMMITTED, so that rows which are not there are not locked (a lock on the gap that two
 * processes share, and then each waits for the other to insert). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mariadb/errmsg.h>
#include <mariadb/mysqld_error.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/log.h"
#include "common/mem.h"
#include "store/user_mysql.h"

enum { PING_MS = 1000, BACK_OFF_FIRST_MS = 100, BACK_OFF_MAX_MS = 2000, MIGRATE_WAIT_S = 30 };

/* Migrations, forward only: the n-th leads from version n to n + 1 (table wxlogind_schema). MySQL
 * has no transactions for these: each must be one statement, or bear to be done again. Never change
 * one that was released. Keys are bytes: no case, no trailing blanks. */
static const char *const migrations[] = {
	"CREATE TABLE IF NOT EXISTS " TABLE " ("
	" appid VARBINARY(64) NOT NULL, openid VARBINARY(128) NOT NULL,"
	" unionid VARCHAR(128), phone VARCHAR(32), nickname VARCHAR(128), avatar_url VARCHAR(1024),"
	" province VARCHAR(64), city VARCHAR(64), country VARCHAR(64), language VARCHAR(16),"
	" gender TINYINT, created_at BIGINT NOT NULL, last_login_at BIGINT, updated_at BIGINT,"
	" PRIMARY KEY (appid, openid)) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
};

/* What came later: tables and indexes only, which a program before them passes over. So they do not
 * count in wxlogind_schema, and the program before goes on to work on the same database. Each bears
 * to be done again. */
static const char *const additions[] = {
	"CREATE TABLE IF NOT EXISTS " TABLES "phones ("
	" appid VARBINARY(64) NOT NULL, openid VARBINARY(128) NOT NULL,"
	" sealed VARBINARY(255), tag VARBINARY(64), pure_tag VARBINARY(64), key_id VARBINARY(8),"
	" PRIMARY KEY (appid, openid), KEY by_tag (tag), KEY by_pure_tag (pure_tag), KEY by_key "
	"(key_id)"
	") ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	"CREATE TABLE IF NOT EXISTS " TABLES "blocks ("
	" appid VARBINARY(64) NOT NULL, openid VARBINARY(128) NOT NULL,"
	" since_s BIGINT NOT NULL, until_s BIGINT NOT NULL, note VARCHAR(255),"
	" PRIMARY KEY (appid, openid)) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	"CREATE TABLE IF NOT EXISTS " TABLES "erased ("
	" name BINARY(32) NOT NULL PRIMARY KEY, erased_ms BIGINT NOT NULL) ENGINE=InnoDB",
	"CREATE INDEX by_phone ON " TABLE " (phone)",
	"CREATE INDEX by_unionid ON " TABLE " (unionid)",
	"CREATE TABLE IF NOT EXISTS " TABLES
	"additions (one TINYINT PRIMARY KEY, version INT NOT NULL) ENGINE=InnoDB",
	"REPLACE INTO " TABLES "additions VALUES (1, 1)",
};
enum { ADDITIONS = 1 };

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
enum user_status user_mysql_undo(struct mysql *m)
{
	unsigned err = mysql_errno(m->link);

	if (is_lost(err)) {
		snprintf(m->why, USER_WHY_MAX, "%s", mysql_error(m->link));
		disconnect(m);
		return USER_AWAY;
	}
	snprintf(m->why, USER_WHY_MAX, "error %u (SQLSTATE %s)%s", err, mysql_sqlstate(m->link),
		is_read_only(err) ? ": it is read-only" : "");
	if (is_read_only(err) || mysql_rollback(m->link)) {
		disconnect(m); /* which rolls back too */
		return USER_AWAY;
	}
	if (err == ER_DUP_ENTRY || err == ER_LOCK_DEADLOCK)
		return USER_AGAIN;
	return is_bad_value(err) ? USER_BAD_ROW : USER_FAILED;
}

/* ---- statements that stand alone ---- */

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

static enum user_status mysql_count(void *state, const char *sql, int64_t *n)
{
	struct mysql *m = state;

	if (!m->link)
		return USER_AWAY;
	*n = ask(m, sql);
	return *n >= 0 ? USER_DONE : user_mysql_undo(m);
}

static enum user_status mysql_change(void *state, const char *sql)
{
	struct mysql *m = state;

	if (!m->link)
		return USER_AWAY;
	return mysql_query(m->link, sql) ? user_mysql_undo(m) : USER_DONE;
}

/* ---- the schema ---- */

static bool migrate_one(struct mysql *m, int64_t is)
{
	char set[96];

	snprintf(set, sizeof(set), "UPDATE wxlogind_schema SET version = %" PRId64, is + 1);
	if (mysql_query(m->link, migrations[is]) || mysql_query(m->link, set))
		return false;
	log_info(is ? "the user database's schema was migrated"
		    : "the user database's schema was made",
		LOG_STR("database", m->o->database), LOG_INT("version", is + 1));
	return true;
}

/* Under a lock of the server's, so that of many processes one does it. */
static bool migrate_locked(struct mysql *m, int64_t *is)
{
	bool ok = !mysql_query(m->link, "CREATE TABLE IF NOT EXISTS wxlogind_schema (one TINYINT "
					"PRIMARY KEY, version INT NOT NULL) ENGINE=InnoDB") &&
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

	if (is < known || (is == known && ask(m, "SELECT version FROM " TABLES "additions") <
						  ADDITIONS)) { /* the tables may not be there */
		snprintf(lock, sizeof(lock), "SELECT GET_LOCK(CONCAT('wxlogind.', DATABASE()), %d)",
			MIGRATE_WAIT_S);
		ok = ask(m, lock) == 1 && migrate_locked(m, &is);
		if (!ok)
			snprintf(m->why, USER_WHY_MAX, "its schema cannot be made: %s",
				mysql_error(m->link));
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

/* The library's "enforce" asks for TLS and does without where the server offers none, unless the
 * certificate is verified. */
static void set_tls(struct mysql *m)
{
	const my_bool wanted = !m->o->path && m->o->tls != USER_TLS_OFF,
		      verify = wanted && m->o->tls == USER_TLS_VERIFY;

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
	/* a session's settings and locks would be lost without a word */
	mysql_options(m->link, MYSQL_OPT_RECONNECT, &no);
	set_transport(m);
	/* a server may ask for no file of ours */
	mysql_options(m->link, MYSQL_OPT_LOCAL_INFILE, &(unsigned){0});
	set_tls(m);
}

/* Too long is an error, not a cut. */
static bool settle_session(struct mysql *m)
{
	char sql[96];

	snprintf(sql, sizeof(sql), "SET SESSION innodb_lock_wait_timeout=%u", lock_wait_s(m));
	return !mysql_query(m->link, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED") &&
	       !mysql_query(m->link, "SET SESSION sql_mode='STRICT_ALL_TABLES'") &&
	       !mysql_query(m->link, sql);
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
	if (!mysql_query(m->link, "UPDATE wxlogind_schema SET version = version") ||
		!is_read_only(mysql_errno(m->link)))
		return true;
	snprintf(m->why, USER_WHY_MAX, "%s", mysql_error(m->link));
	return false;
}

/* FAILED: the server is there, and will not have us. AWAY also where what answers is not what is
 * wanted: another may, by that name. */
static enum user_status connect_link(struct mysql *m)
{
	const struct user_db_options *o = m->o;
	enum user_status st;
	unsigned err;

	m->link = mysql_init(NULL);
	set_options(m);
	if (mysql_real_connect(m->link, o->path ? "localhost" : o->host, o->user, o->password,
		    o->database, (unsigned)o->port, o->path, CLIENT_MULTI_STATEMENTS) &&
		settle_session(m)) {
		st = !tls_is_as_wanted(m) ? USER_AWAY : migrate(m);
		if (st == USER_DONE && takes_writes(m))
			return USER_DONE;
		st = st == USER_DONE ? USER_AWAY : st;
	} else {
		/* of connecting: names no user of ours */
		snprintf(m->why, USER_WHY_MAX, "%s", mysql_error(m->link));
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

/* A connection that nobody uses is looked at, so that its end is known before a login waits for it.
 */
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
		m->back_off_ms =
			m->back_off_ms * 2 < BACK_OFF_MAX_MS ? m->back_off_ms * 2 : BACK_OFF_MAX_MS;
		return st;
	}
	m->back_off_ms = BACK_OFF_FIRST_MS;
	*again_ms = PING_MS;
	return USER_DONE;
}

/* ---- asking, without a change ---- */

static bool has_table(struct mysql *m, const char *name)
{
	char sql[160];

	snprintf(sql, sizeof(sql),
		"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() "
		"AND table_name = '%s'",
		name);
	return ask(m, sql) > 0;
}

static bool mysql_probe(
	const struct user_db_options *o, const char *count_foreign, int64_t *foreign, char *said)
{
	struct mysql m = {.o = o, .why = said};
	int64_t tables = -1, version = 0;
	bool ok;

	m.link = mysql_init(NULL);
	set_options(&m);
	ok = mysql_real_connect(m.link, o->path ? "localhost" : o->host, o->user, o->password,
		     o->database, (unsigned)o->port, o->path, 0) &&
	     !mysql_query(m.link, "SET SESSION TRANSACTION READ ONLY");
	if (ok && !tls_is_as_wanted(&m)) {
		disconnect(&m);
		return false;
	}
	if (ok)
		tables = ask(&m, "SELECT COUNT(*) FROM information_schema.tables WHERE "
				 "table_schema = DATABASE() AND table_name = 'wxlogind_schema'");
	if (tables > 0)
		version = ask(&m, "SELECT version FROM wxlogind_schema");
	ok = ok && tables >= 0 && version >= 0;
	if (!ok)
		snprintf(said, USER_WHY_MAX, "%s", mysql_error(m.link));
	else
		ok = user_schema_said(said, version, NELEM(migrations));
	if (ok && has_table(&m, TABLES "phones"))
		*foreign = ask(&m, count_foreign);
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
	.load = user_mysql_load,
	.save = user_mysql_save,
	.tables = TABLES,
	.quote = user_mysql_quote,
	.find = user_mysql_find,
	.count = mysql_count,
	.change = mysql_change,
	.idle = mysql_idle,
	.close = mysql_close_all,
	.probe = mysql_probe,
};
