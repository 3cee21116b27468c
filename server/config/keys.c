/* Everything that is true of one key stands in one row of the table: its section, name, type, place, default, bounds, whether a
 * reload applies it, and what it is for. Reading, the _file twins, the environment's names, --check and redaction follow from it. */
#include "config/private.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { RELOAD = 1 };

#define KEY(section, name, type, field, fallback, min, max, flags, help) \
	{#section, #name, type, offsetof(struct config, field), fallback, min, max, flags, help, #section "." #name}

const struct key key_table[] = {
	KEY(server, listen, T_LIST, listen, "0.0.0.0:8080", 0, 0, 0, "what mini programs reach"),
	KEY(server, internal_listen, T_LIST, internal_listen, "127.0.0.1:8081", 0, 0, 0, "what only your own backends and proxies may reach"),
	KEY(server, internal_token, T_SECRET, internal_token, "", 0, 0, RELOAD, "bearer token asked of every internal caller"),
	KEY(server, workers, T_INT, workers, "1", 0, 256, 0, "processes that share the listening ports; 0 = one per core"),
	KEY(server, max_connections, T_INT, max_connections, "20000", 1, 1000000, RELOAD, "per worker, public and internal counted apart"),
	KEY(server, client_timeout, T_DURATION, client_timeout_ms, "15s", 100, DAY, RELOAD, "for a whole request to arrive, and for an idle connection"),
	KEY(server, max_body, T_SIZE, max_body, "64k", 1024, 1024 * 1024, RELOAD, "bytes of a request's body"),
	KEY(server, trusted_proxies, T_LIST, trusted_proxies, "", 0, 0, RELOAD, "addresses or networks whose X-Forwarded-For is believed"),
	KEY(server, cors_origins, T_LIST, cors_origins, "", 0, 0, RELOAD, "origins of web pages that may call"),
	KEY(server, drain_timeout, T_DURATION, drain_timeout_ms, "30s", 0, DAY, RELOAD, "how long SIGTERM waits for what is in flight"),
	KEY(log, level, T_LEVEL, log_level, "info", 0, 0, RELOAD, "debug info warn error"),
	KEY(log, format, T_FORMAT, log_format, "logfmt", 0, 0, 0, "logfmt or json"),
	KEY(redis, url, T_TEXT, redis_url, "redis://127.0.0.1:6379/0", 0, 0, 0, "where sessions are kept"),
	KEY(redis, password, T_SECRET, redis_password, "", 0, 0, 0, "instead of one in the URL"),
	KEY(redis, key_prefix, T_TEXT, redis_key_prefix, "wxlogin:", 0, 0, 0, "before every key"),
	KEY(redis, timeout, T_DURATION, redis_timeout_ms, "500ms", 10, 60000, 0, "for one command"),
	KEY(session, ttl, T_DURATION, ttl_ms, "7d", 1000, 3650 * DAY, 0, "a session unused this long ends"),
	KEY(session, max_age, T_DURATION, max_age_ms, "30d", 1000, 3650 * DAY, 0, "a session older than this ends"),
	KEY(session, max_per_user, T_INT, max_per_user, "0", 0, 1000, 0, "sessions of one user; 0 = any number"),
	KEY(session, replay_window, T_DURATION, replay_window_ms, "60s", 0, 300000, 0, "the same code again this soon gets the same session"),
	KEY(session, encryption_key, T_KEYS, encryption_keys, "", 0, 0, 0, "session_key is kept under AES-256-GCM"),
	KEY(session, cache_entries, T_INT, cache_entries, "100000", 0, 100000000, 0, "sessions answered for without asking Redis"),
	KEY(wechat, base_url, T_TEXT, wechat_base_url, "https://api.weixin.qq.com", 0, 0, 0, "WeChat's host"),
	KEY(wechat, fallback_urls, T_LIST, wechat_fallback_urls, "https://api2.weixin.qq.com", 0, 0, 0, "asked when it cannot be reached"),
	KEY(wechat, connect_timeout, T_DURATION, wechat_connect_timeout_ms, "1s", 10, 60000, 0, "name, TCP and TLS"),
	KEY(wechat, timeout, T_DURATION, wechat_timeout_ms, "3s", 50, 60000, 0, "for one login's whole talk with WeChat, retries included"),
	KEY(wechat, max_connections, T_INT, wechat_max_connections, "64", 1, 4096, 0, "calls at once"),
	KEY(wechat, ca_file, T_TEXT, wechat_ca_file, "", 0, 0, 0, "certificates to trust; empty = the system's"),
	KEY(users, url, T_TEXT, users_url, "sqlite:///var/lib/wxlogind/users.db", 0, 0, 0, "where profiles are kept"),
	KEY(users, password, T_SECRET, users_password, "", 0, 0, 0, "instead of one in the URL"),
	KEY(limit, login_per_ip, T_RATE, login_per_ip, "120/1m", 0, 0, RELOAD, "logins of one client address; 0 = no limit"),
	KEY(limit, login_per_app, T_RATE, login_per_app, "0", 0, 0, RELOAD, "logins of one app; 0 = no limit"),
};
const size_t key_count = NELEM(key_table);

bool key_is_secret(const struct key *k)
{
	return k->type == T_SECRET || k->type == T_KEYS;
}

/* The key of that name, its _file twin too; -1 when there is none. */
int key_find(const char *section, const char *name, bool *from_file)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < key_count; i++) {
		size_t len = strlen(key_table[i].name);

		if (strcmp(key_table[i].section, section))
			continue;
		*from_file = key_is_secret(&key_table[i]) && n == len + 5 && !memcmp(name, key_table[i].name, len) && !strcmp(name + len, "_file");
		if (*from_file || !strcmp(name, key_table[i].name))
			return (int)i;
	}
	return -1;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < key_count; i++) {
		void *at = (char *)c + key_table[i].offset;

		if (key_table[i].type == T_TEXT || key_table[i].type == T_SECRET)
			mem_free_secret(*(char **)at);
		else if (key_table[i].type == T_LIST)
			value_list_free(at);
	}
	free(c->redis_host);
	free(c->redis_path);
	free(c->redis_user);
	free(c->users_path);
	free(c->users_host);
	free(c->users_user);
	free(c->users_database);
	if (c->encryption_keys)
		mem_wipe(c->encryption_keys, sizeof(*c->encryption_keys) * c->encryption_key_count);
	free(c->encryption_keys);
	for (size_t i = 0; i < c->app_count; i++) {
		free(c->apps[i].appid);
		for (size_t k = 0; k < CONFIG_APP_SECRETS_MAX; k++)
			mem_free_secret(c->apps[i].secrets[k]);
	}
	free(c->apps);
	free(c);
}

size_t config_changed(const struct config *a, const struct config *b, const char **names, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < key_count && n < max; i++)
		if (!(key_table[i].flags & RELOAD) && !value_same(&key_table[i], a, b))
			names[n++] = key_table[i].full;
	return n;
}
