/* Log lines, as they leave: one write a line, nothing in a value ends it, nothing secret is whole. */
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/json.h"
#include "common/log.h"

static int saved, ends[2];
static char line[16384];

static void begin(enum log_level level, enum log_format format)
{
	log_init(level, format);
	assert_int_equal(pipe(ends), 0);
	saved = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
}

static const char *end(void)
{
	ssize_t n;

	dup2(saved, STDERR_FILENO);
	close(saved);
	n = read(ends[0], line, sizeof(line) - 1);
	close(ends[0]);
	line[n > 0 ? n : 0] = '\0';
	return line;
}

static void test_logfmt(void **state)
{
	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	log_warn("hello there", LOG_STR("plain", "x"), LOG_STR("text", "a \"b\" = \\"), LOG_INT("n", -5), LOG_STR("none", NULL), LOG_STR("empty", ""));
	end();
	assert_int_equal(strncmp(line, "time=20", 7), 0);
	assert_non_null(strstr(line, "Z level=warn msg=\"hello there\" plain=x text=\"a \\\"b\\\" = \\\\\" n=-5 none=\"\" empty=\"\"\n"));
}

static void test_levels(void **state)
{
	(void)state;
	begin(LOG_WARN, LOG_LOGFMT);
	log_debug("one");
	log_info("two", LOG_INT("x", 1));
	log_error("three");
	assert_false(log_is_on(LOG_INFO));
	log_set_level(LOG_DEBUG);
	log_debug("four");
	end();
	assert_null(strstr(line, "one"));
	assert_null(strstr(line, "two"));
	assert_non_null(strstr(line, "msg=three\n"));
	assert_non_null(strstr(line, "msg=four\n"));
}

/* Every byte but the printable ones, in both formats: one line comes out, and as JSON it is JSON. */
static void test_no_byte_gets_out(void **state)
{
	(void)state;
	for (int format = LOG_LOGFMT; format <= LOG_JSON; format++) {
		for (int c = 1; c < 256; c++) {
			char value[] = {'a', (char)c, 'b', '\0'};

			begin(LOG_INFO, (enum log_format)format);
			log_info("m", LOG_STR("v", value), LOG_INT("after", 1));
			end();
			assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
			for (const char *p = line; *p && *p != '\n'; p++)
				assert_true((unsigned char)*p >= ' ' && *p != 0x7f);
			if (format == LOG_JSON) {
				cJSON *tree = json_parse(line, strlen(line));

				assert_non_null(tree);
				json_free(tree);
			}
		}
	}
}

static void test_json(void **state)
{
	cJSON *tree;

	(void)state;
	begin(LOG_INFO, LOG_JSON);
	log_error("broke \"it\"", LOG_STR("why", "line\nbreak"), LOG_INT("n", INT64_MAX));
	end();
	tree = json_parse(line, strlen(line));
	assert_non_null(tree);
	assert_string_equal(cJSON_GetObjectItem(tree, "level")->valuestring, "error");
	assert_string_equal(cJSON_GetObjectItem(tree, "msg")->valuestring, "broke \"it\"");
	assert_string_equal(cJSON_GetObjectItem(tree, "why")->valuestring, "line\nbreak");
	json_free(tree);
}

static void test_codes_are_cut(void **state)
{
	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	log_info("m", LOG_CODE("code", "0d3KRi1w3tw04239Q44w3XxKS14KRi1L"), LOG_CODE("short", "abcd"), LOG_CODE("none", NULL));
	end();
	assert_non_null(strstr(line, "code=0d3K"));
	assert_null(strstr(line, "0d3KR"));
}

static void test_long_values(void **state)
{
	char *value = malloc(100001);

	(void)state;
	memset(value, '\n', 100000);
	value[100000] = '\0';
	begin(LOG_INFO, LOG_LOGFMT);
	log_info("m", LOG_STR("v", value), LOG_STR("w", value), LOG_STR("x", value), LOG_STR("last", "seen"));
	end();
	assert_true(strlen(line) < sizeof(line) - 1);
	assert_int_equal(line[strlen(line) - 1], '\n');
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
	free(value);
}

/* Whoever reads the pipe has stopped: nobody waits for it, and what was lost is said once it reads again. */
static void test_nobody_reads(void **state)
{
	static char all[1 << 20];
	size_t n = 0, lines = 0;
	int count = 0;
	ssize_t got;

	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	for (; count < 5000; count++)
		log_info("a line that nobody reads", LOG_INT("n", count));
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	while ((got = read(ends[0], all, sizeof(all))) > 0)
		n = (size_t)got; /* the last piece: whole lines end it */
	assert_int_equal(all[n - 1], '\n');
	log_info("here again");
	n = (size_t)read(ends[0], all, sizeof(all) - 1);
	all[n] = '\0';
	end();
	for (size_t i = 0; i < n; i++)
		lines += all[i] == '\n';
	assert_int_equal(lines, 2);
	assert_non_null(strstr(all, "level=warn msg=\"log lines were lost: whoever reads this log had stopped\" lines="));
	assert_non_null(strstr(all, "msg=\"here again\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_logfmt),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_no_byte_gets_out),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_codes_are_cut),
		cmocka_unit_test(test_long_values),
		cmocka_unit_test(test_nobody_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
