/* A line is built on the stack, cut at its bound, and leaves in one write(2) of what a pipe takes whole: lines of several processes
 * never mix, and a reader that has stopped holds nobody up. */
#include "common/log.h"

#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/encode.h"

enum { LINE_MAX_BYTES = PIPE_BUF, VALUE_MAX = 1024, RESERVE = 64 };

static _Atomic(enum log_level) min_level = LOG_INFO; /* other threads log too */
static enum log_format line_format = LOG_LOGFMT;
static _Atomic(int64_t) lost; /* lines that found no room since the last that did */

struct line {
	char   text[LINE_MAX_BYTES];
	size_t len;
};

void log_init(enum log_level level, enum log_format format)
{
	min_level = level;
	line_format = format;
}

void log_set_level(enum log_level level)
{
	min_level = level;
}

bool log_is_on(enum log_level level)
{
	return level >= min_level;
}

static void add(struct line *l, const char *s, size_t n)
{
	if (n > sizeof(l->text) - RESERVE - l->len)
		n = sizeof(l->text) - RESERVE - l->len;
	memcpy(l->text + l->len, s, n);
	l->len += n;
}

static void add_str(struct line *l, const char *s)
{
	add(l, s, strlen(s));
}

/* The bytes of s that may stand in the line as they are, from its start: 0 when the first may not. C1 controls count as controls. */
static size_t plain_run(const char *s, size_t n)
{
	unsigned char c = (unsigned char)s[0];
	size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	if (c < 0x20 || c == 0x7f || c == '"' || c == '\\' || len > n || !utf8_valid(s, len))
		return 0;
	return c == 0xc2 && (unsigned char)s[1] < 0xa0 ? 0 : len;
}

static void add_escaped(struct line *l, const char *s, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t run = plain_run(s + i, n - i);
		char esc[8];

		if (run) {
			add(l, s + i, run);
			i += run;
			continue;
		}
		if (s[i] == '"' || s[i] == '\\')
			snprintf(esc, sizeof(esc), "\\%c", s[i]);
		else
			snprintf(esc, sizeof(esc), line_format == LOG_JSON ? "\\u%04x" : "\\x%02x", (unsigned char)s[i]);
		add_str(l, esc);
		i++;
	}
}

static size_t shown(const char *s, int keep, const char **more)
{
	size_t n = strlen(s), max = keep ? (size_t)keep : VALUE_MAX;

	*more = n > max ? "..." : "";
	if (n <= max)
		return n;
	while (!keep && max > 0 && ((unsigned char)s[max] & 0xc0) == 0x80)
		max--; /* not in the middle of a character */
	return max;
}

static bool needs_quotes(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] == '=' || s[i] == '"' || s[i] == '\\' || s[i] == 0x7f)
			return true; /* bytes over 0x7f are negative where char is signed, and quoted too */
	return n == 0;
}

static void add_value(struct line *l, const char *s, int keep)
{
	const char *more;
	size_t n = shown(s, keep, &more);
	bool quote = line_format == LOG_JSON || needs_quotes(s, n);

	if (quote)
		add_str(l, "\"");
	add_escaped(l, s, n);
	add_str(l, more);
	if (quote)
		add_str(l, "\"");
}

static void add_key(struct line *l, const char *key)
{
	if (line_format == LOG_JSON) {
		add_str(l, ",\"");
		add_str(l, key);
		add_str(l, "\":");
	} else {
		add_str(l, " ");
		add_str(l, key);
		add_str(l, "=");
	}
}

static void add_head(struct line *l, enum log_level level, const char *msg)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};
	int64_t ms = clock_wall_ms();
	time_t s = (time_t)(ms / 1000);
	struct tm tm;
	char when[40];

	gmtime_r(&s, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(when + strlen(when), sizeof(when) - strlen(when), ".%03dZ", (int)(ms % 1000));
	add_str(l, line_format == LOG_JSON ? "{\"time\":\"" : "time=");
	add_str(l, when);
	add_str(l, line_format == LOG_JSON ? "\",\"level\":\"" : " level=");
	add_str(l, names[level]);
	if (line_format == LOG_JSON)
		add_str(l, "\"");
	add_key(l, "msg");
	add_value(l, msg, 0);
}

static void add_field(struct line *l, const struct log_field *f)
{
	/* one that may not fit whole is left out, so that the line stays well formed */
	size_t len = f->str ? strlen(f->str) : 4, worst = strlen(f->key) + 32 + 6 * (len < VALUE_MAX ? len : VALUE_MAX);
	char num[24];

	if (l->len + worst > sizeof(l->text) - RESERVE)
		return;
	add_key(l, f->key);
	if (f->str) {
		add_value(l, f->str, f->keep);
	} else {
		snprintf(num, sizeof(num), "%" PRId64, f->num);
		add_str(l, num);
	}
}

/* false: there is no room for it just now. Where standard error is gone there is nobody to tell. */
static bool line_out(struct line *l)
{
	struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

	memcpy(l->text + l->len, line_format == LOG_JSON ? "}\n" : "\n", 2);
	l->len += line_format == LOG_JSON ? 2 : 1;
	if (poll(&out, 1, 0) == 0)
		return false;
	(void)!write(STDERR_FILENO, l->text, l->len);
	return true;
}

static void say_what_was_lost(void)
{
	struct log_field f = LOG_INT("lines", atomic_exchange(&lost, 0));
	struct line l = {.len = 0};

	if (f.num == 0)
		return;
	add_head(&l, LOG_WARN, "log lines were lost: whoever reads this log had stopped");
	add_field(&l, &f);
	if (!line_out(&l))
		lost += f.num;
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
	struct line l = {.len = 0};

	if (lost)
		say_what_was_lost();
	add_head(&l, level, msg);
	for (; fields->key; fields++)
		add_field(&l, fields);
	if (!line_out(&l))
		lost++;
}
