/* An INI reader that knows line numbers: sections, keys, continuation lines (indented), comments at
 * a line's start or after blank-semicolon; a byte order mark is skipped. A small reader of our own:
 * Debian's inih cuts lines at 200 bytes and tells no line. */
#ifndef COMMON_INI_H
#define COMMON_INI_H

#include <stdbool.h>
#include <stddef.h>

#define INI_LINE_MAX 8192 /* a longer line is an error */

/* Called for each section header (key NULL) and each key = value, in order; continuation lines are
 * joined by a newline. Strings are borrowed. Return false to stop. */
typedef bool (*ini_cb)(
	void *ctx, const char *section, const char *key, const char *value, int line);
/* Called with what is wrong with a line; reading goes on. */
typedef void (*ini_error_cb)(void *ctx, int line, const char *what);

/* Reads n bytes of text. false when on_error was called or cb stopped it. */
bool ini_parse_text(const char *text, size_t n, ini_cb cb, ini_error_cb on_error, void *ctx);

/* Finds the first character in valid UTF-8 that only looks like one of ASCII, as Chinese keyboards
 * write it (full-width letters and signs, curly quotes, brackets, blanks), or that cannot be seen.
 * Says so in out, and what is meant. false: there is none. */
#define INI_LOOKALIKE_MAX 80
bool ini_lookalike(const char *text, size_t n, char out[INI_LOOKALIKE_MAX]);

#endif
