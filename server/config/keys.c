/* Everything that is true of one key stands in one row of the table: its section, name, type,
 * place, default, bounds, whether a reload applies it, and what it is for. Reading, the _file
 * twins, the environment's names, --check, redaction and the documents follow from it. */
#include "config/private.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* section, name, type, field of struct config, default, a sentence for the documents; then what
 * else holds: .min and .max of numbers (in the unit of the field), .words of a WORD, .reload = true
 * when a reload applies it. After a change: make docs. */
#define KEY(section_, name_, type_, field, default_, help_, ...) \
	{.section = #section_, .name = #name_, .full = #section_ "." #name_, \
	 .type = T_##type_, .fallback = default_, .help = help_, \
	 .offset = offsetof(struct config, field), ##__VA_ARGS__}

#define APP_KEY(name_, type_, field, help_, ...) \
	{.section = "app", .name = #name_, .full = "app." #name_, \
	 .type = T_##type_, .fallback = "", .help = help_, \
	 .offset = offsetof(struct config_app, field), .app = true, .reload = true, ##__VA_ARGS__}

const struct key key_table[] = {
	KEY(server, listen, LIST, listen, "0.0.0.0:8080",
		"Addresses that mini programs reach: host:port, [v6]:port or unix:/path."),
	KEY(server, internal_listen, LIST, internal_listen, "127.0.0.1:8081",
		"Addresses that only your own backends and proxies may reach."),
	KEY(server, internal_token, SECRET, internal_token, "",
		"Bearer token that every internal caller must send; required when internal_listen "
		"can be reached from other machines.",
		.reload = true),
	KEY(server, workers, INT, workers, "1",
		"Number of processes that share the listening ports; 0 = one per core.",
		.max = 256),
	KEY(server, max_connections, INT, max_connections, "20000",
		"Maximum number of connections of one worker; the public and the internal side "
		"are counted separately.",
		.min = 1, .max = 1000000, .reload = true),
	KEY(server, client_timeout, DURATION, client_timeout_ms, "15s",
		"Time limit for a whole request to arrive, and for an idle connection.", .min = 100,
		.max = DAY, .reload = true),
	KEY(server, max_body, SIZE, max_body, "64k", "Maximum size of a request body.", .min = 1024,
		.max = 1024 * 1024, .reload = true),
	KEY(server, trusted_proxies, LIST, trusted_proxies, "",
		"Addresses or networks of proxies whose X-Forwarded-For is believed; unix: stands "
		"for peers on a unix socket.",
		.reload = true),
	KEY(server, cors_origins, LIST, cors_origins, "",
		"Origins of web pages that may call the public side; empty = no CORS headers.",
		.reload = true),
	KEY(server, drain_timeout, DURATION, drain_timeout_ms, "30s",
		"How long SIGTERM waits for requests in flight.", .max = DAY, .reload = true),
	KEY(server, drain_delay, DURATION, drain_delay_ms, "0s",
		"After SIGTERM, how long the server goes on serving while /readyz answers 503, "
		"so that load balancers stop sending requests; drain_timeout begins after it.",
		.max = 3600000, .reload = true),
	KEY(server, unix_mode, MODE, unix_mode, "0660",
		"File mode of the unix sockets that the server listens on.", .max = 0777),
	KEY(server, unix_group, TEXT, unix_group, "",
		"Group of the unix sockets that the server listens on, as a name or a number; "
		"empty = the group of the process."),

	KEY(log, level, WORD, log_level, "info", "Log lines of this level and above are written.",
		.words = "debug info warn error", .reload = true),
	KEY(log, format, WORD, log_format, "logfmt",
		"Format of log lines, always on standard error.", .words = "logfmt json"),
	KEY(log, requests, WORD, log_requests, "all",
		"Which finished requests get a line: all, errors (status 400 and up) or none; "
		"health checks that succeed never get one.",
		.words = "all errors none", .reload = true),

	KEY(redis, url, TEXT, redis_url, "redis://127.0.0.1:6379/0",
		"Redis, where sessions are stored: redis://[user[:password]@]host:port/db, "
		"rediss:// (TLS), unix:///path?db=0, "
		"sentinel://[user[:password]@]h1:26379,h2:26379,h3:26379/mymaster or "
		"cluster://[user[:password]@]h1:6379,h2:6379. See redis.md."),
	KEY(redis, tls, BOOL, redis_tls, "no",
		"TLS for sentinel:// and cluster:// (to the sentinels too); rediss:// implies it."),
	KEY(redis, ca_file, PATH, redis_ca_file, "",
		"File of certificates that Redis' certificate must be signed by; empty = the "
		"system's."),
	KEY(redis, tls_name, TEXT, redis_tls_name, "",
		"Name that Redis' certificate must have, instead of the host that is connected "
		"to."),
	KEY(redis, cert_file, PATH, redis_cert_file, "",
		"Client certificate, if Redis asks for one."),
	KEY(redis, key_file, PATH, redis_key_file, "", "Private key of cert_file."),
	KEY(redis, sentinel_user, TEXT, redis_sentinel_user, "",
		"User for the sentinels, if they ask for one."),
	KEY(redis, sentinel_password, SECRET, redis_sentinel_password, "",
		"Password for the sentinels, if they ask for one."),
	KEY(redis, replicas, TEXT, redis_replicas_text, "",
		"How many replicas must have the end of a session before it is acknowledged; empty "
		"= 1 for sentinel:// and cluster://, else 0.",
		.reload = true),
	KEY(redis, password, SECRET, redis_password, "",
		"Password for Redis, instead of one in the URL."),
	KEY(redis, key_prefix, TEXT, redis_key_prefix, "wxlogin:", "Prefix of every key in Redis."),
	KEY(redis, timeout, DURATION, redis_timeout_ms, "500ms",
		"Time limit for one Redis command.", .min = 10, .max = 60000),

	KEY(session, ttl, DURATION, ttl_ms, "7d",
		"A session that is unused for this long ends; each use renews it.", .min = 1000,
		.max = 3650 * DAY),
	KEY(session, max_age, DURATION, max_age_ms, "30d",
		"A session older than this ends, used or not.", .min = 1000, .max = 3650 * DAY),
	KEY(session, max_per_user, INT, max_per_user, "0",
		"Maximum number of sessions of one user; a login that is one too many ends the "
		"oldest; 0 = 1000.",
		.max = 1000),
	KEY(session, replay_window, DURATION, replay_window_ms, "60s",
		"A code that is sent again this soon gets the same session; 0 = only simultaneous "
		"requests share one.",
		.max = 300000),
	KEY(session, encryption_key, KEYS, encryption_keys, "",
		"Keys that encrypt session_key in Redis and phone numbers in the user database "
		"(AES-256-GCM): the first writes, all read; empty = not encrypted."),
	KEY(session, cache_entries, INT, cache_entries, "100000",
		"Maximum number of sessions that a worker keeps in its memory; 0 = always ask "
		"Redis.",
		.max = 100000000),

	KEY(wechat, base_url, TEXT, wechat_base_url, "https://api.weixin.qq.com",
		"URL of WeChat's API."),
	KEY(wechat, fallback_urls, LIST, wechat_fallback_urls, "https://api2.weixin.qq.com",
		"URLs that are asked when base_url cannot be reached."),
	KEY(wechat, connect_timeout, DURATION, wechat_connect_timeout_ms, "1s",
		"Time limit for name lookup, TCP and TLS of one connection.", .min = 10,
		.max = 60000),
	KEY(wechat, timeout, DURATION, wechat_timeout_ms, "3s",
		"Time limit for the calls to WeChat of one login, retries included.", .min = 50,
		.max = 60000),
	KEY(wechat, max_connections, INT, wechat_max_connections, "64",
		"Maximum number of simultaneous login calls to WeChat.", .min = 1, .max = 4096),
	KEY(wechat, ca_file, PATH, wechat_ca_file, "",
		"File of certificates to trust; empty = the system's."),
	KEY(wechat, proxy, SECRET, wechat_proxy, "",
		"HTTP proxy for all calls to WeChat: http://[user:password@]host:port. "
		"HTTP(S)_PROXY in the environment is not used."),

	KEY(users, url, TEXT, users_url, "sqlite:///var/lib/wxlogind/users.db",
		"Where user profiles are stored: sqlite:///path, "
		"mysql://user[:password]@host[:port]/database (and ?tls=off, ?tls=on or "
		"?tls=verify) or none."),
	KEY(users, password, SECRET, users_password, "",
		"Password of the user database, instead of one in the URL."),
	KEY(users, ca_file, PATH, users_ca_file, "",
		"File of certificates to trust with tls=verify; empty = the system's."),

	KEY(limit, login_per_ip, RATE, login_per_ip, "600/1m",
		"Logins of one client address (IPv6: of one /64); 0 = no limit.", .reload = true),
	KEY(limit, login_per_48, RATE, login_per_48, "6000/1m",
		"Logins of one IPv6 /48; 0 = no limit.", .reload = true),
	KEY(limit, login_per_app, RATE, login_per_app, "0", "Logins of one app; 0 = no limit.",
		.reload = true),
	KEY(limit, phone_per_user, RATE, phone_per_user, "10/1m",
		"Phone number calls of one user; 0 = no limit.", .reload = true),
	KEY(limit, check_per_user, RATE, check_per_user, "10/1m",
		"GET /v1/session?check=wechat calls of one user; 0 = no limit.", .reload = true),
	KEY(limit, open_data_per_user, RATE, open_data_per_user, "60/1m",
		"Open data calls of one user; 0 = no limit.", .reload = true),

	KEY(audit, file, TEXT, audit_file, "",
		"File of the audit log: one JSON line an event; empty = no audit log."),
	KEY(audit, openid, WORD, audit_openid, "hash",
		"How users are named in the audit log: hash (needs encryption_key) or clear.",
		.words = "hash clear"),

	APP_KEY(secret, SECRETS, secrets,
		"AppSecret from WeChat's console. While it is being changed, give two, separated "
		"by a comma: the second is used when WeChat refuses the first."),
	APP_KEY(push_token, SECRET, push_token,
		"Token from WeChat's console under message push; empty = no /v1/push/{appid}."),
	APP_KEY(push_aes_key, SECRET, push_aes_key,
		"EncodingAESKey from WeChat's console: 43 characters. Without it no event is "
		"carried out, because the signature of a plain message does not cover the "
		"message."),
	APP_KEY(push_forward, SECRET, push_forward,
		"Address of your backend: every message is sent there, decrypted. http://, "
		"https:// or unix:/socket[:/path]."),
	APP_KEY(push_forward_token, SECRET, push_forward_token,
		"Bearer token that is sent to push_forward."),
};
const size_t key_count = NELEM(key_table);

bool key_is_secret(const struct key *k)
{
	return k->type == T_SECRET || k->type == T_SECRETS || k->type == T_KEYS;
}

bool key_is_list(const struct key *k)
{
	return k->type == T_LIST || k->type == T_SECRETS || k->type == T_KEYS;
}

int key_find(const char *section, const char *name, bool *is_twin)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < key_count; i++) {
		const struct key *k = &key_table[i];
		size_t len = strlen(k->name);

		if (strcmp(k->section, section))
			continue;
		*is_twin = key_is_secret(k) && n == len + 5 && !memcmp(name, k->name, len) &&
			   !strcmp(name + len, "_file");
		if (*is_twin || !strcmp(name, k->name))
			return (int)i;
	}
	return -1;
}

void key_variable(char out[ENV_NAME_MAX], const struct key *k)
{
	snprintf(out, ENV_NAME_MAX, k->app ? "WXLOGIND%.0s_%s" : "WXLOGIND_%s_%s", k->section,
		k->name);
	for (char *p = out; *p; p++)
		*p = (char)toupper((unsigned char)*p);
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < key_count; i++) {
		const struct key *k = &key_table[i];

		if (!k->app)
			value_free(k, (char *)c + k->offset);
		else
			for (size_t a = 0; a < c->app_count; a++)
				value_free(k, (char *)&c->apps[a] + k->offset);
	}
	for (size_t i = 0; i < c->redis_host_count; i++)
		free(c->redis_hosts[i].host);
	free(c->redis_master_name);
	free(c->redis_path);
	free(c->redis_user);
	free(c->users_path);
	free(c->users_host);
	free(c->users_user);
	free(c->users_database);
	if (c->encryption_keys)
		mem_wipe(c->encryption_keys, sizeof(*c->encryption_keys) * c->encryption_key_count);
	free(c->encryption_keys);
	for (size_t a = 0; a < c->app_count; a++)
		free(c->apps[a].appid);
	free(c->apps);
	free(c);
}

size_t config_changed(
	const struct config *a, const struct config *b, const char **names, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < key_count && n < max; i++)
		if (!key_table[i].reload && !key_table[i].app && !value_same(&key_table[i], a, b))
			names[n++] = key_table[i].full;
	return n;
}
