/* Section 3.2 of the specification. What it calls invalid is as if it were not there. */
#include "common/trace.h"

#include <stddef.h>
#include <string.h>

enum { WHOLE = 55 };

/* n lower-case hexadecimal digits at p; *zero: nothing but 0 */
static bool is_hex(const char *p, size_t n, bool *zero)
{
	*zero = strspn(p, "0") >= n;
	return strspn(p, "0123456789abcdef") >= n;
}

bool trace_parent_ok(const char *text)
{
	size_t len = strlen(text);
	bool version_0, no_trace, no_parent, flags_0;

	if (len < WHOLE || text[2] != '-' || text[35] != '-' || text[52] != '-')
		return false;
	if (!is_hex(text, 2, &version_0) || !is_hex(text + TRACE_ID_AT, TRACE_ID_LEN, &no_trace) ||
	    !is_hex(text + 36, 16, &no_parent) || !is_hex(text + 53, 2, &flags_0))
		return false;
	if (no_trace || no_parent || !strncmp(text, "ff", 2))
		return false;
	return len == WHOLE || (!version_0 && text[WHOLE] == '-');
}
