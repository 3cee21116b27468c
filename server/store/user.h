/* Users in SQL: a profile for each (appid, openid). SQLite, MySQL or MariaDB, or none.
 *
 * The database is worked on by a helper thread (io/jobs.h), which makes one transaction of all that
 * waits; a change is acknowledged after its commit, so it outlives a kill -9. Inputs are copied;
 * callbacks come exactly once, on the loop, never before the starter returns, and within limit_ms
 * whatever the database does. OC_OK; OC_STORE_UNAVAILABLE; OC_OVERLOADED: too many wait;
 * OC_NOT_FOUND: users is none. A change that was answered late may have been made all the same.
 *
 * Values are the caller's to check; what a column cannot hold is OC_STORE_UNAVAILABLE for that user
 * alone. */
#ifndef STORE_USER_H
#define STORE_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/outcome.h"
#include "io/loop.h"
#include "store/seal.h"

/* name here and in the database, the characters it may have */
#define USER_TEXTS(X) \
	X(unionid,    128) \
	X(phone,       32) \
	X(nickname,   128) \
	X(avatar_url, 1024) \
	X(province,    64) \
	X(city,        64) \
	X(country,     64) \
	X(language,    16)

/* Times are Unix milliseconds. last_login_at: none since there is a row, where it is not known;
 * updated_at: nothing was ever put. */
#define USER_NUMBERS(X) \
	X(gender) \
	X(created_at) \
	X(last_login_at) \
	X(updated_at)

enum { USER_APPID_MAX = 64, USER_OPENID_MAX = 128 };
enum user_text {
#define X(name, max) USER_##name,
	USER_TEXTS(X)
#undef X
	USER_TEXT_COUNT,
};
enum {
#define X(name, max) USER_##name##_MAX = (max),
	USER_TEXTS(X)
#undef X
};
enum user_number {
#define X(name) USER_##name,
	USER_NUMBERS(X)
#undef X
	USER_NUMBER_COUNT,
};

struct user_block {
	/* Unix seconds. since_s 0: not blocked; until_s 0: until it is lifted */
	int64_t since_s, until_s;
	const char *note;         /* NULL: none */
};

struct user {
	const char *appid, *openid;
	const char *text[USER_TEXT_COUNT];  /* NULL: not known */
	const char *phone_pure;             /* without the country code, where it is known */
	int64_t number[USER_NUMBER_COUNT];  /* -1: not known */
	struct user_block block;
	bool    exists;                     /* false: nothing is kept but the block */
	bool    is_new;                     /* this call made the row */
};

struct user_patch {
	/* 1 << USER_<text> for each to change; the others stay */
	unsigned given;
	const char *text[USER_TEXT_COUNT];  /* NULL clears */
	const char *phone_pure;             /* beside a phone number */
	bool    gender_given;
	int64_t gender;                     /* -1 clears */
	int64_t created_at;                 /* 0: stays, or is now; import */
	int64_t as_of_ms;                   /* see user_erase */
	bool    keep;                       /* worth making even after it was answered late */
};

enum user_tls {
	USER_TLS_OFFERED, /* where the server offers it */
	USER_TLS_OFF,
	USER_TLS_ON,      /* required; whoever answers is believed */
	USER_TLS_VERIFY,  /* required, with a certificate for the host */
};

struct user_db_options {
	const char *scheme;   /* "sqlite", "mysql", "none" */
	const char *path;     /* sqlite: the file; mysql: a unix socket, or NULL */
	const char *host;     /* mysql, NULL with a socket */
	int         port;     /* mysql; 0 = the usual one */
	const char *user, *password, *database;
	enum user_tls tls;    /* mysql */
	const char *ca_file;  /* for USER_TLS_VERIFY; NULL or "" = the system's */
	/* sqlite: bytes of the write-ahead log from which on writers wait while it is moved into
	 * the file; 0 = 64 MB */
	int64_t     log_max;
	const struct seal *seal; /* for phone numbers; NULL = kept as they come. Copied */
	int64_t     timeout_ms; /* of the database's own waits; mysql counts whole seconds */
	size_t      queue_max;
};

struct user_db;

/* Copies o. Makes or migrates the schema. NULL with why: cannot be opened. A MySQL server that
 * cannot be reached is no such reason: it is tried again for ever. Blocks: before the loop runs. */
struct user_db *user_db_new(
	struct loop *l, const struct user_db_options *o, char *why, size_t why_cap);
/* Asks the database, and changes nothing. true: it can be used, as far as can be seen; said tells
 * what it answered, else what is wrong and what to do. Blocks. */
bool user_db_probe(const struct user_db_options *o, char *said, size_t said_cap);
/* within about a second; what waits is called back before it returns */
void user_db_free(struct user_db *db);

/* false: known to be away, or silent just now, or none: not worth waiting for. */
bool user_db_is_up(struct user_db *db);
bool user_db_is_none(const struct user_db *db);

/* u: as it stands in the database after the call, borrowed; NULL unless OC_OK, and where there is
 * no such user, or the user was erased after as_of_ms: then nothing was written. */
typedef void (*user_cb)(void *ctx, enum outcome oc, const struct user *u);

/* A login: makes the row or moves last_login_at. unionid NULL leaves it as it was. Is done even if
 * it was answered late. */
void user_seen(struct user_db *db, const char *appid, const char *openid, const char *unionid,
	int64_t as_of_ms, int64_t limit_ms, user_cb cb, void *ctx);
void user_get(struct user_db *db, const char *appid, const char *openid, int64_t limit_ms,
	user_cb cb, void *ctx);
void user_put(struct user_db *db, const char *appid, const char *openid, const struct user_patch *p,
	int64_t limit_ms, user_cb cb, void *ctx); /* makes the row too */

/* Deletes what is kept about the user, but for a block. What is written on behalf of a session that
 * was created at erased_ms or before (as_of_ms, by Redis' clock) is refused from then on for a day,
 * in whichever process it waited: that is the one rule against late writes. Backends' own writes
 * carry INT64_MAX. */
void user_erase(struct user_db *db, const char *appid, const char *openid, int64_t erased_ms,
	int64_t limit_ms, user_cb cb, void *ctx);

/* b NULL lifts the block. u: as user_get. */
void user_set_block(struct user_db *db, const char *appid, const char *openid,
	const struct user_block *b, int64_t limit_ms, user_cb cb, void *ctx);
bool user_block_holds(const struct user_block *b, int64_t now_s);

/* Users in the order of their keys. */
enum user_filter { USER_EVERY, USER_OF_PHONE, USER_OF_UNIONID, USER_BLOCKED };
struct user_query {
	const char *appid;          /* NULL: of all apps; for USER_BLOCKED alone */
	const char *after_appid;    /* only then */
	const char *after;          /* openid; NULL: from the first */
	enum user_filter filter;
	const char *value;
	int  limit;                 /* USER_PAGE_MAX at most */
	/* first drop blocks that are over, and tombstones of yesterday */
	bool sweep;
};
enum { USER_PAGE_MAX = 1000 };
/* borrowed */
typedef void (*user_list_cb)(void *ctx, enum outcome oc, const struct user *list, size_t n);
void user_list(struct user_db *db, const struct user_query *q, int64_t limit_ms, user_list_cb cb,
	void *ctx);

#endif
