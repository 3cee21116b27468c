/* JSON as we take it: RFC 8259, UTF-8, no NUL, no twins, nothing behind it, not too deep. */
#include "unit.h"

#include "common/json.h"

static bool parses(const char *text, size_t n)
{
	cJSON *tree = json_parse(text, n);
	bool ok = tree != NULL;

	json_free(tree);
	return ok;
}

static void test_what_parses(void **state)
{
	static const struct { const char *text; bool ok; } rows[] = {
		{"{}", true}, {"[]", true}, {" { \"a\" : [ 1 , -2.5e+3 , true , false , null , \"x\" ] } \r\n\t", true}, {"\"s\"", true}, {"0", true},
		{"{\"a\":\"\\/\\\"\\\\\\b\\f\\n\\r\\t\\u00e9\\ud83d\\udc3c\"}", true}, {"\"小明🐼\"", true},
		{"", false}, {" ", false}, {"{", false}, {"}", false}, {"{\"a\"}", false}, {"{\"a\":}", false}, {"{a:1}", false}, {"{'a':1}", false},
		{"{\"a\":1,}", false}, {"[1,]", false}, {"[,1]", false}, {"[1 2]", false}, {"{\"a\":1 \"b\":2}", false}, {"{} {}", false}, {"{}x", false},
		{"nul", false}, {"True", false}, {"NaN", false}, {"Infinity", false}, {"01", false}, {"1.", false}, {".5", false}, {"+1", false}, {"1e", false},
		{"-", false}, {"0x10", false}, {"\"a", false}, {"\"\\x\"", false}, {"\"\\u12\"", false}, {"\"\\u12g4\"", false}, {"\"\\u0000\"", false},
		{"\"\\ud83d\"", false}, {"\"\\udc3c\"", false}, {"\"\\ud83d\\u0041\"", false}, {"\"a\nb\"", false}, {"\"a\tb\"", false}, {"\"\x7f\"", true},
		{"\"\xff\"", false}, {"\"\xc0\x80\"", false}, {"\"\xed\xa0\x80\"", false}, {"\xEF\xBB\xBF{}", false}, {"// c\n{}", false}, {"/**/{}", false},
		{"{\"a\":1,\"a\":2}", false}, {"{\"a\":1,\"\\u0061\":2}", false}, {"{\"a\":{\"b\":1},\"b\":2}", true},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++)
		if (parses(rows[i].text, strlen(rows[i].text)) != rows[i].ok)
			fail_msg(
				"%s: %s", rows[i].text, rows[i].ok ? "should parse" : "should not");
	assert_false(parses("{}\0", 3));
	assert_false(parses("{\"a\0\":1}", 8));
	assert_false(parses("\"a\0b\"", 5));
}

static void test_depth(void **state)
{
	char text[201];

	(void)state;
	for (int depth = 1; depth <= 100; depth++) {
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		assert_int_equal(parses(text, (size_t)depth * 2), depth <= 32);
	}
}

/* No prefix of a whole text is one, and no end is read past: the text has no NUL behind it. */
static void test_every_prefix(void **state)
{
	static const char text[] =
		"{\"code\":\"0d3\\/\\u5c0f\",\"n\":[1.5e3,{\"x\":null}],\"t\":true}";

	(void)state;
	for (size_t n = 0; n < sizeof(text); n++) {
		char *copy = malloc(n ? n : 1);

		memcpy(copy, text, n);
		assert_int_equal(parses(copy, n), n == sizeof(text) - 1);
		free(copy);
	}
}

static void test_members(void **state)
{
	static const char text[] = "{\"s\":\"abc\",\"e\":\"\",\"n\":7,\"f\":7.5,\"big\":1e300,"
				   "\"neg\":-3,\"null\":null,\"o\":{},\"u\":\"小明\"}";
	cJSON *o = json_parse(text, strlen(text));
	const char *s = NULL;
	int64_t n = 0;

	(void)state;
	assert_int_equal(json_str(o, "s", 1, 3, &s), JSON_GOT);
	assert_string_equal(s, "abc");
	assert_int_equal(json_str(o, "s", 1, 2, &s), JSON_BAD);
	assert_int_equal(json_str(o, "s", 4, 9, &s), JSON_BAD);
	assert_int_equal(json_str(o, "S", 1, 9, &s), JSON_ABSENT); /* names are exact */
	assert_int_equal(json_str(o, "e", 1, 9, &s), JSON_BAD);
	assert_int_equal(json_str(o, "e", 0, 9, &s), JSON_GOT);
	assert_int_equal(json_str(o, "null", 0, 9, &s), JSON_ABSENT);
	assert_int_equal(json_str(o, "n", 0, 9, &s), JSON_BAD);
	assert_int_equal(json_str(o, "o", 0, 9, &s), JSON_BAD);
	assert_int_equal(json_str(o, "u", 1, 6, &s), JSON_GOT);
	assert_int_equal(json_str(o, "u", 1, 5, &s), JSON_BAD); /* bytes, not characters */
	assert_int_equal(json_str(NULL, "s", 0, 9, &s), JSON_ABSENT);
	assert_int_equal(json_int(o, "n", 0, 7, &n), JSON_GOT);
	assert_int_equal(n, 7);
	assert_int_equal(json_int(o, "n", 8, 9, &n), JSON_BAD);
	assert_int_equal(json_int(o, "n", 0, 6, &n), JSON_BAD);
	assert_int_equal(json_int(o, "f", 0, 9, &n), JSON_BAD);
	assert_int_equal(json_int(o, "big", INT64_MIN, INT64_MAX, &n), JSON_BAD);
	assert_int_equal(json_int(o, "neg", -3, 0, &n), JSON_GOT);
	assert_int_equal(n, -3);
	assert_int_equal(json_int(o, "s", 0, 9, &n), JSON_BAD);
	assert_int_equal(json_int(o, "x", 0, 9, &n), JSON_ABSENT);
	json_free(o);
	json_free(NULL);
}

static void test_writing(void **state)
{
	struct buf b = {0};
	cJSON *tree;

	(void)state;
	json_open(&b, NULL, '{');
	json_add_str(&b, "s", "ends in a bracket [");
	json_add_str(&b, "none", NULL);
	json_open(&b, "list", '[');
	json_add_int(&b, NULL, -7);
	json_open(&b, NULL, '{');
	json_close(&b, '}');
	json_add_bool(&b, NULL, true);
	json_close(&b, ']');
	json_add_bool(&b, "f", false);
	json_close(&b, '}');
	assert_string_equal(b.data,
		"{\"s\":\"ends in a bracket [\",\"none\":null,\"list\":[-7,{},true],\"f\":false}");
	tree = json_parse(b.data, b.len);
	assert_non_null(tree);
	json_free(tree);
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_parses),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_every_prefix),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_writing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
