#include "options.h"

#include "common/log.h"

enum { REDIS_PENDING = 16384, USERS_TIMEOUT_MS = 2000, USERS_QUEUE = 4096 };

struct redis_options options_redis(
	const struct config *c, struct redis_host hosts[CONFIG_REDIS_HOSTS_MAX])
{
	static const enum redis_kind kinds[] = {[CONFIG_REDIS_ONE] = REDIS_ONE,
		[CONFIG_REDIS_SENTINEL] = REDIS_SENTINEL,
		[CONFIG_REDIS_CLUSTER] = REDIS_CLUSTER};

	for (size_t i = 0; i < c->redis_host_count; i++)
		hosts[i] = (struct redis_host){c->redis_hosts[i].host, (int)c->redis_hosts[i].port};
	return (struct redis_options){
		.kind = kinds[c->redis_kind],
		.hosts = hosts,
		.host_count = c->redis_host_count,
		.master_name = c->redis_master_name,
		.sentinel_user = c->redis_sentinel_user,
		.sentinel_password = c->redis_sentinel_password,
		.replicas = (int)c->redis_replicas,
		.proof_master = c->redis_proof_master,
		.unix_path = c->redis_path,
		.user = c->redis_user,
		.password = c->redis_password,
		.key_prefix = c->redis_key_prefix,
		.db = (int)c->redis_db,
		.timeout_ms = (int)c->redis_timeout_ms,
		.max_pending = REDIS_PENDING,
	};
}

bool options_redis_tls(const struct config *c, struct tls **tls)
{
	const struct tls_options o = {.ca_file = c->redis_ca_file,
		.name = c->redis_tls_name,
		.cert_file = c->redis_cert_file,
		.key_file = c->redis_key_file};
	char why[256];

	*tls = c->redis_tls ? tls_new(&o, why, sizeof(why)) : NULL;
	if (c->redis_tls && !*tls)
		log_error(
			"TLS to Redis cannot be set up: see redis.ca_file, cert_file and key_file",
			LOG_STR("cause", why));
	return *tls || !c->redis_tls;
}

struct user_db_options options_users(const struct config *c)
{
	return (struct user_db_options){
		.scheme = c->users_scheme,
		.path = c->users_path,
		.host = c->users_host,
		.port = (int)c->users_port,
		.user = c->users_user,
		.password = c->users_password,
		.database = c->users_database,
		.tls = (enum user_tls)c->users_tls,
		.ca_file = c->users_ca_file,
		.timeout_ms = USERS_TIMEOUT_MS,
		.queue_max = USERS_QUEUE,
	};
}

struct fetch_options options_fetch(
	const struct config *c, int connections, int queue, size_t max_reply)
{
	return (struct fetch_options){
		.max_connections = connections,
		.max_queue = queue,
		.connect_timeout_ms = (int)c->wechat_connect_timeout_ms,
		.max_reply = max_reply,
		.ca_file = c->wechat_ca_file,
		.proxy = c->wechat_proxy,
	};
}
