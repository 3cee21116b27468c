/* Commands as they travel to Redis: how many words, then each after its length. */
#ifndef IO_REQUEST_H
#define IO_REQUEST_H

#include <stddef.h>

struct buf;

void request_head(struct buf *b, size_t argc);
void request_word(struct buf *b, const char *p, size_t n);
/* argc words; argvlen NULL = strlen */
void request_words(struct buf *b, int argc, const char *const *argv, const size_t *argvlen);
/* of these words, without what goes around them */
size_t request_bytes(int argc, const char *const *argv, const size_t *argvlen);

#endif
