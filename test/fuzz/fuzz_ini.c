/* The INI reader: what it reads, written out plainly and read again, is the same; line numbers are
 * the file's; and it says that all was well exactly when it said of no line that it was not. */
#include "fuzz.h"

#include "common/buf.h"
#include "common/encode.h"
#include "common/ini.h"

struct seen {
	struct buf plain;    /* what was read, written again */
	int    line, lines;  /* the last told, and how many there are */
	int    pairs, errors;
	bool   too_long;     /* a line of plain is: it cannot be read again */
};

static void one_line(struct seen *s, const char *p, size_t n)
{
	buf_add(&s->plain, p, n);
	buf_str(&s->plain, "\r\n"); /* a carriage return of the value's own stays before ours */
}

static void plain_pair(struct seen *s, const char *key, const char *value)
{
	size_t began = s->plain.len;

	buf_printf(&s->plain, "%s=", key);
	for (;;) {
		size_t n = strcspn(value, "\n");

		one_line(s, value, n);
		s->too_long |= s->plain.len - began > INI_LINE_MAX;
		if (!value[n])
			return;
		value += n + 1;
		began = s->plain.len;
		buf_str(&s->plain, "\t");
	}
}

static void lookalike(const char *text, size_t n)
{
	char out[INI_LOOKALIKE_MAX];
	bool ascii = true;

	for (size_t i = 0; i < n; i++)
		ascii = ascii && (unsigned char)text[i] < 0x80;
	if (ini_lookalike(text, n, out))
		MUST(!ascii && strlen(out) < sizeof(out) - 1 && utf8_valid(out, strlen(out)));
}

static bool on_pair(void *ctx, const char *section, const char *key, const char *value, int line)
{
	struct seen *s = ctx;
	size_t n;

	MUST(line >= 1 && line <= s->lines && line >= s->line);
	s->line = line;
	MUST(*section && utf8_valid(section, strlen(section)));
	if (!key) {
		buf_printf(&s->plain, "[%s]\r\n", section);
		return true;
	}
	s->pairs++;
	n = strlen(value);
	MUST(*key && !strchr(key, '=') && utf8_valid(key, strlen(key)) && utf8_valid(value, n));
	MUST(n == 0 || (!strchr(" \t", value[0]) && !strchr(" \t", value[n - 1])));
	lookalike(value, n);
	plain_pair(s, key, value);
	return true;
}

static void on_error(void *ctx, int line, const char *what)
{
	struct seen *s = ctx;

	MUST(line >= 1 && line <= s->lines && *what);
	s->errors++;
}

static bool read_text(struct seen *s, const char *text, size_t n)
{
	*s = (struct seen){.lines = 1};
	for (size_t i = 0; i < n; i++)
		s->lines += text[i] == '\n';
	buf_str(&s->plain, "");
	return ini_parse_text(text, n, on_pair, on_error, s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = exactly(data, size);
	struct seen first, second;

	MUST(read_text(&first, text, size) == (first.errors == 0));
	if (!first.too_long) {
		MUST(read_text(&second, first.plain.data, first.plain.len));
		MUST(second.pairs == first.pairs && second.plain.len == first.plain.len);
		MUST(!memcmp(second.plain.data, first.plain.data, first.plain.len));
		buf_free(&second.plain);
	}
	buf_free(&first.plain);
	free(text);
	return 0;
}
