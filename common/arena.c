#include "common/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* Blocks of the usual size are kept for the next arena: wiped, they are as good as fresh ones. Not
 * under AddressSanitizer, which would no longer see a use after the end. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
enum { POOL_MAX = 0 };
#else
enum { POOL_MAX = 256 };
#endif
enum { BLOCK = 4096, ALIGN = 16 };

struct block {
	struct block *next;
	size_t used, cap;
	_Alignas(ALIGN) char data[];
};

struct arena {
	struct block *top;
};

static _Thread_local struct block *pool;
static _Thread_local int pooled;

static struct block *block_new(size_t cap, struct block *next)
{
	struct block *b = pool;

	if (cap == BLOCK && b) {
		pool = b->next;
		pooled--;
	} else {
		b = mem_alloc(sizeof(*b) + cap);
	}
	b->used = 0;
	b->cap = cap;
	b->next = next;
	return b;
}

struct arena *arena_new(void)
{
	struct block *first = block_new(BLOCK, NULL);
	struct arena *a = (struct arena *)first->data; /* the arena lives in its own first block */

	first->used = ALIGN;
	a->top = first;
	return a;
}

void arena_free(struct arena *a)
{
	struct block *b = a ? a->top : NULL, *next;

	for (; b; b = next) {
		next = b->next;
		mem_wipe(b->data, b->used);
		if (b->cap != BLOCK || pooled >= POOL_MAX) {
			free(b);
			continue;
		}
		b->next = pool;
		pool = b;
		pooled++;
	}
}

void *arena_alloc(struct arena *a, size_t n)
{
	size_t need = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	struct block *b = a->top;
	void *p;

	if (need < n)
		abort();
	if (b->cap - b->used < need)
		b = a->top = block_new(need > BLOCK / 2 ? need + BLOCK / 2 : BLOCK, b);
	p = b->data + b->used;
	b->used += need;
	return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
	char *c = arena_alloc(a, n + 1);

	memcpy(c, s, n);
	return c;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_strndup(a, s, strlen(s));
}

char *arena_join_list(struct arena *a, const char *const *strings)
{
	size_t n = 0;
	char *text, *end;

	for (const char *const *s = strings; *s; s++)
		n += strlen(*s);
	text = end = arena_alloc(a, n + 1);
	for (const char *const *s = strings; *s; s++)
		end = stpcpy(end, *s);
	return text;
}

/* Prints into the rest of the block first: almost always it fits, and is there already when its
 * room is taken. */
char *arena_printf(struct arena *a, const char *fmt, ...)
{
	struct block *b = a->top;
	size_t room = b->cap - b->used, len;
	va_list ap;
	char *c;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(b->data + b->used, room, fmt, ap);
	va_end(ap);
	if (n < 0)
		abort();
	len = (size_t)n + 1;
	if (len <= room)
		return arena_alloc(a, len);
	mem_wipe(b->data + b->used, room); /* what nobody has taken is zeros */
	c = arena_alloc(a, len);
	va_start(ap, fmt);
	vsnprintf(c, len, fmt, ap);
	va_end(ap);
	return c;
}
