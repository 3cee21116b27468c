/* Where values come from: the file, then the environment, which overrides it. Secrets that stand in
 * files of their own are read last: only those that count. Nothing that may be a secret is repeated
 * in a message: neither values of secret keys, nor what stands where a path should, nor a key's
 * name that does not look like one (a wrapped line of base64). */
#include "config/private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/ini.h"

extern char **environ;

enum {
	SECRET_MAX_BYTES = 64 * 1024,
	INI_MAX_BYTES = 1024 * 1024,
	TEXT_MAX = 1024,
	NAME_MAX_SHOWN = 40
};

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

const char *reading_where(const struct reading *rd, const char *section, const char *name)
{
	bool is_twin;
	int i = key_find(section, name, &is_twin);

	return rd->main.given[i].where ? rd->main.given[i].where : "default";
}

static char *place(const struct reading *rd, int line)
{
	struct buf b = {0};

	buf_printf(&b, "%s:%d", rd->file, line);
	return b.data;
}

/* ---- what was given ---- */

static void target_init(struct target *t, char *section, char *where)
{
	*t = (struct target){.section = section,
		.where = where,
		.given = mem_alloc(sizeof(*t->given) * key_count)};
}

static void put(struct given *g, char *text, char *where, bool is_twin, bool from_env)
{
	mem_free_secret(g->text);
	free(g->where);
	*g = (struct given){text, where, is_twin, from_env};
}

static void target_fini(struct target *t)
{
	for (size_t i = 0; i < key_count; i++)
		put(&t->given[i], NULL, NULL, false, false);
	free(t->given);
	free(t->section);
	free(t->where);
}

static const char *section_of(const struct target *t, const struct key *k)
{
	return t->section ? t->section : k->section;
}

static const char *app_of_section(const char *section)
{
	if (strncmp(section, "app", 3) || (section[3] != ' ' && section[3] != '\t'))
		return NULL;
	return section + 3 + strspn(section + 3, " \t");
}

static struct target *app_find(struct reading *rd, const char *appid)
{
	for (size_t i = 0; i < rd->app_count; i++)
		if (!strcmp(app_of_section(rd->apps[i].section), appid))
			return &rd->apps[i];
	return NULL;
}

static struct target *app_add(struct reading *rd, const char *appid, const char *where)
{
	struct buf section = {0};

	buf_printf(&section, "app %s", appid);
	rd->apps = mem_realloc(rd->apps, sizeof(*rd->apps) * (rd->app_count + 1));
	target_init(&rd->apps[rd->app_count], section.data, mem_strdup(where));
	return &rd->apps[rd->app_count++];
}

/* ---- the file ---- */

static char *read_now(const char *path, size_t max, size_t *len)
{
	FILE *f = fopen(path, "re");
	char *text;

	if (!f)
		return NULL;
	text = mem_alloc(max + 2);
	*len = fread(text, 1, max + 1, f);
	if (ferror(f) || *len > max) {
		errno = ferror(f) ? errno : EFBIG;
		mem_wipe(text, *len);
		free(text);
		text = NULL;
	}
	fclose(f);
	return text;
}

/* Each file is recorded as its length, or the negative errno, and its bytes. */
static void record(struct config_files *f, const char *text, size_t len)
{
	int64_t head = text ? (int64_t)len : -(int64_t)errno;

	buf_add(&f->bytes, &head, sizeof(head));
	if (text)
		buf_add(&f->bytes, text, len);
}

static char *replay(struct config_files *f, size_t *len)
{
	int64_t head = -EIO;
	char *text;

	if (f->bytes.len - f->at >= sizeof(head))
		memcpy(&head, f->bytes.data + f->at, sizeof(head));
	if (head < 0 || (uint64_t)head > f->bytes.len - f->at - sizeof(head)) {
		f->at += f->bytes.len - f->at >= sizeof(head) ? sizeof(head) : 0;
		errno = head < 0 ? (int)-head : EIO;
		return NULL;
	}
	*len = (size_t)head;
	text = mem_alloc(*len + 1);
	memcpy(text, f->bytes.data + f->at + sizeof(head), *len);
	f->at += sizeof(head) + *len;
	return text;
}

static char *read_all(struct reading *rd, const char *path, size_t max, size_t *len)
{
	char *text;

	if (rd->files && rd->files->replay)
		return replay(rd->files, len);
	text = read_now(path, max, len);
	if (rd->files)
		record(rd->files, text, *len);
	return text;
}

/* What may be shown of a name that is not known. */
static bool looks_like_a_name(const char *name)
{
	size_t n = strlen(name);

	return n <= NAME_MAX_SHOWN && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-. ") == n;
}

static void unknown_section(struct reading *rd, const char *section, const char *where)
{
	struct buf b = {0};
	char odd[INI_LOOKALIKE_MAX];

	if (ini_lookalike(section, strlen(section), odd)) {
		reading_say(rd, true, where, "unknown section: %s", odd);
		return;
	}
	suggest_section(&b, section);
	reading_say(rd, true, where, "unknown section [%s]%s", section, b.len ? b.data : "");
	buf_free(&b);
}

static void unknown_key(struct reading *rd, const char *section, const char *key, const char *where)
{
	struct buf b = {0};
	char odd[INI_LOOKALIKE_MAX];

	suggest_key(&b, app_of_section(section) ? "app" : section, key);
	if (ini_lookalike(key, strlen(key), odd))
		reading_say(rd, true, where, "unknown key in [%s]: %s", section, odd);
	else if (b.len || looks_like_a_name(key))
		reading_say(rd, true, where, "unknown key %s in [%s]%s", key, section,
			b.len ? b.data : "");
	else
		reading_say(rd, true, where,
			"unknown key in [%s]. If this line belongs to the value above, indent it",
			section);
	buf_free(&b);
}

static void on_section(struct reading *rd, const char *section, const char *where)
{
	const char *appid = app_of_section(section);
	bool known = false;

	for (size_t i = 0; i < key_count && !known; i++)
		known = !key_table[i].app && !strcmp(key_table[i].section, section);
	if (!known && !appid)
		unknown_section(rd, section, where);
	else if (appid && app_find(rd, appid))
		reading_say(rd, true, where, "[%s] is given twice, first at %s", section,
			app_find(rd, appid)->where);
	else if (appid)
		app_add(rd, appid, where);
}

/* An indented line continues a list. Whoever indents all lines of a section means another thing. */
static bool lines_ok(struct reading *rd, const char *section, const struct key *k,
	const char *value, const char *where)
{
	const char *line = strchr(value, '\n');

	if (line && !key_is_list(k)) {
		reading_say(rd, true, where,
			"[%s] %s: the line below it is indented, so it continues this value, "
			"which is not a list",
			section, k->name);
		return false;
	}
	for (; line; line = strchr(line, '\n')) {
		size_t n = strcspn(++line, " \t=\n");
		char name[NAME_MAX_SHOWN];
		bool is_twin;

		snprintf(name, sizeof(name), "%.*s", (int)n, line);
		if (*line == '[' || key_find(k->section, name, &is_twin) >= 0) {
			reading_say(rd, true, where,
				"[%s] %s: %s below it is indented, so it continues this list: "
				"remove the indentation",
				section, k->name, *line == '[' ? "a section" : name);
			return false;
		}
	}
	return true;
}

static void on_key(
	struct reading *rd, const char *section, const char *key, const char *value, char *where)
{
	const char *appid = app_of_section(section);
	struct target *t = appid ? app_find(rd, appid) : &rd->main;
	bool is_twin;
	int i = key_find(appid ? "app" : section, key, &is_twin);

	if (i < 0)
		unknown_key(rd, section, key, where);
	else if (!t || !lines_ok(rd, section, &key_table[i], value, where))
		; /* said */
	else if (!t->given[i].text) {
		put(&t->given[i], mem_strdup(value), where, is_twin, false);
		return;
	} else if (t->given[i].is_twin == is_twin)
		reading_say(rd, true, where, "[%s] %s is given twice, first at %s", section, key,
			t->given[i].where);
	else
		reading_say(rd, true, where,
			"[%s] %s and %s_file are both given, the first at %s: give one", section,
			key_table[i].name, key_table[i].name, t->given[i].where);
	free(where);
}

static bool is_section(const char *name)
{
	bool found = app_of_section(name) != NULL;

	for (size_t i = 0; i < key_count && !found; i++)
		found = !key_table[i].app && !strcmp(key_table[i].section, name);
	return found;
}

static bool on_ini(void *ctx, const char *section, const char *key, const char *value, int line)
{
	struct reading *rd = ctx;
	char *where = place(rd, line);

	if (key && is_section(section)) {
		on_key(rd, section, key, value, where);
		return true;
	}
	if (!key)
		on_section(rd, section, where);
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
	size_t n = 0;
	char *text = read_all(rd, rd->file, INI_MAX_BYTES, &n);

	if (text) {
		ini_parse_text(text, n, on_ini, on_ini_error, rd);
		mem_wipe(text, n);
		free(text);
	} else if (required || errno != ENOENT) {
		reading_say(rd, true, rd->file, "cannot read it: %s", strerror(errno));
	}
}

/* ---- the environment ---- */

/* The key of that variable, its _FILE twin too; -1 when there is none. */
static int find_variable(const char *name, size_t n, bool *is_twin)
{
	char want[ENV_NAME_MAX];

	for (size_t i = 0; i < key_count; i++) {
		size_t len;

		key_variable(want, &key_table[i]);
		len = strlen(want);
		*is_twin = key_is_secret(&key_table[i]) && n == len + 5 &&
			   !memcmp(name + len, "_FILE", 5);
		if ((*is_twin || n == len) && !memcmp(name, want, len))
			return (int)i;
	}
	return -1;
}

static void unknown_variable(struct reading *rd, const char *name, size_t n)
{
	struct buf b = {0};
	char given[ENV_NAME_MAX];

	snprintf(given, sizeof(given), "%.*s", (int)n, name);
	suggest_variable(&b, given);
	reading_say(rd, false, "environment", "%s is not a setting of wxlogind%s", given,
		b.len ? b.data : "");
	buf_free(&b);
}

/* An empty variable is as good as none where it might be a slip: compose files pass on what is not
 * set. */
static void on_variable(
	struct reading *rd, struct target *t, int i, const char *value, bool is_twin)
{
	struct given *g = &t->given[i];
	bool empty = !*value && (is_twin || t != &rd->main);

	if (empty || (g->from_env && !*value))
		return;
	if (g->from_env && *g->text) {
		char name[ENV_NAME_MAX];

		key_variable(name, &key_table[i]);
		reading_say(rd, true, "environment", "%s and %s_FILE are both set: set one", name,
			name);
		return;
	}
	put(g, mem_strdup(value), mem_strdup("environment"), is_twin, true);
}

static void read_environment(struct reading *rd)
{
	const char *appid = getenv("WXLOGIND_APPID");
	struct target *app = NULL;

	if (appid && *appid)
		app = app_find(rd, appid) ? app_find(rd, appid) : app_add(rd, appid, "environment");
	for (char **e = environ; *e; e++) {
		const char *eq = strchr(*e, '=');
		size_t n = eq ? (size_t)(eq - *e) : 0;
		bool is_twin;
		int i;

		if (n < 9 || memcmp(*e, "WXLOGIND_", 9) ||
			(n == 14 && !memcmp(*e, "WXLOGIND_APPID", n)))
			continue;
		i = find_variable(*e, n, &is_twin);
		if (i < 0)
			unknown_variable(rd, *e, n);
		else if (!key_table[i].app || app)
			on_variable(rd, key_table[i].app ? app : &rd->main, i, eq + 1, is_twin);
		else if (eq[1])
			reading_say(rd, true, "environment",
				"%.*s is set but WXLOGIND_APPID is not", (int)n, *e);
	}
}

/* ---- from what was given to values ---- */

/* NULL, or what is wrong with n bytes of a secret's file. */
static const char *secret_fault(const struct key *k, const char *text, size_t n)
{
	if (n == 0)
		return "the file is empty";
	if (strlen(text) != n)
		return "the file holds a NUL byte";
	if (!memcmp(text, "\xef\xbb\xbf", n < 3 ? n : 3))
		return "the file begins with a byte order mark (U+FEFF), which would be part of "
		       "the secret: save it as UTF-8 without BOM";
	if (!key_is_list(k) && strpbrk(text, "\r\n"))
		return "the file has more than one line, or ends with more than one newline: a "
		       "secret is one line";
	return NULL;
}

/* A secret from a file, without the newline that editors leave at its end. NULL: said. */
static char *read_secret(struct reading *rd, const char *section, const struct key *k,
	const char *path, const char *where)
{
	const char *fault;
	size_t n = 0;
	char *text = read_all(rd, path, SECRET_MAX_BYTES, &n);

	if (!text) { /* the path is not repeated: it may be the secret itself */
		reading_say(rd, true, where,
			"[%s] %s_file: cannot read the file of this name: %s. To give the secret "
			"itself, write %s = ...",
			section, k->name, strerror(errno), k->name);
		return NULL;
	}
	if (n && text[n - 1] == '\n')
		text[--n] = '\0';
	if (n && text[n - 1] == '\r')
		text[--n] = '\0';
	fault = secret_fault(k, text, n);
	if (!fault)
		return text;
	reading_say(rd, true, where, "[%s] %s_file: %s", section, k->name, fault);
	mem_wipe(text, n);
	free(text);
	return NULL;
}

static bool is_quoted(const char *s, size_t n)
{
	return n >= 2 && (*s == '"' || *s == '\'') && s[n - 1] == *s;
}

/* What people write by habit of other formats and keyboards. */
static bool spelling_ok(struct reading *rd, const char *section, const struct key *k,
	const char *text, const char *where)
{
	char odd[INI_LOOKALIKE_MAX];
	struct config_list items = {0};
	bool quoted = is_quoted(text, strlen(text));

	if (key_is_list(k))
		value_list(text, &items);
	for (size_t i = 0; i < items.n; i++)
		quoted |= is_quoted(items.items[i], strlen(items.items[i]));
	value_list_free(&items);
	if (quoted)
		reading_say(rd, true, where,
			"[%s] %s: the quotes would be part of the value: write it without", section,
			k->name);
	else if (!key_is_secret(k) && k->type != T_PATH && ini_lookalike(text, strlen(text), odd))
		reading_say(rd, true, where, "[%s] %s: %s", section, k->name, odd);
	else
		return true;
	return false;
}

static void path_ok(struct reading *rd, const char *section, const struct key *k, const char *path,
	const char *where)
{
	if (*path && access(path, R_OK) != 0)
		reading_say(rd, true, where, "[%s] %s = %s: cannot read it: %s", section, k->name,
			path, strerror(errno));
}

static void set_key(struct reading *rd, struct target *t, size_t i, void *at)
{
	const struct key *k = &key_table[i];
	const struct given *g = &t->given[i];
	const char *section = section_of(t, k), *where = g->where ? g->where : "default",
		   *text = g->text ? g->text : k->fallback;
	char *secret = g->is_twin ? read_secret(rd, section, k, text, where) : NULL;

	if (g->is_twin && !secret)
		text = k->fallback; /* said */
	else if (secret)
		text = secret;
	else if (g->text && !spelling_ok(rd, section, k, text, where))
		text = k->fallback;
	value_set(rd, section, k, (char *)at + k->offset, text, where);
	if (k->type == T_PATH && !(rd->files && rd->files->replay)) /* else it was good once */
		path_ok(rd, section, k, text, where);
	mem_free_secret(secret);
}

static void set_values(struct reading *rd)
{
	struct config *c = rd->c;

	c->apps = mem_alloc(sizeof(*c->apps) * (rd->app_count + 1));
	c->app_count = rd->app_count;
	for (size_t a = 0; a < rd->app_count; a++)
		c->apps[a].appid = mem_strdup(app_of_section(rd->apps[a].section));
	for (size_t i = 0; i < key_count; i++) {
		if (!key_table[i].app)
			set_key(rd, &rd->main, i, c);
		else
			for (size_t a = 0; a < rd->app_count; a++)
				set_key(rd, &rd->apps[a], i, &c->apps[a]);
	}
}

struct config *config_load(const char *file, config_say on_say, void *ctx)
{
	return config_read(file, NULL, on_say, ctx);
}

struct config *config_read(
	const char *file, struct config_files *files, config_say on_say, void *ctx)
{
	struct reading rd = {.c = mem_alloc(sizeof(struct config)),
		.say = on_say,
		.ctx = ctx,
		.files = files,
		.ok = true};

	rd.file = file ? file : CONFIG_DEFAULT_FILE;
	target_init(&rd.main, NULL, NULL);
	read_file(&rd, file != NULL);
	read_environment(&rd);
	set_values(&rd);
	if (rd.ok)
		config_check(&rd);
	target_fini(&rd.main);
	for (size_t i = 0; i < rd.app_count; i++)
		target_fini(&rd.apps[i]);
	free(rd.apps);
	if (rd.ok)
		return rd.c;
	config_free(rd.c);
	return NULL;
}
