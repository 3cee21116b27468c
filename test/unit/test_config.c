/* The configuration: each key has its default, its bounds, its twin and its name in the
 * environment. The messages as a user sees them are in test/it/test_config.py. */
#include "unit.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/buf.h"
#include "config/config.h"

static struct buf said;

static void on_said(void *ctx, bool is_error, const char *text)
{
	(void)ctx;
	buf_printf(&said, "%s%s\n", is_error ? "" : "warning: ", text);
}

static struct config *load(const char *text)
{
	char path[] = "/tmp/wxlogind-test-XXXXXX";
	int fd = mkstemp(path);
	struct config *c;

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	buf_free(&said);
	buf_str(&said, "");
	c = config_load(path, on_said, NULL);
	unlink(path);
	return c;
}

#define SECRET "0123456789abcdef0123456789abcdef"
#define OTHER  "fedcba9876543210fedcba9876543210"
#define APP "[app wx0000000000000001]\nsecret = " SECRET "\n"

static void test_defaults(void **state)
{
	struct config *c = load(APP);

	(void)state;
	assert_non_null(c);
	assert_string_equal(c->listen.items[0], "0.0.0.0:8080");
	assert_string_equal(c->internal_listen.items[0], "127.0.0.1:8081");
	assert_true(c->workers == 1 && c->max_connections == 20000 &&
		    c->client_timeout_ms == 15000 && c->max_body == 65536 &&
		    c->drain_timeout_ms == 30000);
	assert_string_equal(c->redis_hosts[0].host, "127.0.0.1");
	assert_true(
		c->redis_hosts[0].port == 6379 && c->redis_db == 0 && c->redis_timeout_ms == 500);
	assert_string_equal(c->redis_key_prefix, "wxlogin:");
	assert_true(c->ttl_ms == 7 * INT64_C(86400000) && c->max_age_ms == 30 * INT64_C(86400000) &&
		    c->max_per_user == 0 && c->replay_window_ms == 60000);
	assert_true(c->cache_entries == 100000 && c->encryption_key_count == 0);
	assert_string_equal(c->wechat_base_url, "https://api.weixin.qq.com");
	assert_string_equal(c->wechat_fallback_urls.items[0], "https://api2.weixin.qq.com");
	assert_true(c->wechat_timeout_ms == 3000 && c->wechat_connect_timeout_ms == 1000 &&
		    c->wechat_max_connections == 64);
	assert_true(c->login_per_ip.count == 600 && c->login_per_ip.period_ms == 60000 &&
		    c->login_per_app.count == 0);
	assert_string_equal(c->apps[0].appid, "wx0000000000000001");
	assert_string_equal(c->apps[0].secrets.items[0], SECRET);
	assert_null(c->apps[0].secrets.items[1]);
	assert_non_null(strstr(said.data, "warning: ")); /* session_key is kept as it came */
	config_free(c);
	config_free(NULL);
}

static void test_values(void **state)
{
	static const struct { const char *line; bool ok; } rows[] = {
		{"[session]\nttl = 1500ms", true}, {"[session]\nttl = 2h", true}, {"[session]\nttl = 0", false}, {"[session]\nttl = 5", false},
		{"[session]\nttl = 5y", false}, {"[session]\nttl = -1s", false}, {"[session]\nttl = 1.5h", false}, {"[session]\nttl = 99999999999999999999d", false},
		{"[session]\nttl = 999999999999d", false},
		{"[server]\nmax_body = 1m", true}, {"[server]\nmax_body = 1048577", false}, {"[server]\nmax_body = 64k ", true}, {"[server]\nmax_body = 64K", false},
		{"[server]\nworkers = 0", true}, {"[server]\nworkers = -1", false}, {"[server]\nworkers = 1x", false},
		{"[limit]\nlogin_per_ip = 0", true}, {"[limit]\nlogin_per_ip = 10/1s", true}, {"[limit]\nlogin_per_ip = 10", false}, {"[limit]\nlogin_per_ip = 10/", false},
		{"[limit]\nlogin_per_ip = 1/3650d", true}, {"[limit]\nlogin_per_ip = 1/106751991167d", false}, {"[limit]\nlogin_per_ip = 1000000/1s", true},
		{"[limit]\nlogin_per_ip = 1000001/1s", false}, {"[redis]\nurl = redis://h:1/4294967296", false},
		{"[redis]\nurl = unix:///run/redis.sock?db=4294967296", false},
		{"[limit]\nlogin_per_ip = /1s", false}, {"[server]\ntrusted_proxies = 10.0.0.0/8, ::1, unix:", true}, {"[server]\ntrusted_proxies = proxy.example", false},
		{"[server]\ncors_origins = https://a.example:8443", true}, {"[server]\ncors_origins = https://a.example/x", false}, {"[server]\ncors_origins = *", false},
		{"[redis]\nurl = redis://u:p%40ss@h:1/2", true}, {"[redis]\nurl = unix:///run/redis.sock?db=3", true}, {"[redis]\nurl = http://h", false},
		{"[redis]\nurl = redis://h:99999/0", false}, {"[redis]\nkey_prefix = a{b}", false}, {"[users]\nurl = none", true}, {"[users]\nurl = oracle://x", false},
		{"[users]\nurl = mysql://u@h/d?tls=on", true}, {"[users]\nurl = mysql://u@h:1/d?tls=verify", true}, {"[users]\nurl = mysql://u@h/d?tls=off", true},
		{"[users]\nurl = mysql://u@h/d?tls=yes", false}, {"[users]\nurl = mysql://u@h/d?tls=", false}, {"[users]\nurl = mysql://u@h/d?ssl=on", false},
		{"[users]\nurl = mysql://u@/d?tls=on", false}, {"[users]\nurl = mysql://u@/d?socket=/run/s", true},
		{"[wechat]\nbase_url = ftp://x", false}, {"[wechat]\nbase_url = http://127.0.0.1:9090", true}, {"[server]\nlisten = unix:/tmp/x.sock, [::1]:80", true},
		{"[server]\nlisten = 1.2.3.4", false}, {"[server]\nlisten = 1.2.3.4:0", false}, {"[server]\nlisten = 1.2.3.4:65536", false},
		{"[session]\nencryption_key = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", true}, {"[session]\nencryption_key = 00", false},
	};
	char text[512];

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		struct config *c;

		snprintf(text, sizeof(text), "%s\n" APP, rows[i].line);
		c = load(text);
		if ((c != NULL) != rows[i].ok)
			fail_msg("%s: %s", rows[i].line, said.data);
		config_free(c);
	}
}

static void test_keys_and_lists(void **state)
{
	struct config *c = load(
		"[session]\nencryption_key = "
		"0000000000000000000000000000000000000000000000000000000000000001,\n"
		"  AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=\n[app wx0000000000000001]\nsecret "
		"= " SECRET ", " OTHER "\n[app wx0000000000000002]\nsecret = " OTHER "\n");

	(void)state;
	assert_non_null(c);
	assert_int_equal(c->encryption_key_count, 2);
	assert_int_equal(c->encryption_keys[0][31], 1);
	assert_int_equal(c->encryption_keys[1][31], 2);
	assert_int_equal(c->app_count, 2);
	assert_string_equal(c->apps[0].secrets.items[1], OTHER);
	config_free(c);
}

static void test_environment(void **state)
{
	struct config *c;

	(void)state;
	setenv("WXLOGIND_SESSION_TTL", "3h", 1);
	setenv("WXLOGIND_APPID", "wx0000000000000009", 1);
	setenv("WXLOGIND_SECRET", "from the environment", 1);
	c = load("[session]\nttl = 1h\n");
	assert_non_null(c);
	assert_true(c->ttl_ms == 3 * 3600000);
	assert_string_equal(c->apps[0].secrets.items[0], "from the environment");
	config_free(c);
	setenv("WXLOGIND_SESSION_TTL", "soon", 1);
	assert_null(load(APP));
	assert_non_null(strstr(said.data, "environment: [session] ttl = soon"));
	unsetenv("WXLOGIND_SESSION_TTL");
	unsetenv("WXLOGIND_APPID");
	unsetenv("WXLOGIND_SECRET");
}

static void test_what_changed(void **state)
{
	struct config *a = load("[session]\nttl = 1h\n[log]\nlevel = info\n" APP),
		      *b = load("[session]\nttl = 2h\n[log]\nlevel = debug\n" APP);
	const char *changed[8];

	(void)state;
	/* the level changes by reload; ttl needs a restart */
	assert_int_equal(config_changed(a, b, changed, 8), 1);
	assert_string_equal(changed[0], "session.ttl");
	assert_int_equal(config_changed(a, a, changed, 8), 0);
	config_free(a);
	config_free(b);
	buf_free(&said);
}

static char *file_of(const char *text)
{
	char path[] = "/tmp/wxlogind-test-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	return strdup(path);
}

/* What was good once can be read again when its files are gone: a worker that is started anew. */
static void test_files_that_are_gone(void **state)
{
	char *secret = file_of(SECRET "\n"), *ca = file_of("certificates"), text[512], *ini;
	struct config_files files = {0};
	struct config *first, *second;
	const char *changed[8];

	(void)state;
	snprintf(text, sizeof(text),
		"[wechat]\nca_file = %s\n[app wx0000000000000001]\nsecret_file = %s\n", ca, secret);
	ini = file_of(text);
	first = config_read(ini, &files, on_said, NULL);
	unlink(secret);
	unlink(ca);
	unlink(ini);
	files.replay = true;
	second = config_read(ini, &files, on_said, NULL);
	assert_true(first && second && config_changed(first, second, changed, 8) == 0);
	assert_string_equal(second->apps[0].secrets.items[0], SECRET);
	config_free(first);
	config_free(second);
	buf_free(&files.bytes);
	free(secret);
	free(ca);
	free(ini);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_keys_and_lists),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_what_changed),
		cmocka_unit_test(test_files_that_are_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
