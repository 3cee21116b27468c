/* What the parts of SQLite share: the file and its schema (user_sqlite.c), users' rows
 * (user_sqlite_rows.c), the write-ahead log (user_sqlite_log.c). */
#ifndef STORE_USER_SQLITE_H
#define STORE_USER_SQLITE_H

#include <sqlite3.h>

#include "store/user_list.h"

enum {
	ST_BEGIN,
	ST_COMMIT,
	ST_GET,
	ST_PUT,
	ST_DROP,
	ST_DROP_PHONE,
	ST_PUT_PHONE,
	ST_TOMBSTONE,
	ST_BLOCK,
	ST_UNBLOCK,
	ST_COUNT
};

struct sqlite {
	sqlite3      *db;
	sqlite3_stmt *st[ST_COUNT];
	int64_t       timeout_ms, wait_until_ms; /* for another process to let go of the file */
	char         *why;
	char         *log_path;
	int64_t       log_max;
};

/* ---- the file: user_sqlite.c ---- */

int user_sqlite_connect(struct sqlite *s, const char *path);
/* The error's meaning, with its text in why; undo: after ending the transaction. */
enum user_status user_sqlite_failed(struct sqlite *s, int rc);
enum user_status user_sqlite_undo(struct sqlite *s, int rc);

/* ---- rows, as user_ops has them ---- */

int user_sqlite_prepare(struct sqlite *s); /* of SQLite's codes */
enum user_status user_sqlite_load(void *state, struct user_row *rows, size_t n, bool writing,
	struct arena *a);
enum user_status user_sqlite_save(void *state, const struct user_row *rows, size_t n);
enum user_status user_sqlite_find(void *state, const char *sql, struct arena *a,
	struct user_row **rows, size_t *n);

/* ---- the log ---- */

void user_sqlite_log_options(struct sqlite *s, const struct user_db_options *o);
bool user_sqlite_log_is_full(const struct sqlite *s);
bool user_sqlite_settle(void *state);
void *user_sqlite_tender_new(const struct user_db_options *o);
int64_t user_sqlite_tend(void *tender);
void user_sqlite_tender_free(void *tender);

#endif
