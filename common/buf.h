/* A growing run of bytes, always followed by a NUL that len does not count. Tokens and codes pass
 * through it, so all memory that it gives back is wiped first, to its end. */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stddef.h>

struct buf {
	char  *data; /* NULL until something was added */
	size_t len;
	size_t cap;
};

void buf_add(struct buf *b, const void *p, size_t n);
/* where n bytes can be written; then buf_took says how many of them were */
char *buf_room(struct buf *b, size_t n);
void buf_took(struct buf *b, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* quoted and escaped; bytes that are not UTF-8 become U+FFFD */
void buf_json_str(struct buf *b, const char *s, size_t n);
void buf_drop(struct buf *b, size_t n); /* the first n bytes; what follows moves to the front */
void buf_clear(struct buf *b); /* wipes what was added, keeps the memory */
void buf_free(struct buf *b);  /* wipes, frees, leaves it empty and usable */

#endif
