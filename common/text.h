/* Short texts put together without printf, where requests pass: printf would cost more there than
 * all the rest. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

#include <stddef.h>
#include <stdint.h>

enum { TEXT_INT_MAX = 21 }; /* room for any int64_t, its NUL included */

/* The decimal text of n: somewhere in out, with its NUL. */
const char *text_int(char out[TEXT_INT_MAX], int64_t n);

/* Joins the strings in out, cut to size - 1 bytes; adds the NUL. */
#define text_join(out, size, ...) \
	text_join_list(out, size, (const char *const[]){__VA_ARGS__, NULL})
void text_join_list(char *out, size_t size, const char *const *strings); /* up to a NULL */

#endif
