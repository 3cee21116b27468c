/* A scanner says whether the text is strict JSON; only then does cJSON, which is lenient, build the
 * tree. */
#include "common/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/encode.h"
#include "common/mem.h"
#include "common/text.h"

enum { DEPTH_MAX = 32 };

struct scan {
	const char *p, *end;
	int depth;
};

static bool scan_value(struct scan *s);

static void scan_blank(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

static bool scan_char(struct scan *s, char c)
{
	if (s->p >= s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static bool scan_word(struct scan *s, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n))
		return false;
	s->p += n;
	return true;
}

static int hex4(struct scan *s)
{
	uint8_t v[2];

	if (s->end - s->p < 4 || hex_decode(v, sizeof(v), s->p, 4) != 2)
		return -1;
	s->p += 4;
	return v[0] << 8 | v[1];
}

/* After the backslash. No NUL, and surrogates only in pairs: anything else is no character. */
static bool scan_escape(struct scan *s)
{
	int u;

	if (s->p >= s->end)
		return false;
	if (*s->p != 'u')
		return memchr("\"\\/bfnrt", *s->p++, 8) != NULL;
	s->p++;
	u = hex4(s);
	if (u <= 0 || (u >= 0xdc00 && u <= 0xdfff))
		return false;
	if (u < 0xd800 || u > 0xdbff)
		return true;
	if (!scan_word(s, "\\u"))
		return false;
	u = hex4(s);
	return u >= 0xdc00 && u <= 0xdfff;
}

static bool scan_string(struct scan *s)
{
	if (!scan_char(s, '"'))
		return false;
	while (s->p < s->end) {
		unsigned char c = (unsigned char)*s->p++;

		if (c == '"')
			return true;
		if (c < 0x20 || (c == '\\' && !scan_escape(s)))
			return false;
	}
	return false;
}

static bool scan_digits(struct scan *s)
{
	const char *from = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > from;
}

static bool scan_number(struct scan *s)
{
	const char *from;

	scan_char(s, '-');
	from = s->p;
	if (!scan_digits(s) || (*from == '0' && s->p > from + 1))
		return false;
	if (scan_char(s, '.') && !scan_digits(s))
		return false;
	if (scan_char(s, 'e') || scan_char(s, 'E')) {
		if (!scan_char(s, '+'))
			scan_char(s, '-');
		return scan_digits(s);
	}
	return true;
}

static bool scan_member(struct scan *s, bool named)
{
	scan_blank(s);
	if (named) {
		if (!scan_string(s))
			return false;
		scan_blank(s);
		if (!scan_char(s, ':'))
			return false;
	}
	return scan_value(s);
}

static bool scan_list(struct scan *s, char close, bool named)
{
	s->p++;
	if (++s->depth > DEPTH_MAX)
		return false;
	scan_blank(s);
	if (!scan_char(s, close)) {
		do {
			if (!scan_member(s, named))
				return false;
			scan_blank(s);
		} while (scan_char(s, ','));
		if (!scan_char(s, close))
			return false;
	}
	s->depth--;
	return true;
}

static bool scan_value(struct scan *s)
{
	scan_blank(s);
	if (s->p >= s->end)
		return false;
	switch (*s->p) {
	case '{':
		return scan_list(s, '}', true);
	case '[':
		return scan_list(s, ']', false);
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true");
	case 'f':
		return scan_word(s, "false");
	case 'n':
		return scan_word(s, "null");
	default:
		return scan_number(s);
	}
}

static bool strict(const char *text, size_t n)
{
	struct scan s = {.p = text, .end = text + n};

	if (!utf8_valid(text, n) || !scan_value(&s))
		return false;
	scan_blank(&s);
	return s.p == s.end;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Two members of one name: readers differ on which counts, so neither does. */
static bool has_twins(const cJSON *tree)
{
	const cJSON *m;
	const char **names;
	size_t n = 0;
	bool twins = false;

	if (!cJSON_IsObject(tree))
		return false;
	cJSON_ArrayForEach(m, tree)
		n++;
	names = mem_alloc(sizeof(*names) * (n + 1));
	n = 0;
	cJSON_ArrayForEach(m, tree)
		names[n++] = m->string;
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 1; i < n; i++)
		twins |= !strcmp(names[i - 1], names[i]);
	free(names);
	return twins;
}

cJSON *json_parse(const char *text, size_t n)
{
	cJSON *tree = strict(text, n) ? cJSON_ParseWithLength(text, n) : NULL;

	if (tree && has_twins(tree)) {
		json_free(tree);
		return NULL;
	}
	return tree;
}

static void wipe(cJSON *tree)
{
	for (cJSON *c = tree; c; c = c->next) {
		if (c->valuestring && !(c->type & cJSON_IsReference))
			mem_wipe(c->valuestring, strlen(c->valuestring));
		wipe(c->child); /* no deeper than DEPTH_MAX */
	}
}

void json_free(cJSON *tree)
{
	wipe(tree);
	cJSON_Delete(tree);
}

enum json_get json_str(
	const cJSON *obj, const char *key, size_t min_bytes, size_t max_bytes, const char **out)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(obj, key);
	size_t n;

	if (!m || cJSON_IsNull(m))
		return JSON_ABSENT;
	if (!cJSON_IsString(m))
		return JSON_BAD;
	n = strlen(m->valuestring);
	if (n < min_bytes || n > max_bytes)
		return JSON_BAD;
	*out = m->valuestring;
	return JSON_GOT;
}

enum json_get json_int(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *out)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(obj, key);
	double v;

	if (!m || cJSON_IsNull(m))
		return JSON_ABSENT;
	v = m->valuedouble;
	if (!cJSON_IsNumber(m) || !isfinite(v) || v != floor(v) || fabs(v) > 9007199254740992.0 ||
		(int64_t)v < min || (int64_t)v > max)
		return JSON_BAD;
	*out = (int64_t)v;
	return JSON_GOT;
}

char *json_print(struct arena *a, const cJSON *tree)
{
	char *text = cJSON_PrintUnformatted(tree), *copy;

	if (!text)
		abort();
	copy = arena_strdup(a, text);
	mem_wipe(text, strlen(text));
	cJSON_free(text);
	return copy;
}

/* A value follows: after another one a comma, then its name. */
static void begin_value(struct buf *b, const char *key)
{
	char last = b->len ? b->data[b->len - 1] : '{';

	if (last != '{' && last != '[')
		buf_add(b, ",", 1);
	if (!key)
		return;
	buf_add(b, "\"", 1);
	buf_str(b, key);
	buf_add(b, "\":", 2);
}

void json_open(struct buf *b, const char *key, char bracket)
{
	begin_value(b, key);
	buf_add(b, &bracket, 1);
}

void json_close(struct buf *b, char bracket)
{
	buf_add(b, &bracket, 1);
}

void json_add_str(struct buf *b, const char *key, const char *value)
{
	begin_value(b, key);
	if (value)
		buf_json_str(b, value, strlen(value));
	else
		buf_str(b, "null");
}

void json_add_int(struct buf *b, const char *key, int64_t value)
{
	char text[TEXT_INT_MAX];

	begin_value(b, key);
	buf_str(b, text_int(text, value));
}

void json_add_bool(struct buf *b, const char *key, bool value)
{
	begin_value(b, key);
	buf_str(b, value ? "true" : "false");
}
