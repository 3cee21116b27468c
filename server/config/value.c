/* The types of values: from text, within bounds, compared. */
#include "config/private.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/encode.h"

bool value_number(const char **p, int64_t *out)
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
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = {
		{"ms", 1},
		{"s", 1000},
		{"m", 60000},
		{"h", 3600000},
		{"d", DAY},
	};
	int64_t n;

	if (!value_number(&text, &n))
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
	if (!value_number(&text, bytes))
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
	return value_number(&text, &rate->count) && *text == '/' &&
	       read_duration(text + 1, &rate->period_ms) && rate->count > 0 &&
	       rate->period_ms > 0 && rate->period_ms <= 3650 * DAY &&
	       rate->count <= rate->period_ms * 1000;
}

static void list_add(struct config_list *l, const char *s, size_t n)
{
	l->items = mem_realloc(l->items, sizeof(*l->items) * (l->n + 2));
	l->items[l->n++] = mem_strndup(s, n);
	l->items[l->n] = NULL;
}

/* Items apart by commas or lines. */
void value_list(const char *text, struct config_list *l)
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

void value_list_free(struct config_list *l)
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

	value_list(text, &l);
	c->encryption_keys = mem_alloc(sizeof(*c->encryption_keys) * (l.n + 1));
	for (size_t i = 0; i < l.n && ok; i++) {
		uint8_t *key = c->encryption_keys[c->encryption_key_count++];
		size_t n = strlen(l.items[i]);

		ok = n == 64 ? hex_decode(key, 32, l.items[i], n) == 32
			     : base64_decode(key, 32, l.items[i], n) == 32;
	}
	value_list_free(&l);
	return ok;
}

/* Which of the words, from 0; -1: none. */
static int read_word(const char *words, const char *text)
{
	size_t n = strlen(text);

	for (int i = 0; *words; i++) {
		size_t len = strcspn(words, " ");

		if (len == n && !memcmp(words, text, n))
			return i;
		words += len + (words[len] == ' ');
	}
	return -1;
}

static bool read_mode(const char *text, int64_t *mode)
{
	char *end;

	if (!*text || strspn(text, "01234567") != strlen(text) || strlen(text) > 4)
		return false;
	*mode = strtol(text, &end, 8);
	return true;
}

static bool is_number(const struct key *k)
{
	return k->type >= T_INT && k->type <= T_DURATION;
}

void value_print(struct buf *b, const struct key *k, int64_t v)
{
	static const struct {
		enum type type;
		int64_t is;
		const char *unit;
	} units[] = {
		{T_DURATION, DAY, "d"},
		{T_DURATION, 3600000, "h"},
		{T_DURATION, 60000, "m"},
		{T_DURATION, 1000, "s"},
		{T_DURATION, 1, "ms"},
		{T_SIZE, 1024 * 1024, "m"},
		{T_SIZE, 1024, "k"},
	};

	if (k->type == T_MODE) {
		buf_printf(b, "%04o", (unsigned)v);
		return;
	}
	for (size_t i = 0; i < NELEM(units) && v; i++)
		if (k->type == units[i].type && v % units[i].is == 0) {
			buf_printf(b, "%" PRId64 "%s", v / units[i].is, units[i].unit);
			return;
		}
	buf_printf(b, "%" PRId64, v);
}

const char *value_shape(const struct key *k, struct buf *b)
{
	static const char *const shapes[] = {
		[T_INT] = "a whole number",
		[T_DURATION] = "a duration: a number and ms, s, m, h or d, as 500ms 10s 5m 2h 30d",
		[T_SIZE] = "a size: a number of bytes, or with k or m, as 64k 1m",
		[T_RATE] = "a rate: count/duration, as 120/1m, or 0",
		[T_KEYS] = "32 bytes in base64 (44 characters) or hex (64); several by commas, lines",
		[T_BOOL] = "yes or no",
		[T_MODE] = "a mode in octal, as 0660",
	};

	if (k->type != T_WORD)
		return k->type < NELEM(shapes) && shapes[k->type] ? shapes[k->type] : "text";
	buf_clear(b);
	buf_printf(b, "one of %s", k->words);
	return b->data;
}

static void say_bounds(struct reading *rd, const char *section, const struct key *k,
	const char *where, const char *text, bool low)
{
	struct buf b = {0};

	value_print(&b, k, low ? k->min : k->max);
	reading_say(rd, true, where, "[%s] %s = %s: %s %s", section, k->name, text,
		low ? "at least" : "at most", b.data);
	buf_free(&b);
}

void value_set(struct reading *rd, const char *section, const struct key *k, void *at,
	const char *text, const char *where)
{
	const char *given = text;
	int64_t n = k->min;
	int word = 0;
	bool ok = true;
	struct buf shape = {0};

	switch (k->type) {
	case T_TEXT:
	case T_PATH:
	case T_SECRET:
		*(char **)at = mem_strdup(text);
		break;
	case T_LIST:
	case T_SECRETS:
		value_list(text, at);
		break;
	case T_KEYS:
		ok = read_keys(rd->c, text);
		break;
	case T_INT:
		ok = value_number(&text, &n) && !*text;
		break;
	case T_MODE:
		ok = read_mode(text, &n);
		break;
	case T_SIZE:
		ok = read_size(text, &n);
		break;
	case T_DURATION:
		ok = read_duration(text, &n);
		break;
	case T_RATE:
		ok = read_rate(text, at);
		break;
	case T_WORD:
		word = read_word(k->words, text);
		ok = word >= 0;
		memcpy(at, &word, sizeof(word));
		break;
	case T_BOOL:
		word = read_word("no yes", text);
		ok = word >= 0;
		*(bool *)at = word == 1;
		break;
	}
	if (!ok && key_is_secret(k))
		reading_say(rd, true, where, "[%s] %s: must be %s", section, k->name,
			value_shape(k, &shape));
	else if (!ok)
		reading_say(rd, true, where, "[%s] %s = %s: must be %s", section, k->name, given,
			value_shape(k, &shape));
	else if (is_number(k)) {
		*(int64_t *)at = n;
		if (n < k->min || n > k->max)
			say_bounds(rd, section, k, where, given, n < k->min);
	}
	buf_free(&shape);
}

void value_free(const struct key *k, void *at)
{
	if (k->type == T_TEXT || k->type == T_PATH || k->type == T_SECRET)
		mem_free_secret(*(char **)at);
	else if (k->type == T_LIST || k->type == T_SECRETS)
		value_list_free(at);
}

static bool same_list(const struct config_list *a, const struct config_list *b)
{
	bool same = a->n == b->n;

	for (size_t i = 0; same && i < a->n; i++)
		same = !strcmp(a->items[i], b->items[i]);
	return same;
}

bool value_same(const struct key *k, const struct config *a, const struct config *b)
{
	const void *x = (const char *)a + k->offset, *y = (const char *)b + k->offset;

	switch (k->type) {
	case T_TEXT:
	case T_PATH:
	case T_SECRET:
		return !strcmp(*(char *const *)x, *(char *const *)y);
	case T_LIST:
	case T_SECRETS:
		return same_list(x, y);
	case T_KEYS:
		return a->encryption_key_count == b->encryption_key_count &&
		       !memcmp(a->encryption_keys, b->encryption_keys,
			       sizeof(*a->encryption_keys) * a->encryption_key_count);
	case T_RATE:
		return !memcmp(x, y, sizeof(struct config_rate));
	case T_WORD:
		return *(const int *)x == *(const int *)y;
	case T_BOOL:
		return *(const bool *)x == *(const bool *)y;
	default:
		return *(const int64_t *)x == *(const int64_t *)y;
	}
}
