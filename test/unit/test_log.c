/* Log lines, as they leave: several in one write, nothing in a value ends a line, nothing secret is
 * whole. */
#include "unit.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/encode.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

static int saved, ends[2];
static char line[16384];

static void begin_at(int fd, enum log_level level, enum log_format format)
{
	saved = dup(STDERR_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
	log_init(level, format);
}

static void begin(enum log_level level, enum log_format format)
{
	assert_int_equal(pipe(ends), 0);
	begin_at(ends[1], level, format);
}

static const char *end(void)
{
	ssize_t n;

	dup2(saved, STDERR_FILENO);
	close(saved);
	log_init(LOG_ERROR, LOG_LOGFMT); /* flushes */
	n = read(ends[0], line, sizeof(line) - 1);
	close(ends[0]);
	line[n > 0 ? n : 0] = '\0';
	return line;
}

static void test_logfmt(void **state)
{
	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	log_warn("hello there", LOG_STR("plain", "x"), LOG_STR("text", "a \"b\" = \\"),
		LOG_INT("n", -5), LOG_STR("none", NULL), LOG_STR("empty", ""));
	end();
	assert_int_equal(strncmp(line, "time=20", 7), 0);
	assert_non_null(strstr(line, "Z level=warn msg=\"hello there\" plain=x text=\"a \\\"b\\\" "
				     "= \\\\\" n=-5 none=\"\" empty=\"\"\n"));
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

/* Every byte but the printable ones, in both formats: one line comes out, and as JSON it is JSON.
 */
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
	log_info("m", LOG_CODE("code", "0d3KRi1w3tw04239Q44w3XxKS14KRi1L"),
		LOG_CODE("short", "abcd"), LOG_CODE("none", NULL));
	end();
	assert_non_null(strstr(line, "code=0d3K"));
	assert_null(strstr(line, "0d3KR"));
}

/* A long value is cut, and what comes after it is there. */
static void test_long_values(void **state)
{
	static const char *const kinds[] = {"\n", "x", "\xe4\xb8\xad", "\"", "\xff"};
	char *value = malloc(100001);

	(void)state;
	for (int format = LOG_LOGFMT; format <= LOG_JSON; format++)
		for (size_t k = 0; k < NELEM(kinds); k++) {
			size_t len = strlen(kinds[k]);
			cJSON *tree;

			for (size_t i = 0; i < 100000; i++)
				value[i] = kinds[k][i % len];
			value[100000] = '\0';
			begin(LOG_INFO, (enum log_format)format);
			log_info("m", LOG_STR("v", value), LOG_STR("w", value), LOG_STR("x", value),
				LOG_STR("y", value), LOG_STR("z", value), LOG_STR("last", "seen"),
				LOG_INT("n", INT64_MIN));
			end();
			assert_in_range(strlen(line), 2000, 4096);
			assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
			assert_true(utf8_valid(line, strlen(line)));
			assert_non_null(strstr(line, "..."));
			assert_non_null(strstr(line,
				format == LOG_JSON ? "\"last\":\"seen\",\"n\":-9223372036854775808}"
						   : " last=seen n=-9223372036854775808"));
			if (format == LOG_LOGFMT)
				continue;
			tree = json_parse(line, strlen(line));
			assert_non_null(tree);
			assert_in_range(
				strlen(cJSON_GetObjectItem(tree, "v")->valuestring), 170, 1027);
			json_free(tree);
		}
	free(value);
}

/* As much as the log shows of one value. */
static void test_a_value_of_a_thousand_bytes(void **state)
{
	char value[1001];

	(void)state;
	memset(value, 'x', sizeof(value));
	value[1000] = '\0';
	begin(LOG_INFO, LOG_LOGFMT);
	log_info("m", LOG_STR("v", value));
	end();
	assert_non_null(strstr(line, value));
	assert_null(strstr(line, "..."));
}

static size_t lines_in(const char *s, size_t n)
{
	size_t lines = 0;

	for (size_t i = 0; i < n; i++)
		lines += s[i] == '\n';
	return lines;
}

/* Whoever reads the pipe has stopped: nobody waits for it, and what was lost is said once it reads
 * again. */
static void test_nobody_reads(void **state)
{
	static char all[1 << 20];
	size_t n = 0, before;
	int count = 0, said;
	ssize_t got;

	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	for (; count < 5000; count++)
		log_info("a line that nobody reads", LOG_INT("n", count));
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	while ((got = read(ends[0], all + n, sizeof(all) - n)) > 0)
		n += (size_t)got;
	assert_int_equal(all[n - 1], '\n');
	before = lines_in(all, n);
	log_info("here again");
	got = read(ends[0], all, sizeof(all) - 1);
	all[got] = '\0';
	end();
	assert_non_null(strstr(all, "msg=\"here again\""));
	assert_non_null(strstr(all, "level=warn msg=\"log lines were lost: the reader of this log "
				    "had stopped\" lines="));
	said = atoi(strstr(all, "lines=") + 6);
	/* each line was read, or counted */
	assert_int_equal(before + lines_in(all, (size_t)got) - 2 + (size_t)said, 5000);
}

/* A terminal takes a part of a line. It must neither hold us up nor break the line for good. */
static void test_a_terminal_that_nobody_reads(void **state)
{
	static char all[1 << 20];
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	size_t n = 0;
	ssize_t got;

	(void)state;
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	begin_at(open(ptsname(master), O_RDWR | O_NOCTTY), LOG_INFO, LOG_LOGFMT);
	ends[0] = dup(STDERR_FILENO); /* for end() */
	for (int i = 0; i < 5000; i++)
		log_info("a line that nobody reads", LOG_INT("n", i));
	fcntl(master, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 1000 && !strstr(all, "the last"); i++) {
		while ((got = read(master, all + n, sizeof(all) - n - 1)) > 0)
			n += (size_t)got;
		log_info("the last");
		usleep(1000);
	}
	close(master);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(ends[0]);
	assert_true(n > 4000);
	for (char *at = all, *next; (next = strchr(at, '\n')); at = next + 1)
		assert_int_equal(strncmp(at, "time=20", 7), 0);
	assert_non_null(strstr(all, "log lines were lost"));
}

/* A socket, as systemd gives, that nobody reads; and one whose reader is gone. */
static void test_a_socket(void **state)
{
	int pair[2];
	ssize_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	ends[0] = pair[0];
	begin_at(pair[1], LOG_INFO, LOG_LOGFMT);
	for (int i = 0; i < 50000; i++)
		log_info("a line that nobody reads", LOG_INT("n", i));
	n = read(pair[0], line, sizeof(line) - 1);
	assert_true(n > 1000);
	assert_int_equal(strncmp(line, "time=20", 7), 0);
	end();

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	close(pair[0]);
	ends[0] = dup(0);
	begin_at(pair[1], LOG_INFO, LOG_LOGFMT);
	log_info("nobody is there"); /* no SIGPIPE */
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(ends[0]);
}

/* Standard error's own flags stay: others share it. */
static void test_the_descriptor_stays_as_it_was(void **state)
{
	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	log_info("m");
	assert_int_equal(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
	end();
}

/* ---- lines that wait for the end of a turn ---- */

static int soon_calls;

static void soon(void *ctx)
{
	(void)ctx;
	soon_calls++;
}

static size_t readable(void)
{
	int n = 0;

	ioctl(ends[0], FIONREAD, &n);
	return (size_t)n;
}

static void test_info_lines_wait(void **state)
{
	(void)state;
	begin(LOG_DEBUG, LOG_LOGFMT);
	soon_calls = 0;
	log_buffer(soon, NULL);
	log_info("one");
	log_debug("two");
	assert_int_equal(readable(), 0);
	assert_int_equal(soon_calls, 1);
	log_flush();
	assert_true(readable() > 0);
	log_info("three");
	assert_int_equal(soon_calls, 2);
	log_buffer(NULL, NULL);
	log_info("four");
	end();
	assert_int_equal(lines_in(line, strlen(line)), 4);
}

/* With all that was said before it. */
static void test_a_warning_goes_at_once(void **state)
{
	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	log_buffer(soon, NULL);
	log_info("one");
	log_warn("two");
	assert_true(readable() > 0);
	log_buffer(NULL, NULL);
	end();
	assert_true(strstr(line, "msg=one") && strstr(line, "msg=one") < strstr(line, "msg=two"));
}

/* Each write is what a pipe takes whole, of whole lines. */
static void test_a_full_buffer_goes_at_once(void **state)
{
	size_t had = 0;

	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	log_buffer(soon, NULL);
	for (int i = 0; i < 120; i++) {
		log_info("a line of some length, as many are", LOG_INT("n", i));
		assert_true(readable() - had <= PIPE_BUF);
		had = readable();
	}
	assert_true(had > PIPE_BUF);
	log_buffer(NULL, NULL);
	end();
	assert_int_equal(lines_in(line, strlen(line)), 120);
}

static void end_child(int how)
{
	log_buffer(soon, NULL);
	log_info("the last words");
	if (how)
		abort();
	exit(0);
}

static void test_the_end_loses_nothing(void **state)
{
	(void)state;
	for (int how = 0; how < 2; how++) {
		begin(LOG_INFO, LOG_LOGFMT);
		pid_t child = fork();
		int status;

		if (child == 0)
			end_child(how);
		waitpid(child, &status, 0);
		assert_int_equal(WIFSIGNALED(status), how);
		end();
		assert_non_null(strstr(line, "the last words"));
	}
}

static void *say_from_a_thread(void *arg)
{
	for (int i = 0; i < 100; i++)
		log_info("from a thread", LOG_STR("of", arg));
	return NULL;
}

/* Lines of two threads do not mix. */
static void test_threads(void **state)
{
	static char all[1 << 20];
	size_t n = 0;
	pthread_t a, b;
	ssize_t got;

	(void)state;
	begin(LOG_INFO, LOG_LOGFMT);
	log_buffer(soon, NULL);
	pthread_create(&a, NULL, say_from_a_thread, "a");
	pthread_create(&b, NULL, say_from_a_thread, "b");
	say_from_a_thread("main");
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	log_buffer(NULL, NULL);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	while ((got = read(ends[0], all + n, sizeof(all) - n - 1)) > 0)
		n += (size_t)got;
	end();
	assert_int_equal(lines_in(all, n), 300);
	for (char *at = all, *next; (next = strchr(at, '\n')); at = next + 1)
		assert_int_equal(strncmp(at, "time=20", 7), 0);
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
		cmocka_unit_test(test_a_value_of_a_thousand_bytes),
		cmocka_unit_test(test_nobody_reads),
		cmocka_unit_test(test_a_terminal_that_nobody_reads),
		cmocka_unit_test(test_a_socket),
		cmocka_unit_test(test_the_descriptor_stays_as_it_was),
		cmocka_unit_test(test_info_lines_wait),
		cmocka_unit_test(test_a_warning_goes_at_once),
		cmocka_unit_test(test_a_full_buffer_goes_at_once),
		cmocka_unit_test(test_the_end_loses_nothing),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
