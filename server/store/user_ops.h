/* What a database does for user.c, which knows what a batch means; only user*.c include this.
 *
 * All of it runs on the helper thread, but for open, which comes before there is one. load and save
 * undo their transaction before they return anything but USER_DONE, and write the cause where open
 * was told to. */
#ifndef STORE_USER_OPS_H
#define STORE_USER_OPS_H

#include "common/arena.h"
#include "common/buf.h"
#include "store/user.h"

enum user_status {
	USER_DONE,
	USER_BAD_ROW, /* the database refuses a value: without that row it would have gone well */
	USER_AGAIN,   /* it lost to another process: the same once more */
	USER_FAILED,  /* not this time; open: never */
	USER_AWAY,    /* not there, or it takes no writes: idle will say when it is again */
};

struct user_bytes {
	const char *p; /* NULL: none */
	size_t len;
};

/* What stands beside a user's row about the phone number: its ciphertext, what it is found by (and
 * by the number without a country code), and which key that was. */
enum { PHONE_SEALED, PHONE_TAG, PHONE_PURE_TAG, PHONE_KEY, PHONE_CELL_COUNT };

enum { USER_ERASED_NAME_LEN = 32 };

struct user_row {
	struct user u;
	bool exists;        /* load says whether it does; a job may make it */
	bool is_new, dirty; /* was not there before; differs from what the database has */
	bool phone_dirty, block_dirty;
	const char *phone_column; /* what the row itself has of the phone number */
	struct user_bytes phone[PHONE_CELL_COUNT];
	bool    erased;     /* by this batch: what the database has goes first */
	int64_t erased_ms;  /* when it was erased last, by Redis' clock; -1: not within a day */
	int64_t as_of_ms;   /* of a new row: the oldest session on whose behalf it is written */
	uint8_t name[USER_ERASED_NAME_LEN]; /* what a tombstone knows of appid and openid */
};

enum { USER_WHY_MAX = 256 };

struct user_ops {
	const char *scheme;
	/* Keeps o and why (of USER_WHY_MAX). state only with DONE or AWAY. */
	enum user_status (*open)(const struct user_db_options *o, char *why, void **state);
	/* Fills rows, whose keys are set, sorted and distinct; strings go to a. writing: begins a
	 * transaction, in which nobody else may change these rows. Then save writes those that are
	 * dirty, and commits. */
	enum user_status (*load)(
		void *state, struct user_row *rows, size_t n, bool writing, struct arena *a);
	enum user_status (*save)(void *state, const struct user_row *rows, size_t n);
	enum user_status (*idle)(void *state,
		int64_t *again_ms); /* connects where open did not; looks whether it is there, and
				     * when it was away, whether it can be written to; FAILED: it is
				     * there, and refuses us. NULL: it always is there */
	void (*close)(void *state);
	/* Statements of user_list.c. find: rows of USER_LIST_COLUMNS. Each stands alone. */
	const char *tables; /* what every table's name begins with */
	void (*quote)(void *state, struct buf *sql, const char *text);
	enum user_status (*find)(
		void *state, const char *sql, struct arena *a, struct user_row **rows, size_t *n);
	enum user_status (*count)(void *state, const char *sql, int64_t *n);
	enum user_status (*change)(void *state, const char *sql);
	/* nothing that was overwritten stays in the files; false: not yet. NULL: the database sees
	 * to it */
	bool (*settle)(void *state);
	/* As user_db_probe; said is of USER_WHY_MAX. *foreign is what the statement count_foreign
	 * says, where there is its table. NULL: there is nothing to ask. */
	bool (*probe)(const struct user_db_options *o, const char *count_foreign, int64_t *foreign,
		char *said);
	/* NULL, or: what is to be done beside, on a thread of its own; tend gives the ms to the
	 * next time. */
	void *(*tender_new)(const struct user_db_options *o);
	int64_t (*tend)(void *tender);
	void (*tender_free)(void *tender);
};

extern const struct user_ops user_sqlite, user_mysql, user_none;

/* The columns, in the order that all SQL here has them: the key, the texts, the numbers. */
#define USER_TEXT_NAME(name, max) ", " #name
#define USER_NUMBER_NAME(name) ", " #name
#define USER_COLUMNS "appid, openid" USER_TEXTS(USER_TEXT_NAME) USER_NUMBERS(USER_NUMBER_NAME)
enum {
	USER_KEY_COUNT = 2,
	USER_COLUMN_COUNT = USER_KEY_COUNT + USER_TEXT_COUNT + USER_NUMBER_COUNT
};

/* The same of a user u, the phone p and the block b; k is the one of them that surely has a key. */
#define USER_TEXT_OF(name, max) ", u." #name
#define USER_NUMBER_OF(name) ", u." #name
#define USER_LIST_COLUMNS(k) \
	#k ".appid, " #k ".openid" USER_TEXTS(USER_TEXT_OF) USER_NUMBERS(USER_NUMBER_OF) \
	", p.sealed, p.tag, p.pure_tag, p.key_id, b.since_s, b.until_s, b.note"
enum {
	USER_PHONE_AT = USER_COLUMN_COUNT,
	USER_BLOCK_AT = USER_PHONE_AT + PHONE_CELL_COUNT,
	USER_LIST_COUNT = USER_BLOCK_AT + 3
};

/* Room for one more row of find, all of it zero. */
struct user_row *user_rows_grow(struct arena *a, struct user_row *rows, size_t n, size_t *room);

/* What keeps a process from a schema of tomorrow; in why. */
void user_why_newer(char *why, int64_t is, int64_t known);
/* For probe: what it means that the schema is of this version. false: it is too new. */
bool user_schema_said(char *said, int64_t is, int64_t known);

#endif
