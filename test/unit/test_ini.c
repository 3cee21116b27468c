/* The INI reader: what each line is, with its number, and what is wrong with those that are none.
 */
#include "unit.h"

#include "common/buf.h"
#include "common/ini.h"

static struct buf said;
static int stop_at;

static bool on_entry(void *ctx, const char *section, const char *key, const char *value, int line)
{
	(void)ctx;
	if (key)
		buf_printf(&said, "%d:[%s]%s=<%s>\n", line, section, key, value);
	else
		buf_printf(&said, "%d:[%s]\n", line, section);
	return line != stop_at;
}

static void on_wrong(void *ctx, int line, const char *what)
{
	(void)ctx;
	assert_true(*what);
	buf_printf(&said, "%d!\n", line);
}

static void reads(const char *text, size_t n, const char *want, bool ok)
{
	buf_free(&said);
	buf_str(&said, "");
	if (ini_parse_text(text, n, on_entry, on_wrong, NULL) != ok || strcmp(said.data, want) != 0)
		fail_msg("%s\n gave\n%s not\n%s", text, said.data, want);
	buf_free(&said);
}

static void test_lines(void **state)
{
	static const struct { const char *text, *want; bool ok; } rows[] = {
		{"", "", true}, {"\n\n", "", true}, {"; c\n# c\n", "", true}, {"[a]\nk = v\n", "1:[a]\n2:[a]k=<v>\n", true}, {"[a]\nk=v", "1:[a]\n2:[a]k=<v>\n", true},
		{"[a]\r\nk = v \r\n", "1:[a]\n2:[a]k=<v>\n", true}, {"[a]\nk = v ; comment\n", "1:[a]\n2:[a]k=<v>\n", true},
		{"[a]\nk = v;no comment\n", "1:[a]\n2:[a]k=<v;no comment>\n", true}, {"[a]\nk = a = b\n", "1:[a]\n2:[a]k=<a = b>\n", true},
		{"[a]\nk =\n", "1:[a]\n2:[a]k=<>\n", true}, {"[a]\nk = one\n  two\n\tthree\n", "1:[a]\n2:[a]k=<one\ntwo\nthree>\n", true},
		{"[a]\nk = one,\n  two ; c\n\nj = x\n", "1:[a]\n2:[a]k=<one,\ntwo>\n5:[a]j=<x>\n", true},
		{"[app wx1]\nsecret = s\n", "1:[app wx1]\n2:[app wx1]secret=<s>\n", true}, {"[a] ; c\nk = v\n", "1:[a]\n2:[a]k=<v>\n", true},
		{"[a]\nno equals\nk = v\n", "1:[a]\n2!\n3:[a]k=<v>\n", false}, {"[a\nk = v\n", "1!\n2!\n", false}, {"k = v\n", "1!\n", false}, {"[a]\n= v\n", "1:[a]\n2!\n", false},
		{"[a]\n[]\n", "1:[a]\n2!\n", false},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++)
		reads(rows[i].text, strlen(rows[i].text), rows[i].want, rows[i].ok);
}

static void test_nul_and_long_lines(void **state)
{
	char *text = malloc(INI_LINE_MAX + 64);
	size_t n;

	(void)state;
	reads("[a]\nk = a\0b\n", 12, "1:[a]\n2!\n", false);
	for (size_t len = INI_LINE_MAX - 2; len <= INI_LINE_MAX + 2; len++) {
		n = (size_t)sprintf(text, "[a]\n");
		memset(text + n, 'x', len);
		memcpy(text + n, "k = ", 4);
		n += len;
		n += (size_t)sprintf(text + n, "\nj = 1\n");
		buf_free(&said);
		assert_int_equal(
			ini_parse_text(text, n, on_entry, on_wrong, NULL), len <= INI_LINE_MAX);
		assert_int_equal(strstr(said.data, "2!\n") != NULL, len > INI_LINE_MAX);
		assert_non_null(strstr(said.data, "3:[a]j=<1>\n"));
	}
	buf_free(&said);
	free(text);
}

static void test_stopping(void **state)
{
	(void)state;
	stop_at = 2;
	reads("[a]\nk = v\nj = w\n", 16, "1:[a]\n2:[a]k=<v>\n", false);
	stop_at = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_nul_and_long_lines),
		cmocka_unit_test(test_stopping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
