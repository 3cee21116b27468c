/* Metrics: what is counted is printed, label values are escaped and cannot grow the table. */
#include "unit.h"

#include <sys/wait.h>
#include <unistd.h>

#include "common/metrics.h"

static struct buf out;

static bool printed(const char *line)
{
	char want[256];

	buf_free(&out);
	metrics_print(&out);
	snprintf(want, sizeof(want), "\n%s\n", line);
	return strstr(out.data, want) != NULL;
}

static void test_counting(void **state)
{
	struct metric_series *s = metric_series(METRIC_LOGINS, "ok", NULL, NULL);

	(void)state;
	metric_add(s, 1);
	metric_inc1(LOGINS, "ok");
	assert_ptr_equal(metric_series(METRIC_LOGINS, "ok", NULL, NULL), s);
	assert_true(printed("wxlogind_logins_total{outcome=\"ok\"} 2"));
	metric_set(metric_series(METRIC_REDIS_CONNECTED, NULL, NULL, NULL), 1);
	assert_true(printed("wxlogind_redis_connected 1"));
	assert_true(printed("# TYPE wxlogind_logins_total counter"));
	metric_set(metric_series(METRIC_BUILD_INFO, "a\"b\\c\nd", NULL, NULL), 1);
	assert_true(printed("wxlogind_build_info{version=\"a\\\"b\\\\c\\nd\"} 1"));
}

static void test_histograms(void **state)
{
	struct metric_series *s = metric_series(METRIC_WECHAT_SECONDS, "x", NULL, NULL);

	(void)state;
	metric_observe_us(s, 0);
	metric_observe_us(s, 500);      /* the bound belongs to the bucket */
	metric_observe_us(s, 501);
	metric_observe_us(s, 99000000); /* past the last */
	assert_true(printed("wxlogind_wechat_request_seconds_bucket{api=\"x\",le=\"0.0005\"} 2"));
	assert_true(printed("wxlogind_wechat_request_seconds_bucket{api=\"x\",le=\"0.001\"} 3"));
	assert_true(printed("wxlogind_wechat_request_seconds_bucket{api=\"x\",le=\"10\"} 3"));
	assert_true(printed("wxlogind_wechat_request_seconds_bucket{api=\"x\",le=\"+Inf\"} 4"));
	assert_true(printed("wxlogind_wechat_request_seconds_count{api=\"x\"} 4"));
	assert_true(printed("wxlogind_wechat_request_seconds_sum{api=\"x\"} 99.001001"));
}

static void test_bounded(void **state)
{
	char route[32];
	size_t before, after;

	(void)state;
	for (int i = 0; i < 2 * METRIC_SERIES_MAX; i++) {
		snprintf(route, sizeof(route), "r%d", i);
		metric_add(metric_series(METRIC_HTTP_REQUESTS, "public", route, "200"), 1);
	}
	printed("");
	before = out.len;
	assert_non_null(strstr(out.data, "other"));
	for (int i = 0; i < 100000; i++) {
		snprintf(route, sizeof(route), "s%d", i);
		metric_add(metric_series(METRIC_HTTP_REQUESTS, "public", route, "200"), 1);
	}
	printed("");
	after = out.len;
	assert_true(after - before < 32); /* digits of the one number */
	buf_free(&out);
}

/* What one process counts, the others print; what it was, it leaves behind; what it is, it takes
 * along. */
static void test_several_processes(void **state)
{
	(void)state;
	metrics_share(3);
	metrics_join(0);
	metric_inc1(LOGINS, "ok");
	metric_set(metric_series(METRIC_REDIS_CONNECTED, NULL, NULL, NULL), 1);
	metric_add(metric_series(METRIC_CONNECTIONS, "public", NULL, NULL), 3);
	for (int i = 1; i < 3; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			metrics_join(i);
			metric_set(metric_series(METRIC_TOKEN_END, "wx", NULL, NULL), 1000 * i);
			metric_inc1(LOGINS, "ok");
			metric_inc1(LOGINS, "replayed");
			metric_observe_us(
				metric_series(METRIC_WECHAT_SECONDS, "y", NULL, NULL), 700);
			metric_set(metric_series(METRIC_REDIS_CONNECTED, NULL, NULL, NULL), i == 1);
			metric_add(metric_series(METRIC_CONNECTIONS, "public", NULL, NULL), 4);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
	assert_true(printed("wxlogind_logins_total{outcome=\"ok\"} 3"));
	assert_true(printed("wxlogind_logins_total{outcome=\"replayed\"} 2"));
	assert_ptr_equal(strstr(strstr(out.data, "replayed") + 1, "replayed"), NULL);
	assert_true(printed("wxlogind_wechat_request_seconds_bucket{api=\"y\",le=\"0.0005\"} 0"));
	assert_true(printed("wxlogind_wechat_request_seconds_bucket{api=\"y\",le=\"0.001\"} 2"));
	assert_true(printed("wxlogind_wechat_request_seconds_count{api=\"y\"} 2"));
	assert_true(printed("wxlogind_connections{listener=\"public\"} 11"));
	assert_true(printed("wxlogind_redis_connected 0"));
	assert_true(printed("wxlogind_access_token_end_timestamp_seconds{appid=\"wx\"} 2000"));
	metrics_leave(2);
	assert_true(printed("wxlogind_access_token_end_timestamp_seconds{appid=\"wx\"} 1000"));
	assert_true(printed("wxlogind_logins_total{outcome=\"ok\"} 3"));
	assert_true(printed("wxlogind_connections{listener=\"public\"} 7"));
	assert_true(printed("wxlogind_redis_connected 0"));
	metrics_join(2); /* its successor goes on counting where it ended */
	metric_inc1(LOGINS, "ok");
	metric_set(metric_series(METRIC_REDIS_CONNECTED, NULL, NULL, NULL), 1);
	assert_true(printed("wxlogind_redis_connected 1"));
	assert_true(printed("wxlogind_logins_total{outcome=\"ok\"} 4"));
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counting),
		cmocka_unit_test(test_histograms),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_several_processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
