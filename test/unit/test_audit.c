/* The audit log: one line an event, in order; rotated on demand; a disk that refuses stops nobody.
 */
#include "store/audit.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "unit.h"

static struct loop *loop;
static char dir[] = "/tmp/test-audit-XXXXXX", path[64];
static const uint8_t key[SEAL_KEY_LEN] = "0123456789abcdef0123456789abcdef";

static char *content(const char *file)
{
	static char text[1 << 20];
	int fd = open(file, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static size_t lines(const char *file)
{
	size_t n = 0;

	for (const char *p = content(file); *p; p++)
		n += *p == '\n';
	return n;
}

static struct audit *open_audit(const uint8_t *with_key, size_t queue_max)
{
	char why[128];
	struct audit *a = audit_new(loop,
		&(struct audit_options){.file = path, .key = with_key, .queue_max = queue_max}, why,
		sizeof(why));

	assert_non_null(a);
	return a;
}

static void add(struct audit *a, const char *id)
{
	audit_add(a, &(struct audit_line){.event = AUDIT_LOGIN,
			     .by = AUDIT_BY_USER,
			     .appid = "wx1",
			     .openid = "oA",
			     .ip = "192.0.2.1",
			     .request_id = id,
			     .result = "ok"});
}

static double lost(void)
{
	struct buf b = {0};
	const char *at;
	double n;

	metrics_print(&b);
	at = strstr(b.data, "\nwxlogind_audit_lost_total ");
	assert_non_null(at);
	n = atof(at + strlen("\nwxlogind_audit_lost_total "));
	buf_free(&b);
	return n;
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/audit.log", dir);
	loop = loop_new();
	return 0;
}

static int teardown(void **state)
{
	char other[80];

	(void)state;
	loop_free(loop);
	snprintf(other, sizeof(other), "%s.1", path);
	unlink(path);
	unlink(other);
	rmdir(dir);
	return 0;
}

static void test_a_line(void **state)
{
	struct audit *a = open_audit(NULL, 64);
	cJSON *line;
	struct stat st;

	(void)state;
	audit_add(a, &(struct audit_line){.event = AUDIT_USER_READ,
			     .by = AUDIT_BY_BACKEND,
			     .appid = "wx1",
			     .openid = "oA",
			     .actor = "zhang\n\"san\"",
			     .ip = "192.0.2.1",
			     .request_id = "r1",
			     .result = "ok"});
	audit_free(a);
	assert_int_equal(lines(path), 1);
	line = cJSON_Parse(content(path));
	assert_string_equal(cJSON_GetObjectItem(line, "event")->valuestring, "user_read");
	assert_string_equal(cJSON_GetObjectItem(line, "user")->valuestring, "oA");
	assert_string_equal(cJSON_GetObjectItem(line, "by")->valuestring, "backend");
	assert_string_equal(cJSON_GetObjectItem(line, "actor")->valuestring, "zhang\n\"san\"");
	assert_string_equal(cJSON_GetObjectItem(line, "ip")->valuestring, "192.0.2.1");
	assert_string_equal(cJSON_GetObjectItem(line, "request_id")->valuestring, "r1");
	assert_string_equal(cJSON_GetObjectItem(line, "result")->valuestring, "ok");
	assert_null(cJSON_GetObjectItem(line, "detail"));
	assert_int_equal(strlen(cJSON_GetObjectItem(line, "time")->valuestring),
		strlen("2026-01-01T00:00:00.000Z"));
	cJSON_Delete(line);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
}

static void test_a_name_that_is_no_openid(void **state)
{
	struct audit *a = open_audit(key, 64);
	char one[AUDIT_USER_SIZE], same[AUDIT_USER_SIZE], other[AUDIT_USER_SIZE],
		elsewhere[AUDIT_USER_SIZE];

	(void)state;
	audit_user(a, one, "wx1", "oA");
	audit_user(a, same, "wx1", "oA");
	audit_user(a, other, "wx1", "oB");
	audit_user(a, elsewhere, "wx2", "oA");
	assert_int_equal(strlen(one), 32);
	assert_string_equal(one, same);
	assert_string_not_equal(one, other);
	assert_string_not_equal(one, elsewhere);
	add(a, "r1");
	audit_free(a);
	assert_non_null(strstr(content(path), one));
	assert_null(strstr(content(path), "\"oA\""));
	audit_user(NULL, one, "wx1", "oA");
	assert_string_equal(one, "");
}

static void test_all_in_order(void **state)
{
	struct audit *a = open_audit(NULL, 4096);
	char id[16], expect[64];
	const char *at;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		snprintf(id, sizeof(id), "r%04d", i);
		add(a, id);
	}
	audit_free(a); /* writes what is queued */
	assert_int_equal(lines(path), 1000);
	at = content(path);
	for (int i = 0; i < 1000; i++) {
		snprintf(expect, sizeof(expect), "\"request_id\":\"r%04d\"", i);
		at = strstr(at, expect);
		assert_non_null(at);
	}
	/* no audit log: nothing happens */
	audit_add(NULL, &(struct audit_line){.event = AUDIT_LOGIN});
	audit_reopen(NULL);
	audit_free(NULL);
}

static void test_rotation_loses_nothing(void **state)
{
	struct audit *a = open_audit(NULL, 64);
	char old[80];

	(void)state;
	snprintf(old, sizeof(old), "%s.1", path);
	add(a, "before");
	assert_int_equal(rename(path, old), 0); /* as logrotate does */
	add(a, "between");
	audit_reopen(a);
	add(a, "after");
	audit_free(a);
	assert_int_equal(lines(old), 2);
	assert_int_equal(lines(path), 1);
	assert_non_null(strstr(content(path), "after"));
}

static void test_a_file_that_cannot_be_opened(void **state)
{
	char why[128] = "";

	(void)state;
	assert_null(
		audit_new(loop, &(struct audit_options){.file = "/nowhere/at/all", .queue_max = 1},
			why, sizeof(why)));
	assert_string_equal(why, "No such file or directory");
}

static void on_stop(void *ctx)
{
	(void)ctx;
	loop_stop(loop);
}

static void turn(int64_t ms)
{
	struct timer *t = timer_new(loop, on_stop, NULL);

	timer_start(t, ms);
	loop_run(loop);
	timer_free(t);
}

/* A limit on the file's size is a full disk: the write is cut short, the next ones are refused. */
static void test_a_full_disk(void **state)
{
	const struct rlimit small = {100, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
	struct audit *a = open_audit(NULL, 64);
	double before = lost();
	int64_t end = clock_ms() + 10000;
	const char *last;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (int i = 0; i < 5; i++)
		add(a, "lost");
	while (lost() < before + 5 && clock_ms() < end)
		turn(5);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal((int)(lost() - before), 5);
	add(a, "again");
	audit_free(a);
	last = strrchr(content(path), '{');
	assert_non_null(last);
	assert_int_equal(last[-1], '\n'); /* what was cut short has its own line */
	assert_non_null(strstr(last, "again"));
	assert_int_equal(lines(path), 2);
}

static void test_a_full_queue(void **state)
{
	struct audit *a = open_audit(NULL, 2);
	double before = lost();

	(void)state;
	for (int i = 0; i < 2000; i++)
		add(a, "r");
	turn(50);
	audit_free(a);
	assert_true(lost() > before);
	assert_int_equal((int)(lost() - before) + (int)lines(path), 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_name_that_is_no_openid, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rotation_loses_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_file_that_cannot_be_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_queue, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
