#include "common/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SMALL = 16 * 1024 };

/* malloc and memset for what is small: glibc's calloc does not use the thread's cache, and costs four times as much. What is large may
 * come zeroed from the system. */
void *mem_alloc(size_t n)
{
	void *p = n < SMALL ? malloc(n ? n : 1) : calloc(1, n);

	if (!p)
		abort();
	return n < SMALL ? memset(p, 0, n) : p;
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

void *mem_shared(size_t n)
{
	/* cppcheck-suppress invalidFunctionArg ; no file: -1, as mmap(2) says */
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

void mem_shared_free(void *p, size_t n)
{
	if (p)
		munmap(p, n);
}

void mem_wipe(void *p, size_t n)
{
	explicit_bzero(p, n);
}

void mem_free_secret(char *s)
{
	if (s)
		mem_wipe(s, strlen(s));
	free(s);
}
