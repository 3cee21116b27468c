#include "common/ini.h"

#include <string.h>

#include "common/buf.h"
#include "common/encode.h"

struct reader {
	ini_cb cb;
	ini_error_cb on_error;
	void *ctx;
	struct buf section, key, value; /* the pair being read: it ends where the next begins */
	bool has_section, has_key;
	int key_line;
	bool ok;
};

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
	if (!end_pair(r))
		return false;
	if (p[n - 1] != ']') {
		wrong(r, line, "a section begins with [ but does not end with ]");
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

	if (!end_pair(r))
		return false;
	if (!eq) {
		wrong(r, line, "neither a section, nor key = value, nor a comment");
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
