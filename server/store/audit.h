/* The audit log: one JSON line for each event that a law or an auditor asks for, in a file of its
 * own. The request log (common/log.h) is for operators and may lose lines; this one counts them.
 *
 * A line is put together and queued before the request is answered. The helper thread writes it,
 * one write(2) a line on a descriptor opened for appending, so several processes may share a file.
 * The queue is bounded. What does not fit, and what the disk refuses, is counted in
 * wxlogind_audit_lost_total and logged once a second at most; nobody waits for the file. */
#ifndef STORE_AUDIT_H
#define STORE_AUDIT_H

#include <stddef.h>
#include <stdint.h>

#include "common/crypt.h"
#include "io/loop.h"

/* id, name in the file, what it says. docs/audit.md is held against this list by a test. */
#define AUDIT_EVENTS(X) \
	X(LOGIN,             "login",             "A login gave a session.") \
	X(LOGIN_REFUSED,     "login_refused",     "A login gave none; `result` says why.") \
	X(LOGOUT,            "logout",            "The user ended the session.") \
	X(SESSION_ENDED,     "session_ended",     "A backend ended one session or all sessions of a user.") \
	X(USER_READ,         "user_read",         "The user's record left the server.") \
	X(PHONE_READ,        "phone_read",        "A phone number left the server.") \
	X(PROFILE_CHANGED,   "profile_changed",   "The profile or the phone number was written.") \
	X(USER_IMPORTED,     "user_imported",     "A backend wrote the user's record.") \
	X(USER_ERASED,       "user_erased",       "The record, the session_keys and all sessions were erased.") \
	X(USER_EXPORTED,     "user_exported",     "All that is held about the user left the server.") \
	X(USER_BLOCKED,      "user_blocked",      "The user was blocked.") \
	X(USER_UNBLOCKED,    "user_unblocked",    "The block was lifted.") \
	X(CONSENT_WITHDRAWN, "consent_withdrawn", "WeChat said that consent was withdrawn; the data was cleared.") \
	X(TOKEN_READ,        "token_read",        "The app's access_token was given to a backend.") \
	X(SIGNED,            "signed",            "A text was signed with the user's session_key.") \
	X(CONFIG_RELOADED,   "config_reloaded",   "SIGHUP was obeyed, or refused; `result` says which.")

enum audit_event {
#define X(id, name, help) AUDIT_##id,
	AUDIT_EVENTS(X)
#undef X
	AUDIT_EVENT_COUNT
};

enum audit_by { AUDIT_BY_USER, AUDIT_BY_BACKEND, AUDIT_BY_WECHAT };

struct audit;

struct audit_options {
	const char *file;
	/* SEAL_KEY_LEN bytes: users are written as an HMAC under a key made of it. NULL: as their
	 * openid */
	const uint8_t *key;
	size_t queue_max;    /* lines */
};

/* Copies o. NULL: the file cannot be opened; why says the reason. Without a file there is no audit
 * log: pass NULL for the audit to the calls below. */
struct audit *audit_new(struct loop *l, const struct audit_options *o, char *why, size_t why_len);
void audit_free(struct audit *a); /* writes what is queued, for 2 s at most; NULL is fine */
void audit_reopen(struct audit *a); /* after a rotation, in the order of the lines; NULL is fine */

/* Texts are copied. NULL or "": unknown, and left out of the line. */
struct audit_line {
	enum audit_event event;
	enum audit_by by;
	const char *appid, *openid;
	const char *actor;      /* X-Wx-Actor: the person behind a backend's call */
	const char *ip, *request_id;
	const char *result;     /* "ok", or an outcome's code */
	const char *detail;     /* what differs by event: see docs/audit.md */
};
void audit_add(struct audit *a, const struct audit_line *line); /* a NULL: does nothing */

/* The name that a user has in the file. A string of AUDIT_USER_SIZE bytes or more, or "" when a is
 * NULL. */
#define AUDIT_USER_SIZE 129
void audit_user(const struct audit *a, char out[AUDIT_USER_SIZE], const char *appid,
	const char *openid);

#endif
