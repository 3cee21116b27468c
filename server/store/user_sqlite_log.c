/* The write-ahead log. Moving it into the file (a checkpoint) stalls a commit by tens of
 * milliseconds, so it is done beside, by a second connection on a thread of its own.
 *
 * A reader that stays keeps the log from starting anew. It grows then, up to eight times the size
 * from which on writers wait for a checkpoint (64 MB); from there on nothing is written until the
 * reader is gone. Then the log's file is cut to nothing.
 *
 * It is cut every few seconds, too: secure_delete overwrites in the pages what was erased, but the
 * log goes on to hold the pages as they were. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "store/user_sqlite.h"

enum {
	TEND_MS = 100, TEND_WAIT_MS = 50,
	FORCE_AGAIN_MS = 1000, /* a reader that stays must not hold the writers up all the time */
	CUT_MS = 5000,
	LOG_MAX = 64 * 1024 * 1024, LOG_LIMIT_FACTOR = 8,
};

void user_sqlite_log_options(struct sqlite *s, const struct user_db_options *o)
{
	size_t n = strlen(o->path) + sizeof("-wal");

	s->log_max = o->log_max ? o->log_max : LOG_MAX;
	s->log_path = mem_alloc(n);
	snprintf(s->log_path, n, "%s-wal", o->path);
}

static int64_t log_size(const struct sqlite *s)
{
	struct stat st;

	return stat(s->log_path, &st) == 0 ? (int64_t)st.st_size : 0;
}

bool user_sqlite_log_is_full(const struct sqlite *s)
{
	return log_size(s) > s->log_max * LOG_LIMIT_FACTOR;
}

/* secure_delete has overwritten the old values in the pages; the log goes on to hold the pages as
 * they were until it is cut. Whoever reads just now is in the way, and is not waited for. */
bool user_sqlite_settle(void *state)
{
	struct sqlite *s = state;

	s->wait_until_ms = clock_ms() + TEND_WAIT_MS;
	return sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) ==
	       SQLITE_OK;
}

/* ---- beside ---- */

struct tender {
	struct sqlite s;
	char *path;
	char  why[USER_WHY_MAX];
	bool  failing;
	int64_t force_ms; /* not before then are writers held up again */
	int64_t cut_ms;   /* from then on whatever is in the log goes */
};

void *user_sqlite_tender_new(const struct user_db_options *o)
{
	struct tender *t = mem_alloc(sizeof(*t));

	t->s.why = t->why;
	user_sqlite_log_options(&t->s, o);
	t->path = mem_strdup(o->path);
	t->cut_ms = clock_ms() + CUT_MS;
	return t;
}

void user_sqlite_tender_free(void *tender)
{
	struct tender *t = tender;

	sqlite3_close(t->s.db);
	free(t->s.log_path);
	free(t->path);
	free(t);
}

static int tender_connect(struct tender *t)
{
	int rc = user_sqlite_connect(&t->s, t->path);

	if (rc == SQLITE_OK)
		/* one that never read knows of no log */
		rc = sqlite3_exec(t->s.db, "PRAGMA schema_version", NULL, NULL, NULL);
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
	t->cut_ms = now + CUT_MS;
	t->s.wait_until_ms = now + TEND_WAIT_MS;
	rc = sqlite3_wal_checkpoint_v2(t->s.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	if (rc != SQLITE_OK)
		t->force_ms = now + FORCE_AGAIN_MS;
	return rc;
}

/* PASSIVE waits for nobody. Under writes without a pause, or with a reader that stays, it never
 * gets to the log's end, and the log only grows: past its bound it is forced, and every CUT_MS. */
int64_t user_sqlite_tend(void *tender)
{
	struct tender *t = tender;
	int rc = SQLITE_OK;

	t->s.wait_until_ms = clock_ms() + TEND_WAIT_MS;
	if (!t->s.db)
		rc = tender_connect(t);
	if (rc == SQLITE_OK)
		rc = sqlite3_wal_checkpoint_v2(
			t->s.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (rc == SQLITE_OK && log_size(&t->s) > (clock_ms() < t->cut_ms ? t->s.log_max : 0))
		rc = force(t);
	rc &= 0xff;
	/* busy: another process is at it */
	if (rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED && !t->failing)
		log_warn("the user database's write-ahead log cannot be moved into its file",
			LOG_STR("file", t->path), LOG_STR("cause", sqlite3_errstr(rc)));
	t->failing = rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED;
	return TEND_MS;
}
