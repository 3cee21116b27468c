/* Lines are built on the stack and gathered in one buffer of what a pipe takes whole, so that lines
 * of several processes never mix. The buffer leaves in one write(2) through a descriptor that never
 * blocks. A reader that has stopped holds nobody up: what finds no room in the buffer is lost, and
 * counted. */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/encode.h"
#include "common/mem.h"

enum { LINE_MAX_BYTES = PIPE_BUF, VALUE_MAX = 1024, RESERVE = 64, LEAST_ROOM = 64 };

static _Atomic(enum log_level) min_level = LOG_INFO; /* other threads log too */
static enum log_format line_format = LOG_LOGFMT;

struct line {
	char   text[LINE_MAX_BYTES];
	size_t len;
};

/* where lines go */
static int  out_fd = STDERR_FILENO;
static bool out_is_socket;

/* what all threads share */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct line kept;    /* whole lines, less what has left of the first */
static int64_t     lost;    /* lines that found no room since the last that did */
static bool        flushing_soon;
static void      (*flush_soon)(void *ctx);
static void       *flush_soon_ctx;
static _Thread_local bool may_wait; /* the thread that will call log_flush */

/* ---- out ---- */

/* Bytes that were taken, 0 when there is no room, -1 when there is nobody to tell any more. */
static ssize_t put(const char *p, size_t n)
{
	ssize_t done;

	do
		done = out_is_socket ? send(out_fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
				     : write(out_fd, p, n);
	while (done < 0 && errno == EINTR);
	return done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : done;
}

/* false: the reader has no room for all of it. */
static bool flush(void)
{
	flushing_soon = false;
	while (kept.len > 0) {
		ssize_t n = put(kept.text, kept.len);

		if (n == 0)
			return false;
		kept.len -= n < 0 ? kept.len : (size_t)n;
		memmove(kept.text, kept.text + (n < 0 ? 0 : n), kept.len);
	}
	return true;
}

void log_flush(void)
{
	pthread_mutex_lock(&lock);
	flush();
	pthread_mutex_unlock(&lock);
}

void log_buffer(void (*soon)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&lock);
	flush();
	flush_soon = soon;
	flush_soon_ctx = ctx;
	may_wait = soon != NULL;
	pthread_mutex_unlock(&lock);
}

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
static struct sigaction before_fatal[NELEM(fatal_signals)];

/* A crash takes no line with it. Whoever looked after the signal before us does so now: mostly that
 * is death. */
static void on_fatal(int signo)
{
	for (size_t i = 0; i < NELEM(fatal_signals); i++)
		if (fatal_signals[i] == signo) {
			(void)put(kept.text, kept.len);
			sigaction(signo, &before_fatal[i], NULL);
			if (before_fatal[i].sa_handler == SIG_DFL)
				raise(signo);
		}
}

static void lose_nothing(void)
{
	struct sigaction on = {.sa_handler = on_fatal};

	atexit(log_flush);
	for (size_t i = 0; i < NELEM(fatal_signals); i++)
		sigaction(fatal_signals[i], &on, &before_fatal[i]);
}

/* A descriptor that does not block. O_NONBLOCK on standard error itself would hold for everybody
 * who shares it, a shell for example, so it is opened anew. Where that is not allowed (a pipe or
 * terminal of another user) it is set all the same: not to hang counts for more. A regular file
 * needs neither, and must be appended to by the descriptor that we were given. */
static int open_out(void)
{
	struct stat st;
	int fd;

	if (fstat(STDERR_FILENO, &st) || S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode))
		return STDERR_FILENO;
	fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) | O_NONBLOCK);
	return STDERR_FILENO;
}

void log_init(enum log_level level, enum log_format format)
{
	static bool again;
	struct stat st;

	log_flush();
	if (!again)
		lose_nothing();
	again = true;
	if (out_fd != STDERR_FILENO)
		close(out_fd);
	out_fd = open_out();
	out_is_socket = fstat(out_fd, &st) == 0 && S_ISSOCK(st.st_mode);
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

/* ---- a line ---- */

static size_t room(const struct line *l)
{
	return sizeof(l->text) - RESERVE - l->len;
}

static void add(struct line *l, const char *s, size_t n)
{
	if (n > room(l))
		n = room(l);
	memcpy(l->text + l->len, s, n);
	l->len += n;
}

static void add_str(struct line *l, const char *s)
{
	add(l, s, strlen(s));
}

static void add_num(struct line *l, int64_t n)
{
	uint64_t left = n < 0 ? -(uint64_t)n : (uint64_t)n;
	char text[24], *p = text + sizeof(text);

	do
		*--p = (char)('0' + left % 10);
	while (left /= 10);
	if (n < 0)
		*--p = '-';
	add(l, p, (size_t)(text + sizeof(text) - p));
}

/* The bytes of s that may stand in the line as they are, from its start: 0 when the first may not.
 * C1 controls count as controls. */
static size_t plain_character(const char *s, size_t n)
{
	unsigned char c = (unsigned char)s[0];
	size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	if (c < 0x20 || c == 0x7f || c == '"' || c == '\\' || len > n || !utf8_valid(s, len))
		return 0;
	return c == 0xc2 && (unsigned char)s[1] < 0xa0 ? 0 : len;
}

/* The same for plain ASCII, many at once. */
static size_t plain_run(const char *s, size_t n)
{
	size_t i = 0;

	while (i < n && s[i] >= ' ' && s[i] < 0x7f && s[i] != '"' && s[i] != '\\')
		i++;
	return i ? i : plain_character(s, n);
}

static size_t escape(char out[6], char c)
{
	static const char digits[] = "0123456789abcdef";
	size_t n = 0;

	out[n++] = '\\';
	if (c == '"' || c == '\\') {
		out[n++] = c;
		return n;
	}
	out[n++] = line_format == LOG_JSON ? 'u' : 'x';
	if (line_format == LOG_JSON) {
		out[n++] = '0';
		out[n++] = '0';
	}
	out[n++] = digits[(unsigned char)c >> 4];
	out[n++] = digits[c & 15];
	return n;
}

/* At most max bytes of the line. Returns how much of s that took. */
static size_t add_escaped(struct line *l, const char *s, size_t n, size_t max)
{
	size_t i = 0, used = 0;

	while (i < n && used < max) {
		size_t run = plain_run(s + i, n - i);
		char esc[6];
		size_t len = run ? run : escape(esc, s[i]);

		if (used + len > max && run > 4) /* ASCII, which may be cut anywhere */
			len = run = max - used;
		if (used + len > max)
			break;
		add(l, run ? s + i : esc, len);
		used += len;
		i += run ? run : 1;
	}
	return i;
}

static bool needs_quotes(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] == '=' || s[i] == '"' || s[i] == '\\' || s[i] == 0x7f)
			/* bytes over 0x7f are negative where char is signed, and quoted too */
			return true;
	return n == 0;
}

/* A value takes half of the room that is left at most, so that each field after it has room too. */
static void add_value(struct line *l, const char *s, int keep)
{
	size_t max = room(l) / 2 < VALUE_MAX ? room(l) / 2 : VALUE_MAX,
	       n = strnlen(s, keep ? (size_t)keep : VALUE_MAX);
	bool quote = line_format == LOG_JSON || needs_quotes(s, n);

	if (quote)
		add_str(l, "\"");
	n = add_escaped(l, s, n, max);
	if (s[n])
		add_str(l, "...");
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

/* The second is printed once. */
static void add_time(struct line *l)
{
	static _Thread_local char text[] = "2026-01-01T00:00:00.000Z";
	static _Thread_local time_t made;
	int64_t ms = clock_wall_ms();
	time_t s = (time_t)(ms / 1000);
	char *fraction = text + sizeof("2026-01-01T00:00:00.") - 1;
	struct tm tm;

	if (s != made) {
		gmtime_r(&s, &tm);
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
		made = s;
	}
	fraction[0] = (char)('0' + ms % 1000 / 100);
	fraction[1] = (char)('0' + ms % 100 / 10);
	fraction[2] = (char)('0' + ms % 10);
	add(l, text, sizeof(text) - 1);
}

static void add_head(struct line *l, enum log_level level, const char *msg)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};

	add_str(l, line_format == LOG_JSON ? "{\"time\":\"" : "time=");
	add_time(l);
	add_str(l, line_format == LOG_JSON ? "\",\"level\":\"" : " level=");
	add_str(l, names[level]);
	if (line_format == LOG_JSON)
		add_str(l, "\"");
	add_key(l, "msg");
	add_value(l, msg, 0);
}

static void add_field(struct line *l, const struct log_field *f)
{
	if (room(l) < strlen(f->key) + LEAST_ROOM)
		return; /* only a line of very many long fields comes to this */
	add_key(l, f->key);
	if (f->str)
		add_value(l, f->str, f->keep);
	else
		add_num(l, f->num);
}

static void line_make(
	struct line *l, enum log_level level, const char *msg, const struct log_field *fields)
{
	l->len = 0;
	add_head(l, level, msg);
	for (; fields->key; fields++)
		add_field(l, fields);
	memcpy(l->text + l->len, line_format == LOG_JSON ? "}\n" : "\n", 2);
	l->len += line_format == LOG_JSON ? 2 : 1;
}

/* ---- lines that wait ---- */

/* false: there is no room for it. */
static bool keep(const struct line *l)
{
	if (kept.len + l->len > sizeof(kept.text))
		flush();
	if (kept.len + l->len > sizeof(kept.text))
		return false;
	memcpy(kept.text + kept.len, l->text, l->len);
	kept.len += l->len;
	return true;
}

static void say_what_was_lost(void)
{
	struct line l;

	line_make(&l, LOG_WARN, "log lines were lost: the reader of this log had stopped",
		(struct log_field[]){LOG_INT("lines", lost), {0}});
	if (keep(&l))
		lost = 0;
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
	bool tell = false;
	struct line l;

	line_make(&l, level, msg, fields);
	pthread_mutex_lock(&lock);
	if (lost)
		say_what_was_lost();
	if (lost || !keep(&l))
		lost++;
	if (level > LOG_INFO || !may_wait)
		flush();
	else
		tell = !flushing_soon;
	flushing_soon |= tell;
	pthread_mutex_unlock(&lock);
	if (tell)
		flush_soon(flush_soon_ctx);
}
