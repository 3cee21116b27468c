/* SQLite with a write-ahead log that is synced at each commit (synchronous=FULL): what was acknowledged outlives a power cut, and a
 * batch costs one sync. Moving the log into the file (a checkpoint) stalls a commit by tens of milliseconds, so it is done beside, by
 * a second connection on a thread of its own. Several processes may share the file: one writes at a time, and all read at any.
 *
 * A reader that stays keeps the log from starting anew. It grows then, up to eight times the size from which on writers wait for a
 * checkpoint (64 MB); from there on nothing is written until the reader is gone. Then the log's file is cut to nothing. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "store/user_list.h"

enum {
	OPEN_WAIT_MS = 10000,
	TEND_MS = 100, TEND_WAIT_MS = 50,
	FORCE_AGAIN_MS = 1000,          /* a reader that stays must not hold the writers up all the time */
	LOG_MAX = 64 * 1024 * 1024, LOG_LIMIT_FACTOR = 8,
};

/* Migrations, forward only: the n-th leads from version n to n + 1 (PRAGMA user_version). Never change one that was released. */
static const char *const migrations[] = {
	"CREATE TABLE users ("
	" appid TEXT NOT NULL, openid TEXT NOT NULL,"
	" unionid TEXT CHECK (length(unionid) <= 128), phone TEXT CHECK (length(phone) <= 32),"
	" nickname TEXT CHECK (length(nickname) <= 128), avatar_url TEXT CHECK (length(avatar_url) <= 1024),"
	" province TEXT CHECK (length(province) <= 64), city TEXT CHECK (length(city) <= 64),"
	" country TEXT CHECK (length(country) <= 64), language TEXT CHECK (length(language) <= 16),"
	" gender INTEGER, created_at INTEGER NOT NULL, last_login_at INTEGER, updated_at INTEGER,"
	" PRIMARY KEY (appid, openid)) STRICT, WITHOUT ROWID",
};

/* What came later: tables and indexes only, which a program before them passes over. So they do not
 * count as a version, and the program before goes on to work on the same file. Phone numbers that are
 * sealed lie beside the row, since that program writes rows anew as it knows them. */
static const char additions[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE IF NOT EXISTS phones ("
	" appid TEXT NOT NULL, openid TEXT NOT NULL, sealed BLOB, tag BLOB, pure_tag BLOB, key_id BLOB,"
	" PRIMARY KEY (appid, openid)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS blocks ("
	" appid TEXT NOT NULL, openid TEXT NOT NULL, since_s INTEGER NOT NULL, until_s INTEGER NOT NULL,"
	" note TEXT, PRIMARY KEY (appid, openid)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS erased ("
	" name BLOB NOT NULL PRIMARY KEY, erased_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS users_phone ON users (phone) WHERE phone IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS users_unionid ON users (unionid) WHERE unionid IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS phones_tag ON phones (tag) WHERE tag IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS phones_pure_tag ON phones (pure_tag) WHERE pure_tag IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS phones_key ON phones (key_id) WHERE key_id IS NOT NULL;"
	"COMMIT";

enum { ST_BEGIN, ST_COMMIT, ST_GET, ST_PUT, ST_DROP, ST_DROP_PHONE, ST_PUT_PHONE, ST_TOMBSTONE, ST_BLOCK, ST_UNBLOCK, ST_COUNT };

struct sqlite {
	sqlite3      *db;
	sqlite3_stmt *st[ST_COUNT];
	int64_t       timeout_ms, wait_until_ms; /* for another process to let go of the file */
	char         *why;
	char         *log_path;
	int64_t       log_max;
};

/* Short waits, so that of many processes each has its turn: SQLite's own grow to 100 ms, and the one that waited long goes on losing. */
static int on_busy(void *ctx, int times)
{
	struct sqlite *s = ctx;

	(void)times;
	if (clock_ms() >= s->wait_until_ms)
		return 0;
	usleep(500 + (useconds_t)(clock_us() & 511));
	return 1;
}

static enum user_status failed(struct sqlite *s, int rc)
{
	snprintf(s->why, USER_WHY_MAX, "%s", s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc));
	rc &= 0xff;
	return rc == SQLITE_CONSTRAINT || rc == SQLITE_TOOBIG || rc == SQLITE_MISMATCH ? USER_BAD_ROW : USER_FAILED;
}

/* Runs a statement that gives no rows. */
static int finish(sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	sqlite3_reset(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* ---- a batch ---- */

static enum user_status undo(struct sqlite *s, int rc)
{
	enum user_status st = failed(s, rc);

	if (!sqlite3_get_autocommit(s->db)) /* some failures have rolled back already */
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	return st;
}

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
			row->phone[i] = (struct user_bytes){arena_strndup(a, sqlite3_column_blob(st, at), (size_t)n), (size_t)n};
	}
	if (sqlite3_column_type(st, USER_BLOCK_AT) != SQLITE_NULL)
		row->u.block = (struct user_block){sqlite3_column_int64(st, USER_BLOCK_AT), sqlite3_column_int64(st, USER_BLOCK_AT + 1),
			text_at(st, USER_BLOCK_AT + 2, a)};
}

static void bind_key(sqlite3_stmt *st, const struct user *u)
{
	sqlite3_bind_text(st, 1, u->appid, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, u->openid, -1, SQLITE_STATIC);
}

static int64_t log_size(const struct sqlite *s)
{
	struct stat st;

	return stat(s->log_path, &st) == 0 ? (int64_t)st.st_size : 0;
}

static enum user_status sqlite_load(void *state, struct user_row *rows, size_t n, bool writing, struct arena *a)
{
	struct sqlite *s = state;
	int rc = SQLITE_OK;

	if (writing && log_size(s) > s->log_max * LOG_LIMIT_FACTOR) {
		snprintf(s->why, USER_WHY_MAX, "its write-ahead log has grown too long: somebody has been reading from the file for long");
		return USER_FAILED;
	}
	s->wait_until_ms = clock_ms() + s->timeout_ms;
	if (writing)
		rc = finish(s->st[ST_BEGIN]);
	for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
		bind_key(s->st[ST_GET], &rows[i].u);
		sqlite3_bind_blob(s->st[ST_GET], 3, rows[i].name, sizeof(rows[i].name), SQLITE_STATIC);
		rc = sqlite3_step(s->st[ST_GET]);
		if (rc == SQLITE_ROW) {
			read_row(s->st[ST_GET], &rows[i], a);
			rows[i].erased_ms = number_at(s->st[ST_GET], USER_LIST_COUNT);
		}
		sqlite3_reset(s->st[ST_GET]); /* or it would keep the log from starting anew */
		rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
	}
	return rc == SQLITE_OK ? USER_DONE : undo(s, rc);
}

static int put(sqlite3_stmt *st, const struct user_row *row)
{
	const struct user *u = &row->u;

	bind_key(st, u);
	for (int i = 0; i < USER_TEXT_COUNT; i++) /* NULL binds NULL */
		sqlite3_bind_text(st, 1 + USER_KEY_COUNT + i, i == USER_phone ? row->phone_column : u->text[i], -1, SQLITE_STATIC);
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
		sqlite3_bind_blob(st, 1 + USER_KEY_COUNT + i, row->phone[i].p, (int)row->phone[i].len, SQLITE_STATIC);
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

static enum user_status sqlite_save(void *state, const struct user_row *rows, size_t n)
{
	struct sqlite *s = state;
	int rc = SQLITE_OK;

	for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
		rc = save_row(s, &rows[i]);
	if (rc == SQLITE_OK)
		rc = finish(s->st[ST_COMMIT]);
	return rc == SQLITE_OK ? USER_DONE : undo(s, rc);
}

/* ---- statements of user_list.c ---- */

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

static enum user_status sqlite_find(void *state, const char *sql, struct arena *a, struct user_row **rows, size_t *n)
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
	return rc == SQLITE_DONE ? USER_DONE : failed(s, rc);
}

static enum user_status sqlite_count(void *state, const char *sql, int64_t *n)
{
	struct sqlite *s = state;
	int rc;

	s->wait_until_ms = clock_ms() + s->timeout_ms;
	rc = sqlite3_exec(s->db, sql, on_number, n, NULL);
	return rc == SQLITE_OK ? USER_DONE : failed(s, rc);
}

static enum user_status sqlite_change(void *state, const char *sql)
{
	struct sqlite *s = state;
	int rc;

	s->wait_until_ms = clock_ms() + s->timeout_ms;
	rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? USER_DONE : failed(s, rc);
}

/* secure_delete has overwritten the old values in the pages; the log goes on to hold the pages as they
 * were until it is cut. Whoever reads just now is in the way, and is not waited for. */
static bool sqlite_settle(void *state)
{
	struct sqlite *s = state;

	s->wait_until_ms = clock_ms() + TEND_WAIT_MS;
	return sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) == SQLITE_OK;
}

/* ---- opening ---- */

/* One step forward, in a transaction that other processes wait for. *is: what there was before; beyond the last, nothing is done. */
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
			log_info(is ? "the user database's schema was migrated" : "the user database's schema was made", LOG_STR("file", path),
				LOG_INT("version", is + 1));
	} while (rc == SQLITE_OK && is < known);
	if (rc != SQLITE_OK)
		return undo(s, rc);
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

/* Where many processes begin at once, the change to a log finds the file locked, and SQLite does not wait there. */
static int set_journal(struct sqlite *s)
{
	bool is_wal = false;
	int rc;

	while ((rc = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", on_word, &is_wal, NULL)) == SQLITE_BUSY && on_busy(s, 0))
		;
	if (rc != SQLITE_OK || is_wal)
		return rc;
	snprintf(s->why, USER_WHY_MAX, "the file system cannot do what a write-ahead log needs");
	return SQLITE_CANTOPEN;
}

static int prepare(struct sqlite *s)
{
	static const char get[] = "SELECT " USER_LIST_COLUMNS(u) ", (SELECT erased_ms FROM erased WHERE name = ?3)"
		" FROM (SELECT 1) LEFT JOIN users u ON u.appid = ?1 AND u.openid = ?2"
		" LEFT JOIN phones p ON p.appid = ?1 AND p.openid = ?2 LEFT JOIN blocks b ON b.appid = ?1 AND b.openid = ?2";
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
		rc = sqlite3_prepare_v3(s->db, all[i], -1, SQLITE_PREPARE_PERSISTENT, &s->st[i], NULL);
	return rc;
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
		snprintf(why, USER_WHY_MAX, "%s: make its directory: sudo install -d -m 700 -o %u %s, or give another path in users.url", strerror(err),
			(unsigned)geteuid(), dir);
	else if (err == EACCES)
		snprintf(why, USER_WHY_MAX, "%s: user %u must be able to write there, or give another path in users.url", strerror(err), (unsigned)geteuid());
	else
		snprintf(why, USER_WHY_MAX, "%s", strerror(err));
	free(dir);
}

/* The last directory of the path; what lies above it is somebody else's to make. 0, or why it cannot be made. */
static int make_directory(const char *path)
{
	char *dir = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
	int err = mkdir(dir, 0700) == 0 ? 0 : errno;

	if (!err)
		log_info("made a directory for the user database", LOG_STR("directory", dir));
	free(dir);
	return err == EEXIST ? 0 : err;
}

/* The file is made here, for its owner's eyes alone; and open(2) knows better than SQLite why it cannot be. */
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

static int connect_file(struct sqlite *s, const char *path)
{
	int rc = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

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
	rc = connect_file(s, path);
	if (rc == SQLITE_OK)
		rc = set_journal(s);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(s->db, "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA trusted_schema = OFF;"
			" PRAGMA secure_delete = ON", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return *s->why ? USER_FAILED : failed(s, rc);
	st = migrate(s, path);
	if (st != USER_DONE)
		return st;
	rc = sqlite3_exec(s->db, additions, NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return undo(s, rc);
	rc = prepare(s);
	return rc == SQLITE_OK ? USER_DONE : failed(s, rc);
}

static void log_options(struct sqlite *s, const struct user_db_options *o)
{
	size_t n = strlen(o->path) + sizeof("-wal");

	s->log_max = o->log_max ? o->log_max : LOG_MAX;
	s->log_path = mem_alloc(n);
	snprintf(s->log_path, n, "%s-wal", o->path);
}

static enum user_status sqlite_open(const struct user_db_options *o, char *why, void **state)
{
	struct sqlite *s = mem_alloc(sizeof(*s));

	s->why = why;
	log_options(s, o);
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
	if (!ok && errno == ENOENT && (slash = strrchr(dir, '/')) != dir) { /* it makes the last directory too */
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

/* Even a reader makes the files of a write-ahead log where they are missing; then no other process is at work either, and the file is
 * read as one that nobody changes. */
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
	rc = sqlite3_open_v2(uri.data, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_EXRESCODE, NULL);
	buf_free(&uri);
	free(name);
	free(wal);
	return rc;
}

static bool sqlite_probe(const struct user_db_options *o, char *said)
{
	sqlite3 *db = NULL;
	int64_t version = 0;
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
	if (rc != SQLITE_OK)
		snprintf(said, USER_WHY_MAX, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
	sqlite3_close(db);
	return rc == SQLITE_OK && user_schema_said(said, version, NELEM(migrations));
}

/* ---- checkpoints ---- */

struct tender {
	struct sqlite s;
	char *path;
	char  why[USER_WHY_MAX];
	bool  failing;
	int64_t force_ms; /* not before then are writers held up again */
};

static void *tender_new(const struct user_db_options *o)
{
	struct tender *t = mem_alloc(sizeof(*t));

	t->s.why = t->why;
	log_options(&t->s, o);
	t->path = mem_strdup(o->path);
	return t;
}

static void tender_free(void *tender)
{
	struct tender *t = tender;

	sqlite3_close(t->s.db);
	free(t->s.log_path);
	free(t->path);
	free(t);
}

static int tender_connect(struct tender *t)
{
	int rc = connect_file(&t->s, t->path);

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(t->s.db, "PRAGMA schema_version", NULL, NULL, NULL); /* one that never read knows of no log */
	if (rc != SQLITE_OK) {
		sqlite3_close(t->s.db);
		t->s.db = NULL;
	}
	return rc;
}

/* Holds the writers back until all is moved and no reader needs the log, and cuts its file. */
static int force(struct tender *t)
{
	int64_t now = clock_ms();
	int rc;

	if (now < t->force_ms)
		return SQLITE_OK;
	t->s.wait_until_ms = now + TEND_WAIT_MS;
	rc = sqlite3_wal_checkpoint_v2(t->s.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	if (rc != SQLITE_OK)
		t->force_ms = now + FORCE_AGAIN_MS;
	return rc;
}

/* PASSIVE waits for nobody. Under writes without a pause, or with a reader that stays, it never gets to the log's end, and the log only
 * grows: past its bound it is forced. */
static int64_t tend(void *tender)
{
	struct tender *t = tender;
	int rc = SQLITE_OK;

	t->s.wait_until_ms = clock_ms() + TEND_WAIT_MS;
	if (!t->s.db)
		rc = tender_connect(t);
	if (rc == SQLITE_OK)
		rc = sqlite3_wal_checkpoint_v2(t->s.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (rc == SQLITE_OK && log_size(&t->s) > t->s.log_max)
		rc = force(t);
	rc &= 0xff;
	if (rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED && !t->failing) /* busy: another process is at it */
		log_warn("the user database's write-ahead log cannot be moved into its file", LOG_STR("file", t->path), LOG_STR("cause", sqlite3_errstr(rc)));
	t->failing = rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED;
	return TEND_MS;
}

const struct user_ops user_sqlite = {
	.scheme = "sqlite",
	.open = sqlite_open,
	.load = sqlite_load,
	.save = sqlite_save,
	.tables = "",
	.quote = sqlite_quote,
	.find = sqlite_find,
	.count = sqlite_count,
	.change = sqlite_change,
	.settle = sqlite_settle,
	.close = sqlite_close,
	.probe = sqlite_probe,
	.tender_new = tender_new,
	.tend = tend,
	.tender_free = tender_free,
};
