/* Everything that is true of one key stands in one row of the table: its section, name, type, place, default, bounds, whether a
 * reload applies it, and what it is for. Reading, the _file twins, the environment's names, --check and redaction follow from it. */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/encode.h"
#include "common/ini.h"
#include "common/ip.h"
#include "common/mem.h"

extern char **environ;

enum { FILE_MAX_BYTES = 64 * 1024, INI_MAX_BYTES = 1024 * 1024, TEXT_MAX = 1024, PATH_MAX_BYTES = 4096 };
enum type { T_TEXT, T_SECRET, T_INT, T_DURATION, T_SIZE, T_LIST, T_RATE, T_LEVEL, T_FORMAT, T_KEYS };
enum { RELOAD = 1 };

struct key {
	const char *section, *name;
	enum type   type;
	size_t      offset;
	const char *fallback;
	int64_t     min, max; /* of numbers */
	int         flags;
	const char *help;
	const char *full;
};

#define KEY(section, name, type, field, fallback, min, max, flags, help) \
	{#section, #name, type, offsetof(struct config, field), fallback, min, max, flags, help, #section "." #name}
#define DAY (86400 * INT64_C(1000))

static const struct key keys[] = {
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

struct app_pending { /* an [app] section while it is read */
	char *appid, *secret, *where;
};

struct reading {
	struct config *c;
	config_say say;
	void *ctx;
	const char *file;
	bool ok;
	char *text[NELEM(keys)];  /* the value that counts, and where it stands */
	char *where[NELEM(keys)];
	char *section;
	struct app_pending *apps;
	size_t app_count;
};

/* ---- saying ---- */

static void say(struct reading *rd, bool is_error, const char *where, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void say(struct reading *rd, bool is_error, const char *where, const char *fmt, ...)
{
	struct buf b = {0};
	char text[TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	buf_printf(&b, "%s: %s", where, text);
	rd->say(rd->ctx, is_error, b.data);
	buf_free(&b);
	if (is_error)
		rd->ok = false;
}

static char *place(const struct reading *rd, int line)
{
	struct buf b = {0};

	buf_printf(&b, "%s:%d", rd->file, line);
	return b.data;
}

/* ---- the nearest known name ---- */

static size_t distance(const char *a, const char *b)
{
	size_t row[64], n = strlen(b);

	if (n >= NELEM(row))
		return n;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t corner = row[0]++;

		for (size_t j = 1; j <= n; j++) {
			size_t best = corner + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));

			corner = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
		}
	}
	return row[n];
}

static void nearer(const char *name, const char *candidate, const char **best, size_t *least)
{
	size_t d = distance(name, candidate);

	if (d < *least) {
		*least = d;
		*best = candidate;
	}
}

static const char *nearest_section(const char *name)
{
	const char *best = "app wx...";
	size_t least = SIZE_MAX;

	for (size_t i = 0; i < NELEM(keys); i++)
		nearer(name, keys[i].section, &best, &least);
	return strncmp(name, "app", 3) ? best : "app wx...";
}

static const char *nearest_key(const char *section, const char *name)
{
	const char *best = "";
	size_t least = SIZE_MAX;

	for (size_t i = 0; i < NELEM(keys); i++)
		if (!strcmp(keys[i].section, section))
			nearer(name, keys[i].name, &best, &least);
	return best;
}

/* ---- finding keys ---- */

static bool is_secret(const struct key *k)
{
	return k->type == T_SECRET || k->type == T_KEYS;
}

/* The key of that name, its _file twin too; -1 when there is none. */
static int find_key(const char *section, const char *name, bool *from_file)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < NELEM(keys); i++) {
		size_t len = strlen(keys[i].name);

		if (strcmp(keys[i].section, section))
			continue;
		*from_file = is_secret(&keys[i]) && n == len + 5 && !memcmp(name, keys[i].name, len) && !strcmp(name + len, "_file");
		if (*from_file || !strcmp(name, keys[i].name))
			return (int)i;
	}
	return -1;
}

/* ---- files ---- */

static char *read_all(const char *path, size_t max, size_t *len)
{
	FILE *f = fopen(path, "re");
	char *text;

	if (!f)
		return NULL;
	text = mem_alloc(max + 2);
	*len = fread(text, 1, max + 1, f);
	if (ferror(f) || *len > max) {
		errno = ferror(f) ? EIO : EFBIG;
		mem_wipe(text, *len);
		free(text);
		text = NULL;
	}
	fclose(f);
	return text;
}

/* A secret from a file, without the newline that editors leave at its end. */
static char *read_secret(struct reading *rd, const char *where, const char *key, const char *path)
{
	size_t n;
	char *text = read_all(path, FILE_MAX_BYTES, &n);

	if (!text) {
		say(rd, true, where, "%s: cannot read %s: %s", key, path, strerror(errno));
		return NULL;
	}
	if (n && text[n - 1] == '\n')
		text[--n] = '\0';
	if (n && text[n - 1] == '\r')
		text[--n] = '\0';
	if (n == 0 || strlen(text) != n) {
		say(rd, true, where, "%s: %s is empty or holds a NUL byte", key, path);
		mem_free_secret(text);
		return NULL;
	}
	return text;
}

/* ---- values ---- */

static bool read_number(const char **p, int64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)**p))
		return false;
	errno = 0;
	*out = strtoll(*p, &end, 10);
	*p = end;
	return errno == 0 && *out <= INT64_C(1000000000000);
}

static bool read_duration(const char *text, int64_t *ms)
{
	static const struct { const char *unit; int64_t ms; } units[] = {
		{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", DAY},
	};
	int64_t n;

	if (!read_number(&text, &n))
		return false;
	if (n == 0 && !*text) {
		*ms = 0;
		return true;
	}
	for (size_t i = 0; i < NELEM(units); i++)
		if (!strcmp(text, units[i].unit)) {
			if (n > INT64_MAX / units[i].ms)
				return false;
			*ms = n * units[i].ms;
			return true;
		}
	return false;
}

static bool read_size(const char *text, int64_t *bytes)
{
	if (!read_number(&text, bytes))
		return false;
	if (!strcmp(text, "k"))
		*bytes *= 1024;
	else if (!strcmp(text, "m"))
		*bytes *= 1024 * 1024;
	else if (*text)
		return false;
	return true;
}

/* Up to ten years, and no more than a million a second: a bucket counts in microseconds. */
static bool read_rate(const char *text, struct config_rate *rate)
{
	*rate = (struct config_rate){0};
	if (!strcmp(text, "0"))
		return true;
	return read_number(&text, &rate->count) && *text == '/' && read_duration(text + 1, &rate->period_ms) && rate->count > 0 &&
	       rate->period_ms > 0 && rate->period_ms <= 3650 * DAY && rate->count <= rate->period_ms * 1000;
}

static void list_add(struct config_list *l, const char *s, size_t n)
{
	l->items = mem_realloc(l->items, sizeof(*l->items) * (l->n + 1));
	l->items[l->n++] = mem_strndup(s, n);
}

/* Items apart by commas or lines. */
static void read_list(const char *text, struct config_list *l)
{
	while (*text) {
		size_t n = strcspn(text, ",\n"), len = n;
		const char *s = text;

		while (len && isspace((unsigned char)*s))
			s++, len--;
		while (len && isspace((unsigned char)s[len - 1]))
			len--;
		if (len)
			list_add(l, s, len);
		text += n + (text[n] != '\0');
	}
}

static void list_free(struct config_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		mem_free_secret(l->items[i]);
	free(l->items);
	*l = (struct config_list){0};
}

static bool read_keys(struct config *c, const char *text)
{
	struct config_list l = {0};
	bool ok = true;

	read_list(text, &l);
	c->encryption_keys = mem_alloc(sizeof(*c->encryption_keys) * (l.n + 1));
	for (size_t i = 0; i < l.n && ok; i++) {
		uint8_t *key = c->encryption_keys[c->encryption_key_count++];
		size_t n = strlen(l.items[i]);

		ok = n == 64 ? hex_decode(key, 32, l.items[i], n) == 32 : base64_decode(key, 32, l.items[i], n) == 32;
	}
	list_free(&l);
	return ok;
}

static bool read_word(const char *text, const char *const *words, int count, int *out)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(text, words[i])) {
			*out = i;
			return true;
		}
	return false;
}

/* What a value of this type looks like: the end of an error's sentence. */
static const char *shape(enum type t)
{
	static const char *const shapes[] = {
		[T_INT] = "a whole number", [T_DURATION] = "a duration: a number and ms, s, m, h or d, as 500ms 10s 5m 2h 30d",
		[T_SIZE] = "a size: a number of bytes, or with k or m, as 64k 1m", [T_RATE] = "a rate: count/duration, as 120/1m, or 0",
		[T_LEVEL] = "one of debug info warn error", [T_FORMAT] = "logfmt or json",
		[T_KEYS] = "32 bytes in base64 (44 characters) or hex (64); several by commas or lines",
	};

	return t < NELEM(shapes) && shapes[t] ? shapes[t] : "text";
}

static void say_bounds(struct reading *rd, const struct key *k, const char *where, const char *text, bool low)
{
	int64_t v = low ? k->min : k->max;
	const char *word = low ? "at least" : "at most";

	if (k->type == T_DURATION && v >= DAY && v % DAY == 0)
		say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "d", k->section, k->name, text, word, v / DAY);
	else if (k->type == T_DURATION && v % 1000 == 0)
		say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "s", k->section, k->name, text, word, v / 1000);
	else if (k->type == T_DURATION)
		say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "ms", k->section, k->name, text, word, v);
	else if (k->type == T_SIZE && v % (1024 * 1024) == 0)
		say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "m", k->section, k->name, text, word, v / 1024 / 1024);
	else if (k->type == T_SIZE)
		say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "k", k->section, k->name, text, word, v / 1024);
	else
		say(rd, true, where, "[%s] %s = %s: %s %" PRId64, k->section, k->name, text, word, v);
}

static void set_value(struct reading *rd, const struct key *k, const char *text, const char *where)
{
	static const char *const levels[] = {"debug", "info", "warn", "error"}, *const formats[] = {"logfmt", "json"};
	void *at = (char *)rd->c + k->offset;
	const char *given = text;
	int64_t n = k->min;
	int word;
	bool ok = true;

	switch (k->type) {
	case T_TEXT:
	case T_SECRET:
		*(char **)at = mem_strdup(text);
		break;
	case T_INT:
		ok = read_number(&text, &n) && !*text;
		break;
	case T_DURATION:
		ok = read_duration(text, &n);
		break;
	case T_SIZE:
		ok = read_size(text, &n);
		break;
	case T_LIST:
		read_list(text, at);
		break;
	case T_RATE:
		ok = read_rate(text, at);
		break;
	case T_LEVEL:
		ok = read_word(text, levels, NELEM(levels), &word);
		if (ok)
			*(enum log_level *)at = (enum log_level)word;
		break;
	case T_FORMAT:
		ok = read_word(text, formats, NELEM(formats), &word);
		if (ok)
			*(enum log_format *)at = (enum log_format)word;
		break;
	case T_KEYS:
		ok = read_keys(rd->c, text);
		break;
	}
	if (!ok)
		say(rd, true, where, is_secret(k) ? "[%s] %s%.0s: must be %s" : "[%s] %s = %s: must be %s", k->section, k->name, given, shape(k->type));
	else if (k->type == T_INT || k->type == T_DURATION || k->type == T_SIZE) {
		*(int64_t *)at = n;
		if (n < k->min || n > k->max)
			say_bounds(rd, k, where, given, n < k->min);
	}
}

/* ---- the file ---- */

static void put(struct reading *rd, int i, char *text, char *where)
{
	mem_free_secret(rd->text[i]);
	free(rd->where[i]);
	rd->text[i] = text;
	rd->where[i] = where;
}

static struct app_pending *app_find(struct reading *rd, const char *appid)
{
	for (size_t i = 0; i < rd->app_count; i++)
		if (!strcmp(rd->apps[i].appid, appid))
			return &rd->apps[i];
	return NULL;
}

static struct app_pending *app_add(struct reading *rd, const char *appid, char *where)
{
	struct app_pending *a = app_find(rd, appid);

	if (a) {
		free(where);
		return a;
	}
	rd->apps = mem_realloc(rd->apps, sizeof(*rd->apps) * (rd->app_count + 1));
	a = &rd->apps[rd->app_count++];
	*a = (struct app_pending){.appid = mem_strdup(appid), .where = where};
	return a;
}

static const char *app_of_section(const char *section)
{
	if (strncmp(section, "app", 3) || (section[3] != ' ' && section[3] != '\t'))
		return NULL;
	section += 3;
	while (*section == ' ' || *section == '\t')
		section++;
	return section;
}

static void on_section(struct reading *rd, const char *section, char *where)
{
	const char *appid = app_of_section(section);
	bool known = appid != NULL;

	for (size_t i = 0; i < NELEM(keys) && !known; i++)
		known = !strcmp(keys[i].section, section);
	if (!known)
		say(rd, true, where, "unknown section [%s]: did you mean [%s]?", section, nearest_section(section));
	else if (appid && app_find(rd, appid))
		say(rd, true, where, "[%s] is there twice", section);
	else if (appid)
		app_add(rd, appid, mem_strdup(where));
	free(where);
}

static void on_app_key(struct reading *rd, const char *appid, const char *key, const char *value, char *where)
{
	struct app_pending *a = app_find(rd, appid);
	bool from_file = !strcmp(key, "secret_file");

	if (!from_file && strcmp(key, "secret"))
		say(rd, true, where, "unknown key %s in [app %s]: did you mean secret?", key, appid);
	else if (a && a->secret)
		say(rd, true, where, "[app %s] has two secrets: give several by commas in one", appid);
	else if (a)
		a->secret = from_file ? read_secret(rd, where, "secret_file", value) : mem_strdup(value);
	free(where);
}

static bool on_ini(void *ctx, const char *section, const char *key, const char *value, int line)
{
	struct reading *rd = ctx;
	char *where = place(rd, line);
	const char *appid = app_of_section(section);
	bool from_file;
	int i;

	if (!key) {
		on_section(rd, section, where);
		return true;
	}
	if (appid) {
		on_app_key(rd, appid, key, value, where);
		return true;
	}
	i = find_key(section, key, &from_file);
	if (i < 0) {
		if (*nearest_key(section, key))
			say(rd, true, where, "unknown key %s in [%s]: did you mean %s?", key, section, nearest_key(section, key));
	} else if (rd->text[i]) {
		say(rd, true, where, "[%s] %s is given twice, first at %s", section, keys[i].name, rd->where[i]);
	} else {
		char *text = from_file ? read_secret(rd, where, key, value) : mem_strdup(value);
		if (text) {
			put(rd, i, text, where);
			return true;
		}
	}
	free(where);
	return true;
}

static void on_ini_error(void *ctx, int line, const char *what)
{
	struct reading *rd = ctx;
	char *where = place(rd, line);

	say(rd, true, where, "%s", what);
	free(where);
}

static void read_file(struct reading *rd, bool required)
{
	size_t n;
	char *text = read_all(rd->file, INI_MAX_BYTES, &n);

	if (text) {
		ini_parse_text(text, n, on_ini, on_ini_error, rd);
		mem_wipe(text, n);
		free(text);
	} else if (required || errno != ENOENT) {
		say(rd, true, rd->file, "cannot read it: %s", strerror(errno));
	}
}

/* ---- the environment ---- */

static void env_name(char *out, size_t n, const struct key *k)
{
	snprintf(out, n, "WXLOGIND_%s_%s", k->section, k->name);
	for (char *p = out; *p; p++)
		*p = (char)toupper((unsigned char)*p);
}

static bool read_env_key(struct reading *rd, const char *name, size_t n, const char *value)
{
	char want[96];

	for (size_t i = 0; i < NELEM(keys); i++) {
		size_t len;
		bool from_file;
		char *text;

		env_name(want, sizeof(want), &keys[i]);
		len = strlen(want);
		from_file = is_secret(&keys[i]) && n == len + 5 && !memcmp(name + len, "_FILE", 5);
		if ((!from_file && n != len) || memcmp(name, want, len))
			continue;
		text = from_file ? read_secret(rd, "environment", want, value) : mem_strdup(value);
		if (text)
			put(rd, (int)i, text, mem_strdup("environment"));
		return true;
	}
	return false;
}

static void warn_env(struct reading *rd, const char *name, size_t n)
{
	const char *best = "";
	size_t least = SIZE_MAX;
	char given[96], want[96], nearest[96] = "";

	snprintf(given, sizeof(given), "%.*s", (int)n, name);
	for (size_t i = 0; i < NELEM(keys); i++) {
		size_t before = least;

		env_name(want, sizeof(want), &keys[i]);
		nearer(given, want, &best, &least);
		if (least < before)
			memcpy(nearest, want, sizeof(nearest));
	}
	say(rd, false, "environment", "%s is no setting of wxlogind; the nearest is %s", given, nearest);
}

/* One app may come whole from the environment. */
static void read_env_app(struct reading *rd)
{
	const char *appid = getenv("WXLOGIND_APPID"), *secret = getenv("WXLOGIND_SECRET"), *file = getenv("WXLOGIND_SECRET_FILE");
	struct app_pending *a;

	if (!appid || !*appid) {
		if ((secret && *secret) || (file && *file))
			say(rd, true, "environment", "WXLOGIND_SECRET is set but WXLOGIND_APPID is not");
		return;
	}
	a = app_add(rd, appid, mem_strdup("environment"));
	if ((secret && *secret) || (file && *file)) {
		mem_free_secret(a->secret);
		a->secret = secret && *secret ? mem_strdup(secret) : read_secret(rd, "environment", "WXLOGIND_SECRET_FILE", file);
	}
}

static void read_environment(struct reading *rd)
{
	for (char **e = environ; *e; e++) {
		const char *eq = strchr(*e, '=');
		size_t n = eq ? (size_t)(eq - *e) : 0;

		if (n < 9 || memcmp(*e, "WXLOGIND_", 9))
			continue;
		if ((n == 14 && !memcmp(*e, "WXLOGIND_APPID", n)) || (n == 15 && !memcmp(*e, "WXLOGIND_SECRET", n)) ||
		    (n == 20 && !memcmp(*e, "WXLOGIND_SECRET_FILE", n)))
			continue;
		if (!read_env_key(rd, *e, n, eq + 1))
			warn_env(rd, *e, n);
	}
	read_env_app(rd);
}

/* ---- what values must be to each other ---- */

static const char *where_of(const struct reading *rd, const char *section, const char *name)
{
	bool from_file;
	int i = find_key(section, name, &from_file);

	return rd->where[i] ? rd->where[i] : "default";
}

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
		say(rd, true, where_of(rd, "server", c->listen.n ? "internal_listen" : "listen"), "[server] %s is empty: give an address",
			c->listen.n ? "internal_listen" : "listen");
	for (size_t i = 0; i < c->listen.n; i++)
		if (!address_ok(c->listen.items[i], &local))
			say(rd, true, where_of(rd, "server", "listen"), "[server] listen = %s: must be host:port with a numeric host, [v6]:port or unix:/path",
				c->listen.items[i]);
	for (size_t i = 0; i < c->internal_listen.n; i++) {
		if (!address_ok(c->internal_listen.items[i], &local))
			say(rd, true, where_of(rd, "server", "internal_listen"),
				"[server] internal_listen = %s: must be host:port with a numeric host, [v6]:port or unix:/path", c->internal_listen.items[i]);
		else if (!local && !*c->internal_token)
			say(rd, true, where_of(rd, "server", "internal_listen"),
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
		say(rd, true, where_of(rd, "wechat", name), "[wechat] %s = %s: must be http(s)://host[:port]", name, url);
	else if (!strncmp(url, "http:", 5) && !url_is_loopback(url))
		say(rd, false, where_of(rd, "wechat", name), "[wechat] %s = %s: without TLS, AppSecrets and session_keys cross the network in the clear", name, url);
}

static void check_lists(struct reading *rd)
{
	struct config *c = rd->c;

	for (size_t i = 0; i < c->trusted_proxies.n; i++)
		if (!network_ok(c->trusted_proxies.items[i]))
			say(rd, true, where_of(rd, "server", "trusted_proxies"), "[server] trusted_proxies: %s is neither an address nor a network (10.0.0.0/8), nor unix:",
				c->trusted_proxies.items[i]);
	for (size_t i = 0; i < c->cors_origins.n; i++)
		if (!http_url_ok(c->cors_origins.items[i]) || strchr(strstr(c->cors_origins.items[i], "://") + 3, '/'))
			say(rd, true, where_of(rd, "server", "cors_origins"), "[server] cors_origins: %s is no origin (https://host[:port], no path)",
				c->cors_origins.items[i]);
	check_wechat_url(rd, "base_url", c->wechat_base_url);
	for (size_t i = 0; i < c->wechat_fallback_urls.n; i++)
		check_wechat_url(rd, "fallback_urls", c->wechat_fallback_urls.items[i]);
	if (strlen(c->redis_key_prefix) > 64 || strpbrk(c->redis_key_prefix, "{} \t\n*?[]"))
		say(rd, true, where_of(rd, "redis", "key_prefix"), "[redis] key_prefix: at most 64 characters, none of blank { } * ? [ ]");
}

static char *decoded(const char *s, size_t n)
{
	char *out = mem_alloc(n + 1);

	if (percent_decode(out, s, n, false) < 0) {
		free(out);
		return NULL;
	}
	return out;
}

/* user[:password] of a URL. A password goes to *password, unless a key of its own has set it. */
static bool split_login(const char *text, const char *stop, char **user, char **password)
{
	const char *sep = memchr(text, ':', (size_t)(stop - text));
	char *given = sep ? decoded(sep + 1, (size_t)(stop - sep - 1)) : mem_strdup("");

	bool ok;

	*user = decoded(text, (size_t)((sep ? sep : stop) - text));
	ok = *user && given;
	if (!ok || **password) {
		mem_free_secret(given);
		return ok;
	}
	free(*password);
	*password = given;
	return true;
}

/* host[:port] or [v6][:port] of a URL. */
static bool split_host(const char *text, const char *stop, char **host, int64_t *port)
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
	if (!colon)
		return true;
	p = colon + 1;
	return read_number(&p, port) && p == stop && *port >= 1 && *port <= 65535;
}

static bool read_db(const char *text, int64_t *db)
{
	return read_number(&text, db) && !*text && *db <= INT32_MAX; /* what Redis itself can count */
}

/* redis://[user[:password]@]host[:port][/db] */
static bool split_redis(struct config *c, const char *rest)
{
	const char *at = strrchr(rest, '@'), *host = at ? at + 1 : rest, *slash = strchr(host, '/'), *stop = slash ? slash : host + strlen(host);

	c->redis_port = 6379;
	if ((at && !split_login(rest, at, &c->redis_user, &c->redis_password)) || !split_host(host, stop, &c->redis_host, &c->redis_port))
		return false;
	if (slash && slash[1] && !read_db(slash + 1, &c->redis_db))
		return false;
	return *c->redis_host != '\0';
}

/* unix:///path[?db=n] */
static bool split_redis_unix(struct config *c, const char *path)
{
	const char *query = strchr(path, '?');

	c->redis_path = decoded(path, query ? (size_t)(query - path) : strlen(path));
	if (!c->redis_path || *c->redis_path != '/' || strlen(c->redis_path) >= 108)
		return false;
	return !query || (!strncmp(query, "?db=", 4) && read_db(query + 4, &c->redis_db));
}

static void check_redis(struct reading *rd)
{
	struct config *c = rd->c;
	const char *url = c->redis_url, *where = where_of(rd, "redis", "url");
	bool ok;

	if (!strncmp(url, "sentinel://", 11) || !strncmp(url, "cluster://", 10)) {
		say(rd, true, where, "[redis] url: Sentinel and Cluster come with a later version");
		return;
	}
	ok = !strncmp(url, "redis://", 8) ? split_redis(c, url + 8) : !strncmp(url, "unix://", 7) && split_redis_unix(c, url + 7);
	if (!ok) /* the URL may hold a password: it is not repeated */
		say(rd, true, where, "[redis] url: must be redis://[user[:password]@]host:port/db or unix:///path?db=0");
	if (!c->redis_user)
		c->redis_user = mem_strdup("");
}

/* NULL, or what is wrong. */
static const char *split_sqlite(struct config *c, const char *path)
{
	c->users_scheme = "sqlite";
	c->users_path = decoded(path, strlen(path));
	return c->users_path && c->users_path[0] == '/' && c->users_path[1] ? NULL : "sqlite wants an absolute path, as sqlite:///var/lib/wxlogind/users.db";
}

/* mysql://user[:password]@host[:port]/database, or mysql://user[:password]@/database?socket=/path */
static const char *split_mysql(struct config *c, const char *rest)
{
	const char *at = strrchr(rest, '@'), *slash = strchr(at ? at : rest, '/'), *query = slash ? strchr(slash, '?') : NULL;

	c->users_scheme = "mysql";
	c->users_port = 3306;
	if (!slash)
		return "mysql wants a database, as mysql://user[:password]@host[:port]/database";
	if (!at || at == rest || *rest == ':')
		return "mysql wants a user, as mysql://user[:password]@host[:port]/database";
	if (!split_login(rest, at, &c->users_user, &c->users_password))
		return "in user and password % stands only before two hex digits";
	if (!split_host(at + 1, slash, &c->users_host, &c->users_port))
		return "mysql wants a port of 1 to 65535";
	c->users_database = decoded(slash + 1, query ? (size_t)(query - slash - 1) : strlen(slash + 1));
	if (!c->users_database || !*c->users_database)
		return "mysql wants a database, as mysql://user[:password]@host[:port]/database";
	if (query) {
		c->users_path = !strncmp(query, "?socket=", 8) ? decoded(query + 8, strlen(query + 8)) : NULL;
		if (!c->users_path || *c->users_path != '/' || *c->users_host)
			return "after the database only ?socket=/path may stand, and then no host, as mysql://user@/database?socket=/run/mysqld/mysqld.sock";
	} else if (!*c->users_host) {
		return "mysql wants a host, or a socket, as mysql://user@/database?socket=/run/mysqld/mysqld.sock";
	}
	return NULL;
}

static void check_users(struct reading *rd)
{
	struct config *c = rd->c;
	const char *url = c->users_url, *wrong = NULL;

	c->users_scheme = "none";
	if (!strncmp(url, "sqlite://", 9))
		wrong = split_sqlite(c, url + 9);
	else if (!strncmp(url, "mysql://", 8))
		wrong = split_mysql(c, url + 8);
	else if (strcmp(url, "none") != 0)
		wrong = "must be sqlite:///path, mysql://user[:password]@host[:port]/database or none";
	if (wrong) /* the URL may hold a password: it is not repeated */
		say(rd, true, where_of(rd, "users", "url"), "[users] url: %s", wrong);
}

static bool appid_ok(const char *appid)
{
	size_t n = strlen(appid);

	return n >= 1 && n <= 64 && strspn(appid, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

static void take_apps(struct reading *rd)
{
	struct config *c = rd->c;

	c->apps = mem_alloc(sizeof(*c->apps) * (rd->app_count + 1));
	for (size_t i = 0; i < rd->app_count; i++) {
		struct app_pending *p = &rd->apps[i];
		struct config_app *a = &c->apps[c->app_count++];
		struct config_list l = {0};

		a->appid = mem_strdup(p->appid);
		if (!appid_ok(p->appid))
			say(rd, true, p->where, "[app %s]: an appid is wx and 16 letters or digits", p->appid);
		if (p->secret)
			read_list(p->secret, &l);
		if (l.n == 0 || l.n > CONFIG_APP_SECRETS_MAX)
			say(rd, true, p->where, "[app %s] needs secret or secret_file: its AppSecret from WeChat's console; two by a comma while it is being changed",
				p->appid);
		for (size_t k = 0; k < l.n && k < CONFIG_APP_SECRETS_MAX; k++)
			a->secrets[k] = mem_strdup(l.items[k]);
		list_free(&l);
	}
	if (c->app_count == 0)
		say(rd, true, rd->file, "no app is configured: add a section [app wx...] with its secret, or set WXLOGIND_APPID and WXLOGIND_SECRET");
}

static void check_all(struct reading *rd)
{
	check_listen(rd);
	check_lists(rd);
	check_redis(rd);
	check_users(rd);
	take_apps(rd);
	if (rd->c->encryption_key_count == 0)
		say(rd, false, where_of(rd, "session", "encryption_key"), "[session] encryption_key is empty: session_keys are kept in Redis as they came");
}

/* ---- */

struct config *config_load(const char *file, config_say on_say, void *ctx)
{
	struct reading rd = {.c = mem_alloc(sizeof(struct config)), .say = on_say, .ctx = ctx, .ok = true};

	rd.file = file ? file : CONFIG_DEFAULT_FILE;
	read_file(&rd, file != NULL);
	read_environment(&rd);
	for (size_t i = 0; i < NELEM(keys); i++)
		set_value(&rd, &keys[i], rd.text[i] ? rd.text[i] : keys[i].fallback, rd.where[i] ? rd.where[i] : "default");
	if (rd.ok)
		check_all(&rd);
	for (size_t i = 0; i < NELEM(keys); i++)
		put(&rd, (int)i, NULL, NULL);
	for (size_t i = 0; i < rd.app_count; i++) {
		free(rd.apps[i].appid);
		mem_free_secret(rd.apps[i].secret);
		free(rd.apps[i].where);
	}
	free(rd.apps);
	if (rd.ok)
		return rd.c;
	config_free(rd.c);
	return NULL;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < NELEM(keys); i++) {
		void *at = (char *)c + keys[i].offset;

		if (keys[i].type == T_TEXT || keys[i].type == T_SECRET)
			mem_free_secret(*(char **)at);
		else if (keys[i].type == T_LIST)
			list_free(at);
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

size_t config_key_count(void)
{
	return NELEM(keys);
}

struct config_key_doc config_key_doc(size_t i)
{
	const struct key *k = &keys[i];

	return (struct config_key_doc){k->section, k->name, k->fallback, k->help, is_secret(k), (k->flags & RELOAD) != 0};
}

static bool same_list(const struct config_list *a, const struct config_list *b)
{
	bool same = a->n == b->n;

	for (size_t i = 0; same && i < a->n; i++)
		same = !strcmp(a->items[i], b->items[i]);
	return same;
}

static bool same_value(const struct key *k, const struct config *a, const struct config *b)
{
	const void *x = (const char *)a + k->offset, *y = (const char *)b + k->offset;

	switch (k->type) {
	case T_TEXT:
	case T_SECRET:
		return !strcmp(*(char *const *)x, *(char *const *)y);
	case T_LIST:
		return same_list(x, y);
	case T_KEYS:
		return a->encryption_key_count == b->encryption_key_count &&
		       !memcmp(a->encryption_keys, b->encryption_keys, sizeof(*a->encryption_keys) * a->encryption_key_count);
	case T_RATE:
		return !memcmp(x, y, sizeof(struct config_rate));
	case T_LEVEL:
	case T_FORMAT:
		return *(const int *)x == *(const int *)y;
	default:
		return *(const int64_t *)x == *(const int64_t *)y;
	}
}

size_t config_changed(const struct config *a, const struct config *b, const char **names, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < NELEM(keys) && n < max; i++)
		if (!(keys[i].flags & RELOAD) && !same_value(&keys[i], a, b))
			names[n++] = keys[i].full;
	return n;
}
