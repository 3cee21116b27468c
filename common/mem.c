#include "common/mem.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

void *mem_alloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		abort();
	return p;
}

void *mem_realloc(void *p, size_t n)
{
	p = realloc(p, n ? n : 1);
	if (!p)
		abort();
	return p;
}

char *mem_strndup(const char *s, size_t n)
{
	char *c = mem_alloc(n + 1);

	memcpy(c, s, n);
	return c;
}

char *mem_strdup(const char *s)
{
	return s ? mem_strndup(s, strlen(s)) : NULL;
}

void mem_wipe(void *p, size_t n)
{
	OPENSSL_cleanse(p, n);
}

void mem_free_secret(char *s)
{
	if (s)
		mem_wipe(s, strlen(s));
	free(s);
}
