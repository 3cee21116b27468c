/* Encodings of bytes as text. Decoders are strict: what the encoder would not have written is
 * refused. */
#ifndef COMMON_ENCODE_H
#define COMMON_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* characters for n bytes: padded (RFC 4648 section 4), and unpadded (section 5) */
#define BASE64_LEN(n) (((n) + 2) / 3 * 4)
#define BASE64URL_LEN(n) (((n)*4 + 2) / 3)

/* Each writes a NUL too: give room for it. Returns the length without it. */
size_t base64_encode(char *out, const void *in, size_t n);
size_t base64url_encode(char *out, const void *in, size_t n);
size_t hex_encode(char *out, const void *in, size_t n); /* lower case */

/* Return the number of bytes, or -1 when the text is not that encoding in canonical form or needs
 * more than cap. */
ssize_t base64_decode(void *out, size_t cap, const char *in, size_t n);
ssize_t base64url_decode(void *out, size_t cap, const char *in, size_t n);
ssize_t hex_decode(void *out, size_t cap, const char *in, size_t n); /* either case */

/* RFC 3986 percent-encoding of everything but unreserved characters; out has room for 3n+1. */
size_t percent_encode(char *out, const char *in, size_t n);
/* Strict: every % is followed by two hex digits; form also turns + into a blank. %00 is refused.
 * out has room for n+1, may be in. Returns the length or -1. */
ssize_t percent_decode(char *out, const char *in, size_t n, bool form);
bool percent_equal(const char *in, size_t n, bool form, const char *text); /* in decodes to text */

/* RFC 3629: no overlong forms, no surrogates, no U+0000 */
bool utf8_valid(const char *s, size_t n);
size_t utf8_length(const char *s, size_t n); /* characters in valid UTF-8 */

#endif
