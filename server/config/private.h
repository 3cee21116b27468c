/* What the files of the configuration share: the table of keys, and what is known while it is read.
 */
#ifndef CONFIG_PRIVATE_H
#define CONFIG_PRIVATE_H

#include "common/buf.h"
#include "common/mem.h"
#include "config/config.h"

#define DAY (86400 * INT64_C(1000)) /* in milliseconds */

/* ---- keys.c: the table ---- */

enum type {
	T_TEXT,     /* char * */
	T_PATH,     /* char *, a file that must be readable, or "" */
	T_SECRET,   /* char *, has a _file twin, is never shown */
	T_SECRETS,  /* struct config_list of such */
	T_KEYS,     /* encryption_key */
	T_LIST,     /* struct config_list: commas or lines */
	T_INT,      /* int64_t from here to T_DURATION: .min and .max hold */
	T_MODE,     /* of a file, octal */
	T_SIZE,     /* bytes */
	T_DURATION, /* milliseconds */
	T_RATE,     /* struct config_rate */
	T_WORD,     /* an enum: which of .words, from 0 */
	T_BOOL,     /* bool: yes or no */
};

struct key {
	const char *section, *name, *full; /* "redis", "url", "redis.url" */
	enum type   type;
	size_t      offset;                /* in struct config; with .app in struct config_app */
	const char *fallback;
	const char *help;                  /* a sentence; the documents are made from it */
	int64_t     min, max;
	const char *words;                 /* separated by blanks */
	bool        reload;                /* SIGHUP applies it */
	bool        app;                   /* a key of [app wx...], with one value for each app */
};

extern const struct key key_table[];
extern const size_t key_count;

bool key_is_secret(const struct key *k); /* has a _file twin */
bool key_is_list(const struct key *k);   /* may go over several lines */

/* The key of that name, its _file twin too; -1 when there is none. section: "app" for those of an
 * app. */
int key_find(const char *section, const char *name, bool *is_twin);

#define ENV_NAME_MAX 64 /* with _FILE and the NUL */
void key_variable(char out[ENV_NAME_MAX], const struct key *k); /* its name in the environment */

/* ---- suggest.c: each adds ": did you mean ...?", or nothing where no known name is near ---- */

void suggest_section(struct buf *out, const char *name);
void suggest_key(struct buf *out, const char *section, const char *name);
void suggest_variable(struct buf *out, const char *name);

/* ---- read.c: what is known while the configuration is read ---- */

struct given { /* the value that counts, and where it stands; NULL: the default */
	char *text, *where;
	bool  is_twin;  /* text is a path: the value is in that file */
	bool  from_env;
};

struct target {               /* what keys are set in: the configuration, or one app */
	/* of an app, as users write it: "app wx..."; NULL: each key has its own */
	char *section;
	char *where;
	struct given *given;      /* one for each key of the table */
};

struct reading {
	struct config *c;
	config_say say;
	void *ctx;
	const char *file;
	struct config_files *files; /* NULL: files are read, and that is all */
	bool ok;
	struct target main;
	struct target *apps;
	size_t app_count;
};

void reading_say(struct reading *rd, bool is_error, const char *where, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Where a key's value stands: "FILE:LINE", "environment" or "default". */
const char *reading_where(const struct reading *rd, const char *section, const char *name);

/* ---- value.c: the types ---- */

bool value_number(const char **p, int64_t *out);            /* digits; moves *p past them */
/* items separated by commas or lines; a NULL after the last */
void value_list(const char *text, struct config_list *l);
void value_list_free(struct config_list *l);
/* a number as users write it: "15s", "64k" */
void value_print(struct buf *b, const struct key *k, int64_t v);
/* what a value looks like: the end of "must be ..." */
const char *value_shape(const struct key *k, struct buf *b);
/* Sets the key's field from text, or says what is wrong with it. section: as users write it. */
void value_set(struct reading *rd, const char *section, const struct key *k, void *at,
	const char *text, const char *where);
bool value_same(const struct key *k, const struct config *a, const struct config *b);
void value_free(const struct key *k, void *at);

/* ---- url.c: parts of URLs ---- */

char *url_decoded(const char *s, size_t n); /* NULL: a % without two hex digits */
/* user[:password]. A password goes to *password, unless a key of its own has set it. */
bool url_login(const char *text, const char *stop, char **user, char **password);
/* one host[:port] or [v6][:port] */
bool url_host(const char *text, const char *stop, char **host, int64_t *port);

/* ---- check.c, url.c, redis_url.c: what values must be to each other ---- */

void config_check(struct reading *rd);
void check_redis_url(struct reading *rd);
void check_proxy_url(struct reading *rd);
void check_users_url(struct reading *rd);

#endif
