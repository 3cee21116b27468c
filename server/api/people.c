/* Users for those who run the service: find, page through, export, block. */
#include <stdlib.h>
#include <string.h>

#include "api/body.h"
#include "api/guard.h"
#include "api/record.h"
#include "api/user.h"
#include "common/clock.h"
#include "common/encode.h"

enum { WAIT_MS = 5000, PAGE = 100, VALUE_MAX = 512, NOTE_MAX = 200 };

static void refuse(struct req *r, const char *wrong)
{
	req_reply_error(r, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
}

static void reply_json(struct req *r, struct buf *b)
{
	req_reply_json(r, 200, b->data);
	buf_free(b);
}

/* ---- find, and page through ---- */

struct listing {
	struct api *api;
	struct req *req;
	struct user_query q;
};

static void on_list(void *ctx, enum outcome oc, const struct user *list, size_t n)
{
	struct listing *l = ctx;
	struct req *r = l->req;
	struct buf b = {0};

	json_open(&b, NULL, '{');
	json_open(&b, "users", '[');
	for (size_t i = 0; i < n; i++)
		user_print(l->api, r, &b, NULL, &list[i], true);
	json_close(&b, ']');
	json_add_str(&b, "next", n == (size_t)l->q.limit ? list[n - 1].openid : NULL);
	json_close(&b, '}');
	if (oc == OC_OK) {
		record(l->api, r,
			(struct audit_line){.event = AUDIT_USER_READ,
				.by = AUDIT_BY_BACKEND,
				.appid = l->q.appid,
				.detail = "list"});
		reply_json(r, &b);
	} else {
		buf_free(&b);
		user_reply_failure(r, oc);
	}
	req_release(r);
}

static bool read_limit(struct req *r, int *limit)
{
	const char *text = req_param(r, "limit");
	char *end;
	long n;

	*limit = PAGE;
	if (!text)
		return true;
	n = strtol(text, &end, 10);
	*limit = (int)n;
	return *text >= '0' && *text <= '9' && !*end && n >= 1 && n <= USER_PAGE_MAX;
}

/* A '+' that is not escaped reads as a blank, with which no number begins. */
static const char *read_phone(struct req *r)
{
	const char *phone = req_param(r, "phone");

	return phone && *phone == ' ' ? arena_join(req_arena(r), "+", phone + 1, NULL) : phone;
}

static const char *read_filter(struct req *r, struct user_query *q)
{
	const char *phone = read_phone(r), *unionid = req_param(r, "unionid"),
		   *blocked = req_param(r, "blocked");

	if (!!phone + !!unionid + !!blocked > 1)
		return "Give one of phone, unionid and blocked.";
	if (blocked && strcmp(blocked, "1") != 0)
		return "blocked can only be 1.";
	q->filter = phone     ? USER_OF_PHONE
		    : unionid ? USER_OF_UNIONID
		    : blocked ? USER_BLOCKED
			      : USER_EVERY;
	q->value = phone ? phone : unionid;
	q->after = req_param(r, "after");
	if ((q->value && strlen(q->value) > VALUE_MAX) ||
		(q->after && strlen(q->after) > USER_OPENID_MAX))
		return "phone, unionid or after is too long.";
	if ((q->value && !utf8_valid(q->value, strlen(q->value))) ||
		(q->after && !utf8_valid(q->after, strlen(q->after))))
		return "phone, unionid or after is not valid UTF-8.";
	return read_limit(r, &q->limit) ? NULL : "limit must be a number from 1 to 1000.";
}

void users_list_handle(struct api *api, struct req *r)
{
	struct listing *l = arena_alloc(req_arena(r), sizeof(*l));
	const char *appid = route_segment(r, 0), *wrong;

	*l = (struct listing){.api = api, .req = r, .q = {.appid = appid}};
	if (!appid || !api_app(api, appid, strlen(appid))) {
		req_reply_outcome(r, OC_UNKNOWN_APP);
		return;
	}
	wrong = read_filter(r, &l->q);
	if (wrong) {
		refuse(r, wrong);
		return;
	}
	req_hold(r);
	user_list(api->users, &l->q, WAIT_MS, on_list, l);
}

/* ---- export ---- */

struct exporting {
	struct api *api;
	struct req *req;
	const char *appid, *openid;
	const char *user; /* as JSON; NULL: there is no row and no block */
};

static void on_sessions(void *ctx, enum outcome oc, const struct session_listed *list, size_t n)
{
	struct exporting *e = ctx;
	struct req *r = e->req;
	struct buf b = {0};

	if (oc == OC_OK && (e->user || n > 0)) {
		buf_printf(&b, "{\"user\":%s", e->user ? e->user : "null");
		operator_print_sessions(&b, list, n);
		json_add_int(&b, "exported_at", clock_wall_s());
		json_close(&b, '}');
		reply_json(r, &b);
	} else if (oc == OC_OK) {
		req_reply_error(r, &(struct req_error){.oc = OC_NOT_FOUND, .message = USER_NOBODY});
	} else {
		req_reply_outcome(r, oc);
	}
	req_release(r);
}

static void on_exported(void *ctx, enum outcome oc, const struct user *u)
{
	struct exporting *e = ctx;
	struct buf b = {0};

	if (oc != OC_OK) {
		user_reply_failure(e->req, oc);
		req_release(e->req);
		return;
	}
	if (u) {
		user_record_phone(e->api, e->req, u);
		user_print(e->api, e->req, &b, NULL, u, false);
		e->user = arena_strdup(req_arena(e->req), b.data);
		buf_free(&b);
	}
	session_list(e->api->sessions, e->appid, e->openid, on_sessions, e);
}

void user_export_handle(struct api *api, struct req *r)
{
	struct exporting *e = arena_alloc(req_arena(r), sizeof(*e));

	*e = (struct exporting){.api = api, .req = r};
	if (!guard_path_user(api, r, &e->appid, &e->openid))
		return;
	record_success(api, r, AUDIT_USER_EXPORTED, AUDIT_BY_BACKEND, e->appid, e->openid);
	req_hold(r);
	user_get(api->users, e->appid, e->openid, WAIT_MS, on_exported, e);
}

/* ---- block ---- */

struct blocking {
	struct api *api;
	struct req *req;
	const char *appid, *openid;
	struct user_block block;
};

static const char *read_block(struct blocking *k)
{
	const char *wrong = NULL, *note;
	size_t len;
	cJSON *tree;

	k->block.since_s = clock_wall_s();
	req_body(k->req, &len);
	if (len == 0)
		return NULL;
	tree = body_object(k->req, &wrong);
	if (tree && json_int(tree, "until", k->block.since_s + 1, INT64_C(1) << 40,
			    &k->block.until_s) == JSON_BAD)
		wrong = "until must be a time in Unix seconds, in the future.";
	if (tree && json_str(tree, "note", 0, 4 * NOTE_MAX, &note) == JSON_GOT)
		k->block.note = arena_strdup(req_arena(k->req), note);
	if (tree && ((cJSON_HasObjectItem(tree, "note") && !k->block.note &&
			     !cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(tree, "note"))) ||
			    (k->block.note &&
				    utf8_length(k->block.note, strlen(k->block.note)) > NOTE_MAX)))
		wrong = "note must be a string of up to 200 characters.";
	json_free(tree);
	return wrong;
}

/* SQL first, which is what lasts; Redis then is what every login looks at. */
static void on_blocked(void *ctx, enum outcome oc, const struct user *u)
{
	struct blocking *k = ctx;

	(void)u;
	if (oc == OC_OK && k->block.since_s) {
		session_block(k->api->sessions, k->appid, k->openid, k->block.until_s,
			guard_on_done, k->req);
	} else if (oc == OC_OK) {
		session_unblock(k->api->sessions, k->appid, k->openid, guard_on_done, k->req);
	} else {
		user_reply_failure(k->req, oc);
		req_release(k->req);
	}
}

static struct blocking *blocking_new(struct api *api, struct req *r)
{
	struct blocking *k = arena_alloc(req_arena(r), sizeof(*k));

	*k = (struct blocking){.api = api, .req = r};
	return guard_path_user(api, r, &k->appid, &k->openid) ? k : NULL;
}

void user_block_handle(struct api *api, struct req *r)
{
	struct blocking *k = blocking_new(api, r);
	const char *wrong = k ? read_block(k) : NULL;

	if (wrong)
		refuse(r, wrong);
	if (!k || wrong)
		return;
	record_success(api, r, AUDIT_USER_BLOCKED, AUDIT_BY_BACKEND, k->appid, k->openid);
	req_hold(r);
	user_set_block(api->users, k->appid, k->openid, &k->block, WAIT_MS, on_blocked, k);
}

void user_unblock_handle(struct api *api, struct req *r)
{
	struct blocking *k = blocking_new(api, r);

	if (!k)
		return;
	record_success(api, r, AUDIT_USER_UNBLOCKED, AUDIT_BY_BACKEND, k->appid, k->openid);
	req_hold(r);
	user_set_block(api->users, k->appid, k->openid, NULL, WAIT_MS, on_blocked, k);
}
