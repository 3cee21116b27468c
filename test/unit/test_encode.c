/* Encodings: published vectors, every length there and back, and what no encoder writes is refused.
 */
#include "unit.h"

#include "common/encode.h"

static void test_base64_vectors(void **state) /* RFC 4648 section 10 */
{
	static const struct { const char *in, *out, *url; } rows[] = {
		{"", "", ""}, {"f", "Zg==", "Zg"}, {"fo", "Zm8=", "Zm8"}, {"foo", "Zm9v", "Zm9v"}, {"foob", "Zm9vYg==", "Zm9vYg"},
		{"fooba", "Zm9vYmE=", "Zm9vYmE"}, {"foobar", "Zm9vYmFy", "Zm9vYmFy"}, {"\xfb\xff\xfe", "+//+", "-__-"},
	};
	char text[32], back[32];

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		size_t n = strlen(rows[i].in);

		assert_int_equal(base64_encode(text, rows[i].in, n), strlen(rows[i].out));
		assert_string_equal(text, rows[i].out);
		assert_int_equal(BASE64_LEN(n), strlen(rows[i].out));
		assert_int_equal(base64_decode(back, sizeof(back), text, strlen(text)), n);
		assert_memory_equal(back, rows[i].in, n);
		assert_int_equal(base64url_encode(text, rows[i].in, n), strlen(rows[i].url));
		assert_string_equal(text, rows[i].url);
		assert_int_equal(BASE64URL_LEN(n), strlen(rows[i].url));
		assert_int_equal(base64url_decode(back, sizeof(back), text, strlen(text)), n);
		assert_memory_equal(back, rows[i].in, n);
	}
}

static void test_base64_refused(void **state)
{
	static const char *const wrong[] = {"Z", "Zg", "Zg=", "Zg===", "=",
		"====", "Zh==", "Zm9=", "Zm8", "Zm 8", "Zm8=\n", "Zm8-", "Zm8_",
		"Z=g=", "Zg==Zg==", "\xff\xff\xff\xff"};
	static const char *const wrong_url[] = {
		"Z", "Zh", "Zm9", "Zg==", "+//+", "Zm8=", "Zm9vY", "Zm 9"};
	char back[32];

	(void)state;
	for (size_t i = 0; i < NELEM(wrong); i++)
		assert_int_equal(base64_decode(back, sizeof(back), wrong[i], strlen(wrong[i])), -1);
	for (size_t i = 0; i < NELEM(wrong_url); i++)
		assert_int_equal(
			base64url_decode(back, sizeof(back), wrong_url[i], strlen(wrong_url[i])),
			-1);
	assert_int_equal(base64_decode(back, 5, "Zm9vYmFy", 8), -1); /* six bytes */
	assert_int_equal(base64_decode(back, 6, "Zm9vYmFy", 8), 6);
	assert_int_equal(base64url_decode(back, 3, "Zm9vYg", 6), -1);
	assert_int_equal(base64_decode(back, sizeof(back), "Zm\0v", 4), -1);
}

static void test_there_and_back(void **state)
{
	uint8_t in[100], back[100];
	char text[256];

	(void)state;
	for (size_t n = 0; n <= sizeof(in); n++) {
		for (size_t i = 0; i < n; i++)
			in[i] = (uint8_t)(i * 37 + n * 11);
		size_t len = base64_encode(text, in, n);
		assert_int_equal(base64_decode(back, n, text, len), n);
		assert_memory_equal(in, back, n);
		len = base64url_encode(text, in, n);
		assert_int_equal(base64url_decode(back, n, text, len), n);
		assert_memory_equal(in, back, n);
		len = hex_encode(text, in, n);
		assert_int_equal(len, 2 * n);
		assert_int_equal(hex_decode(back, n, text, len), n);
		assert_memory_equal(in, back, n);
	}
}

static void test_hex(void **state)
{
	uint8_t out[4];

	(void)state;
	assert_int_equal(hex_decode(out, 4, "00fFAb7e", 8), 4);
	assert_memory_equal(out, "\x00\xff\xab\x7e", 4);
	assert_int_equal(hex_decode(out, 4, "0", 1), -1);
	assert_int_equal(hex_decode(out, 4, "0g", 2), -1);
	assert_int_equal(hex_decode(out, 3, "00112233", 8), -1);
	assert_int_equal(hex_decode(out, 4, "0x", 2), -1);
}

static void test_percent(void **state)
{
	static const struct { const char *in; bool form; const char *out; } rows[] = {
		{"", false, ""}, {"abc", false, "abc"}, {"a%20b", false, "a b"}, {"a+b", false, "a+b"}, {"a+b", true, "a b"}, {"%2B%2b", true, "++"},
		{"%E5%B0%8F", false, "小"}, {"%", false, NULL}, {"%2", false, NULL}, {"%2g", false, NULL}, {"%g2", false, NULL}, {"%00", false, NULL},
		{"a%00", true, NULL}, {"%%20", false, NULL}, {"%25", false, "%"},
	};
	char out[64];

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		ssize_t n = percent_decode(out, rows[i].in, strlen(rows[i].in), rows[i].form);

		if (!rows[i].out) {
			assert_int_equal(n, -1);
			continue;
		}
		assert_int_equal(n, strlen(rows[i].out));
		assert_string_equal(out, rows[i].out);
	}
	strcpy(out, "a%41%42");
	assert_int_equal(percent_decode(out, out, 7, false), 3); /* in place */
	assert_string_equal(out, "aAB");
	assert_int_equal(percent_encode(out, "aZ09-._~ /?&=+%小", 18),
		strlen("aZ09-._~%20%2F%3F%26%3D%2B%25%E5%B0%8F"));
	assert_string_equal(out, "aZ09-._~%20%2F%3F%26%3D%2B%25%E5%B0%8F");
}

static void test_utf8(void **state)
{
	static const struct { const char *s; size_t n; bool ok; size_t length; } rows[] = {
		{"", 0, true, 0}, {"abc", 3, true, 3}, {"é", 2, true, 1}, {"小明🐼", 10, true, 3}, {"\xF4\x8F\xBF\xBF", 4, true, 1}, {"\xEF\xBF\xBF", 3, true, 1},
		{"\0", 1, false, 0}, {"a\0b", 3, false, 0}, {"\x80", 1, false, 0}, {"\xC0\x80", 2, false, 0}, {"\xC1\xBF", 2, false, 0}, {"\xC2", 1, false, 0},
		{"\xE0\x9F\xBF", 3, false, 0}, {"\xE0\xA0", 2, false, 0}, {"\xED\xA0\x80", 3, false, 0}, {"\xED\xBF\xBF", 3, false, 0}, {"\xED\x9F\xBF", 3, true, 1},
		{"\xF0\x8F\xBF\xBF", 4, false, 0}, {"\xF4\x90\x80\x80", 4, false, 0}, {"\xF5\x80\x80\x80", 4, false, 0}, {"\xF8\x88\x80\x80\x80", 5, false, 0},
		{"\xF0\x9F\x90", 3, false, 0}, {"\xFE", 1, false, 0}, {"a\xC2z", 3, false, 0},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		assert_int_equal(utf8_valid(rows[i].s, rows[i].n), rows[i].ok);
		if (rows[i].ok)
			assert_int_equal(utf8_length(rows[i].s, rows[i].n), rows[i].length);
	}
}

/* ASCII is read eight bytes at a time: one byte that is none is seen wherever it stands. */
static void test_utf8_at_every_place(void **state)
{
	char text[20];

	(void)state;
	for (size_t at = 0; at < sizeof(text); at++)
		for (int c = 0; c < 256; c++) {
			memset(text, 'a', sizeof(text));
			text[at] = (char)c;
			assert_int_equal(utf8_valid(text, sizeof(text)), c > 0 && c < 0x80);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64_vectors),
		cmocka_unit_test(test_base64_refused),
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_percent),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_utf8_at_every_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
