/* The types of values: from text, within bounds, compared. */
#include "config/private.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/encode.h"
#include "common/mem.h"

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
	static const struct { const char *unit; int64_t ms; } units[] = {
		{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", DAY},
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
	return value_number(&text, &rate->count) && *text == '/' && read_duration(text + 1, &rate->period_ms) && rate->count > 0 &&
	       rate->period_ms > 0 && rate->period_ms <= 3650 * DAY && rate->count <= rate->period_ms * 1000;
}

static void list_add(struct config_list *l, const char *s, size_t n)
{
	l->items = mem_realloc(l->items, sizeof(*l->items) * (l->n + 1));
	l->items[l->n++] = mem_strndup(s, n);
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

		ok = n == 64 ? hex_decode(key, 32, l.items[i], n) == 32 : base64_decode(key, 32, l.items[i], n) == 32;
	}
	value_list_free(&l);
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
		reading_say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "d", k->section, k->name, text, word, v / DAY);
	else if (k->type == T_DURATION && v % 1000 == 0)
		reading_say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "s", k->section, k->name, text, word, v / 1000);
	else if (k->type == T_DURATION)
		reading_say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "ms", k->section, k->name, text, word, v);
	else if (k->type == T_SIZE && v % (1024 * 1024) == 0)
		reading_say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "m", k->section, k->name, text, word, v / 1024 / 1024);
	else if (k->type == T_SIZE)
		reading_say(rd, true, where, "[%s] %s = %s: %s %" PRId64 "k", k->section, k->name, text, word, v / 1024);
	else
		reading_say(rd, true, where, "[%s] %s = %s: %s %" PRId64, k->section, k->name, text, word, v);
}

void value_set(struct reading *rd, const struct key *k, const char *text, const char *where)
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
		ok = value_number(&text, &n) && !*text;
		break;
	case T_DURATION:
		ok = read_duration(text, &n);
		break;
	case T_SIZE:
		ok = read_size(text, &n);
		break;
	case T_LIST:
		value_list(text, at);
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
		reading_say(rd, true, where, key_is_secret(k) ? "[%s] %s%.0s: must be %s" : "[%s] %s = %s: must be %s", k->section, k->name, given, shape(k->type));
	else if (k->type == T_INT || k->type == T_DURATION || k->type == T_SIZE) {
		*(int64_t *)at = n;
		if (n < k->min || n > k->max)
			say_bounds(rd, k, where, given, n < k->min);
	}
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
