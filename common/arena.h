/* Memory with one end: everything a request needs is bumped out of its arena and goes with it.
 * Nothing is freed singly; arena_free wipes every block first, since tokens and keys pass through.
 */
#ifndef COMMON_ARENA_H
#define COMMON_ARENA_H

#include <stddef.h>

struct arena;

struct arena *arena_new(void);
void          arena_free(struct arena *a); /* wipes; NULL is fine */
void         *arena_alloc(struct arena *a, size_t n); /* zeroed, aligned for any type; never NULL */
/* copies n bytes, adds a NUL */
char         *arena_strndup(struct arena *a, const char *s, size_t n);
char         *arena_strdup(struct arena *a, const char *s);
#define arena_join(a, ...) \
	arena_join_list( \
		a, (const char *const[]){__VA_ARGS__, NULL}) /* the strings, one after another */
char         *arena_join_list(struct arena *a, const char *const *strings); /* up to a NULL */
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
