#include "io/request.h"

#include <string.h>

#include "common/buf.h"

enum { COUNT_MAX = 24 /* "$", the digits, a line's end */ };

/* "*3" or "$12", and the line's end. Answers how long it is. */
static size_t print_count(char out[COUNT_MAX], char what, size_t n)
{
	char text[COUNT_MAX], *end = text + sizeof(text), *p = end;

	*--p = '\n';
	*--p = '\r';
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	*--p = what;
	memcpy(out, p, (size_t)(end - p));
	return (size_t)(end - p);
}

void request_head(struct buf *b, size_t argc)
{
	buf_took(b, print_count(buf_room(b, COUNT_MAX), '*', argc));
}

void request_word(struct buf *b, const char *p, size_t n)
{
	char *to = buf_room(b, COUNT_MAX + n + 2);
	size_t head = print_count(to, '$', n);

	memcpy(to + head, p, n);
	memcpy(to + head + n, "\r\n", 2);
	buf_took(b, head + n + 2);
}

void request_words(struct buf *b, int argc, const char *const *argv, const size_t *argvlen)
{
	for (int i = 0; i < argc; i++)
		request_word(b, argv[i], argvlen ? argvlen[i] : strlen(argv[i]));
}

size_t request_bytes(int argc, const char *const *argv, const size_t *argvlen)
{
	size_t n = 0;

	for (int i = 0; i < argc; i++)
		n += argvlen ? argvlen[i] : strlen(argv[i]);
	return n;
}
