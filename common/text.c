#include "common/text.h"

#include <stdarg.h>
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

void text_join(char *out, size_t size, ...)
{
	const char *piece;
	size_t room = size - 1;
	va_list ap;

	va_start(ap, size);
	while ((piece = va_arg(ap, const char *))) {
		size_t n = strlen(piece);

		if (n > room)
			n = room;
		memcpy(out, piece, n);
		out += n;
		room -= n;
	}
	va_end(ap);
	*out = '\0';
}
