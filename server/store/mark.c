#include "store/mark.h"

#include <stdlib.h>
#include <string.h>

#include "common/crypt.h"
#include "common/encode.h"
#include "common/mem.h"
#include "common/text.h"

static struct redis_script claim_script = {.text =
#include "lua/code_claim.h"
};
static struct redis_script settle_script = {.text =
#include "lua/code_settle_refusal.h"
};
static struct redis_script drop_script = {.text =
#include "lua/code_drop.h"
};

struct marks {
	struct redis *redis;
	char *prefix;
};

void mark_init(const struct marks *ms, struct mark *m, const void *what, size_t len)
{
	char name[BASE64URL_LEN(SHA256_LEN) + 1];
	uint8_t hash[SHA256_LEN], salt[8];

	crypt_sha256(hash, what, len);
	base64url_encode(name, hash, sizeof(hash));
	text_join(m->key, sizeof(m->key), ms->prefix, "p:", name, NULL);
	crypt_random(salt, sizeof(salt));
	m->holder[0] = 'w';
	hex_encode(m->holder + 1, salt, sizeof(salt));
}

struct try {
	const struct mark *mark;
	mark_cb cb;
	void *ctx;
};

static void on_try(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct try *t = ctx;
	const char *v = redis_reply_str(reply, NULL);
	enum mark_state state = !v ? MARK_MINE : *v == 'd' ? MARK_DONE : MARK_BUSY;

	t->cb(t->ctx, oc, state);
	free(t);
}

void mark_try(struct marks *ms, const struct mark *m, mark_cb cb, void *ctx)
{
	struct try *t = mem_alloc(sizeof(*t));
	char ms_text[TEXT_INT_MAX];
	const char *argv[] = {"1", m->key, m->holder, text_int(ms_text, MARK_CLAIM_MS)};

	*t = (struct try){m, cb, ctx};
	redis_eval(ms->redis, &claim_script, NELEM(argv), argv, NULL, on_try, t);
}

static void on_nothing(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	(void)ctx, (void)oc, (void)reply;
}

void mark_settle(struct marks *ms, const struct mark *m, bool done)
{
	char ms_text[TEXT_INT_MAX];
	const char *settle[] = {"1", m->key, "d", text_int(ms_text, MARK_DONE_MS), m->holder};
	const char *drop[] = {"1", m->key, m->holder};

	if (done)
		redis_eval(
			ms->redis, &settle_script, NELEM(settle), settle, NULL, on_nothing, NULL);
	else
		redis_eval(ms->redis, &drop_script, NELEM(drop), drop, NULL, on_nothing, NULL);
}

struct marks *marks_new(struct redis *r, const char *key_prefix)
{
	struct marks *ms = mem_alloc(sizeof(*ms));

	*ms = (struct marks){r, mem_strdup(key_prefix)};
	return ms;
}

void marks_free(struct marks *ms)
{
	if (ms)
		free(ms->prefix);
	free(ms);
}
