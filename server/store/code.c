/* Each change of a code's key looks before it writes, in one step, so a holder that comes back late
 * can spoil nothing. But a session is the truth whoever holds the claim by now: it is simply
 * written. */
#include "store/code.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypt.h"
#include "common/encode.h"
#include "common/mem.h"
#include "common/text.h"
#include "store/session.h"

enum { SET_NX_GET_SINCE = 7, LINGER_MS = 2000, SEALED_PLAIN = TOKEN_LEN + SHA256_LEN };

struct codes {
	struct redis *redis;
	char   *prefix;
	int64_t window_ms;
	struct hmac_key *label; /* keeps the key of what is sealed apart from the name in Redis */
};

static struct redis_script claim_script = {.text =
#include "lua/code_claim.h"
};
static struct redis_script settle_refusal_script = {.text =
#include "lua/code_settle_refusal.h"
};
static struct redis_script drop_script = {.text =
#include "lua/code_drop.h"
};

void code_claim_init(const struct codes *cs, struct code_claim *c, const char *appid,
	const char *code, const char *nonce)
{
	size_t appid_len = strlen(appid), code_len = strlen(code), n = appid_len + 1 + code_len;
	uint8_t hash[SHA256_LEN], salt[8];
	char name[BASE64URL_LEN(SHA256_LEN) + 1];
	char *both = mem_alloc(n + 1);

	memcpy(both, appid, appid_len + 1);
	memcpy(both + appid_len + 1, code, code_len);
	crypt_sha256(hash, both, n);
	base64url_encode(name, hash, sizeof(hash));
	text_join(c->key, sizeof(c->key), cs->prefix, "c:", name);
	crypt_hmac_keyed(c->seal_key, cs->label, both, n);
	mem_wipe(both, n);
	free(both);
	crypt_random(salt, sizeof(salt));
	c->holder[0] = 'w';
	hex_encode(c->holder + 1, salt, sizeof(salt));
	memset(c->nonce_hash, 0, sizeof(c->nonce_hash));
	if (nonce && *nonce)
		crypt_sha256(c->nonce_hash, nonce, strlen(nonce));
	c->looked = false;
}

/* false: not sealed by the same code, or for another nonce. */
static bool open_token(
	const struct code_claim *c, const char *text, size_t len, char token[TOKEN_LEN + 1])
{
	uint8_t sealed[SEALED_PLAIN + SEAL_EXTRA], plain[SEALED_PLAIN];
	ssize_t n = base64url_decode(sealed, sizeof(sealed), text, len);
	bool ok;

	if (n != (ssize_t)sizeof(sealed) ||
		crypt_open(plain, c->seal_key, c->key, strlen(c->key), sealed, sizeof(sealed)) < 0)
		return false;
	ok = crypt_equal(plain + TOKEN_LEN, c->nonce_hash, SHA256_LEN);
	memcpy(token, plain, TOKEN_LEN);
	token[TOKEN_LEN] = '\0';
	mem_wipe(plain, sizeof(plain));
	return ok && session_token_ok(token);
}

/* The refusals that are final for a code; by name, so that processes of two versions agree. */
static bool refusal_named(const char *name, enum outcome *oc)
{
	static const enum outcome final[] = {OC_INVALID_CODE, OC_USER_BLOCKED};

	for (size_t i = 0; i < NELEM(final); i++)
		if (!strcmp(name, outcome_code(final[i]))) {
			*oc = final[i];
			return true;
		}
	return false;
}

struct try {
	struct codes *cs;
	struct code_claim *claim;
	code_claim_cb cb;
	void *ctx;
};

static void read_claim(const struct try *t, const char *v, size_t len, struct claim_answer *ans,
	char token[TOKEN_LEN + 1])
{
	/* With a window of 0 the result stays in Redis for a short time, for the repeats that are
	 * already waiting. A login that finds it at its first try is refused. */
	bool late = t->cs->window_ms == 0 && !t->claim->looked;
	char refused[16];

	if (v[0] == 'w') {
		ans->state = strcmp(v, t->claim->holder) ? CLAIM_BUSY : CLAIM_MINE;
	} else if (v[0] == 'e' && sscanf(v, "e%15[a-z_]:%d", refused, &ans->errcode) == 2 &&
		   refusal_named(refused, &ans->refused)) {
		ans->state = CLAIM_REFUSED;
	} else if (v[0] == 's' && !late && open_token(t->claim, v + 1, len - 1, token)) {
		ans->state = CLAIM_SESSION;
		ans->token = token;
	} else {
		ans->state = CLAIM_SPENT;
	}
	t->claim->looked = true;
}

static void on_claim(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct try *t = ctx;
	struct claim_answer ans = {.state = CLAIM_MINE};
	char token[TOKEN_LEN + 1] = "";
	size_t len;
	const char *v = redis_reply_str(reply, &len);

	if (oc == OC_OK && v && len > 0)
		read_claim(t, v, len, &ans, token);
	t->cb(t->ctx, oc, oc == OC_OK ? &ans : NULL);
	mem_wipe(token, sizeof(token));
	free(t);
}

static void eval(struct codes *cs, struct redis_script *script, const struct code_claim *c,
	const char *a1, const char *a2, const char *a3, redis_cb cb, void *ctx)
{
	const char *argv[] = {"1", c->key, a1, a2, a3};

	redis_eval(cs->redis, script, a3 ? 5 : a2 ? 4 : 3, argv, NULL, cb, ctx);
}

void code_claim_try(
	struct codes *cs, struct code_claim *c, int64_t hold_ms, code_claim_cb cb, void *ctx)
{
	struct try *t = mem_alloc(sizeof(*t));
	char px[TEXT_INT_MAX];

	*t = (struct try){.cs = cs, .claim = c, .cb = cb, .ctx = ctx};
	const char *argv[] = {"SET", c->key, c->holder, "NX", "GET", "PX", text_int(px, hold_ms)};
	if (redis_major(cs->redis) >= SET_NX_GET_SINCE)
		redis_command(cs->redis, NELEM(argv), argv, NULL, on_claim, t);
	else
		/* the same, at three times the price */
		eval(cs, &claim_script, c, c->holder, argv[6], NULL, on_claim, t);
}

static void on_forgotten(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	(void)ctx, (void)oc, (void)reply; /* the key ends by itself */
}

static const char *linger(const struct codes *cs, char px[TEXT_INT_MAX])
{
	return text_int(px, cs->window_ms > 0 ? cs->window_ms : (int64_t)LINGER_MS);
}

void code_settle_session(struct codes *cs, const struct code_claim *c, const char *token)
{
	uint8_t plain[SEALED_PLAIN], sealed[SEALED_PLAIN + SEAL_EXTRA];
	char value[1 + BASE64URL_LEN(sizeof(sealed)) + 1] = "s", px[TEXT_INT_MAX];

	memcpy(plain, token, TOKEN_LEN);
	memcpy(plain + TOKEN_LEN, c->nonce_hash, SHA256_LEN);
	crypt_seal(sealed, c->seal_key, c->key, strlen(c->key), plain, sizeof(plain));
	mem_wipe(plain, sizeof(plain));
	base64url_encode(value + 1, sealed, sizeof(sealed));
	const char *argv[] = {"SET", c->key, value, "PX", linger(cs, px)};
	redis_command(cs->redis, NELEM(argv), argv, NULL, on_forgotten, NULL);
}

void code_settle_refusal(struct codes *cs, const struct code_claim *c, enum outcome oc, int errcode)
{
	char value[48], px[TEXT_INT_MAX];

	snprintf(value, sizeof(value), "e%s:%d", outcome_code(oc), errcode);
	eval(cs, &settle_refusal_script, c, value, linger(cs, px), c->holder, on_forgotten, NULL);
}

void code_drop(struct codes *cs, const struct code_claim *c)
{
	eval(cs, &drop_script, c, c->holder, NULL, NULL, on_forgotten, NULL);
}

struct codes *codes_new(struct redis *r, const struct codes_options *o)
{
	static const char label[] = "wxlogind: what became of a code";
	struct codes *cs = mem_alloc(sizeof(*cs));

	cs->redis = r;
	cs->prefix = mem_strdup(o->key_prefix);
	cs->window_ms = o->replay_window_ms;
	cs->label = crypt_hmac_key_new(label, sizeof(label) - 1);
	return cs;
}

void codes_free(struct codes *cs)
{
	if (!cs)
		return;
	crypt_hmac_key_free(cs->label);
	free(cs->prefix);
	free(cs);
}
