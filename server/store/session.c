/* Tokens, keys and values of sessions, and who waits for an answer about one. The layout:
 * session_create.lua. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "store/cache.h"
#include "store/session_private.h"

/* What each takes and answers: the .lua file of the name. */
static struct redis_script create_script = {.text =
#include "lua/session_create.h"
};
static struct redis_script trim_script = {.text =
#include "lua/session_trim.h"
};
static struct redis_script renew_script = {.text =
#include "lua/session_renew.h"
};

enum { FIELDS = 8, IP_MAX = 45, AGENT_MAX = 256, TRIMS_WAITED = 8, ASKS_MAX = 3 };

/* Two bytes from the user, so that one slot of a cluster holds all of a user's keys; thirty from
 * the system. */
static void token_make(char token[TOKEN_LEN + 1], const uint8_t tag[2])
{
	uint8_t raw[32];

	memcpy(raw, tag, 2);
	crypt_random(raw + 2, sizeof(raw) - 2);
	base64url_encode(token, raw, sizeof(raw));
	mem_wipe(raw, sizeof(raw));
}

void session_forget_id(struct sessions *s, const char *id)
{
	uint8_t raw[CACHE_ID_LEN];

	if (id && base64url_decode(raw, sizeof(raw), id, strlen(id)) == sizeof(raw))
		cache_drop(s->cache, raw);
}

/* A script's ids of what it ended or changed, from the i-th on. */
void session_forget_ids(struct sessions *s, const struct redisReply *reply, size_t i)
{
	for (; i < redis_reply_count(reply); i++)
		session_forget_id(s, redis_reply_str(redis_reply_at(reply, i), NULL));
}

/* ---- create ---- */

struct create {
	struct sessions *s;
	struct arena *arena;
	session_create_cb cb;
	void *ctx;
	struct user_names u;
	int64_t life_ms, created_ms;
	/* so far: where there were more sessions to end than one script may */
	int trims;
	char token[TOKEN_LEN + 1];
};

static void create_tell(struct create *c, enum outcome oc)
{
	session_create_cb cb = c->cb;

	c->cb = NULL;
	if (cb)
		cb(c->ctx, oc, oc == OC_OK ? c->token : NULL, c->life_ms / 1000, c->created_ms);
}

static void on_trimmed(void *ctx, enum outcome oc, const struct redisReply *reply);

static void trim(struct create *c)
{
	char most[12];

	snprintf(most, sizeof(most), "%d", c->s->max_per_user);
	const char *argv[] = {"1", c->u.n.index, c->u.n.session_base, c->u.name, most};
	redis_eval(c->s->redis, &trim_script, NELEM(argv), argv, NULL, on_trimmed, c);
}

/* The login need not wait for thousands. What remains where Redis failed is the next login's to
 * end. */
static void on_trimmed(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct create *c = ctx;
	int64_t more = 0;

	session_forget_ids(c->s, reply, 1);
	if (oc == OC_OK && redis_reply_int(redis_reply_at(reply, 0), &more) && more) {
		if (++c->trims == TRIMS_WAITED)
			create_tell(c, OC_OK);
		trim(c);
		return;
	}
	create_tell(c, OC_OK);
	arena_free(c->arena);
}

static enum outcome what_became(const struct redisReply *reply)
{
	const char *why = redis_reply_str(redis_reply_at(reply, 1), NULL);
	int64_t there = 0;

	if (redis_reply_int(redis_reply_at(reply, 0), &there) && there)
		return OC_OK;
	return why && !strcmp(why, "blocked") ? OC_USER_BLOCKED : OC_STORE_UNAVAILABLE;
}

static void on_created(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct create *c = ctx;
	int64_t more = 0;

	if (oc == OC_OK)
		oc = what_became(reply);
	redis_reply_int(redis_reply_at(reply, 2), &c->created_ms);
	session_forget_ids(c->s, reply, 3);
	if (oc == OC_OK && redis_reply_int(redis_reply_at(reply, 1), &more) && more) {
		trim(c);
		return;
	}
	create_tell(c, oc);
	arena_free(c->arena);
}

/* A field of a value: bounded, and free of what separates fields or lines. */
static char *field(struct arena *a, const char *s, size_t max)
{
	size_t n = strlen(s);
	char *f = arena_strndup(a, s, n < max ? n : max);

	for (char *p = f; *p; p++)
		if (*p == '|' || (unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	return f;
}

/* After its length in one byte: a sealed session_key is far shorter than 255. */
static struct sealed counted(struct arena *a, struct sealed key)
{
	char *bytes = arena_alloc(a, 1 + key.len);

	bytes[0] = (char)key.len;
	memcpy(bytes + 1, key.bytes, key.len);
	return (struct sealed){bytes, 1 + key.len, 1 + key.same};
}

void session_create(
	struct sessions *s, const struct session_login *in, session_create_cb cb, void *ctx)
{
	enum { KEY_ARG = 11 };
	struct arena *a = arena_new();
	struct create *c = arena_alloc(a, sizeof(*c));
	struct user_names *u = &c->u;
	struct token_names t;
	struct sealed key;
	char life[TEXT_INT_MAX], ttl[TEXT_INT_MAX], most[TEXT_INT_MAX];

	*c = (struct create){.s = s, .arena = a, .cb = cb, .ctx = ctx};
	c->life_ms = s->ttl_ms < s->max_age_ms ? s->ttl_ms : s->max_age_ms;
	user_names_make(s->prefix, in->appid, in->openid, u);
	token_make(c->token, u->tag);
	token_names_make(s->prefix, c->token, NULL, &t);
	key = counted(a, seal_text(s->seal, a, u->place, in->session_key));
	const char *argv[] = {
		"4",
		t.session,
		u->n.index,
		u->erasing,
		u->block,
		text_int(life, c->life_ms),
		s->ttl_ms > c->life_ms ? text_int(ttl, s->ttl_ms) : "",
		arena_join(a, in->appid, "|", in->openid, "|"),
		in->unionid,
		arena_join(a, "|", field(a, in->ip, IP_MAX), "|",
			field(a, in->user_agent, AGENT_MAX), "|"),
		text_int(most, s->max_per_user),
		key.bytes,
		key.bytes,
		u->name,
	};
	size_t len[NELEM(argv)];
	for (size_t i = 0; i < NELEM(argv); i++)
		len[i] = i == KEY_ARG ? key.len : i == KEY_ARG + 1 ? key.same : strlen(argv[i]);
	redis_eval(s->redis, &create_script, NELEM(argv), argv, len, on_created, c);
}

/* ---- values ---- */

/* Digits, or nothing for 0; never so much that a sum of two would not fit. */
static int64_t number(const char *digits)
{
	int64_t n = strtoll(digits, NULL, 10);

	return n < 0 ? 0 : n > INT64_MAX / 4 ? INT64_MAX / 4 : n;
}

/* Takes the text apart, in the arena; false when it is none of ours. The session_keys behind it are
 * nobody's business here. */
bool session_value_read(struct arena *a, const char *text, size_t len, struct value *v)
{
	char *f[FIELDS], *p = arena_strndup(a, text, len), *bar;
	int n = 0;

	for (; n < FIELDS && (bar = strchr(p, '|')); n++, p = bar + 1) {
		*bar = '\0';
		f[n] = p;
	}
	if (n != FIELDS)
		return false;
	v->created_ms = number(f[0]) - number(f[2]);
	v->seen_s = v->created_ms / 1000 + number(f[1]);
	v->appid = f[3];
	v->openid = f[4];
	v->unionid = f[5];
	v->ip = f[6];
	v->user_agent = f[7];
	return *v->appid && *v->openid;
}

static const char *reason_of(const char *tombstone)
{
	static const char *const reasons[] = {
		"logged_out", "revoked", "replaced", "blocked", "expired"};

	for (size_t i = 0; i < NELEM(reasons); i++)
		if (!strcmp(tombstone, reasons[i]))
			return reasons[i];
	return "unknown";
}

/* ---- get ---- */

struct waiter {
	struct waiter *next;
	session_get_cb cb;
	void *ctx;
};

struct get {
	struct sessions *s;
	struct arena *arena;
	struct token_names names;
	UT_hash_handle hh;
	bool     joinable;    /* in s->gets */
	bool     renew;       /* somebody wants it renewed */
	struct waiter *waiters;
	int      asks;        /* so far */
	int64_t  sent_ms;     /* when what is told of it was asked */
	int64_t  renew_sent_ms;
	struct cache_ticket ticket;
	struct value v;
	int64_t  left_ms;
	const char *reason;   /* why it does not live, or NULL */
	enum outcome oc;
	int      missing;     /* answers of the two */
	bool     is_nil;      /* there is no such session */
};

static void leave_gets(struct get *g)
{
	if (g->joinable)
		HASH_DEL(g->s->gets, g);
	g->joinable = false;
}

static void ask(struct get *g);

/* The one rule for which answer is too old: none is told that was asked for longer than
 * redis.timeout ago. The process may have stood still, with Redis' answer in its socket, while the
 * session was ended elsewhere. */
static bool is_too_old(const struct get *g)
{
	return clock_ms() - g->sent_ms >= g->s->timeout_ms;
}

static void get_end(struct get *g)
{
	struct arena *arena = g->arena;
	struct session ses = {.appid = g->v.appid,
		.openid = g->v.openid,
		.unionid = g->v.unionid,
		.created_at = g->v.created_ms / 1000,
		.created_ms = g->v.created_ms,
		.expires_in_s = g->left_ms / 1000};

	leave_gets(g);
	if (g->oc == OC_OK && !g->reason && is_too_old(g)) {
		if (g->asks < ASKS_MAX) {
			ask(g);
			return;
		}
		g->oc = OC_STORE_UNAVAILABLE;
	}
	if (g->oc == OC_OK && g->reason)
		g->oc = OC_INVALID_SESSION;
	for (struct waiter *w = g->waiters; w; w = w->next)
		w->cb(w->ctx, g->oc, g->oc == OC_OK ? &ses : NULL,
			g->oc == OC_INVALID_SESSION ? g->reason : NULL);
	arena_free(arena);
}

/* What stands in the session's place. */
static void take_value(struct get *g, const struct redisReply *reply)
{
	size_t len = 0;
	const char *text = redis_reply_str(reply, &len);

	if (!text) {
		g->reason = "unknown";
	} else if (text[0] == '!') {
		g->reason = reason_of(text + 1);
	} else if (!session_value_read(g->arena, text, len, &g->v)) {
		log_error("a session in redis cannot be read", LOG_STR("key", g->names.session));
		g->reason = "unknown";
	}
}

static void on_both(struct get *g);

/* The two answers may come in any order: in a cluster each finds its own way. */
static void one_more(struct get *g, enum outcome oc)
{
	leave_gets(g); /* who asks from now on wants to know how it is from now on */
	if (g->oc == OC_OK)
		g->oc = oc;
	if (--g->missing == 0)
		on_both(g);
}

static void on_value(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;

	if (oc == OC_OK)
		take_value(g, reply);
	g->is_nil = redis_reply_is_nil(reply);
	one_more(g, oc);
}

/* A session that is not there has left a mark when it was max_age that ended it. */
static void on_mark(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;

	g->oc = oc;
	if (oc == OC_OK && redis_reply_str(reply, NULL))
		g->reason = "expired";
	get_end(g);
}

static void ask_mark(struct get *g)
{
	const char *get[] = {"GET", g->names.mark};

	redis_command(g->s->redis, NELEM(get), get, NULL, on_mark, g);
}

/* A renewal that Redis refused (it is full, say) costs nothing but itself: the session lives, and
 * the next use renews it. */
static void on_renewed(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;
	int64_t life_ms;

	if (oc == OC_OK) {
		g->sent_ms = g->renew_sent_ms;
		if (redis_reply_int(reply, &life_ms))
			g->left_ms = life_ms;
		else
			take_value(g, reply); /* it ended meanwhile */
	}
	get_end(g);
}

static void renew(struct get *g)
{
	struct sessions *s = g->s;
	struct user_names u;

	user_names_make(s->prefix, g->v.appid, g->v.openid, &u);
	g->renew = false; /* once is enough, should the question be asked again */
	g->renew_sent_ms = clock_ms();
	const char *argv[] = {
		"2", g->names.session, g->names.n.index,
		arena_printf(g->arena, "%" PRId64, s->ttl_ms),
		arena_printf(g->arena, "%" PRId64, s->max_age_ms),
		g->names.id, g->names.n.session_base, u.name,
	};
	redis_eval(s->redis, &renew_script, NELEM(argv), argv, NULL, on_renewed, g);
}

/* What max_age left of it when its end was last moved. */
static int64_t left_by_max_age_ms(const struct get *g)
{
	return g->s->max_age_ms - (g->v.seen_s - g->v.created_ms / 1000) * 1000;
}

/* When a use should move the end: a tenth of ttl after it was last moved; at once where it is later
 * than the configuration now allows. */
static int64_t renewal_due_in_ms(const struct get *g)
{
	int64_t life_ms = left_by_max_age_ms(g);

	if (life_ms > g->s->ttl_ms)
		life_ms = g->s->ttl_ms;
	return g->left_ms > life_ms ? 0 : g->left_ms - life_ms + g->s->ttl_ms / 10;
}

static void remember(struct get *g)
{
	struct cached c = {
		.appid = g->v.appid, .openid = g->v.openid, .unionid = g->v.unionid,
		.created_at = g->v.created_ms,
		.end_ms = g->sent_ms + g->left_ms,
		.renew_ms = g->sent_ms + renewal_due_in_ms(g),
	};

	cache_keep(g->s->cache, g->names.id_raw, &g->ticket, &c);
}

static void on_ttl(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;

	if (!redis_reply_int(reply, &g->left_ms))
		g->left_ms = 0;
	one_more(g, oc);
}

static void on_both(struct get *g)
{
	if (g->oc == OC_OK && g->is_nil) {
		ask_mark(g);
		return;
	}
	if (g->oc != OC_OK || g->reason) {
		get_end(g);
		return;
	}
	if (g->left_ms <= 0) {
		g->reason = "unknown"; /* it ended between the two commands */
	} else if ((g->renew && renewal_due_in_ms(g) <= 0) ||
		   (g->left_ms > left_by_max_age_ms(g) && g->asks == 1)) {
		/* the latter: max_age was lowered, and holds at once, also for those who ask
		 * without renewing */
		renew(g);
		return;
	} else {
		remember(g);
	}
	get_end(g);
}

static void ask(struct get *g)
{
	struct sessions *s = g->s;
	const char *get[] = {"GET", g->names.session}, *pttl[] = {"PTTL", g->names.session};

	g->asks++;
	g->ticket = cache_ticket(s->cache, g->names.id_raw, g->names.session);
	g->sent_ms = clock_ms();
	g->missing = 2;
	g->oc = OC_OK;
	redis_command(s->redis, 2, get, NULL, on_value, g); /* both in one write */
	redis_command(s->redis, 2, pttl, NULL, on_ttl, g);
}

static struct get *get_start(struct sessions *s, const char *token, const uint8_t *id)
{
	struct arena *a = arena_new();
	struct get *g = arena_alloc(a, sizeof(*g));

	token_names_make(s->prefix, token, id, &g->names);
	g->s = s;
	g->arena = a;
	g->v = (struct value){.appid = "", .openid = "", .unionid = ""};
	g->joinable = true;
	HASH_ADD(hh, s->gets, names.id_raw, CACHE_ID_LEN, g);
	ask(g);
	return g;
}

void session_get(struct sessions *s, const char *token, bool renew_it, session_get_cb cb, void *ctx)
{
	uint8_t id[CACHE_ID_LEN];
	struct waiter *w;
	struct get *g;

	token_id(token, id);
	HASH_FIND(hh, s->gets, id, CACHE_ID_LEN, g);
	if (!g)
		g = get_start(s, token, id);
	g->renew |= renew_it;
	w = arena_alloc(g->arena, sizeof(*w));
	*w = (struct waiter){.next = g->waiters, .cb = cb, .ctx = ctx};
	g->waiters = w;
}

bool session_recall(struct sessions *s, const char *token, bool renew_it, struct session *ses)
{
	uint8_t id[CACHE_ID_LEN];
	int64_t now = clock_ms();
	struct cached c;

	if (!s->cache)
		return false;
	token_id(token, id);
	if (!cache_find(s->cache, id, &c) || (renew_it && now >= c.renew_ms))
		return false;
	*ses = (struct session){.appid = c.appid,
		.openid = c.openid,
		.unionid = c.unionid,
		.created_at = c.created_at / 1000,
		.created_ms = c.created_at,
		.expires_in_s = (c.end_ms - now) / 1000};
	return true;
}

/* ---- a user's place ---- */

void session_place(const struct sessions *s, const char *kind, const char *appid,
	const char *openid, struct session_place *out)
{
	struct user_names u;
	char tag[BASE64URL_LEN(2) + 1];

	user_names_make(s->prefix, appid, openid, &u);
	base64url_encode(tag, u.tag, sizeof(u.tag));
	text_join(out->key, sizeof(out->key), s->prefix, kind, ":{", tag, "}:", u.name);
	text_join(out->index, sizeof(out->index), u.n.index);
	text_join(out->base, sizeof(out->base), u.n.session_base);
	text_join(out->name, sizeof(out->name), u.name);
}

/* ---- */

struct sessions *sessions_new(struct redis *r, const struct sessions_options *o)
{
	struct sessions *s = mem_alloc(sizeof(*s));

	s->redis = r;
	s->cache = o->cache;
	s->prefix = mem_strdup(o->key_prefix);
	s->ttl_ms = o->ttl_ms;
	s->max_age_ms = o->max_age_ms;
	s->timeout_ms = o->timeout_ms;
	s->max_per_user = o->max_per_user > 0 ? o->max_per_user : SESSION_PER_USER_MAX;
	s->seal = o->seal;
	return s;
}

void sessions_free(struct sessions *s)
{
	if (!s)
		return;
	free(s->prefix);
	free(s);
}
