/* The parts of URLs, and of [users] url. A URL may hold a password: no message repeats it. */
#include "config/private.h"

#include <stdlib.h>
#include <string.h>

#include "common/encode.h"

char *url_decoded(const char *s, size_t n)
{
	char *out = mem_alloc(n + 1);

	if (percent_decode(out, s, n, false) < 0) {
		free(out);
		return NULL;
	}
	return out;
}

bool url_login(const char *text, const char *stop, char **user, char **password)
{
	const char *sep = memchr(text, ':', (size_t)(stop - text));
	char *given = sep ? url_decoded(sep + 1, (size_t)(stop - sep - 1)) : mem_strdup("");

	bool ok;

	*user = url_decoded(text, (size_t)((sep ? sep : stop) - text));
	ok = *user && given;
	if (!ok || **password) {
		mem_free_secret(given);
		return ok;
	}
	free(*password);
	*password = given;
	return true;
}

#define HOST_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:"

bool url_host(const char *text, const char *stop, char **host, int64_t *port)
{
	const char *colon = NULL, *end, *p;

	for (p = text; p < stop; p++)
		colon = *p == ':' ? p : colon;
	if (text < stop && *text == '[') {
		end = memchr(text, ']', (size_t)(stop - text));
		if (!end)
			return false;
		colon = end + 1 < stop && end[1] == ':' ? end + 1 : NULL;
		*host = mem_strndup(text + 1, (size_t)(end - text - 1));
	} else {
		*host = mem_strndup(text, (size_t)((colon ? colon : stop) - text));
	}
	if (strspn(*host, HOST_CHARACTERS) != strlen(*host) || (strchr(*host, ':') && *text != '['))
		return false;
	if (!colon)
		return true;
	p = colon + 1;
	return value_number(&p, port) && p == stop && *port >= 1 && *port <= 65535;
}

void check_proxy_url(struct reading *rd)
{
	const char *url = rd->c->wechat_proxy, *at = strrchr(url, '@');
	char *user = NULL, *password = mem_strdup(""), *host = NULL;
	int64_t port = 0;
	const char *rest = strncmp(url, "http://", 7) ? NULL : url + 7;
	bool ok = !*url || (rest && (!at || url_login(rest, at, &user, &password)) &&
				   url_host(at ? at + 1 : rest, url + strlen(url), &host, &port) &&
				   *host && port);

	if (!ok) /* it may hold a password: it is not repeated */
		reading_say(rd, true, reading_where(rd, "wechat", "proxy"),
			"[wechat] proxy: must be http://[user:password@]host:port");
	free(user);
	mem_free_secret(password);
	free(host);
}

/* NULL, or what is wrong. */
static const char *split_sqlite(struct config *c, const char *path)
{
	c->users_scheme = "sqlite";
	c->users_path = url_decoded(path, strlen(path));
	return c->users_path && c->users_path[0] == '/' && c->users_path[1]
		       ? NULL
		       : "sqlite wants an absolute path, as sqlite:///var/lib/wxlogind/users.db";
}

static bool read_tls(const char *word, size_t n, enum users_tls *tls)
{
	static const char *const words[] = {
		[USERS_TLS_OFF] = "off", [USERS_TLS_ON] = "on", [USERS_TLS_VERIFY] = "verify"};

	for (int i = USERS_TLS_OFF; i <= USERS_TLS_VERIFY; i++) {
		if (strlen(words[i]) != n || memcmp(words[i], word, n) != 0)
			continue;
		*tls = (enum users_tls)i;
		return true;
	}
	return false;
}

/* ?tls=off|on|verify with a host, ?socket=/path without one. */
static const char *split_mysql_query(struct config *c, const char *query)
{
	if (!strncmp(query, "?tls=", 5) && *c->users_host &&
		read_tls(query + 5, strlen(query + 5), &c->users_tls))
		return NULL;
	c->users_path =
		!strncmp(query, "?socket=", 8) ? url_decoded(query + 8, strlen(query + 8)) : NULL;
	if (!c->users_path || *c->users_path != '/' || *c->users_host)
		return "after the database only ?socket=/path may stand, and then no host, as "
		       "mysql://user@/database?socket=/run/mysqld/mysqld.sock; "
		       "or, with a host, ?tls=off, ?tls=on or ?tls=verify";
	return NULL;
}

/* mysql://user[:password]@host[:port]/database[?tls=...], or
 * mysql://user[:password]@/database?socket=/path */
static const char *split_mysql(struct config *c, const char *rest)
{
	const char *at = strrchr(rest, '@'), *slash = strchr(at ? at : rest, '/'),
		   *query = slash ? strchr(slash, '?') : NULL;

	c->users_scheme = "mysql";
	if (!slash)
		return "mysql wants a database, as mysql://user[:password]@host[:port]/database";
	if (!at || at == rest || *rest == ':')
		return "mysql wants a user, as mysql://user[:password]@host[:port]/database";
	if (!url_login(rest, at, &c->users_user, &c->users_password))
		return "in user and password % stands only before two hex digits";
	if (!url_host(at + 1, slash, &c->users_host, &c->users_port))
		return "mysql wants one host, and a port of 1 to 65535";
	c->users_database =
		url_decoded(slash + 1, query ? (size_t)(query - slash - 1) : strlen(slash + 1));
	if (!c->users_database || !*c->users_database)
		return "mysql wants a database, as mysql://user[:password]@host[:port]/database";
	if (query)
		return split_mysql_query(c, query);
	return *c->users_host ? NULL
			      : "mysql wants a host, or a socket, as "
				"mysql://user@/database?socket=/run/mysqld/mysqld.sock";
}

void check_users_url(struct reading *rd)
{
	struct config *c = rd->c;
	const char *url = c->users_url, *wrong = NULL;

	c->users_scheme = "none";
	if (!strncmp(url, "sqlite://", 9))
		wrong = split_sqlite(c, url + 9);
	else if (!strncmp(url, "mysql://", 8))
		wrong = split_mysql(c, url + 8);
	else if (strcmp(url, "none") != 0)
		wrong = "must be sqlite:///path, mysql://user[:password]@host[:port]/database or "
			"none";
	if (wrong) /* the URL may hold a password: it is not repeated */
		reading_say(rd, true, reading_where(rd, "users", "url"), "[users] url: %s", wrong);
}
