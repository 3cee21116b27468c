#include "fake.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/mem.h"

static const char *const api_names[API_COUNT] = {
	[API_JSCODE2SESSION] = "jscode2session",
	[API_TOKEN] = "token",
	[API_STABLE_TOKEN] = "stable_token",
	[API_CHECKSESSION] = "checksession",
	[API_RESETUSERSESSIONKEY] = "resetusersessionkey",
	[API_GETUSERPHONENUMBER] = "getuserphonenumber",
	[API_GETUSERENCRYPTKEY] = "getuserencryptkey",
	[API_XPAY_BALANCE] = "query_user_balance",
	[API_XPAY_PAY] = "currency_pay",
	[API_XPAY_CANCEL] = "cancel_currency_pay",
	[API_OTHER] = "other",
};

const char *api_name(enum api api)
{
	return api_names[api];
}

bool api_by_name(const char *name, enum api *out)
{
	for (int i = 0; i < API_COUNT; i++) {
		if (!strcmp(name, api_names[i])) {
			*out = (enum api)i;
			return true;
		}
	}
	return false;
}

/* ---- tables ---- */

static size_t hash(const char *s)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a */

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 1099511628211u;
	return (size_t)(h ^ h >> 32);
}

void table_init(struct table *t, size_t max)
{
	*t = (struct table){.nslots = 1024, .max = max};
	t->slots = mem_alloc(t->nslots * sizeof(*t->slots));
}

static void table_grow(struct table *t)
{
	size_t n = t->nslots * 2;
	struct entry **slots = mem_alloc(n * sizeof(*slots));

	for (struct entry *e = t->oldest; e; e = e->newer) {
		size_t i = hash(e->key) & (n - 1);

		e->chain = slots[i];
		slots[i] = e;
	}
	free(t->slots);
	t->slots = slots;
	t->nslots = n;
}

static void table_forget_oldest(struct table *t)
{
	struct entry *e = t->oldest, **p = &t->slots[hash(e->key) & (t->nslots - 1)];

	while (*p != e)
		p = &(*p)->chain;
	*p = e->chain;
	t->oldest = e->newer;
	if (t->oldest)
		t->oldest->older = NULL;
	else
		t->newest = NULL;
	t->count--;
	free(e->key);
	free(e);
}

struct entry *table_find(const struct table *t, const char *key)
{
	struct entry *e = t->slots[hash(key) & (t->nslots - 1)];

	while (e && strcmp(e->key, key) != 0)
		e = e->chain;
	return e;
}

struct entry *table_add(struct table *t, const char *key, size_t size)
{
	struct entry *e = mem_alloc(size), **slot;

	if (t->count >= t->max)
		table_forget_oldest(t);
	if (t->count >= t->nslots)
		table_grow(t);
	e->key = mem_strdup(key);
	slot = &t->slots[hash(key) & (t->nslots - 1)];
	e->chain = *slot;
	*slot = e;
	e->older = t->newest;
	if (t->newest)
		t->newest->newer = e;
	else
		t->oldest = e;
	t->newest = e;
	t->count++;
	return e;
}

void table_free(struct table *t)
{
	while (t->oldest)
		table_forget_oldest(t);
	free(t->slots);
	t->slots = NULL;
}

/* ---- apps ---- */

void state_init(struct fake *f)
{
	table_init(&f->users, USERS_MAX);
	table_init(&f->codes, CODES_MAX);
	crypt_random(f->seed, sizeof(f->seed));
	f->token_life_s = 7200;
	f->rate_per_minute = USER_PER_MINUTE;
}

void state_free(struct fake *f)
{
	for (int i = 0; i < f->app_count; i++) {
		free(f->apps[i].appid);
		mem_free_secret(f->apps[i].secret);
	}
	table_free(&f->users);
	table_free(&f->codes);
}

bool state_add_app(struct fake *f, const char *appid, const char *secret)
{
	size_t n = strlen(appid);

	if (f->app_count == APPS_MAX || n < 1 || n > 64 || strlen(secret) < 1 ||
		strlen(secret) > 128 || state_app(f, appid))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)appid[i]))
			return false;
	f->apps[f->app_count].appid = mem_strdup(appid);
	f->apps[f->app_count++].secret = mem_strdup(secret);
	return true;
}

struct app *state_app(struct fake *f, const char *appid)
{
	for (int i = 0; i < f->app_count; i++)
		if (!strcmp(f->apps[i].appid, appid))
			return &f->apps[i];
	return NULL;
}

/* ---- users ---- */

bool openid_ok(const char *s)
{
	size_t n = strlen(s);

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && s[i] != '_' && s[i] != '-')
			return false;
	return n >= 1 && n <= OPENID_MAX;
}

static void id_from(char out[29], const uint8_t *bytes)
{
	char text[BASE64URL_LEN(SHA256_LEN) + 1];

	base64url_encode(text, bytes, SHA256_LEN);
	out[0] = 'o';
	memcpy(out + 1, text, 27);
	out[28] = 0;
}

void random_openid(char out[29])
{
	uint8_t b[SHA256_LEN];

	crypt_random(b, sizeof(b));
	id_from(out, b);
}

void openid_of_code(char out[29], const struct app *a, const char *code, size_t len)
{
	uint8_t h[SHA256_LEN];

	crypt_hmac_sha256(h, a->appid, strlen(a->appid), code, len);
	id_from(out, h);
}

void user_new_key(struct user *u)
{
	uint8_t b[16];

	crypt_random(b, sizeof(b));
	base64_encode(u->key, b, sizeof(b));
}

static void user_fill(const struct fake *f, struct user *u)
{
	const char *openid = user_openid(u);
	uint8_t h[SHA256_LEN];
	char id[29];

	crypt_hmac_sha256(h, f->seed, sizeof(f->seed), u->e.key, strlen(u->e.key));
	base64_encode(u->key, h, 16);
	snprintf(u->phone, sizeof(u->phone), "138%08u",
		(h[16] << 16 | h[17] << 8 | h[18]) % 100000000u);
	strcpy(u->country, "86");
	u->key_version = 3;
	u->balance = 1000;
	crypt_sha256(h, openid, strlen(openid));
	id_from(id, h);
	strcpy(u->unionid, id);
}

const char *user_openid(const struct user *u)
{
	return strchr(u->e.key, ' ') + 1;
}

struct user *user_get(struct fake *f, const struct app *a, const char *openid)
{
	char key[64 + 1 + OPENID_MAX + 1];
	struct user *u;

	snprintf(key, sizeof(key), "%s %s", a->appid, openid);
	u = (struct user *)table_find(&f->users, key);
	if (!u) {
		u = (struct user *)table_add(&f->users, key, sizeof(*u));
		user_fill(f, u);
	}
	return u;
}

struct user *user_find(struct fake *f, const struct app *a, const char *openid)
{
	/* A load test's users are as many as its codes, so they are worked out each time and kept
	 * nowhere. */
	static struct user passing;
	static char key[64 + 1 + OPENID_MAX + 1];
	struct user *u;

	snprintf(key, sizeof(key), "%s %s", a->appid, openid);
	u = (struct user *)table_find(&f->users, key);
	if (u || !f->any_code || !openid_ok(openid))
		return u;
	memset(&passing, 0, sizeof(passing));
	passing.e.key = key;
	user_fill(f, &passing);
	return &passing;
}

bool user_may_call(struct fake *f, struct user *u)
{
	int64_t minute = clock_ms() / 60000;

	if (f->any_code)
		return true;
	if (u->minute != minute) {
		u->minute = minute;
		u->minute_count = 0;
	}
	if (u->minute_count >= f->rate_per_minute)
		return false;
	u->minute_count++;
	return true;
}

/* ---- codes ---- */

static void code_text(char out[65], enum code_kind kind)
{
	static const char set[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	uint8_t b[32];

	crypt_random(b, sizeof(b));
	if (kind == CODE_PHONE) {
		hex_encode(out, b, sizeof(b));
		return;
	}
	for (int i = 0; i < 32; i++)
		out[i] = i ? set[b[i] % 62] : '0';
	out[32] = 0;
}

struct code *code_make(struct fake *f, struct app *a, const char *openid, enum code_kind kind)
{
	char text[65];
	struct code *c;
	struct user *u;

	u = user_get(f, a, openid);
	if (kind == CODE_LOGIN)
		u->alive = true;
	code_text(text, kind);
	c = (struct code *)table_add(&f->codes, text, sizeof(*c));
	c->kind = kind;
	c->app = a;
	c->made_ms = clock_ms();
	snprintf(c->openid, sizeof(c->openid), "%s", openid);
	return c;
}

enum code_state code_look(struct fake *f, const struct app *a, const char *text,
	enum code_kind kind, struct code **out)
{
	struct code *c = (struct code *)table_find(&f->codes, text);

	*out = c;
	if (!c || c->app != a || c->kind != kind)
		return CODE_UNKNOWN;
	/* also when it is past its time by now: which of the two WeChat says then is not known */
	if (c->used)
		return CODE_USED;
	return clock_ms() - c->made_ms >= CODE_LIFE_MS ? CODE_UNKNOWN : CODE_GOOD;
}

/* ---- access tokens ---- */

static bool token_is(const struct token *t, const char *text)
{
	return t->ends_ms && crypt_str_equal(t->text, text);
}

enum token_state token_look(struct fake *f, const char *text, struct app **app)
{
	int64_t now = clock_ms();

	for (int i = 0; i < f->app_count; i++) {
		const struct token_kind *kinds[] = {&f->apps[i].plain, &f->apps[i].stable};

		for (size_t k = 0; k < NELEM(kinds); k++) {
			const struct token *t = token_is(&kinds[k]->now, text) ? &kinds[k]->now
						: token_is(&kinds[k]->before, text)
							? &kinds[k]->before
							: NULL;
			if (!t)
				continue;
			*app = &f->apps[i];
			if (t->ends_ms > now)
				return TOKEN_GOOD;
			/* replaced long ago: "not latest" */
			return t == &kinds[k]->now ? TOKEN_EXPIRED : TOKEN_UNKNOWN;
		}
	}
	return TOKEN_UNKNOWN;
}

void token_renew(struct fake *f, struct token_kind *k, bool at_once)
{
	int64_t now = clock_ms();
	uint8_t b[99];
	int n;

	k->before = k->now;
	if (at_once)
		k->before.ends_ms = k->before.ends_ms ? 1 : 0;
	else if (k->before.ends_ms > now + OVERLAP_MS)
		k->before.ends_ms = now + OVERLAP_MS;
	crypt_random(b, sizeof(b));
	n = snprintf(k->now.text, sizeof(k->now.text), "%d_", 10 + b[0] % 90);
	base64url_encode(k->now.text + n, b, sizeof(b));
	k->now.ends_ms = now + f->token_life_s * 1000;
}

bool token_day_share(struct token_kind *k, int per_day)
{
	int64_t day = clock_wall_s() / 86400;

	if (k->day != day) {
		k->day = day;
		k->day_count = 0;
	}
	if (k->day_count >= per_day)
		return false;
	k->day_count++;
	return true;
}

void token_expire(struct app *a)
{
	struct token *all[] = {&a->plain.now, &a->plain.before, &a->stable.now, &a->stable.before};

	for (size_t i = 0; i < NELEM(all); i++)
		if (all[i]->ends_ms)
			all[i]->ends_ms = 1;
}
