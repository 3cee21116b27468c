/* What values must be to each other. */
#include "config/private.h"

#include <stdlib.h>
#include <string.h>

#include "common/addr.h"
#include "common/ip.h"

#define LETTERS_DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
enum { APPID_LEN = 18, SECRET_LEN = 32, SECRET_MIN = 5, TOKEN_MAX = 4096, AES_KEY_LEN = 43 };

/* All addresses of one key are read into list. Port 0 would be a port that nobody knows, another
 * for each worker. */
static void check_addresses(
	struct reading *rd, const char *name, const struct config_list *l, struct addr *list)
{
	const char *where = reading_where(rd, "server", name);

	if (l->n == 0)
		reading_say(rd, true, where, "[server] %s is empty: give an address", name);
	for (size_t i = 0; i < l->n; i++)
		if (!addr_parse(&list[i], l->items[i]) ||
			(!addr_is_unix(&list[i]) && addr_port(&list[i]) == 0))
			reading_say(rd, true, where, "[server] %s = %s: must be " ADDR_SHAPE, name,
				l->items[i]);
}

static void check_clashes(struct reading *rd, const struct addr *list, size_t public, size_t n)
{
	char a[ADDR_TEXT_MAX], b[ADDR_TEXT_MAX];

	for (size_t i = 0; i < n; i++)
		for (size_t k = i + 1; k < n; k++)
			if (addr_clashes(&list[i], &list[k])) {
				const char *name = k < public ? "listen" : "internal_listen";

				addr_print(a, &list[i]);
				addr_print(b, &list[k]);
				reading_say(rd, true, reading_where(rd, "server", name),
					"[server] %s = %s: already taken by %s = %s", name, b,
					i < public ? "listen" : "internal_listen", a);
			}
}

static void check_listen(struct reading *rd)
{
	struct config *c = rd->c;
	size_t public = c->listen.n, n = public + c->internal_listen.n;
	struct addr *list = mem_alloc(sizeof(*list) * (n + 1));

	check_addresses(rd, "listen", &c->listen, list);
	check_addresses(rd, "internal_listen", &c->internal_listen, list + public);
	if (rd->ok)
		check_clashes(rd, list, public, n);
	for (size_t i = public; i < n && rd->ok; i++)
		if (!addr_is_local(&list[i]) && !*c->internal_token)
			reading_say(rd, true, reading_where(rd, "server", "internal_listen"),
				"[server] internal_listen = %s can be reached from other "
				"machines: set internal_token, or listen on 127.0.0.1 or a unix "
				"socket",
				c->internal_listen.items[i - public]);
	free(list);
}

/* It travels as a header's value: X-Internal-Token, or Bearer. */
static void check_internal_token(struct reading *rd)
{
	const char *where = reading_where(rd, "server", "internal_token"),
		   *token = rd->c->internal_token;
	size_t n = strlen(token);

	for (size_t i = 0; i < n; i++)
		if (token[i] <= ' ' || token[i] > '~') {
			reading_say(rd, true, where,
				"[server] internal_token: use only visible ASCII characters, "
				"without blanks");
			return;
		}
	if (n > TOKEN_MAX)
		reading_say(rd, true, where,
			"[server] internal_token: at most %d characters",
			TOKEN_MAX);
}

static void check_times(struct reading *rd)
{
	const struct config *c = rd->c;

	if (c->ttl_ms > c->max_age_ms)
		reading_say(rd, false, reading_where(rd, "session", "ttl"),
			"[session] ttl is longer than max_age: max_age ends every session first");
	if (c->wechat_connect_timeout_ms >= c->wechat_timeout_ms)
		reading_say(rd, false, reading_where(rd, "wechat", "connect_timeout"),
			"[wechat] connect_timeout is not below timeout: a host that cannot be "
			"reached leaves no time for the next host");
}

bool config_internal_is_local(const struct config *c)
{
	struct addr a;

	for (size_t i = 0; i < c->internal_listen.n; i++)
		if (!addr_parse(&a, c->internal_listen.items[i]) || !addr_is_local(&a))
			return false;
	return true;
}

static void check_proxy_network(struct reading *rd, const char *text)
{
	const char *where = reading_where(rd, "server", "trusted_proxies");
	struct ip_net net;

	if (!strcmp(text, "unix:"))
		return;
	if (!ip_net_parse(&net, text))
		reading_say(rd, true, where,
			"[server] trusted_proxies: %s is neither an address nor a network "
			"(10.0.0.0/8), nor unix:",
			text);
	else if (net.bits == 0 || (net.bits == 96 && ip_is_v4(&net.ip)))
		reading_say(rd, false, where,
			"[server] trusted_proxies: %s trusts everybody: any phone could claim "
			"any address",
			text);
}

static bool http_url_ok(const char *url)
{
	size_t skip = !strncmp(url, "https://", 8) ? 8 : !strncmp(url, "http://", 7) ? 7 : 0;
	const char *authority = url + skip;
	char *host = NULL;
	int64_t port;
	bool ok = skip && !strpbrk(url, " \t?#@\"\\") &&
		  url_host(authority, authority + strcspn(authority, "/"), &host, &port) && *host;

	free(host);
	return ok;
}

static bool url_is_loopback(const char *url)
{
	const char *host = strstr(url, "://") + 3;

	return !strncmp(host, "127.", 4) || !strncmp(host, "localhost", 9) ||
	       !strncmp(host, "[::1]", 5);
}

static void check_wechat_url(struct reading *rd, const char *name, char *url)
{
	size_t n = strlen(url);

	while (n && url[n - 1] == '/')
		url[--n] = '\0';
	if (!http_url_ok(url))
		reading_say(rd, true, reading_where(rd, "wechat", name),
			"[wechat] %s = %s: must be http(s)://host[:port]", name, url);
	else if (!strncmp(url, "http:", 5) && !url_is_loopback(url))
		reading_say(rd, false, reading_where(rd, "wechat", name),
			"[wechat] %s = %s: without TLS, AppSecrets and session_keys cross the "
			"network unencrypted",
			name, url);
}

static void check_lists(struct reading *rd)
{
	struct config *c = rd->c;

	for (size_t i = 0; i < c->trusted_proxies.n; i++)
		check_proxy_network(rd, c->trusted_proxies.items[i]);
	for (size_t i = 0; i < c->cors_origins.n; i++)
		if (!http_url_ok(c->cors_origins.items[i]) ||
			strchr(strstr(c->cors_origins.items[i], "://") + 3, '/'))
			reading_say(rd, true, reading_where(rd, "server", "cors_origins"),
				"[server] cors_origins: %s is not an origin (https://host[:port], "
				"no "
				"path)",
				c->cors_origins.items[i]);
	check_wechat_url(rd, "base_url", c->wechat_base_url);
	for (size_t i = 0; i < c->wechat_fallback_urls.n; i++)
		check_wechat_url(rd, "fallback_urls", c->wechat_fallback_urls.items[i]);
	if (strlen(c->redis_key_prefix) > 64 || strpbrk(c->redis_key_prefix, "{} \t\n*?[]"))
		reading_say(rd, true, reading_where(rd, "redis", "key_prefix"),
			"[redis] key_prefix: at most 64 characters, and no blank or { } * ? [ ]");
}

/* Where a key of an app stands; the section itself where it is not given. */
static const char *app_where(const struct target *t, const char *name)
{
	bool is_twin;
	const struct given *g = &t->given[key_find("app", name, &is_twin)];

	return g->where ? g->where : t->where;
}

static bool appid_ok(const char *appid)
{
	return strlen(appid) == APPID_LEN && !strncmp(appid, "wx", 2) &&
	       strspn(appid, LETTERS_DIGITS) == APPID_LEN;
}

/* WeChat makes AppSecrets of 32 hex digits; a stand-in for WeChat may have others. */
static void check_secret(struct reading *rd, const struct target *t, const char *secret)
{
	size_t n = strlen(secret);

	if (n < SECRET_MIN)
		reading_say(rd, true, app_where(t, "secret"),
			"[%s] secret: an AppSecret has 32 characters, this one %zu", t->section, n);
	else if (n != SECRET_LEN || strspn(secret, LETTERS_DIGITS) != n)
		reading_say(rd, false, app_where(t, "secret"),
			"[%s] secret: an AppSecret of WeChat has 32 letters and digits, this one "
			"has %zu characters%s",
			t->section, n,
			n == SECRET_LEN ? ", not all of them letters or digits" : "");
}

static bool header_can_carry(const char *token)
{
	size_t n = strlen(token);

	for (size_t i = 0; i < n; i++)
		if (token[i] <= ' ' || token[i] > '~')
			return false;
	return n <= TOKEN_MAX;
}

/* The values are not repeated: they are secrets. */
static void check_push(struct reading *rd, const struct target *t, const struct config_app *a)
{
	if (*a->push_aes_key && (strlen(a->push_aes_key) != AES_KEY_LEN ||
		strspn(a->push_aes_key, LETTERS_DIGITS "+/") != AES_KEY_LEN))
		reading_say(rd, true, app_where(t, "push_aes_key"),
			"[%s] push_aes_key: an EncodingAESKey has %d letters and digits",
			t->section, AES_KEY_LEN);
	if (*a->push_aes_key && !*a->push_token)
		reading_say(rd, true, app_where(t, "push_aes_key"),
			"[%s] push_aes_key needs push_token, the Token from the same page of "
			"WeChat's console", t->section);
	if (*a->push_token && !*a->push_aes_key)
		reading_say(rd, false, app_where(t, "push_token"),
			"[%s] push_aes_key is empty: messages from WeChat are forwarded to "
			"push_forward, "
			"but wxlogind acts on no event in them, because nothing proves what they "
			"say",
			t->section);
	if (*a->push_forward && !http_url_ok(a->push_forward) &&
		strncmp(a->push_forward, "unix:/", 6) != 0)
		reading_say(rd, true, app_where(t, "push_forward"),
			"[%s] push_forward: must be http(s)://host[:port][/path] or "
			"unix:/socket[:/path]", t->section);
	if (!header_can_carry(a->push_forward_token))
		reading_say(rd, true, app_where(t, "push_forward_token"),
			"[%s] push_forward_token: use only visible ASCII characters, "
			"without blanks", t->section);
}

static void check_apps(struct reading *rd)
{
	for (size_t i = 0; i < rd->app_count; i++) {
		const struct config_app *a = &rd->c->apps[i];
		const struct target *t = &rd->apps[i];

		if (!appid_ok(a->appid))
			reading_say(rd, true, t->where,
				"[%s]: an appid is wx and 16 letters or digits", t->section);
		if (a->secrets.n == 0 || a->secrets.n > CONFIG_APP_SECRETS_MAX)
			reading_say(rd, true, t->where,
				"[%s] needs secret or secret_file: its AppSecret from WeChat's "
				"console (while it is being changed: two, separated by a comma)",
				t->section);
		for (size_t k = 0; k < a->secrets.n; k++)
			check_secret(rd, t, a->secrets.items[k]);
		check_push(rd, t, a);
	}
	if (rd->app_count == 0)
		reading_say(rd, true, rd->file,
			"no app is configured: add a section [app wx...] with its secret, or set "
			"WXLOGIND_APPID and WXLOGIND_SECRET");
}

static void check_audit(struct reading *rd)
{
	const struct config *c = rd->c;

	if (*c->audit_file && *c->audit_file != '/')
		reading_say(rd, true, reading_where(rd, "audit", "file"),
			"[audit] file = %s: give a path that begins with /", c->audit_file);
	if (*c->audit_file && c->audit_openid == OPENID_HASH && c->encryption_key_count == 0)
		reading_say(rd, true, reading_where(rd, "audit", "openid"),
			"[audit] openid = hash needs [session] encryption_key: set one, or openid "
			"= clear");
}

void config_check(struct reading *rd)
{
	check_listen(rd);
	check_internal_token(rd);
	check_times(rd);
	check_lists(rd);
	check_redis_url(rd);
	check_proxy_url(rd);
	check_users_url(rd);
	check_apps(rd);
	check_audit(rd);
	if (rd->c->encryption_key_count == 0)
		reading_say(rd, false, reading_where(rd, "session", "encryption_key"),
			"[session] encryption_key is empty: session_keys are not encrypted in "
			"Redis");
}
