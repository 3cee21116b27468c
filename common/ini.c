#include "common/ini.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/encode.h"
#include "common/mem.h"

struct reader {
	ini_cb cb;
	ini_error_cb on_error;
	void *ctx;
	struct buf section, key, value; /* the pair being read: it ends where the next begins */
	bool has_section, has_key;
	int key_line;
	bool ok;
};

/* The code point of the character at p, and its length; the text is valid UTF-8. */
static uint32_t character(const unsigned char *p, size_t *len)
{
	*len = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
	switch (*len) {
	case 1:
		return *p;
	case 2:
		return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
	case 3:
		return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
	default:
		return 0x10000; /* none of those is meant */
	}
}

/* What of ASCII is meant by c; 0: c is itself; ' ' also for what cannot be seen. */
static char meant(uint32_t c)
{
	static const struct {
		uint32_t c;
		char is;
	} signs[] = {
		{0x3010, '['},
		{0x3011, ']'},
		{0x201c, '"'},
		{0x201d, '"'},
		{0x2018, '\''},
		{0x2019, '\''},
		{0x3001, ','},
		{0x3002, '.'},
		{0xa0, ' '},
		{0x3000, ' '},
		{0x202f, ' '},
		{0x200b, ' '},
		{0x200c, ' '},
		{0x200d, ' '},
		{0x2060, ' '},
		{0xfeff, ' '},
	};

	if (c >= 0xff01 && c <= 0xff5e)
		return (char)(c - 0xfee0);
	if (c >= 0x2000 && c <= 0x200a)
		return ' ';
	for (size_t i = 0; i < NELEM(signs); i++)
		if (signs[i].c == c)
			return signs[i].is;
	return 0;
}

bool ini_lookalike(const char *text, size_t n, char out[INI_LOOKALIKE_MAX])
{
	size_t len;

	for (size_t i = 0; i < n; i += len) {
		uint32_t c = character((const unsigned char *)text + i, &len);
		char is = meant(c);

		if (is == ' ')
			snprintf(out, INI_LOOKALIKE_MAX,
				"there is a blank or invisible character that is not ASCII "
				"(U+%04X)",
				(unsigned)c);
		else if (is)
			snprintf(out, INI_LOOKALIKE_MAX, "%.*s (U+%04X) stands where %c is meant",
				(int)len, text + i, (unsigned)c, is);
		if (is)
			return true;
	}
	return false;
}

static void wrong(struct reader *r, int line, const char *what)
{
	r->ok = false;
	r->on_error(r->ctx, line, what);
}

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

static void trim(const char **p, size_t *n)
{
	while (*n && blank(**p))
		(*p)++, (*n)--;
	while (*n && blank((*p)[*n - 1]))
		(*n)--;
}

static size_t without_comment(const char *p, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (p[i] == ';' && blank(p[i - 1]))
			return i;
	return n;
}

static bool end_pair(struct reader *r)
{
	if (!r->has_key)
		return true;
	r->has_key = false;
	return r->cb(r->ctx, r->section.data, r->key.data, r->value.data, r->key_line);
}

static void set(struct buf *b, const char *p, size_t n)
{
	buf_clear(b);
	buf_add(b, p, n);
}

static bool read_section(struct reader *r, const char *p, size_t n, int line)
{
	char odd[INI_LOOKALIKE_MAX];

	if (!end_pair(r))
		return false;
	if (p[n - 1] != ']') {
		wrong(r, line,
			ini_lookalike(p, n, odd)
				? odd
				: "a section begins with [ but does not end with ]");
		return true;
	}
	p++;
	n -= 2;
	trim(&p, &n);
	if (!n) {
		wrong(r, line, "a section needs a name");
		return true;
	}
	set(&r->section, p, n);
	r->has_section = true;
	return r->cb(r->ctx, r->section.data, NULL, NULL, line);
}

static bool read_pair(struct reader *r, const char *p, size_t n, int line)
{
	const char *eq = memchr(p, '=', n), *v;
	size_t key_len, value_len;
	char odd[INI_LOOKALIKE_MAX];

	if (!end_pair(r))
		return false;
	if (!eq) {
		wrong(r, line,
			ini_lookalike(p, n, odd)
				? odd
				: "neither a section, nor key = value, nor a comment");
		return true;
	}
	key_len = (size_t)(eq - p);
	v = eq + 1;
	value_len = n - key_len - 1;
	trim(&p, &key_len);
	trim(&v, &value_len);
	if (!key_len)
		wrong(r, line, "a value without a key");
	else if (!r->has_section)
		wrong(r, line, "a key before any section");
	else {
		set(&r->key, p, key_len);
		set(&r->value, v, value_len);
		r->has_key = true;
		r->key_line = line;
	}
	return true;
}

static bool read_line(struct reader *r, const char *p, size_t n, int line)
{
	bool indented = n && blank(*p);

	if (n > INI_LINE_MAX) {
		wrong(r, line, "the line is longer than 8192 bytes");
		return true;
	}
	if (!utf8_valid(p, n)) {
		wrong(r, line, "the line is not UTF-8, or holds a NUL byte");
		return true;
	}
	n = without_comment(p, n);
	trim(&p, &n);
	if (!n || *p == '#' || *p == ';')
		return true;
	if (indented && r->has_key) {
		if (r->value.len)
			buf_add(&r->value, "\n", 1);
		buf_add(&r->value, p, n);
		return true;
	}
	return *p == '[' ? read_section(r, p, n, line) : read_pair(r, p, n, line);
}

bool ini_parse_text(const char *text, size_t n, ini_cb cb, ini_error_cb on_error, void *ctx)
{
	struct reader r = {.cb = cb, .on_error = on_error, .ctx = ctx, .ok = true};
	bool go = true;

	if (n >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2))) {
		wrong(&r, 1, "the file is UTF-16: save it as UTF-8");
		return false;
	}
	if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		text += 3, n -= 3;
	buf_str(&r.section, "");
	for (int line = 1; go && n > 0; line++) {
		const char *nl = memchr(text, '\n', n);
		size_t len = nl ? (size_t)(nl - text) : n;

		go = read_line(&r, text, len && text[len - 1] == '\r' ? len - 1 : len, line);
		text += len + (nl != NULL);
		n -= len + (nl != NULL);
	}
	go = go && end_pair(&r);
	buf_free(&r.section);
	buf_free(&r.key);
	buf_free(&r.value);
	return go && r.ok;
}
