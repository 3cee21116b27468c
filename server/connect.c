#include "connect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/addr.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/mem.h"
#include "options.h"
#include "wechat/errcode.h"

enum { INVALID_CODE = 40029, NAME_MAX_LEN = 256, REPLY_MAX = 64 * 1024 };

struct trial {
	const struct config *c;
	struct loop *loop;
	bool ok;
};

static void said(struct trial *t, bool ok, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void said(struct trial *t, bool ok, const char *what, const char *fmt, ...)
{
	va_list ap;

	printf("%s %s: ", ok ? "ok    " : "FAILED", what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	puts("");
	fflush(stdout);
	t->ok &= ok;
}

/* ---- addresses ---- */

static void try_address(struct trial *t, const char *key, const char *text)
{
	char what[NAME_MAX_LEN];
	struct addr a;
	int on = 1, fd;

	snprintf(what, sizeof(what), "%s %s", key, text);
	if (!addr_parse(&a, text) || addr_is_unix(&a)) {
		said(t, true, what, "not tried");
		return;
	}
	fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd >= 0 && a.sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (fd >= 0 && bind(fd, &a.sa, a.len) == 0)
		said(t, true, what, "can be bound");
	else if (errno == EADDRINUSE)
		said(t, true, what, "is in use");
	else
		said(t, false, what, "%s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void try_addresses(struct trial *t)
{
	for (size_t i = 0; i < t->c->listen.n; i++)
		try_address(t, "listen", t->c->listen.items[i]);
	for (size_t i = 0; i < t->c->internal_listen.n; i++)
		try_address(t, "internal_listen", t->c->internal_listen.items[i]);
}

/* ---- Redis ---- */

enum { LOOK_MS = 10, REDIS_TRIES = 3 }; /* it may be that a first server sends us to the next */

struct redis_trial {
	struct trial *t;
	struct redis *redis;
	struct timer *look;
	int64_t until_ms;
};

static void look_at_redis(void *ctx)
{
	struct redis_trial *r = ctx;

	if (redis_is_ready(r->redis) || clock_ms() >= r->until_ms)
		loop_stop(r->t->loop);
	else
		timer_start(r->look, LOOK_MS);
}

static void try_redis(struct trial *t)
{
	const struct config *c = t->c;
	struct redis_host hosts[CONFIG_REDIS_HOSTS_MAX];
	struct redis_options o = options_redis(c, hosts);
	struct redis_trial r = {.t = t, .until_ms = clock_ms() + REDIS_TRIES * c->redis_timeout_ms};
	char what[NAME_MAX_LEN];

	if (c->redis_path)
		snprintf(what, sizeof(what), "redis unix:%s, database %" PRId64, c->redis_path,
			c->redis_db);
	else
		snprintf(what, sizeof(what), "redis %s:%" PRId64 "%s, database %" PRId64,
			c->redis_hosts[0].host, c->redis_hosts[0].port,
			c->redis_host_count > 1 ? " and others" : "", c->redis_db);
	if (!options_redis_tls(c, &o.tls)) {
		said(t, false, what, "its certificate files cannot be used");
		return;
	}
	t->loop = loop_new();
	r.redis = redis_new(t->loop, &o);
	r.look = timer_new(t->loop, look_at_redis, &r);
	timer_start(r.look, LOOK_MS);
	loop_run(t->loop);
	if (redis_is_ready(r.redis))
		said(t, true, what, "answers");
	else
		said(t, false, what, "%s", redis_trouble(r.redis));
	timer_free(r.look);
	redis_free(r.redis);
	tls_free(o.tls);
	loop_free(t->loop);
}

/* ---- the user database ---- */

static void try_users(struct trial *t)
{
	struct user_db_options o = options_users(t->c);
	struct seal *seal = seal_new(
		(const uint8_t(*)[SEAL_KEY_LEN])t->c->encryption_keys, t->c->encryption_key_count);
	char what[NAME_MAX_LEN], answer[NAME_MAX_LEN];
	bool ok;

	o.seal = seal;
	ok = user_db_probe(&o, answer, sizeof(answer));
	seal_free(seal);
	if (!strcmp(o.scheme, "mysql"))
		snprintf(what, sizeof(what), "users mysql %s, database %s",
			o.path ? o.path : o.host, o.database);
	else
		snprintf(what, sizeof(what), "users %s %s", o.scheme, o.path ? o.path : "");
	said(t, ok, what, "%s", answer);
}

/* ---- WeChat ---- */

struct wechat_trial {
	struct trial *t;
	char what[NAME_MAX_LEN];
	bool reached; /* the host answered, whatever it was */
};

static void on_wechat(void *ctx, const struct fetch_reply *reply)
{
	struct wechat_trial *w = ctx;
	cJSON *tree = reply->result == FETCH_DONE ? json_parse(reply->body, reply->body_len) : NULL;
	int64_t errcode = 0;

	w->reached = reply->result == FETCH_DONE;
	if (!w->reached)
		said(w->t, false, w->what, "%s",
			reply->error && *reply->error ? reply->error : "no answer");
	else if (!tree || json_int(tree, "errcode", INT32_MIN, INT32_MAX, &errcode) != JSON_GOT)
		said(w->t, false, w->what,
			"HTTP %d and no answer of WeChat's: is a proxy or a filter in between?",
			reply->status);
	else if (errcode == INVALID_CODE)
		said(w->t, true, w->what,
			"takes appid and AppSecret, and refuses our impossible code (%d)",
			INVALID_CODE);
	else
		said(w->t, false, w->what, "%" PRId64 ", %s", errcode,
			errcode_find(API_JSCODE2SESSION, (int)errcode)->mend);
	json_free(tree);
	loop_stop(w->t->loop);
}

/* As a login asks; but no phone ever had this code. */
static bool ask_wechat(struct trial *t, struct fetch *fetch, const char *host, const char *appid,
	const char *secret, const char *which)
{
	struct wechat_trial w = {.t = t};
	struct buf url = {0};
	char *encoded = mem_alloc(3 * strlen(secret) + 1);

	percent_encode(encoded, secret, strlen(secret));
	buf_printf(&url, "%s/sns/jscode2session?appid=%s&secret=%s", host, appid, encoded);
	buf_str(&url, "&js_code=wxlogind-check&grant_type=authorization_code");
	snprintf(w.what, sizeof(w.what), "wechat %s, app %s%s", host, appid, which);
	fetch_start(fetch,
		&(struct fetch_request){
			.method = "GET", .url = url.data, .timeout_ms = t->c->wechat_timeout_ms},
		on_wechat, &w);
	loop_run(t->loop);
	buf_free(&url);
	mem_free_secret(encoded);
	return w.reached;
}

static void ask_host(struct trial *t, struct fetch *fetch, const char *host)
{
	bool reached = true;

	for (size_t a = 0; a < t->c->app_count && reached; a++) {
		const struct config_app *app = &t->c->apps[a];

		for (size_t s = 0; s < app->secrets.n && reached; s++)
			reached = ask_wechat(t, fetch, host, app->appid, app->secrets.items[s],
				s ? ", second secret" : "");
	}
}

static void try_wechat(struct trial *t)
{
	const struct fetch_options o = options_fetch(t->c, 1, 1, REPLY_MAX);
	struct fetch *fetch;

	t->loop = loop_new();
	fetch = fetch_new(t->loop, &o);
	ask_host(t, fetch, t->c->wechat_base_url);
	for (size_t i = 0; i < t->c->wechat_fallback_urls.n; i++)
		ask_host(t, fetch, t->c->wechat_fallback_urls.items[i]);
	fetch_free(fetch);
	loop_free(t->loop);
}

bool connect_all(const struct config *c)
{
	struct trial t = {.c = c, .ok = true};

	try_addresses(&t);
	try_redis(&t);
	try_users(&t);
	try_wechat(&t);
	return t.ok;
}
