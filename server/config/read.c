/* Where values come from: the file, then the environment, which overrides it. */
#include "config/private.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/ini.h"
#include "common/mem.h"

extern char **environ;

enum { FILE_MAX_BYTES = 64 * 1024, INI_MAX_BYTES = 1024 * 1024, TEXT_MAX = 1024 };

/* ---- saying ---- */

void reading_say(struct reading *rd, bool is_error, const char *where, const char *fmt, ...)
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

	for (size_t i = 0; i < key_count; i++)
		nearer(name, key_table[i].section, &best, &least);
	return strncmp(name, "app", 3) ? best : "app wx...";
}

static const char *nearest_key(const char *section, const char *name)
{
	const char *best = "";
	size_t least = SIZE_MAX;

	for (size_t i = 0; i < key_count; i++)
		if (!strcmp(key_table[i].section, section))
			nearer(name, key_table[i].name, &best, &least);
	return best;
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
		reading_say(rd, true, where, "%s: cannot read %s: %s", key, path, strerror(errno));
		return NULL;
	}
	if (n && text[n - 1] == '\n')
		text[--n] = '\0';
	if (n && text[n - 1] == '\r')
		text[--n] = '\0';
	if (n == 0 || strlen(text) != n) {
		reading_say(rd, true, where, "%s: %s is empty or holds a NUL byte", key, path);
		mem_free_secret(text);
		return NULL;
	}
	return text;
}

/* ---- the file ---- */

static void put(struct reading *rd, int i, char *text, char *where)
{
	mem_free_secret(rd->given[i].text);
	free(rd->given[i].where);
	rd->given[i].text = text;
	rd->given[i].where = where;
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

	for (size_t i = 0; i < key_count && !known; i++)
		known = !strcmp(key_table[i].section, section);
	if (!known)
		reading_say(rd, true, where, "unknown section [%s]: did you mean [%s]?", section, nearest_section(section));
	else if (appid && app_find(rd, appid))
		reading_say(rd, true, where, "[%s] is there twice", section);
	else if (appid)
		app_add(rd, appid, mem_strdup(where));
	free(where);
}

static void on_app_key(struct reading *rd, const char *appid, const char *key, const char *value, char *where)
{
	struct app_pending *a = app_find(rd, appid);
	bool from_file = !strcmp(key, "secret_file");

	if (!from_file && strcmp(key, "secret"))
		reading_say(rd, true, where, "unknown key %s in [app %s]: did you mean secret?", key, appid);
	else if (a && a->secret)
		reading_say(rd, true, where, "[app %s] has two secrets: give several by commas in one", appid);
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
	i = key_find(section, key, &from_file);
	if (i < 0) {
		if (*nearest_key(section, key))
			reading_say(rd, true, where, "unknown key %s in [%s]: did you mean %s?", key, section, nearest_key(section, key));
	} else if (rd->given[i].text) {
		reading_say(rd, true, where, "[%s] %s is given twice, first at %s", section, key_table[i].name, rd->given[i].where);
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

	reading_say(rd, true, where, "%s", what);
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
		reading_say(rd, true, rd->file, "cannot read it: %s", strerror(errno));
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

	for (size_t i = 0; i < key_count; i++) {
		size_t len;
		bool from_file;
		char *text;

		env_name(want, sizeof(want), &key_table[i]);
		len = strlen(want);
		from_file = key_is_secret(&key_table[i]) && n == len + 5 && !memcmp(name + len, "_FILE", 5);
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
	for (size_t i = 0; i < key_count; i++) {
		size_t before = least;

		env_name(want, sizeof(want), &key_table[i]);
		nearer(given, want, &best, &least);
		if (least < before)
			memcpy(nearest, want, sizeof(nearest));
	}
	reading_say(rd, false, "environment", "%s is no setting of wxlogind; the nearest is %s", given, nearest);
}

/* One app may come whole from the environment. */
static void read_env_app(struct reading *rd)
{
	const char *appid = getenv("WXLOGIND_APPID"), *secret = getenv("WXLOGIND_SECRET"), *file = getenv("WXLOGIND_SECRET_FILE");
	struct app_pending *a;

	if (!appid || !*appid) {
		if ((secret && *secret) || (file && *file))
			reading_say(rd, true, "environment", "WXLOGIND_SECRET is set but WXLOGIND_APPID is not");
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

const char *reading_where(const struct reading *rd, const char *section, const char *name)
{
	bool from_file;
	int i = key_find(section, name, &from_file);

	return rd->given[i].where ? rd->given[i].where : "default";
}

/* ---- */

struct config *config_load(const char *file, config_say on_say, void *ctx)
{
	struct reading rd = {.c = mem_alloc(sizeof(struct config)), .say = on_say, .ctx = ctx, .ok = true,
		.given = mem_alloc(sizeof(struct given) * key_count)};

	rd.file = file ? file : CONFIG_DEFAULT_FILE;
	read_file(&rd, file != NULL);
	read_environment(&rd);
	for (size_t i = 0; i < key_count; i++)
		value_set(&rd, &key_table[i], rd.given[i].text ? rd.given[i].text : key_table[i].fallback, rd.given[i].where ? rd.given[i].where : "default");
	if (rd.ok)
		config_check(&rd);
	for (size_t i = 0; i < key_count; i++)
		put(&rd, (int)i, NULL, NULL);
	for (size_t i = 0; i < rd.app_count; i++) {
		free(rd.apps[i].appid);
		mem_free_secret(rd.apps[i].secret);
		free(rd.apps[i].where);
	}
	free(rd.apps);
	free(rd.given);
	if (rd.ok)
		return rd.c;
	config_free(rd.c);
	return NULL;
}
