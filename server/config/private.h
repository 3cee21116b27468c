/* What the files of the configuration share: the table of keys, and what is known while it is read. */
#ifndef CONFIG_PRIVATE_H
#define CONFIG_PRIVATE_H

#include "config/config.h"

#define DAY (86400 * INT64_C(1000)) /* in milliseconds */

/* ---- keys.c: the table ---- */

enum type { T_TEXT, T_SECRET, T_INT, T_DURATION, T_SIZE, T_LIST, T_RATE, T_LEVEL, T_FORMAT, T_KEYS };
struct key {
	const char *section, *name;
	enum type   type;
	size_t      offset;
	const char *fallback;
	int64_t     min, max; /* of numbers */
	int         flags;
	const char *help;
	const char *full;
};

extern const struct key key_table[];
extern const size_t key_count;

bool key_is_secret(const struct key *k);
/* The key of that name, its _file twin too; -1 when there is none. */
int key_find(const char *section, const char *name, bool *from_file);

/* ---- read.c: what is known while the configuration is read ---- */

struct app_pending { /* an [app] section while it is read */
	char *appid, *secret, *where;
};

struct given { /* the value that counts, and where it stands; NULL: the default */
	char *text, *where;
};

struct reading {
	struct config *c;
	config_say say;
	void *ctx;
	const char *file;
	bool ok;
	struct given *given; /* one for each key */
	struct app_pending *apps;
	size_t app_count;
};

void reading_say(struct reading *rd, bool is_error, const char *where, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
const char *reading_where(const struct reading *rd, const char *section, const char *name);

/* ---- value.c: the types ---- */

bool value_number(const char **p, int64_t *out);            /* digits; moves *p past them */
void value_list(const char *text, struct config_list *l);   /* items apart by commas or lines */
void value_list_free(struct config_list *l);
/* Sets the key's field from text, or says what is wrong with it. */
void value_set(struct reading *rd, const struct key *k, const char *text, const char *where);
bool value_same(const struct key *k, const struct config *a, const struct config *b);

/* ---- check.c, url.c: what values must be to each other ---- */

void config_check(struct reading *rd);
void check_redis_url(struct reading *rd);
void check_users_url(struct reading *rd);

#endif
