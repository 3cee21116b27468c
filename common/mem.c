#include "common/mem.h"

#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SMALL = 16 * 1024, TRIM_OVER = 8 * 1024 * 1024 };

/* malloc and memset for what is small: glibc's calloc does not use the thread's cache, and costs
 * four times as much. What is large may come zeroed from the system. */
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

/* What the process holds of memory beyond what is in use. Pages of programs and libraries count,
 * too; and large blocks that were never touched are in use but not held, so that it may be less
 * than nothing. */
static int64_t idle_bytes(void)
{
	struct mallinfo2 info = mallinfo2();
	/* pages of address space, pages of memory, ... */
	FILE *f = fopen("/proc/self/statm", "re");
	char line[128] = "";
	const char *pages;

	if (!f)
		return 0;
	pages = fgets(line, sizeof(line), f) ? strchr(line, ' ') : NULL;
	fclose(f);
	return pages ? strtol(pages, NULL, 10) * sysconf(_SC_PAGESIZE) -
			       (int64_t)(info.uordblks + info.hblkhd)
		     : 0;
}

/* glibc gives back the heap's end by itself, but not the holes, and one block that lives keeps the
 * end. */
void mem_trim(void)
{
	/* of the idle bytes, as far as trimming can bring them down */
	static int64_t least = INT64_MAX - TRIM_OVER;
	int64_t idle = idle_bytes();

	if (idle > least + TRIM_OVER) {
		malloc_trim(0);
		least = idle = idle_bytes();
	}
	if (idle < least)
		least = idle;
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
