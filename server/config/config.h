/* The configuration: one const table of keys (keys.c) -> struct config. Only main and app see this
 * struct; lower rooms take small options structs of their own. Read from an INI file, then
 * overridden by the environment. */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/log.h"

#define CONFIG_APP_SECRETS_MAX 2 /* while an AppSecret is being changed */

struct config_list { /* items[n] is NULL */
	char **items;
	size_t n;
};

struct config_app {
	char *appid;
	struct config_list secrets; /* one or two, tried in order on 40125 */
	char *push_token, *push_aes_key, *push_forward, *push_forward_token; /* "" = none */
};

struct config_rate { /* count per period, 0 = no limit */
	int64_t count;
	int64_t period_ms;
};

enum { CONFIG_REDIS_HOSTS_MAX = 32 };

struct config {
	/* [server] */
	struct config_list listen;          /* "host:port", "[v6]:port", "unix:/path" */
	struct config_list internal_listen;
	char   *internal_token;             /* "" = none */
	int64_t workers;                    /* 0 = one per core */
	int64_t max_connections;
	int64_t client_timeout_ms;
	int64_t max_body;
	struct config_list trusted_proxies; /* addresses or networks, checked */
	struct config_list cors_origins;
	int64_t drain_timeout_ms, drain_delay_ms;
	int64_t unix_mode;
	char   *unix_group;                 /* "" = the process's own */
	/* [log] */
	enum log_level  log_level;
	enum log_format log_format;
	enum log_requests log_requests;
	/* [redis]; the URL's parts are here too */
	char   *redis_url;
	char   *redis_password;             /* from the key, else from the URL, else "" */
	enum { CONFIG_REDIS_ONE, CONFIG_REDIS_SENTINEL, CONFIG_REDIS_CLUSTER } redis_kind;
	struct config_host { char *host; int64_t port; } redis_hosts[CONFIG_REDIS_HOSTS_MAX];
	size_t  redis_host_count;           /* 0: redis_path */
	char   *redis_path, *redis_user;
	char   *redis_master_name;          /* sentinel:// */
	bool    redis_proof_master;         /* ?proof=master */
	int64_t redis_db;
	bool    redis_tls;                  /* or implied by rediss:// */
	char   *redis_ca_file, *redis_tls_name, *redis_cert_file, *redis_key_file;
	char   *redis_sentinel_user, *redis_sentinel_password;
	char   *redis_replicas_text;
	int64_t redis_replicas;
	char   *redis_key_prefix;
	int64_t redis_timeout_ms;
	/* [session] */
	int64_t ttl_ms, max_age_ms;
	int64_t max_per_user;
	int64_t replay_window_ms;
	uint8_t (*encryption_keys)[32];     /* the first writes, all read */
	size_t  encryption_key_count;
	int64_t cache_entries;
	/* [wechat] */
	char   *wechat_base_url;            /* without a slash at the end */
	struct config_list wechat_fallback_urls;
	int64_t wechat_connect_timeout_ms, wechat_timeout_ms;
	int64_t wechat_max_connections;
	char   *wechat_ca_file;
	char   *wechat_proxy;               /* secret: it may hold a password */
	/* [users]; the URL's parts are here too */
	char   *users_url;
	char   *users_password;             /* from the key, else from the URL, else "" */
	const char *users_scheme;           /* "sqlite", "mysql", "none" */
	char   *users_path;                 /* the file, or a unix socket; NULL = none */
	char   *users_host, *users_user, *users_database;
	int64_t users_port;                 /* 0 = the usual one */
	enum users_tls {
		USERS_TLS_OFFERED,
		USERS_TLS_OFF,
		USERS_TLS_ON,
		USERS_TLS_VERIFY
	} users_tls;
	char   *users_ca_file;
	/* [limit] */
	struct config_rate login_per_ip, login_per_48, login_per_app, phone_per_user,
		check_per_user, open_data_per_user;
	/* [audit] */
	char   *audit_file;                 /* "" = none */
	enum config_openid { OPENID_HASH, OPENID_CLEAR } audit_openid;
	/* [app wx...] */
	struct config_app *apps;
	size_t app_count;
};

/* Told of each thing wrong: "FILE:LINE: ..." or "environment: ...", a whole sentence that names the
 * mend. */
typedef void (*config_say)(void *ctx, bool is_error, const char *text);

/* file NULL: the default path if it exists, else defaults. The environment is read from environ.
 * Everything wrong is said, then NULL returned; warnings alone do not fail. */
struct config *config_load(const char *file, config_say say, void *ctx);

/* What was read from files. With replay false config_read fills it; with replay true config_read
 * reads it instead of the files, so that another process gets the same configuration whatever the
 * files hold by then. buf_free(&bytes) ends it. */
struct config_files {
	struct buf bytes;
	size_t     at;
	bool       replay;
};
struct config *config_read(const char *file, struct config_files *files, config_say say, void *ctx);
void config_free(struct config *c); /* wipes secrets; NULL is fine */

#define CONFIG_DEFAULT_FILE "/etc/wxlogind/wxlogind.ini"

/* The keys that differ and that a reload does not apply, as "section.key" (constants); at most max.
 */
size_t config_changed(
	const struct config *a, const struct config *b, const char **names, size_t max);

/* false: internal_listen has an address that others than this machine reach. */
bool config_internal_is_local(const struct config *c);

#endif
