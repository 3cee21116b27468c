/* The list of outcomes, and the documents that repeat it. */
#include "unit.h"

#include "common/outcome.h"

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "rb");
	char *text;
	long n;

	if (!f)
		fail_msg("%s: run from the project's top", path);
	fseek(f, 0, SEEK_END);
	n = ftell(f);
	rewind(f);
	text = mem_alloc((size_t)n + 1);
	assert_int_equal(fread(text, 1, (size_t)n, f), n);
	fclose(f);
	return text;
}

static bool is_known(int status, const char *code)
{
	for (int oc = 0; oc < OC_COUNT; oc++)
		if (outcome_status((enum outcome)oc) == status &&
			!strcmp(outcome_code((enum outcome)oc), code))
			return true;
	return false;
}

static void test_documented(void **state)
{
	char *text = slurp("docs/http-api.md"), row[80];

	(void)state;
	for (int oc = OC_OK + 1; oc < OC_COUNT; oc++) {
		snprintf(row, sizeof(row), "| %d | `%s` |", outcome_status((enum outcome)oc),
			outcome_code((enum outcome)oc));
		if (oc != OC_PENDING && !strstr(text, row))
			fail_msg("docs/http-api.md has no row %s", row);
	}
	for (char *p = text; (p = strstr(p, "\n| ")); p++) { /* and the other way round */
		int status;
		char code[40];

		if (sscanf(p, "\n| %d | `%39[a-z_]` |", &status, code) == 2 &&
			!is_known(status, code))
			fail_msg("docs/http-api.md has a row %d %s that is no outcome", status,
				code);
	}
	free(text);
}

static void test_sane(void **state)
{
	(void)state;
	for (int oc = 0; oc < OC_COUNT; oc++) {
		const char *text = outcome_text((enum outcome)oc),
			   *code = outcome_code((enum outcome)oc);

		assert_true(outcome_status((enum outcome)oc) >= 200 &&
			    outcome_status((enum outcome)oc) < 600);
		assert_int_equal(strspn(code, "abcdefghijklmnopqrstuvwxyz_"), strlen(code));
		assert_int_equal(text[strlen(text) - 1], '.');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_documented),
		cmocka_unit_test(test_sane),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
