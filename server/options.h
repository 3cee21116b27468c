/* The options of rooms that the configuration sets: for a worker, and for --check --connect.
 * Strings are the configuration's. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "config/config.h"
#include "io/fetch.h"
#include "io/redis.h"
#include "io/tls.h"
#include "store/user.h"

/* But for tls. hosts is memory for its hosts. */
struct redis_options options_redis(
	const struct config *c, struct redis_host hosts[CONFIG_REDIS_HOSTS_MAX]);
/* NULL where it is not configured; false: a file is wrong, logged */
bool options_redis_tls(const struct config *c, struct tls **tls);
struct user_db_options options_users(const struct config *c);
struct fetch_options options_fetch(
	const struct config *c, int connections, int queue, size_t max_reply);

#endif
