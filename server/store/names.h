/* What sessions and users are called in Redis. session.h says what lies under which name; only
 * server/store includes this. */
#ifndef STORE_NAMES_H
#define STORE_NAMES_H

#include <stdint.h>

#include "common/crypt.h"
#include "store/cache.h"
#include "store/session.h"

enum { USER_NAME_LEN = 16, BASE_MAX = 144, KEY_MAX = 192 };

struct names {
	char session_base[BASE_MAX]; /* a session's key without its id */
	char index[BASE_MAX];        /* of the users of its tag */
};

/* What one token is called. */
struct token_names {
	struct names n;
	uint8_t id_raw[CACHE_ID_LEN];
	char    id[SESSION_ID_LEN + 1];
	char    session[KEY_MAX], mark[KEY_MAX];
};

/* What one user is called. */
struct user_names {
	struct names n;
	uint8_t tag[2];
	char    name[2 * SHA1_LEN + 1];       /* cut to USER_NAME_LEN */
	char    place[KEY_MAX];               /* what session_keys are sealed for */
	char    erasing[KEY_MAX], block[KEY_MAX]; /* what keeps the user from logging in */
	char    keycache[KEY_MAX];            /* the user's encryption keys */
};

void token_id(const char *token, uint8_t id[CACHE_ID_LEN]);
/* id: token_id's, where it was made already, or NULL. */
void token_names_make(
	const char *prefix, const char *token, const uint8_t *id, struct token_names *t);
void user_names_make(const char *prefix, const char *appid, const char *openid,
	struct user_names *u);

#endif
