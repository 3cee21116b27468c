#include "common/text.h"

#include <string.h>

const char *text_int(char out[TEXT_INT_MAX], int64_t n)
{
	uint64_t left = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
	char *p = &out[TEXT_INT_MAX - 1];

	*p = '\0';
	do
		*--p = (char)('0' + left % 10);
	while (left /= 10);
	if (n < 0)
		*--p = '-';
	return p;
}

void text_join_list(char *out, size_t size, const char *const *strings)
{
	size_t room = size - 1;

	for (; *strings; strings++) {
		size_t n = strlen(*strings);

		if (n > room)
			n = room;
		memcpy(out, *strings, n);
		out += n;
		room -= n;
	}
	*out = '\0';
}
