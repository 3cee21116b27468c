/* A session is one string under the hash of its token; a user is one set beside it, in the same slot. Every change of the two is
 * one script, so nobody ever sees half of it. Values are text, fields apart by '|':
 *
 *   session   a string: created(ms)|seen(s)|grace(ms)|appid|openid|unionid|ip|user agent     or, once it was ended,  !reason
 *   user      a sorted set, by the ms of Redis' clock: <session id>:<created> at the session's end; and without an end
 *             1<mark><session_key>, the newest, and 2<mark><session_key>, the one before
 *
 * The set costs a login O(log n) however many sessions a user has made, and the dead leave it by their score.
 * grace (ms) is what the key's TTL outlasts the session by: one that max_age cut short leaves the reason "expired" behind for
 * as long as it would have lived. */
#include "store/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/arena.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"

enum { USER_ID_LEN = 24, BASE_MAX = 128, KEY_MAX = 192, FIELDS = 8, IP_MAX = 45, AGENT_MAX = 256 };

struct sessions {
	struct redis *redis;
	char    *prefix;
	int64_t  ttl_ms, max_age_ms;
	int      max_per_user;
	uint8_t (*keys)[SEAL_KEY_LEN];
	size_t   key_count;
};

/* ---- scripts ---- */

/* now; end one session; sweep a user's dead ones out and move the user's own end to that of the longest session left. */
#define PRELUDE \
	"local t = redis.call('TIME') " \
	"local now = t[1] * 1000 + math.floor(t[2] / 1000) " \
	"local function bury(key, reason) " \
	"  local v = redis.call('GET', key) " \
	"  if not v or string.sub(v, 1, 1) == '!' then return end " \
	"  local grace = tonumber(string.match(v, '^%d+|%d+|(%d+)|')) or 0 " \
	"  local left = redis.call('PTTL', key) " \
	"  if left > grace then redis.call('SET', key, '!' .. reason, 'PX', left) end " \
	"end " \
	"local function tidy(user) " \
	"  redis.call('ZREMRANGEBYSCORE', user, '-inf', now) " \
	"  local last = redis.call('ZREVRANGEBYSCORE', user, '(+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2] " \
	"  if last then redis.call('PEXPIRE', user, last - now) else redis.call('DEL', user) end " \
	"end " \
	"local function user_of(value) " \
	"  local appid, openid = string.match(value, '^%d+|%d+|%d+|([^|]*)|([^|]*)|') " \
	"  return appid and string.sub(redis.sha1hex(appid .. ':' .. openid), 1, 24) " \
	"end "

/* KEYS session user; ARGV ttl max_age rest id base max_per_user mark session_key */
static const char create_script[] = PRELUDE
	"local user, ttl, max = KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[6]) "
	"local life = math.min(ttl, tonumber(ARGV[2])) "
	"tidy(user) "
	"for _, m in ipairs(redis.call('ZRANGEBYSCORE', user, '+inf', '+inf')) do "
	"  local newest = string.sub(m, 1, 1) == '1' "
	"  if string.sub(m, 2, 17) == ARGV[7] then redis.call('ZREM', user, m) "
	"  elseif newest then "
	"    redis.call('ZREM', user, m) "
	"    for _, o in ipairs(redis.call('ZRANGEBYSCORE', user, '+inf', '+inf')) do redis.call('ZREM', user, o) end "
	"    redis.call('ZADD', user, '+inf', '2' .. string.sub(m, 2)) "
	"    break "
	"  end "
	"end "
	"redis.call('ZADD', user, '+inf', '1' .. ARGV[7] .. ARGV[8]) "
	"if max > 0 then "
	"  local live = redis.call('ZRANGEBYSCORE', user, '-inf', '(+inf') "
	"  table.sort(live, function(a, b) return tonumber(string.sub(a, 24)) < tonumber(string.sub(b, 24)) end) "
	"  for i = 1, #live - max + 1 do "
	"    bury(ARGV[5] .. string.sub(live[i], 1, 22), 'replaced') "
	"    redis.call('ZREM', user, live[i]) "
	"  end "
	"end "
	"redis.call('SET', KEYS[1], string.format('%.0f|%d|%.0f|', now, t[1], ttl - life) .. ARGV[3], 'PX', ttl) "
	"redis.call('ZADD', user, now + life, string.format('%s:%.0f', ARGV[4], now)) "
	"tidy(user) "
	"return life";

/* KEYS session; ARGV ttl max_age id user-base. Returns what remains of the session, or 0 when it is no more. */
static const char renew_script[] = PRELUDE
	"local v = redis.call('GET', KEYS[1]) "
	"if not v then return 0 end "
	"local created, rest = string.match(v, '^(%d+)|%d+|%d+|(.*)$') "
	"if not created then return 0 end "
	"local ttl = tonumber(ARGV[1]) "
	"local life = math.min(ttl, created + tonumber(ARGV[2]) - now) "
	"if life <= 0 then return 0 end "
	"redis.call('SET', KEYS[1], string.format('%s|%d|%.0f|', created, t[1], ttl - life) .. rest, 'PX', ttl) "
	"local user = ARGV[4] .. user_of(v) "
	"redis.call('ZADD', user, 'XX', now + life, ARGV[3] .. ':' .. created) "
	"if redis.call('PTTL', user) < life then redis.call('PEXPIRE', user, life) end "
	"return life";

/* KEYS session; ARGV reason id user-base */
static const char end_script[] = PRELUDE
	"local v = redis.call('GET', KEYS[1]) "
	"local name = v and user_of(v) "
	"if not name then return 0 end "
	"bury(KEYS[1], ARGV[1]) "
	"local user = ARGV[3] .. name "
	"redis.call('ZREM', user, ARGV[2] .. ':' .. string.match(v, '^%d+')) "
	"tidy(user) "
	"return 1";

/* ---- names ---- */

struct names {
	char id[SESSION_ID_LEN + 1];
	char session[KEY_MAX];      /* the session's key */
	char session_base[BASE_MAX]; /* the same without the id */
	char user_base[BASE_MAX];   /* a user's key without its name */
};

bool session_token_ok(const char *token)
{
	uint8_t raw[32];
	bool ok = strnlen(token, TOKEN_LEN + 1) == TOKEN_LEN && base64url_decode(raw, sizeof(raw), token, TOKEN_LEN) == sizeof(raw);

	mem_wipe(raw, sizeof(raw));
	return ok;
}

static void names_make(const struct sessions *s, const char *token, struct names *n)
{
	uint8_t raw[32], hash[SHA256_LEN];
	char tag[BASE64URL_LEN(2) + 1];

	base64url_decode(raw, sizeof(raw), token, TOKEN_LEN);
	base64url_encode(tag, raw, 2);
	crypt_sha256(hash, token, TOKEN_LEN);
	base64url_encode(n->id, hash, 16);
	snprintf(n->session_base, sizeof(n->session_base), "%ss:{%s}:", s->prefix, tag);
	snprintf(n->session, sizeof(n->session), "%ss:{%s}:%s", s->prefix, tag, n->id);
	snprintf(n->user_base, sizeof(n->user_base), "%su:{%s}:", s->prefix, tag);
	mem_wipe(raw, sizeof(raw));
}

/* Two bytes from the user, so that one slot of a cluster holds all of a user's keys; thirty from the system. */
static void token_make(char token[TOKEN_LEN + 1], const char *user)
{
	uint8_t raw[32], hash[SHA256_LEN];

	crypt_sha256(hash, user, strlen(user));
	memcpy(raw, hash, 2);
	crypt_random(raw + 2, sizeof(raw) - 2);
	base64url_encode(token, raw, sizeof(raw));
	mem_wipe(raw, sizeof(raw));
}

static void user_key_make(char key[KEY_MAX], const struct names *n, const char *user)
{
	uint8_t hash[SHA1_LEN];
	char hex[2 * SHA1_LEN + 1];

	crypt_sha1(hash, user, strlen(user));
	hex_encode(hex, hash, sizeof(hash));
	hex[USER_ID_LEN] = '\0';
	snprintf(key, KEY_MAX, "%s%s", n->user_base, hex);
}

/* ---- session_key at rest ---- */

/* What a session_key is known by without being opened: a new login under the same one must not push out the one before. */
static void mark_make(const struct sessions *s, const char *session_key, char mark[17])
{
	static const uint8_t none[SEAL_KEY_LEN];
	uint8_t hash[SHA256_LEN];

	crypt_hmac_sha256(hash, s->key_count ? s->keys[0] : none, SEAL_KEY_LEN, session_key, strlen(session_key));
	hex_encode(mark, hash, 8);
}

/* As it came, or sealed and bound to its user's key. */
static char *session_key_seal(const struct sessions *s, struct arena *a, const char *user_key, const char *session_key)
{
	size_t n = strlen(session_key);
	uint8_t *sealed;
	char *text;

	if (s->key_count == 0)
		return arena_strdup(a, session_key);
	sealed = arena_alloc(a, n + SEAL_EXTRA);
	crypt_seal(sealed, s->keys[0], user_key, strlen(user_key), session_key, n);
	text = arena_alloc(a, BASE64URL_LEN(n + SEAL_EXTRA) + 3);
	text[0] = '~'; /* no base64 text begins so */
	base64url_encode(text + 1, sealed, n + SEAL_EXTRA);
	return text;
}

/* ---- create ---- */

struct create {
	struct arena *arena;
	session_create_cb cb;
	void *ctx;
	char token[TOKEN_LEN + 1];
};

static void on_created(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct create *c = ctx;
	struct arena *arena = c->arena;
	int64_t life_ms = 0;

	if (oc == OC_OK && (!redis_reply_int(reply, &life_ms) || life_ms <= 0))
		oc = OC_STORE_UNAVAILABLE;
	c->cb(c->ctx, oc, oc == OC_OK ? c->token : NULL, life_ms / 1000);
	arena_free(arena);
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

void session_create(struct sessions *s, const struct session_login *in, session_create_cb cb, void *ctx)
{
	struct arena *a = arena_new();
	struct create *c = arena_alloc(a, sizeof(*c));
	struct names n;
	char user_key[KEY_MAX], mark[17];
	const char *user = arena_printf(a, "%s:%s", in->appid, in->openid);

	c->arena = a;
	c->cb = cb;
	c->ctx = ctx;
	token_make(c->token, user);
	names_make(s, c->token, &n);
	user_key_make(user_key, &n, user);
	mark_make(s, in->session_key, mark);
	const char *argv[] = {
		"EVAL", create_script, "2", n.session, user_key,
		arena_printf(a, "%" PRId64, s->ttl_ms),
		arena_printf(a, "%" PRId64, s->max_age_ms),
		arena_printf(a, "%s|%s|%s|%s|%s", in->appid, in->openid, in->unionid, field(a, in->ip, IP_MAX),
			field(a, in->user_agent, AGENT_MAX)),
		n.id, n.session_base,
		arena_printf(a, "%d", s->max_per_user),
		mark, session_key_seal(s, a, user_key, in->session_key),
	};
	redis_command(s->redis, NELEM(argv), argv, NULL, on_created, c);
}

/* ---- get ---- */

struct get {
	struct sessions *s;
	struct arena *arena;
	struct names names;
	bool renew;
	session_get_cb cb;
	void *ctx;
	struct session ses;
	int64_t grace_ms;
	int64_t left_ms;
	const char *reason; /* why it does not live, or NULL */
	enum outcome oc;
};

static void get_end(struct get *g)
{
	struct arena *arena = g->arena;

	if (g->oc == OC_OK && g->reason)
		g->oc = OC_INVALID_SESSION;
	g->ses.expires_in_s = g->left_ms / 1000;
	g->cb(g->ctx, g->oc, g->oc == OC_OK ? &g->ses : NULL, g->oc == OC_INVALID_SESSION ? g->reason : NULL);
	arena_free(arena);
}

static const char *reason_of(const char *tombstone)
{
	static const char *const reasons[] = {"logged_out", "revoked", "replaced", "expired"};

	for (size_t i = 0; i < NELEM(reasons); i++)
		if (!strcmp(tombstone, reasons[i]))
			return reasons[i];
	return "unknown";
}

/* Splits the value into g->ses; false when it is none of ours. */
static bool read_value(struct get *g, const char *value, size_t len)
{
	char *f[FIELDS], *p = arena_strndup(g->arena, value, len), *bar;
	int n = 0;

	for (; n < FIELDS - 1 && (bar = strchr(p, '|')); n++, p = bar + 1) {
		*bar = '\0';
		f[n] = p;
	}
	f[n++] = p;
	if (n != FIELDS)
		return false;
	g->ses.created_at = strtoll(f[0], NULL, 10) / 1000;
	g->ses.seen_at = strtoll(f[1], NULL, 10);
	g->grace_ms = strtoll(f[2], NULL, 10);
	g->ses.appid = f[3];
	g->ses.openid = f[4];
	g->ses.unionid = f[5];
	g->ses.ip = f[6];
	g->ses.user_agent = f[7];
	memcpy(g->ses.id, g->names.id, sizeof(g->ses.id));
	return *f[3] && *f[4];
}

static void on_value(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;
	size_t len = 0;
	const char *v = redis_reply_str(reply, &len);

	g->oc = oc;
	if (oc != OC_OK)
		return;
	if (!v) {
		g->reason = "unknown";
	} else if (v[0] == '!') {
		g->reason = reason_of(v + 1);
	} else if (!read_value(g, v, len)) {
		log_error("a session in redis cannot be read", LOG_STR("key", g->names.session));
		g->reason = "unknown";
	}
}

static void on_renewed(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;
	int64_t life_ms;

	/* A renewal that failed costs nothing but itself: the session lives, and the next use renews it. */
	if (oc == OC_OK && redis_reply_int(reply, &life_ms) && life_ms > 0)
		g->left_ms = life_ms;
	get_end(g);
}

static void renew(struct get *g)
{
	struct sessions *s = g->s;
	const char *argv[] = {
		"EVAL", renew_script, "1", g->names.session,
		arena_printf(g->arena, "%" PRId64, s->ttl_ms),
		arena_printf(g->arena, "%" PRId64, s->max_age_ms),
		g->names.id, g->names.user_base,
	};

	redis_command(s->redis, NELEM(argv), argv, NULL, on_renewed, g);
}

static void on_ttl(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct get *g = ctx;
	int64_t pttl = 0;
	int64_t used_ms;

	if (g->oc == OC_OK && oc != OC_OK)
		g->oc = oc;
	if (g->oc != OC_OK || g->reason) {
		get_end(g);
		return;
	}
	redis_reply_int(reply, &pttl);
	g->left_ms = pttl - g->grace_ms;
	used_ms = g->s->ttl_ms - pttl; /* since the key's end was last moved */
	if (pttl <= 0)
		g->reason = "unknown"; /* it ended between the two commands */
	else if (g->left_ms <= 0)
		g->reason = "expired";
	else if (g->renew && used_ms > g->s->ttl_ms / 10) {
		renew(g);
		return;
	}
	get_end(g);
}

void session_get(struct sessions *s, const char *token, bool renew_it, session_get_cb cb, void *ctx)
{
	struct arena *a = arena_new();
	struct get *g = arena_alloc(a, sizeof(*g));
	const char *get[] = {"GET", g->names.session}, *pttl[] = {"PTTL", g->names.session};

	g->s = s;
	g->arena = a;
	g->renew = renew_it;
	g->cb = cb;
	g->ctx = ctx;
	names_make(s, token, &g->names);
	redis_command(s->redis, 2, get, NULL, on_value, g); /* both in one write; replies come in order */
	redis_command(s->redis, 2, pttl, NULL, on_ttl, g);
}

/* ---- end ---- */

struct end {
	session_done_cb cb;
	void *ctx;
};

static void on_ended(void *ctx, enum outcome oc, const struct redisReply *reply)
{
	struct end *e = ctx;

	(void)reply;
	e->cb(e->ctx, oc);
	free(e);
}

void session_end(struct sessions *s, const char *token, const char *reason, session_done_cb cb, void *ctx)
{
	struct end *e = mem_alloc(sizeof(*e));
	struct names n;

	*e = (struct end){.cb = cb, .ctx = ctx};
	names_make(s, token, &n);
	const char *argv[] = {"EVAL", end_script, "1", n.session, reason, n.id, n.user_base};
	redis_command(s->redis, NELEM(argv), argv, NULL, on_ended, e);
}

/* ---- */

struct sessions *sessions_new(struct redis *r, const struct sessions_options *o)
{
	struct sessions *s = mem_alloc(sizeof(*s));

	s->redis = r;
	s->prefix = mem_strdup(o->key_prefix);
	s->ttl_ms = o->ttl_ms;
	s->max_age_ms = o->max_age_ms;
	s->max_per_user = o->max_per_user;
	s->key_count = o->key_count;
	s->keys = mem_alloc(SEAL_KEY_LEN * (o->key_count + 1));
	if (o->key_count)
		memcpy(s->keys, o->keys, SEAL_KEY_LEN * o->key_count);
	return s;
}

void sessions_free(struct sessions *s)
{
	if (!s)
		return;
	mem_wipe(s->keys, SEAL_KEY_LEN * (s->key_count + 1));
	free(s->keys);
	free(s->prefix);
	free(s);
}
