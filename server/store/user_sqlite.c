/* SQLite with a write-ahead log that is synced at each commit (synchronous=FULL): what was
 * acknowledged outlives a power cut, and a batch costs one sync. Several processes may share the
 * file: one writes at a time, and all read at any.
 *
 * Here: the file and its schema. Users' rows are user_sqlite_rows.c's, the log is
 * user_sqlite_log.c's. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "store/user_sqlite.h"

enum { OPEN_WAIT_MS = 10000 };

/* Migrations, forward only: the n-th leads from version n to n + 1 (PRAGMA user_version). Never
 * change one that was released. */
static const char *const migrations[] = {
	"CREATE TABLE users ("
	" appid TEXT NOT NULL, openid TEXT NOT NULL,"
	" unionid TEXT CHECK (length(unionid) <= 128), phone TEXT CHECK (length(phone) <= 32),"
	" nickname TEXT CHECK (length(nickname) <= 128), avatar_url TEXT CHECK (length(avatar_url) "
	"<= 1024),"
	" province TEXT CHECK (length(province) <= 64), city TEXT CHECK (length(city) <= 64),"
	" country TEXT CHECK (length(country) <= 64), language TEXT CHECK (length(language) <= 16),"
	" gender INTEGER, created_at INTEGER NOT NULL, last_login_at INTEGER, updated_at INTEGER,"
	" PRIMARY KEY (appid, openid)) STRICT, WITHOUT ROWID",
};

/* What came later: tables and indexes only, which a program before them passes over. So they do not
 * count as a version, and the program before goes on to work on the same file. Phone numbers that
 * are sealed lie beside the row, since that program writes rows anew as it knows them. */
static const char additions[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE IF NOT EXISTS phones ("
	" appid TEXT NOT NULL, openid TEXT NOT NULL, sealed BLOB, tag BLOB, pure_tag BLOB, key_id "
	"BLOB,"
	" PRIMARY KEY (appid, openid)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS blocks ("
	" appid TEXT NOT NULL, openid TEXT NOT NULL, since_s INTEGER NOT NULL, until_s INTEGER NOT "
	"NULL,"
	" note TEXT, PRIMARY KEY (appid, openid)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS erased ("
	" name BLOB NOT NULL PRIMARY KEY, erased_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS users_phone ON users (phone) WHERE phone IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS users_unionid ON users (unionid) WHERE unionid IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS phones_tag ON phones (tag) WHERE tag IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS phones_pure_tag ON phones (pure_tag) WHERE pure_tag IS NOT "
	"NULL;"
	"CREATE INDEX IF NOT EXISTS phones_key ON phones (key_id) WHERE key_id IS NOT NULL;"
	"COMMIT";

/* Short waits, so that of many processes each has its turn: SQLite's own grow to 100 ms, and the
 * one that waited long goes on losing. */
static int on_busy(void *ctx, int times)
{
	struct sqlite *s = ctx;

	(void)times;
	if (clock_ms() >= s->wait_until_ms)
		return 0;
	usleep(500 + (useconds_t)(clock_us() & 511));
	return 1;
}

enum user_status user_sqlite_failed(struct sqlite *s, int rc)
{
	snprintf(s->why, USER_WHY_MAX, "%s", s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc));
	rc &= 0xff;
	return rc == SQLITE_CONSTRAINT || rc == SQLITE_TOOBIG || rc == SQLITE_MISMATCH
		       ? USER_BAD_ROW
		       : USER_FAILED;
}

enum user_status user_sqlite_undo(struct sqlite *s, int rc)
{
	enum user_status st = user_sqlite_failed(s, rc);

	if (!sqlite3_get_autocommit(s->db)) /* some failures have rolled back already */
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	return st;
}

/* ---- statements that stand alone ---- */

static int on_number(void *ctx, int n, char **values, char **names)
{
	(void)names;
	*(int64_t *)ctx = n > 0 && values[0] ? strtoll(values[0], NULL, 10) : 0;
	return 0;
}

static void sqlite_quote(void *state, struct buf *sql, const char *text)
{
	char *quoted = sqlite3_mprintf("%Q", text);

	(void)state;
	buf_str(sql, quoted ? quoted : "NULL");
	sqlite3_free(quoted);
}

static enum user_status sqlite_count(void *state, const char *sql, int64_t *n)
{
	struct sqlite *s = state;
	int rc;

	s->wait_until_ms = clock_ms() + s->timeout_ms;
	rc = sqlite3_exec(s->db, sql, on_number, n, NULL);
	return rc == SQLITE_OK ? USER_DONE : user_sqlite_failed(s, rc);
}

static enum user_status sqlite_change(void *state, const char *sql)
{
	struct sqlite *s = state;
	int rc;

	s->wait_until_ms = clock_ms() + s->timeout_ms;
	rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? USER_DONE : user_sqlite_failed(s, rc);
}

/* ---- opening ---- */

/* One step forward, in a transaction that other processes wait for. *is: what there was before;
 * beyond the last, nothing is done. */
static int migrate_one(struct sqlite *s, int64_t *is)
{
	char set[48];
	int rc = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(s->db, "PRAGMA user_version", on_number, is, NULL);
	if (rc == SQLITE_OK && *is >= 0 && *is < (int64_t)NELEM(migrations)) {
		snprintf(set, sizeof(set), "PRAGMA user_version = %" PRId64, *is + 1);
		rc = sqlite3_exec(s->db, migrations[*is], NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(s->db, set, NULL, NULL, NULL);
	}
	return rc == SQLITE_OK ? sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) : rc;
}

static enum user_status migrate(struct sqlite *s, const char *path)
{
	int64_t is = 0, known = NELEM(migrations);
	int rc = SQLITE_OK;

	do {
		rc = migrate_one(s, &is);
		if (rc == SQLITE_OK && is < known)
			log_info(is ? "the user database's schema was migrated"
				    : "the user database's schema was made",
				LOG_STR("file", path), LOG_INT("version", is + 1));
	} while (rc == SQLITE_OK && is < known);
	if (rc != SQLITE_OK)
		return user_sqlite_undo(s, rc);
	if (is == known)
		return USER_DONE;
	user_why_newer(s->why, is, known);
	return USER_FAILED;
}

static int on_word(void *ctx, int n, char **values, char **names)
{
	(void)names;
	*(bool *)ctx = n > 0 && values[0] && !strcmp(values[0], "wal");
	return 0;
}

/* Where many processes begin at once, the change to a log finds the file locked, and SQLite does
 * not wait there. */
static int set_journal(struct sqlite *s)
{
	bool is_wal = false;
	int rc;

	while ((rc = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", on_word, &is_wal, NULL)) ==
			SQLITE_BUSY &&
		on_busy(s, 0))
		;
	if (rc != SQLITE_OK || is_wal)
		return rc;
	snprintf(s->why, USER_WHY_MAX, "the file system cannot do what a write-ahead log needs");
	return SQLITE_CANTOPEN;
}

static void sqlite_close(void *state)
{
	struct sqlite *s = state;

	for (size_t i = 0; i < NELEM(s->st); i++)
		sqlite3_finalize(s->st[i]);
	sqlite3_close(s->db);
	free(s->log_path);
	free(s);
}

/* What to do about a file that cannot be made or opened. */
static void why_no_file(char *why, const char *path, int err)
{
	size_t n = (size_t)(strrchr(path, '/') - path);
	char *dir = mem_strndup(path, n ? n : 1);

	if (access(dir, F_OK) != 0)
		snprintf(why, USER_WHY_MAX,
			"%s: make its directory: sudo install -d -m 700 -o %u %s, or give another "
			"path in users.url",
			strerror(err), (unsigned)geteuid(), dir);
	else if (err == EACCES)
		snprintf(why, USER_WHY_MAX,
			"%s: user %u must be able to write there, or give another path in "
			"users.url",
			strerror(err), (unsigned)geteuid());
	else
		snprintf(why, USER_WHY_MAX, "%s", strerror(err));
	free(dir);
}

/* The last directory of the path; what lies above it is somebody else's to make. 0, or why it
 * cannot be made. */
static int make_directory(const char *path)
{
	char *dir = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
	int err = mkdir(dir, 0700) == 0 ? 0 : errno;

	if (!err)
		log_info("made a directory for the user database", LOG_STR("directory", dir));
	free(dir);
	return err == EEXIST ? 0 : err;
}

/* The file is made here, for its owner's eyes alone; and open(2) knows better than SQLite why it
 * cannot be. */
static bool make_file(struct sqlite *s, const char *path)
{
	int err = make_directory(path), fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0) {
		why_no_file(s->why, path, err ? err : errno);
		return false;
	}
	close(fd);
	return true;
}

int user_sqlite_connect(struct sqlite *s, const char *path)
{
	int rc = sqlite3_open_v2(path, &s->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_busy_handler(s->db, on_busy, s);
	return rc;
}

static enum user_status open_all(struct sqlite *s, const char *path)
{
	enum user_status st;
	int rc;

	if (!make_file(s, path))
		return USER_FAILED;
	rc = user_sqlite_connect(s, path);
	if (rc == SQLITE_OK)
		rc = set_journal(s);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(s->db,
			"PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA "
			"trusted_schema = OFF;"
			" PRAGMA secure_delete = ON",
			NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return *s->why ? USER_FAILED : user_sqlite_failed(s, rc);
	st = migrate(s, path);
	if (st != USER_DONE)
		return st;
	rc = sqlite3_exec(s->db, additions, NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return user_sqlite_undo(s, rc);
	rc = user_sqlite_prepare(s);
	return rc == SQLITE_OK ? USER_DONE : user_sqlite_failed(s, rc);
}

static enum user_status sqlite_open(const struct user_db_options *o, char *why, void **state)
{
	struct sqlite *s = mem_alloc(sizeof(*s));

	s->why = why;
	user_sqlite_log_options(s, o);
	s->timeout_ms = o->timeout_ms;
	s->wait_until_ms = clock_ms() + OPEN_WAIT_MS;
	if (open_all(s, o->path) != USER_DONE) {
		sqlite_close(s);
		return USER_FAILED;
	}
	*state = s;
	return USER_DONE;
}

/* ---- asking, without a change ---- */

/* The file is not there. Would the start make it? */
static bool probe_missing(const char *path, char *said)
{
	char *dir = mem_strdup(path), *slash = strrchr(dir, '/');
	bool ok;

	slash[slash == dir] = '\0';
	ok = access(dir, W_OK | X_OK) == 0;
	/* it makes the last directory too */
	if (!ok && errno == ENOENT && (slash = strrchr(dir, '/')) != dir) {
		*slash = '\0';
		ok = access(dir, W_OK | X_OK) == 0;
	}
	if (ok)
		snprintf(said, USER_WHY_MAX, "is not there yet; the start makes it");
	else
		why_no_file(said, path, errno);
	free(dir);
	return ok;
}

/* Even a reader makes the files of a write-ahead log where they are missing; then no other process
 * is at work either, and the file is read as one that nobody changes. */
static int open_to_read(const char *path, sqlite3 **db)
{
	struct buf uri = {0};
	char *name = mem_alloc(3 * strlen(path) + 1), *wal;
	int rc;

	percent_encode(name, path, strlen(path));
	buf_printf(&uri, "%s-wal", path);
	wal = mem_strdup(uri.data);
	buf_clear(&uri);
	buf_printf(&uri, "file:%s?mode=ro%s", name, access(wal, F_OK) ? "&immutable=1" : "");
	rc = sqlite3_open_v2(
		uri.data, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_EXRESCODE, NULL);
	buf_free(&uri);
	free(name);
	free(wal);
	return rc;
}

static bool sqlite_probe(
	const struct user_db_options *o, const char *count_foreign, int64_t *foreign, char *said)
{
	sqlite3 *db = NULL;
	int64_t version = 0, has_phones = 0;
	int rc;

	if (access(o->path, F_OK) != 0)
		return probe_missing(o->path, said);
	if (access(o->path, R_OK | W_OK) != 0) {
		why_no_file(said, o->path, errno);
		return false;
	}
	rc = open_to_read(o->path, &db);
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(db, (int)o->timeout_ms);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "PRAGMA user_version", on_number, &version, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "SELECT COUNT(*) FROM sqlite_master WHERE name = 'phones'",
			on_number, &has_phones, NULL);
	if (rc == SQLITE_OK && has_phones)
		rc = sqlite3_exec(db, count_foreign, on_number, foreign, NULL);
	if (rc != SQLITE_OK)
		snprintf(said, USER_WHY_MAX, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
	sqlite3_close(db);
	return rc == SQLITE_OK && user_schema_said(said, version, NELEM(migrations));
}

const struct user_ops user_sqlite = {
	.scheme = "sqlite",
	.open = sqlite_open,
	.load = user_sqlite_load,
	.save = user_sqlite_save,
	.tables = "",
	.quote = sqlite_quote,
	.find = user_sqlite_find,
	.count = sqlite_count,
	.change = sqlite_change,
	.settle = user_sqlite_settle,
	.close = sqlite_close,
	.probe = sqlite_probe,
	.tender_new = user_sqlite_tender_new,
	.tend = user_sqlite_tend,
	.tender_free = user_sqlite_tender_free,
};
