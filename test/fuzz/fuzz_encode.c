/* Encodings: a decoder takes only what the encoder writes (hex: in either case; percent: any
 * mixture of what may stand for itself), says so with the least room and with no less, and gives
 * back what went in. UTF-8 is held against a decoder that counts instead of looking. */
#include "fuzz.h"

#include <ctype.h>

#include "common/encode.h"

typedef size_t (*encode_fn)(char *out, const void *in, size_t n);
typedef ssize_t (*decode_fn)(void *out, size_t cap, const char *in, size_t n);

static void there_and_back(encode_fn encode, decode_fn decode, const char *p, size_t n, size_t want)
{
	char *text = malloc(want + 1), *back;

	MUST(encode(text, p, n) == want && strlen(text) == want);
	text = realloc(text, want ? want : 1);
	back = malloc(n ? n : 1);
	MUST(decode(back, n, text, want) == (ssize_t)n && (n == 0 || !memcmp(back, p, n)));
	MUST(n == 0 || decode(back, n - 1, text, want) == -1);
	free(text);
	free(back);
}

static void only_its_own(encode_fn encode, decode_fn decode, const char *p, size_t n, bool any_case)
{
	char *bytes = malloc(n ? n : 1), *text = malloc(2 * n + 4);
	ssize_t got = decode(bytes, n, p, n);

	MUST(got >= -1 && got <= (ssize_t)n);
	if (got >= 0) {
		MUST(encode(text, bytes, (size_t)got) == n);
		for (size_t i = 0; i < n; i++)
			MUST(text[i] == (any_case ? tolower((unsigned char)p[i]) : p[i]));
	}
	free(bytes);
	free(text);
}

static void percent(const char *p, size_t n)
{
	char *text = malloc(3 * n + 1), *back = malloc(3 * n + 1), *inplace;
	size_t len = percent_encode(text, p, n);
	char *exact = exactly(text, len);

	MUST(len <= 3 * n && strlen(text) == len);
	for (int form = 0; form < 2; form++) {
		ssize_t got = percent_decode(back, exact, len, form);

		MUST(n > 0 && memchr(p, '\0', n) ? got == -1
						 : got == (ssize_t)n && !memcmp(back, p, n));
		inplace = exactly(p, n);
		inplace = realloc(inplace, n + 1);
		got = percent_decode(inplace, inplace, n, form);
		MUST(got >= -1 && got <= (ssize_t)n);
		if (got >= 0)
			MUST(strlen(inplace) == (size_t)got &&
				!(form && memchr(p, '+', n) && !memchr(inplace, ' ', (size_t)got)));
		free(inplace);
	}
	free(text);
	free(back);
	free(exact);
}

/* RFC 3629 by arithmetic: take a code point apart from its bytes, and see whether its shortest form
 * is these bytes. */
static size_t code_point(const uint8_t *s, size_t n)
{
	static const uint32_t least[] = {0, 1, 0x80, 0x800, 0x10000};
	size_t len = s[0] < 0x80       ? 1
		     : s[0] >> 5 == 6  ? 2
		     : s[0] >> 4 == 14 ? 3
		     : s[0] >> 3 == 30 ? 4
				       : 0;
	uint32_t u;

	if (len == 0 || len > n)
		return 0;
	u = len == 1 ? s[0] : s[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if (s[i] >> 6 != 2)
			return 0;
		u = u << 6 | (s[i] & 0x3f);
	}
	return u >= least[len] && u <= 0x10ffff && !(u >= 0xd800 && u <= 0xdfff) ? len : 0;
}

static void utf8(const char *p, size_t n)
{
	size_t count = 0, at = 0, len;

	while (at < n && (len = code_point((const uint8_t *)p + at, n - at))) {
		at += len;
		count++;
	}
	MUST(utf8_valid(p, n) == (at == n));
	if (at == n)
		MUST(utf8_length(p, n) == count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *p = exactly(data, size);

	there_and_back(base64_encode, base64_decode, p, size, BASE64_LEN(size));
	there_and_back(base64url_encode, base64url_decode, p, size, BASE64URL_LEN(size));
	there_and_back(hex_encode, hex_decode, p, size, 2 * size);
	only_its_own(base64_encode, base64_decode, p, size, false);
	only_its_own(base64url_encode, base64url_decode, p, size, false);
	only_its_own(hex_encode, hex_decode, p, size, true);
	percent(p, size);
	utf8(p, size);
	free(p);
	return 0;
}
