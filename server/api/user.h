/* What the calls about users share. */
#ifndef API_USER_H
#define API_USER_H

#include "api/api.h"
#include "common/json.h"

#define USER_NOBODY "This app has no such user."
#define USER_NO_FIELD \
	"The body holds a field that is none of nickName, avatarUrl, gender, province, city, " \
	"country, language."

/* Takes one member of the body that is a field of the profile. What is wrong with it, or NULL;
 * USER_NO_FIELD: it is none. */
const char *user_take_profile(
	struct req *r, struct user_patch *p, const cJSON *tree, const cJSON *m);

/* The user as backends see it; mask: without the whole phone number. */
void user_print(struct api *api, struct req *r, struct buf *b, const char *key,
	const struct user *u, bool mask);
/* The audit line about a number that leaves; none where there is no number. */
void user_record_phone(struct api *api, struct req *r, const struct user *u);
/* The member "sessions" (operator.c). */
void operator_print_sessions(struct buf *b, const struct session_listed *list, size_t n);
/* STORE_UNAVAILABLE, NOT_FOUND (users is none) and the like. */
void user_reply_failure(struct req *r, enum outcome oc);

#endif
