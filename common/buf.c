#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/encode.h"
#include "common/mem.h"

static void grow(struct buf *b, size_t more)
{
	size_t need = b->len + more + 1, cap = b->cap ? b->cap : 256;
	char *data;

	if (need <= b->cap)
		return;
	while (cap < need)
		cap *= 2;
	data = mem_alloc(cap); /* not realloc: what it leaves behind would not be wiped */
	if (b->data) {
		memcpy(data, b->data, b->len);
		mem_wipe(b->data, b->cap);
		free(b->data);
	}
	b->data = data;
	b->cap = cap;
}

char *buf_room(struct buf *b, size_t n)
{
	if (b->cap - b->len <= n)
		grow(b, n);
	return b->data + b->len;
}

void buf_took(struct buf *b, size_t n)
{
	b->len += n;
	b->data[b->len] = '\0';
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	if (b->cap - b->len <= n)
		grow(b, n);
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	b->data[b->len] = '\0';
}

void buf_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	size_t room;
	int n;

	grow(b, 0);
	room = b->cap - b->len;
	va_start(ap, fmt);
	n = vsnprintf(b->data + b->len, room, fmt, ap);
	va_end(ap);
	if (n < 0)
		abort();
	if ((size_t)n >= room) {
		grow(b, (size_t)n);
		va_start(ap, fmt);
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	b->len += (size_t)n;
}

/* How many bytes are text that JSON takes as it is, each a character of its own. */
static size_t plain_run(const char *s, size_t n)
{
	size_t i = 0;

	while (i < n && s[i] >= ' ' && s[i] < 0x7f && s[i] != '"' && s[i] != '\\')
		i++;
	return i;
}

static size_t utf8_run(const char *s, size_t n)
{
	unsigned char c = (unsigned char)s[0];
	size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	return len <= n && utf8_valid(s, len) ? len : 0;
}

void buf_json_str(struct buf *b, const char *s, size_t n)
{
	buf_add(b, "\"", 1);
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)s[i];
		size_t run;

		if ((run = plain_run(s + i, n - i)) > 0) {
			buf_add(b, s + i, run);
			i += run;
		} else if (c == '"' || c == '\\') {
			buf_printf(b, "\\%c", c);
			i++;
		} else if (c < 0x20 || c == 0x7f) {
			buf_printf(b, "\\u%04x", c);
			i++;
		} else if ((run = utf8_run(s + i, n - i)) > 0) {
			buf_add(b, s + i, run);
			i += run;
		} else {
			buf_str(b, "\xEF\xBF\xBD");
			i++;
		}
	}
	buf_add(b, "\"", 1);
}

void buf_drop(struct buf *b, size_t n)
{
	size_t left = b->len - n;

	if (n == 0)
		return;
	memmove(b->data, b->data + n, left);
	mem_wipe(b->data + left, n);
	b->len = left;
}

void buf_clear(struct buf *b)
{
	if (b->data)
		mem_wipe(b->data, b->len);
	b->len = 0;
}

void buf_free(struct buf *b)
{
	if (b->data)
		mem_wipe(b->data, b->cap);
	free(b->data);
	*b = (struct buf){0};
}
