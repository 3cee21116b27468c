/* Log lines to standard error, logfmt or JSON, one line an event. From any thread. Waits for
 * nobody: while the reader has stopped, lines are lost, and their number is said later.
 *
 *   log_warn("redis connection lost", LOG_STR("reason", why), LOG_INT("retry_ms", wait));
 *
 * Values are escaped so that no byte of theirs ends the line or colours a terminal. Never pass a
 * secret, a session_key, a third_session or a whole code; LOG_CODE shows the first four characters
 * of one. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };
/* which finished requests get a line */
enum log_requests { LOG_REQUESTS_ALL, LOG_REQUESTS_ERRORS, LOG_REQUESTS_NONE };

struct log_field {
	const char *key;  /* NULL ends the list */
	const char *str;  /* the value, or NULL: then num */
	int64_t     num;
	/* bytes of str to show, 0 = all. A longer value is cut: it takes 1024 bytes of the line at
	 * most */
	int         keep;
};

static inline const char *log_or_empty(const char *s)
{
	return s ? s : "";
}

#define LOG_STR(k, v)  ((struct log_field){.key = (k), .str = log_or_empty(v)})
#define LOG_INT(k, v)  ((struct log_field){.key = (k), .num = (v)})
#define LOG_CODE(k, v) ((struct log_field){.key = (k), .str = log_or_empty(v), .keep = 4})

/* Before the first line, and before other threads. Lines leave at once, until log_buffer says
 * otherwise. */
void log_init(enum log_level level, enum log_format format);
void log_set_level(enum log_level level);
bool log_is_on(enum log_level level);
/* From now on debug and info lines of this thread wait for log_flush, so that one write(2) takes
 * many, PIPE_BUF bytes at most. soon is called when there is something to flush. Warnings and
 * errors, lines of other threads, and a buffer that is full go at once; exit and a crash lose
 * nothing. soon NULL: as before. */
void log_buffer(void (*soon)(void *ctx), void *ctx);
void log_flush(void);
void log_write(enum log_level level, const char *msg, const struct log_field *fields);

#define log_at(level, msg, ...) \
	do { \
		if (log_is_on(level)) \
			log_write(level, msg, \
				&(const struct log_field[]){{0}, ##__VA_ARGS__, {0}}[1]); \
	} while (0)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)

#endif
