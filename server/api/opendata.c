/* POST /v1/open-data: what WeChat signed or encrypted for this user, checked and opened under the
 * user's session_key.
 *
 * encryptedData is AES-CBC without a MAC: who holds some may cut it, and change what stands in its
 * first block. So nothing in it is kept, and whoever reads the answer must not take it for proof.
 */
#include <string.h>

#include "api/body.h"
#include "api/guard.h"
#include "api/limit.h"
#include "common/mem.h"
#include "wechat/sealed.h"

enum { DATA_MAX = 1024 * 1024, IV_MAX = 64 };

struct opening {
	struct api *api;
	struct req *req;
	const char *encrypted, *iv;    /* both or neither */
	const char *raw, *signature;   /* both or neither */
	const char *appid, *openid;
	enum outcome oc;               /* of opening it */
	const char *answer;            /* in the request's arena */
};

/* What is wrong with the body, or NULL. */
static const char *read_body(struct opening *o)
{
	static const char bad[] =
		"encryptedData, iv, rawData and signature are texts, and not empty.";
	const struct body_text texts[] = {
		{"encryptedData", 1, DATA_MAX, false, bad, &o->encrypted},
		{"iv", 1, IV_MAX, false, bad, &o->iv},
		{"rawData", 1, DATA_MAX, false, bad, &o->raw},
		{"signature", 1, DATA_MAX, false, bad, &o->signature},
	};
	const char *wrong = body_texts(o->req, texts, NELEM(texts));

	if (!wrong && (!o->encrypted != !o->iv || !o->raw != !o->signature || (!o->iv && !o->raw)))
		wrong = "Give encryptedData with iv, or rawData with signature, or all four.";
	return wrong;
}

/* The openId inside, where there is one, must be the session's. */
static bool is_theirs(const struct opening *o, const cJSON *data)
{
	const char *openid;

	switch (json_str(data, "openId", 1, 128, &openid)) {
	case JSON_ABSENT:
		return true;
	case JSON_GOT:
		return !strcmp(openid, o->openid);
	default:
		return false;
	}
}

/* Under one key: OK with the data, or why not. */
static enum outcome open_under(struct opening *o, const char *key, cJSON **data)
{
	if (o->raw && !sealed_signature_ok(key, o->raw, o->signature))
		return OC_SIGNATURE_MISMATCH;
	if (o->encrypted)
		*data = sealed_open(req_arena(o->req), key, o->encrypted, o->iv, o->appid);
	else if (o->raw)
		*data = json_parse(o->raw, strlen(o->raw));
	if (cJSON_IsObject(*data) && is_theirs(o, *data))
		return OC_OK;
	json_free(*data);
	*data = NULL;
	return OC_DECRYPT_FAILED;
}

/* Under whichever of the keys opens it, the newest first. */
static enum outcome open_under_any(
	struct opening *o, const char *const *keys, size_t n, cJSON **data)
{
	enum outcome oc = o->raw ? OC_SIGNATURE_MISMATCH : OC_DECRYPT_FAILED;

	for (size_t i = 0; i < n && oc != OC_OK; i++) {
		enum outcome this = open_under(o, keys[i], data);

		/* one that got further says more */
		oc = this == OC_SIGNATURE_MISMATCH && i > 0 ? oc : this;
	}
	return oc;
}

/* The answer's text; frees data. */
static const char *print_data(struct arena *a, cJSON *data)
{
	/* the client has no business with the last two */
	static const char *const dropped[] = {"watermark", "openId", "unionId"};
	cJSON *answer = cJSON_CreateObject();
	const char *text;

	for (size_t i = 0; i < NELEM(dropped); i++)
		cJSON_DeleteItemFromObjectCaseSensitive(data, dropped[i]);
	cJSON_AddItemToObject(answer, "data", data);
	text = json_print(a, answer);
	json_free(answer);
	return text;
}

static void reply_opened(void *ctx, const struct session *ses)
{
	struct opening *o = ctx;

	(void)ses;
	if (o->oc == OC_OK)
		req_reply_json(o->req, 200, o->answer);
	else
		req_reply_outcome(o->req, o->oc);
}

static void on_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	struct opening *o = ctx;
	cJSON *data = NULL;

	if (oc == OC_OK) {
		o->oc = open_under_any(o, keys, n, &data);
		o->answer = data ? print_data(req_arena(o->req), data) : NULL;
		guard_still_lives(o->api, o->req, reply_opened, o);
	} else {
		req_reply_outcome(o->req, oc);
	}
	req_release(o->req);
}

static void on_session(void *ctx, const struct session *ses)
{
	struct opening *o = ctx;
	const char *wrong = read_body(o);

	if (wrong) {
		req_reply_error(
			o->req, &(struct req_error){.oc = OC_INVALID_REQUEST, .message = wrong});
		return;
	}
	o->appid = arena_strdup(req_arena(o->req), ses->appid);
	o->openid = arena_strdup(req_arena(o->req), ses->openid);
	if (!limit_user(o->api, o->req, "open_data_per_user", &o->api->open_data_per_user, o->appid,
		    o->openid))
		return;
	req_hold(o->req);
	session_keys(o->api->sessions, o->appid, o->openid, on_keys, o);
}

void open_data_handle(struct api *api, struct req *r)
{
	struct opening *o = arena_alloc(req_arena(r), sizeof(*o));

	o->api = api;
	o->req = r;
	guard_session(api, r, on_session, o);
}
