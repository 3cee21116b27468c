/* What values must be to each other. */
#include "config/private.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/ip.h"

#define LETTERS_DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
enum { APPID_LEN = 18, SECRET_LEN = 32, SECRET_MIN = 5 };

static bool port_ok(const char *colon)
{
	char *end;
	long port = colon && isdigit((unsigned char)colon[1]) ? strtol(colon + 1, &end, 10) : -1;

	return port > 0 && port <= 65535 && !*end; /* 0 would be a port that nobody knows, another for each worker */
}

/* host:port with a numeric host or localhost, [v6]:port, unix:/path */
static bool address_ok(const char *addr, bool *is_local)
{
	const char *colon = strrchr(addr, ':');
	struct in6_addr v6;
	struct in_addr v4;
	char host[64];
	size_t n;

	*is_local = true;
	if (!strncmp(addr, "unix:", 5))
		return addr[5] == '/' && strlen(addr + 5) < 108;
	if (!port_ok(colon) || (n = (size_t)(colon - addr)) >= sizeof(host))
		return false;
	memcpy(host, addr, n);
	host[n] = '\0';
	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		*is_local = inet_pton(AF_INET6, host + 1, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
		return inet_pton(AF_INET6, host + 1, &v6) == 1;
	}
	if (!strcmp(host, "localhost"))
		return true;
	if (inet_pton(AF_INET, host, &v4) != 1)
		return false;
	*is_local = ntohl(v4.s_addr) >> 24 == 127;
	return true;
}

static void check_listen(struct reading *rd)
{
	struct config *c = rd->c;
	bool local;

	if (c->listen.n == 0 || c->internal_listen.n == 0)
		reading_say(rd, true, reading_where(rd, "server", c->listen.n ? "internal_listen" : "listen"), "[server] %s is empty: give an address",
			c->listen.n ? "internal_listen" : "listen");
	for (size_t i = 0; i < c->listen.n; i++)
		if (!address_ok(c->listen.items[i], &local))
			reading_say(rd, true, reading_where(rd, "server", "listen"), "[server] listen = %s: must be host:port with a numeric host, [v6]:port or unix:/path",
				c->listen.items[i]);
	for (size_t i = 0; i < c->internal_listen.n; i++) {
		if (!address_ok(c->internal_listen.items[i], &local))
			reading_say(rd, true, reading_where(rd, "server", "internal_listen"),
				"[server] internal_listen = %s: must be host:port with a numeric host, [v6]:port or unix:/path", c->internal_listen.items[i]);
		else if (!local && !*c->internal_token)
			reading_say(rd, true, reading_where(rd, "server", "internal_listen"),
				"[server] internal_listen = %s is open to others than this machine: set internal_token, or listen on 127.0.0.1 or a unix socket",
				c->internal_listen.items[i]);
	}
}

bool config_internal_is_local(const struct config *c)
{
	bool local;

	for (size_t i = 0; i < c->internal_listen.n; i++)
		if (!address_ok(c->internal_listen.items[i], &local) || !local)
			return false;
	return true;
}

static bool network_ok(const char *text)
{
	struct ip_net net;

	return !strcmp(text, "unix:") || ip_net_parse(&net, text);
}

static bool http_url_ok(const char *url)
{
	size_t skip = !strncmp(url, "https://", 8) ? 8 : !strncmp(url, "http://", 7) ? 7 : 0;

	return skip && url[skip] && url[skip] != '/' && !strpbrk(url, " \t?#@\"\\");
}

static bool url_is_loopback(const char *url)
{
	const char *host = strstr(url, "://") + 3;

	return !strncmp(host, "127.", 4) || !strncmp(host, "localhost", 9) || !strncmp(host, "[::1]", 5);
}

static void check_wechat_url(struct reading *rd, const char *name, char *url)
{
	size_t n = strlen(url);

	while (n && url[n - 1] == '/')
		url[--n] = '\0';
	if (!http_url_ok(url))
		reading_say(rd, true, reading_where(rd, "wechat", name), "[wechat] %s = %s: must be http(s)://host[:port]", name, url);
	else if (!strncmp(url, "http:", 5) && !url_is_loopback(url))
		reading_say(rd, false, reading_where(rd, "wechat", name), "[wechat] %s = %s: without TLS, AppSecrets and session_keys cross the network in the clear", name, url);
}

static void check_lists(struct reading *rd)
{
	struct config *c = rd->c;

	for (size_t i = 0; i < c->trusted_proxies.n; i++)
		if (!network_ok(c->trusted_proxies.items[i]))
			reading_say(rd, true, reading_where(rd, "server", "trusted_proxies"), "[server] trusted_proxies: %s is neither an address nor a network (10.0.0.0/8), nor unix:",
				c->trusted_proxies.items[i]);
	for (size_t i = 0; i < c->cors_origins.n; i++)
		if (!http_url_ok(c->cors_origins.items[i]) || strchr(strstr(c->cors_origins.items[i], "://") + 3, '/'))
			reading_say(rd, true, reading_where(rd, "server", "cors_origins"), "[server] cors_origins: %s is no origin (https://host[:port], no path)",
				c->cors_origins.items[i]);
	check_wechat_url(rd, "base_url", c->wechat_base_url);
	for (size_t i = 0; i < c->wechat_fallback_urls.n; i++)
		check_wechat_url(rd, "fallback_urls", c->wechat_fallback_urls.items[i]);
	if (strlen(c->redis_key_prefix) > 64 || strpbrk(c->redis_key_prefix, "{} \t\n*?[]"))
		reading_say(rd, true, reading_where(rd, "redis", "key_prefix"), "[redis] key_prefix: at most 64 characters, none of blank { } * ? [ ]");
}

static bool appid_ok(const char *appid)
{
	return strlen(appid) == APPID_LEN && !strncmp(appid, "wx", 2) && strspn(appid, LETTERS_DIGITS) == APPID_LEN;
}

/* WeChat makes AppSecrets of 32 hex digits; a stand-in for WeChat may have others. */
static void check_secret(struct reading *rd, const struct target *t, const char *secret)
{
	size_t n = strlen(secret);

	if (n < SECRET_MIN)
		reading_say(rd, true, t->where, "[%s] secret: an AppSecret has 32 characters, this one %zu", t->section, n);
	else if (n != SECRET_LEN || strspn(secret, LETTERS_DIGITS) != n)
		reading_say(rd, false, t->where, "[%s] secret: an AppSecret of WeChat has 32 letters and digits, this one has %zu characters%s", t->section, n,
			n == SECRET_LEN ? ", others among them" : "");
}

static void check_apps(struct reading *rd)
{
	for (size_t i = 0; i < rd->app_count; i++) {
		const struct config_app *a = &rd->c->apps[i];
		const struct target *t = &rd->apps[i];

		if (!appid_ok(a->appid))
			reading_say(rd, true, t->where, "[%s]: an appid is wx and 16 letters or digits", t->section);
		if (a->secrets.n == 0 || a->secrets.n > CONFIG_APP_SECRETS_MAX)
			reading_say(rd, true, t->where, "[%s] needs secret or secret_file: its AppSecret from WeChat's console; two by a comma while it is being changed",
				t->section);
		for (size_t k = 0; k < a->secrets.n; k++)
			check_secret(rd, t, a->secrets.items[k]);
	}
	if (rd->app_count == 0)
		reading_say(rd, true, rd->file, "no app is configured: add a section [app wx...] with its secret, or set WXLOGIND_APPID and WXLOGIND_SECRET");
}

void config_check(struct reading *rd)
{
	check_listen(rd);
	check_lists(rd);
	check_redis_url(rd);
	check_users_url(rd);
	check_apps(rd);
	if (rd->c->encryption_key_count == 0)
		reading_say(rd, false, reading_where(rd, "session", "encryption_key"), "[session] encryption_key is empty: session_keys are kept in Redis as they came");
}
