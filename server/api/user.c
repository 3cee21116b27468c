/* A user's profile: the mini program's own part of it, and the whole for backends. */
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "api/body.h"
#include "api/guard.h"
#include "api/record.h"
#include "api/user.h"
#include "common/clock.h"
#include "common/encode.h"
#include "common/mem.h"

enum { WAIT_MS = 2000 };

/* As WeChat's userInfo names them; gender is beside. */
static const struct {
	const char *name;
	enum user_text text;
	size_t max;
	const char *wrong;
} fields[] = {
	{"nickName", USER_nickname, USER_nickname_MAX,
		"nickName must be a string of up to 128 characters."},
	{"avatarUrl", USER_avatar_url, USER_avatar_url_MAX,
		"avatarUrl must be an http or https URL of up to 1024 characters. A temporary file "
		"of the phone (wxfile://, http://tmp/) must be uploaded to a server first."},
	{"province", USER_province, USER_province_MAX,
		"province must be a string of up to 64 characters."},
	{"city", USER_city, USER_city_MAX, "city must be a string of up to 64 characters."},
	{"country", USER_country, USER_country_MAX,
		"country must be a string of up to 64 characters."},
	{"language", USER_language, USER_language_MAX,
		"language must be a string of up to 16 characters."},
};

struct asking {
	struct api *api;
	struct req *req;
	struct user_patch patch;
	const char *profile; /* the answer */
};

/* ---- answers ---- */

static void number_member(struct buf *b, const char *name, int64_t value, int64_t unit)
{
	if (value < 0)
		json_add_str(b, name, NULL);
	else
		json_add_int(b, name, value / unit);
}

/* u NULL: a user that there is no row of yet. */
static void profile_members(struct buf *b, const struct user *u)
{
	for (size_t i = 0; i < NELEM(fields); i++)
		json_add_str(b, fields[i].name, u ? u->text[fields[i].text] : NULL);
	number_member(b, "gender", u ? u->number[USER_gender] : -1, 1);
}

static void reply_buf(struct req *r, struct buf *b)
{
	req_reply_json(r, 200, b->data);
	buf_free(b);
}

void user_reply_failure(struct req *r, enum outcome oc)
{
	const char *message = oc == OC_NOT_FOUND ? "Users are not kept here (users.url is none)." :
		oc == OC_STORE_UNAVAILABLE ? "The user database cannot answer: try again." : NULL;

	req_reply_error(r, &(struct req_error){.oc = oc, .message = message});
}

static const char *print_profile(struct arena *a, const struct user *u)
{
	struct buf b = {0};
	const char *text;

	json_open(&b, NULL, '{');
	profile_members(&b, u);
	json_close(&b, '}');
	text = arena_strdup(a, b.data);
	buf_free(&b);
	return text;
}

static void reply_profile(void *ctx, const struct session *ses)
{
	struct asking *a = ctx;

	(void)ses;
	req_reply_json(a->req, 200, a->profile);
}

/* The database may have taken seconds, in which the session was ended. What was put is kept all the
 * same. */
static void on_profile(void *ctx, enum outcome oc, const struct user *u)
{
	struct asking *a = ctx;
	struct req *r = a->req;

	if (oc == OC_OK) {
		a->profile = print_profile(req_arena(r), u);
		guard_still_lives(a->api, r, reply_profile, a);
	} else {
		user_reply_failure(r, oc);
	}
	req_release(r);
}

/* ---- GET ---- */

static void on_get_session(void *ctx, const struct session *ses)
{
	struct asking *a = ctx;

	record_success(a->api, a->req, AUDIT_USER_READ, AUDIT_BY_USER, ses->appid, ses->openid);
	req_hold(a->req);
	user_get(a->api->users, ses->appid, ses->openid, WAIT_MS, on_profile, a);
}

static struct asking *asking_new(struct api *api, struct req *r)
{
	struct asking *a = arena_alloc(req_arena(r), sizeof(*a));

	a->api = api;
	a->req = r;
	return a;
}

void user_get_handle(struct api *api, struct req *r)
{
	guard_session(api, r, on_get_session, asking_new(api, r));
}

/* ---- PUT ---- */

/* Empty, as WeChat gives it where there is none; or http(s)://host..., without blanks and control
 * characters. WeChat names temporary files http://tmp/..., http://usr/... and http://store/...:
 * with http, a host without a dot or a colon is none that another phone knows. */
static bool avatar_ok(const char *url)
{
	bool https = !strncasecmp(url, "https://", 8);
	size_t skip = https ? 8 : !strncasecmp(url, "http://", 7) ? 7 : 0;
	size_t host = strcspn(url + skip, "/?#");

	for (const char *p = url; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return false;
	return !*url || (skip && host && (https || strcspn(url + skip, ".:") < host));
}

static bool take_text(struct req *r, struct user_patch *p, const cJSON *m, size_t i)
{
	const char *value = cJSON_IsNull(m) ? NULL : cJSON_GetStringValue(m);

	if (!cJSON_IsNull(m) && !value)
		return false;
	if (value && utf8_length(value, strlen(value)) > fields[i].max)
		return false;
	if (value && fields[i].text == USER_avatar_url && !avatar_ok(value))
		return false;
	p->given |= 1u << fields[i].text;
	p->text[fields[i].text] = value ? arena_strdup(req_arena(r), value) : NULL;
	return true;
}

static const char *take_gender(struct user_patch *p, const cJSON *tree)
{
	p->gender_given = true;
	p->gender = -1;
	return json_int(tree, "gender", 0, 2, &p->gender) == JSON_BAD ? "gender must be 0, 1 or 2."
								      : NULL;
}

const char *user_take_profile(
	struct req *r, struct user_patch *p, const cJSON *tree, const cJSON *m)
{
	if (!strcmp(m->string, "gender"))
		return take_gender(p, tree);
	for (size_t i = 0; i < NELEM(fields); i++)
		if (!strcmp(m->string, fields[i].name))
			return take_text(r, p, m, i) ? NULL : fields[i].wrong;
	return USER_NO_FIELD;
}

static const char *read_body(struct asking *a)
{
	const char *wrong = NULL;
	cJSON *tree = body_object(a->req, &wrong), *m;

	cJSON_ArrayForEach(m, tree)
		wrong = wrong ? wrong : user_take_profile(a->req, &a->patch, tree, m);
	json_free(tree);
	return wrong;
}

static void on_put_session(void *ctx, const struct session *ses)
{
	struct asking *a = ctx;
	const char *wrong = read_body(a);

	if (wrong) {
		req_reply_error(
			a->req, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
		return;
	}
	a->patch.as_of_ms = ses->created_ms;
	record_success(
		a->api, a->req, AUDIT_PROFILE_CHANGED, AUDIT_BY_USER, ses->appid, ses->openid);
	req_hold(a->req);
	user_put(a->api->users, ses->appid, ses->openid, &a->patch, WAIT_MS, on_profile, a);
}

void user_put_handle(struct api *api, struct req *r)
{
	guard_session(api, r, on_put_session, asking_new(api, r));
}

/* ---- the whole, for backends ---- */

/* "13812345678" as "138****5678"; of a short one nothing but the stars. */
static const char *masked(struct arena *a, const char *phone)
{
	size_t n = phone ? strlen(phone) : 0;

	if (!phone)
		return NULL;
	return n < 9 ? "****" : arena_printf(a, "%.*s****%s", (int)(n - 8), phone, phone + n - 4);
}

static void block_member(struct buf *b, const struct user_block *block)
{
	if (!block->since_s) {
		json_add_str(b, "blocked", NULL);
		return;
	}
	json_open(b, "blocked", '{');
	json_add_int(b, "since", block->since_s);
	number_member(b, "until", block->until_s ? block->until_s : -1, 1);
	json_add_str(b, "note", block->note);
	json_close(b, '}');
}

void user_print(struct api *api, struct req *r, struct buf *b, const char *key,
	const struct user *u, bool mask)
{
	const char *phone = u->text[USER_phone];
	char name[AUDIT_USER_SIZE];

	audit_user(api->audit, name, u->appid, u->openid);
	json_open(b, key, '{');
	json_add_str(b, "appid", u->appid);
	json_add_str(b, "openid", u->openid);
	json_add_str(b, "unionid", u->text[USER_unionid]);
	json_add_str(b, "phoneNumber", mask ? masked(req_arena(r), phone) : phone);
	profile_members(b, u);
	number_member(b, "created_at", u->number[USER_created_at], 1000);
	number_member(b, "last_login_at", u->number[USER_last_login_at], 1000);
	number_member(b, "updated_at", u->number[USER_updated_at], 1000);
	block_member(b, &u->block);
	json_add_str(b, "audit_user", *name ? name : NULL);
	json_close(b, '}');
}

void user_record_phone(struct api *api, struct req *r, const struct user *u)
{
	if (u->text[USER_phone])
		record(api, r,
			(struct audit_line){.event = AUDIT_PHONE_READ,
				.by = AUDIT_BY_BACKEND,
				.appid = u->appid,
				.openid = u->openid});
}

static void on_user(void *ctx, enum outcome oc, const struct user *u)
{
	struct asking *a = ctx;
	struct req *r = a->req;
	struct buf b = {0};

	if (oc == OC_OK && u) {
		user_record_phone(a->api, r, u);
		user_print(a->api, r, &b, NULL, u, false);
		reply_buf(r, &b);
	} else if (oc == OC_OK) {
		req_reply_error(r, &(struct req_error){.oc = OC_NOT_FOUND, .message = USER_NOBODY});
	} else {
		user_reply_failure(r, oc);
	}
	req_release(r);
}

void user_inside_handle(struct api *api, struct req *r)
{
	const char *appid, *openid;

	if (!guard_path_user(api, r, &appid, &openid))
		return;
	record_success(api, r, AUDIT_USER_READ, AUDIT_BY_BACKEND, appid, openid);
	req_hold(r);
	user_get(api->users, appid, openid, WAIT_MS, on_user, asking_new(api, r));
}

/* ---- import ---- */

static const char *take_phone(struct req *r, struct user_patch *p, const cJSON *m)
{
	const char *value = cJSON_IsNull(m) ? NULL : cJSON_GetStringValue(m);
	size_t n = value ? strlen(value) : 0;

	if (!cJSON_IsNull(m) && (n < 3 || n > USER_phone_MAX || strspn(value, "+0123456789") != n))
		return "phoneNumber must be a string of 3 to 32 digits, with or without a leading "
		       "+.";
	p->given |= 1u << USER_phone;
	p->text[USER_phone] = value ? arena_strdup(req_arena(r), value) : NULL;
	p->phone_pure = value && !strncmp(value, "+86", 3) ? p->text[USER_phone] + 3 : NULL;
	return NULL;
}

static const char *take_unionid(struct req *r, struct user_patch *p, const cJSON *m)
{
	const char *value = cJSON_IsNull(m) ? NULL : cJSON_GetStringValue(m);

	if (!cJSON_IsNull(m) &&
		(!value || !*value || utf8_length(value, strlen(value)) > USER_unionid_MAX))
		return "unionid must be a string of 1 to 128 characters.";
	p->given |= 1u << USER_unionid;
	p->text[USER_unionid] = value ? arena_strdup(req_arena(r), value) : NULL;
	return NULL;
}

static const char *take_imported(
	struct req *r, struct user_patch *p, const cJSON *tree, const cJSON *m)
{
	const char *wrong;

	if (!strcmp(m->string, "phoneNumber"))
		return take_phone(r, p, m);
	if (!strcmp(m->string, "unionid"))
		return take_unionid(r, p, m);
	if (strcmp(m->string, "created_at") != 0) {
		wrong = user_take_profile(r, p, tree, m);
		return wrong && !strcmp(wrong, USER_NO_FIELD)
			       ? "The body holds a field that is none of created_at, unionid, "
				 "phoneNumber and those of the profile."
			       : wrong;
	}
	if (json_int(tree, "created_at", 1, clock_wall_s(), &p->created_at) != JSON_GOT)
		return "created_at is a time in Unix seconds, and not in the future.";
	p->created_at *= 1000;
	return NULL;
}

void user_import_handle(struct api *api, struct req *r)
{
	struct user_patch patch = {.keep = true, .as_of_ms = INT64_MAX};
	const char *appid, *openid, *wrong = NULL;
	cJSON *tree, *m;

	if (!guard_path_user(api, r, &appid, &openid))
		return;
	tree = body_object(r, &wrong);
	cJSON_ArrayForEach(m, tree)
		wrong = wrong ? wrong : take_imported(r, &patch, tree, m);
	json_free(tree);
	if (wrong) {
		req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
		return;
	}
	record_success(api, r, AUDIT_USER_IMPORTED, AUDIT_BY_BACKEND, appid, openid);
	req_hold(r);
	user_put(api->users, appid, openid, &patch, WAIT_MS, on_user, asking_new(api, r));
}
