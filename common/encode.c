#include "common/encode.h"

#include <stdint.h>
#include <string.h>

static const char std_alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static size_t b64_encode(char *out, const uint8_t *in, size_t n, const char *alphabet, bool pad)
{
	char *o = out;

	for (; n >= 3; n -= 3, in += 3) {
		*o++ = alphabet[in[0] >> 2];
		*o++ = alphabet[(in[0] & 3) << 4 | in[1] >> 4];
		*o++ = alphabet[(in[1] & 15) << 2 | in[2] >> 6];
		*o++ = alphabet[in[2] & 63];
	}
	if (n > 0) {
		*o++ = alphabet[in[0] >> 2];
		*o++ = alphabet[(in[0] & 3) << 4 | (n > 1 ? in[1] >> 4 : 0)];
		if (n > 1)
			*o++ = alphabet[(in[1] & 15) << 2];
		for (size_t i = n; pad && i < 3; i++)
			*o++ = '=';
	}
	*o = '\0';
	return (size_t)(o - out);
}

/* Value + 1 of a character, 0 for none. The last two of an alphabet are looked up in it. */
static const uint8_t b64_values[256] = {
	['A'] = 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
	['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,
	['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
};

static inline int b64_value(char c, const char *alphabet)
{
	int value = b64_values[(unsigned char)c];

	return value ? value - 1 : c == alphabet[62] ? 62 : c == alphabet[63] ? 63 : -1;
}

static ssize_t b64_decode(uint8_t *out, size_t cap, const char *in, size_t n, const char *alphabet)
{
	uint32_t v = 0;
	int bits = 0;
	size_t o = 0, i = 0;

	if (n % 4 == 1)
		return -1;
	for (; n - i >= 4 && cap - o >= 3; i += 4) {
		int a = b64_value(in[i], alphabet), b = b64_value(in[i + 1], alphabet);
		int c = b64_value(in[i + 2], alphabet), d = b64_value(in[i + 3], alphabet);

		if ((a | b | c | d) < 0)
			return -1;
		out[o++] = (uint8_t)(a << 2 | b >> 4);
		out[o++] = (uint8_t)(b << 4 | c >> 2);
		out[o++] = (uint8_t)(c << 6 | d);
	}
	for (; i < n; i++) {
		int d = b64_value(in[i], alphabet);

		if (d < 0)
			return -1;
		v = v << 6 | (uint32_t)d;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			if (o == cap)
				return -1;
			out[o++] = (uint8_t)(v >> bits);
			v &= (1u << bits) - 1;
		}
	}
	/* stray bits: another text of the same bytes is the canonical one */
	return v == 0 ? (ssize_t)o : -1;
}

size_t base64_encode(char *out, const void *in, size_t n)
{
	return b64_encode(out, in, n, std_alphabet, true);
}

size_t base64url_encode(char *out, const void *in, size_t n)
{
	return b64_encode(out, in, n, url_alphabet, false);
}

ssize_t base64_decode(void *out, size_t cap, const char *in, size_t n)
{
	if (n % 4)
		return -1;
	for (int pad = 0; pad < 2 && n > 0 && in[n - 1] == '='; pad++)
		n--;
	return b64_decode(out, cap, in, n, std_alphabet);
}

ssize_t base64url_decode(void *out, size_t cap, const char *in, size_t n)
{
	return b64_decode(out, cap, in, n, url_alphabet);
}

size_t hex_encode(char *out, const void *in, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = in;

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * n] = '\0';
	return 2 * n;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

ssize_t hex_decode(void *out, size_t cap, const char *in, size_t n)
{
	uint8_t *p = out;

	if (n % 2 || n / 2 > cap)
		return -1;
	for (size_t i = 0; i < n; i += 2) {
		int hi = hex_value(in[i]), lo = hex_value(in[i + 1]);

		if (hi < 0 || lo < 0)
			return -1;
		p[i / 2] = (uint8_t)(hi << 4 | lo);
	}
	return (ssize_t)(n / 2);
}

size_t percent_encode(char *out, const char *in, size_t n)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t o = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)in[i];

		if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			(c && strchr("-._~", c))) {
			out[o++] = (char)c;
		} else {
			out[o++] = '%';
			out[o++] = digits[c >> 4];
			out[o++] = digits[c & 15];
		}
	}
	out[o] = '\0';
	return o;
}

/* One character at *in, which moves past it; '\0' when it is none. */
static char percent_char(const char **in, const char *end, bool form)
{
	const char *p = *in;
	int hi, lo;

	*in = p + 1;
	if (*p != '%')
		return *p == '+' && form ? ' ' : *p;
	if (end - p < 3)
		return '\0';
	hi = hex_value(p[1]);
	lo = hex_value(p[2]);
	*in = p + 3;
	return hi < 0 || lo < 0 ? '\0' : (char)(hi << 4 | lo);
}

ssize_t percent_decode(char *out, const char *in, size_t n, bool form)
{
	const char *end = in + n;
	char *o = out, c;

	while (in < end) {
		if ((c = percent_char(&in, end, form)) == '\0')
			return -1;
		*o++ = c;
	}
	*o = '\0';
	return o - out;
}

bool percent_equal(const char *in, size_t n, bool form, const char *text)
{
	const char *end = in + n;

	for (; in < end; text++)
		if (*text == '\0' || percent_char(&in, end, form) != *text)
			return false;
	return *text == '\0';
}

/* Bytes of the character at s, or 0 when it is none (RFC 3629). */
static size_t utf8_char(const uint8_t *s, size_t n)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len;

	if (s[0] == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (len > n)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0; /* overlong */
	else if (s[0] == 0xed)
		high = 0x9f; /* surrogates */
	else if (s[0] == 0xf0)
		low = 0x90; /* overlong */
	else if (s[0] == 0xf4)
		high = 0x8f; /* past U+10FFFF */
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

/* Whether all eight are ASCII, and none of them NUL: a byte over 0x7f has its high bit, and taking
 * one from 0 sets it. */
static bool is_ascii_8(const char *s)
{
	uint64_t eight;

	memcpy(&eight, s, sizeof(eight));
	return ((eight | (eight - 0x0101010101010101)) & 0x8080808080808080) == 0;
}

bool utf8_valid(const char *s, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t len = n - i >= 8 && is_ascii_8(s + i)
				     ? 8
				     : utf8_char((const uint8_t *)s + i, n - i);

		if (!len)
			return false;
		i += len;
	}
	return true;
}

size_t utf8_length(const char *s, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += ((unsigned char)s[i] & 0xc0) != 0x80;
	return count;
}
