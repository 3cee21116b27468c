/* What every fuzzer includes. A fuzzer holds properties (MUST), not only "does not crash"; it takes
 * the few choices it needs from the front of the input, and everything else of it is the bytes of
 * an outsider. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #what); \
			abort(); \
		} \
	} while (0)

struct input {
	const uint8_t *p;
	size_t n;
};

static inline unsigned take_byte(struct input *in)
{
	if (in->n == 0)
		return 0;
	in->n--;
	return *in->p++;
}

/* A copy of exactly n bytes, so that the sanitizer sees a byte read past them. */
static inline char *exactly(const void *p, size_t n)
{
	char *copy = malloc(n ? n : 1);

	if (n)
		memcpy(copy, p, n);
	return copy;
}

/* All up to the next separator byte, or the end, as a string (without what follows a NUL); the
 * separator is passed over. free() it. */
static inline char *take_text(struct input *in, int separator)
{
	const uint8_t *end = in->n ? memchr(in->p, separator, in->n) : NULL;
	size_t n = end ? (size_t)(end - in->p) : in->n;
	char *text = malloc(n + 1);

	if (n)
		memcpy(text, in->p, n);
	text[n] = '\0';
	in->p += n + (end != NULL);
	in->n -= n + (end != NULL);
	return text;
}

#endif
