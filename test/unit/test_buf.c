/* Growing buffers, and strings as JSON writes them. */
#include "unit.h"

#include "common/buf.h"
#include "common/json.h"

static size_t wiped; /* by the last call */

/* Both stand in front of libc's (the second is what FORTIFY makes of the first): the test looks at
 * what was asked to be wiped. */
void __explicit_bzero_chk(void *p, size_t n, size_t room);

void __explicit_bzero_chk(void *p, size_t n, size_t room)
{
	(void)room;
	memset(p, 0, n);
	__asm__ volatile("" : : "r"(p) : "memory");
	wiped = n;
}

void explicit_bzero(void *p, size_t n)
{
	__explicit_bzero_chk(p, n, n);
}

/* printf leaves the start of what did not fit behind the end, and buf_drop what it moved: memory
 * goes back wiped to its end. */
static void test_wipes_all_it_had(void **state)
{
	struct buf b = {0};
	size_t cap;

	(void)state;
	buf_str(&b, "secret");
	cap = b.cap;
	buf_printf(&b, "%300s", "x"); /* grows */
	assert_int_equal(wiped, cap);
	cap = b.cap;
	b.len = 0;
	buf_free(&b);
	assert_int_equal(wiped, cap);
}

static void test_drop(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_drop(&b, 0);
	buf_str(&b, "headbody");
	buf_drop(&b, 4);
	assert_string_equal(b.data, "body");
	assert_int_equal(b.len, 4);
	assert_memory_equal(b.data + 5, "\0\0\0", 3); /* nothing of it stands twice */
	buf_drop(&b, 4);
	assert_string_equal(b.data, "");
	buf_free(&b);
}

static void test_growing(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_add(&b, "", 0);
	assert_string_equal(b.data, "");
	for (int i = 0; i < 3000; i++) {
		buf_add(&b, "x", 1);
		assert_int_equal(b.len, i + 1);
		assert_int_equal(b.data[b.len], 0);
	}
	buf_clear(&b);
	assert_string_equal(b.data, "");
	for (size_t n = 0; n < 5000; n += 499) { /* as much as was asked for can be written */
		memset(buf_room(&b, n), 'r', n);
		buf_took(&b, n / 2);
		assert_int_equal(b.data[b.len], 0);
		assert_int_equal(strspn(b.data, "r"), b.len);
	}
	buf_clear(&b);
	buf_str(&b, "a");
	buf_printf(&b, "%s%d", "b", 3);
	assert_string_equal(b.data, "ab3");
	buf_printf(&b, "%4000s", "y");
	assert_int_equal(b.len, 4003);
	buf_free(&b);
	assert_null(b.data);
	buf_str(&b, "again");
	assert_string_equal(b.data, "again");
	buf_free(&b);
	buf_free(&b);
}

static void test_json_strings(void **state)
{
	static const struct { const char *in; size_t n; const char *out; } rows[] = {
		{"", 0, "\"\""}, {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""}, {"\n\t\x01\x1f\x7f", 5, "\"\\u000a\\u0009\\u0001\\u001f\\u007f\""},
		{"\0", 1, "\"\\u0000\""}, {"小🐼", 7, "\"小🐼\""},
		{"ab\"cd\\ef\x7fgh小ij\x1f", 17, "\"ab\\\"cd\\\\ef\\u007fgh小ij\\u001f\""}, {"~ ~", 3, "\"~ ~\""}, {"\xff", 1, "\"\xEF\xBF\xBD\""}, {"a\xE5\xB0", 3, "\"a\xEF\xBF\xBD\xEF\xBF\xBD\""},
		{"\xC0\xAF", 2, "\"\xEF\xBF\xBD\xEF\xBF\xBD\""}, {"\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		struct buf b = {0};

		buf_json_str(&b, rows[i].in, rows[i].n);
		assert_string_equal(b.data, rows[i].out);
		buf_free(&b);
	}
}

/* Whatever bytes go in, what comes out is a JSON string. */
static void test_json_strings_of_any_byte(void **state)
{
	(void)state;
	for (unsigned x = 1; x < 65536; x += 7) {
		char in[3] = {(char)(x & 255), (char)(x >> 8), 'z'};
		struct buf b = {0};
		cJSON *tree;

		if (!in[0] || !in[1])
			continue; /* json_parse takes no NUL, escaped or not */
		buf_str(&b, "[");
		buf_json_str(&b, in, 3);
		buf_str(&b, "]");
		tree = json_parse(b.data, b.len);
		assert_non_null(tree);
		json_free(tree);
		buf_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_growing),
		cmocka_unit_test(test_wipes_all_it_had),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_json_strings),
		cmocka_unit_test(test_json_strings_of_any_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
