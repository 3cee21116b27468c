/* [redis] url and the keys that go with it. The URL may hold a password: no message repeats it. */
#include "config/private.h"

#include <stdlib.h>
#include <string.h>

enum { REDIS_PORT = 6379, SENTINEL_PORT = 26379, REPLICAS_MAX = 16 };

#define SEVERAL \
	"for several write sentinel://h1:26379,h2:26379,h3:26379/mymaster or " \
	"cluster://h1:6379,h2:6379"

static bool read_db(const char *text, const char *stop, int64_t *db)
{
	/* what Redis itself can count */
	return value_number(&text, db) && text == stop && *db <= INT32_MAX;
}

/* The hosts up to stop, separated by commas. NULL, or what is wrong. */
static const char *read_hosts(struct config *c, const char *text, const char *stop, int64_t port)
{
	for (;;) {
		const char *comma = memchr(text, ',', (size_t)(stop - text)),
			   *end = comma ? comma : stop;
		struct config_host *h = &c->redis_hosts[c->redis_host_count];

		if (c->redis_host_count == CONFIG_REDIS_HOSTS_MAX)
			return "at most 32 hosts";
		h->port = port;
		c->redis_host_count++;
		if (!url_host(text, end, &h->host, &h->port) || !*h->host)
			return "each host must be host[:port] or [v6][:port]";
		for (size_t i = 0; i + 1 < c->redis_host_count; i++)
			if (!strcmp(c->redis_hosts[i].host, h->host) &&
				c->redis_hosts[i].port == h->port)
				return "a host stands there twice";
		if (!comma)
			return NULL;
		text = comma + 1;
	}
}

/* [user[:password]@]host[:port][,...] of text; *rest is what follows it, from "/" or "?" on. */
static const char *read_authority(
	struct config *c, const char *text, int64_t port, const char **rest)
{
	const char *at = strrchr(text, '@'), *hosts = at ? at + 1 : text,
		   *stop = hosts + strcspn(hosts, "/?");

	*rest = stop;
	if (at && !url_login(text, at, &c->redis_user, &c->redis_password))
		return "in user and password % stands only before two hex digits";
	return read_hosts(c, hosts, stop, port);
}

/* redis://[user[:password]@]host[:port][/db] */
static const char *split_one(struct config *c, const char *text)
{
	const char *rest, *wrong = read_authority(c, text, REDIS_PORT, &rest);

	if (c->redis_host_count > 1)
		return "redis:// names one server; " SEVERAL;
	if (wrong ||
		(*rest == '/' && rest[1] &&
			!read_db(rest + 1, rest + strlen(rest), &c->redis_db)) ||
		*rest == '?')
		return "must be redis://[user[:password]@]host:port/db, rediss://..., "
		       "unix:///path?db=0, sentinel://... or cluster://...";
	return NULL;
}

/* sentinel://[user[:password]@]host[:port],.../name[/db][?proof=master] */
static const char *split_sentinel(struct config *c, const char *text)
{
	const char *rest, *wrong = read_authority(c, text, SENTINEL_PORT, &rest), *stop, *end;

	c->redis_kind = CONFIG_REDIS_SENTINEL;
	if (wrong)
		return wrong;
	stop = rest + strcspn(rest, "?");
	if (*stop && strcmp(stop, "?proof=master") != 0)
		return "after the name only ?proof=master may stand";
	c->redis_proof_master = *stop;
	if (*rest == '/')
		rest++;
	end = memchr(rest, '/', (size_t)(stop - rest));
	if (end && end + 1 < stop && !read_db(end + 1, stop, &c->redis_db))
		return "after the master's name only /db may stand, a number";
	c->redis_master_name = url_decoded(rest, (size_t)((end ? end : stop) - rest));
	if (!c->redis_master_name || !*c->redis_master_name)
		return "must end with the master's name, as "
		       "sentinel://h1:26379,h2:26379,h3:26379/mymaster";
	return NULL;
}

/* cluster://[user[:password]@]host[:port],... */
static const char *split_cluster(struct config *c, const char *text)
{
	const char *rest, *wrong = read_authority(c, text, REDIS_PORT, &rest);

	c->redis_kind = CONFIG_REDIS_CLUSTER;
	if (wrong)
		return wrong;
	if (*rest && strcmp(rest, "/") != 0 && strcmp(rest, "/0") != 0)
		return "a Redis Cluster has database 0 only, so nothing may stand after the hosts";
	return NULL;
}

/* unix:///path[?db=n] */
static const char *split_unix(struct config *c, const char *path)
{
	const char *query = strchr(path, '?');

	c->redis_path = url_decoded(path, query ? (size_t)(query - path) : strlen(path));
	if (!c->redis_path || *c->redis_path != '/' || strlen(c->redis_path) >= 108)
		return "must be unix:///path?db=0, and the path shorter than 108 bytes";
	if (query && (strncmp(query, "?db=", 4) != 0 ||
			     !read_db(query + 4, query + strlen(query), &c->redis_db)))
		return "after the path only ?db= and a number may stand";
	return NULL;
}

static const char *split(struct config *c)
{
	static const struct {
		const char *scheme;
		const char *(*split)(struct config *, const char *rest);
		bool tls;
	} schemes[] = {
		{"redis://", split_one, false}, {"rediss://", split_one, true}, {"unix://", split_unix, false},
		{"sentinel://", split_sentinel, false}, {"cluster://", split_cluster, false},
	};

	for (size_t i = 0; i < NELEM(schemes); i++) {
		size_t n = strlen(schemes[i].scheme);

		if (strncmp(c->redis_url, schemes[i].scheme, n) != 0)
			continue;
		c->redis_tls |= schemes[i].tls;
		return schemes[i].split(c, c->redis_url + n);
	}
	return "must be redis://[user[:password]@]host:port/db, rediss://..., unix:///path?db=0, "
	       "sentinel://... or cluster://...";
}

static void check_replicas(struct reading *rd)
{
	struct config *c = rd->c;
	const char *text = c->redis_replicas_text;

	c->redis_replicas = c->redis_kind != CONFIG_REDIS_ONE;
	if (*text && (!value_number(&text, &c->redis_replicas) || *text ||
			     c->redis_replicas > REPLICAS_MAX))
		reading_say(rd, true, reading_where(rd, "redis", "replicas"),
			"[redis] replicas: must be empty, or a number of 0 to %d", REPLICAS_MAX);
}

static void check_tls(struct reading *rd)
{
	struct config *c = rd->c;
	const struct { const char *key, *value; } only_with_tls[] = {
		{"ca_file", c->redis_ca_file}, {"tls_name", c->redis_tls_name}, {"cert_file", c->redis_cert_file}, {"key_file", c->redis_key_file}};

	if (!*c->redis_cert_file != !*c->redis_key_file)
		reading_say(rd, true,
			reading_where(rd, "redis", *c->redis_cert_file ? "cert_file" : "key_file"),
			"[redis] cert_file and key_file: each needs the other");
	if (c->redis_tls && c->redis_path)
		reading_say(rd, true, reading_where(rd, "redis", "tls"),
			"[redis] tls: a unix socket has none");
	for (size_t i = 0; i < NELEM(only_with_tls) && !c->redis_tls; i++)
		if (*only_with_tls[i].value)
			reading_say(rd, false, reading_where(rd, "redis", only_with_tls[i].key),
				"[redis] %s has no effect without TLS: write rediss://, or tls = "
				"yes",
				only_with_tls[i].key);
}

static void check_sentinel(struct reading *rd)
{
	struct config *c = rd->c;
	const char *where = reading_where(rd, "redis", "url");

	if (c->redis_kind != CONFIG_REDIS_SENTINEL &&
		(*c->redis_sentinel_user || *c->redis_sentinel_password))
		reading_say(rd, false,
			reading_where(rd, "redis",
				*c->redis_sentinel_user ? "sentinel_user" : "sentinel_password"),
			"[redis] sentinel_user and sentinel_password have no effect without "
			"sentinel://");
	if (c->redis_kind != CONFIG_REDIS_SENTINEL)
		return;
	if (*c->redis_sentinel_user && !*c->redis_sentinel_password)
		reading_say(rd, true, reading_where(rd, "redis", "sentinel_user"),
			"[redis] sentinel_user needs sentinel_password");
	if (c->redis_host_count == 1)
		reading_say(rd, false, where,
			"[redis] url names one sentinel: when it is away or wrong there is no "
			"other to ask. Name them all");
	if (c->redis_proof_master)
		reading_say(rd, false, where,
			"[redis] url: with ?proof=master a cut-off master is believed: ended "
			"sessions may be answered 200 until the cut heals");
}

void check_redis_url(struct reading *rd)
{
	struct config *c = rd->c;
	const char *wrong = split(c);

	if (wrong)
		reading_say(rd, true, reading_where(rd, "redis", "url"), "[redis] url: %s", wrong);
	if (!c->redis_user)
		c->redis_user = mem_strdup("");
	check_replicas(rd);
	check_tls(rd);
	check_sentinel(rd);
}
