/* wxfake: arguments, routes, signals. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "fake.h"
#include "http/http.h"
#include "tls.h"

#define DEFAULT_APPID  "wxfa4efa4efa4efa4e"
#define DEFAULT_PUSH_TOKEN   "fakepushtoken"
#define DEFAULT_PUSH_AES_KEY "fakepushkeyfakepushkeyfakepushkeyfakepushke"
#define DEFAULT_SECRET "fa4efa4efa4efa4efa4efa4efa4efa4e"

static const char usage[] = "usage: wxfake [--listen 127.0.0.1:9090] [--tls-cert F --tls-key F] "
			    "[--app APPID:SECRET ...] [--latency 50ms] [--any-code]\n"
			    "              [--rotate] [--keepalive 75s] [--watch-redis "
			    "redis://:password@host:6379|unix:///path ... [--kill-redis]]\n"
			    "              [--wxlogind URL]\n"
			    "              [--internal http://127.0.0.1:8081 [--internal-token "
			    "TOKEN]] [--app-key KEY]\n"
			    "              [--push-token TOKEN] [--push-aes-key KEY] [--push-to "
			    "URL] [--version] [--help]\n"
			    "A stand-in for the WeChat servers, for development, tests and load. "
			    "Without --app it serves " DEFAULT_APPID ".\n";

enum { WATCHED_MAX = 16 };
enum { LATENCY_MAX_MS = 60000, KEEPALIVE_MS = 75000, KEEPALIVE_MAX_MS = 3600000 };

struct options {
	const char *listen, *cert, *key;
	const char *watched[WATCHED_MAX];
	int watched_count;
	int64_t keepalive_ms;
	struct fake *fake;
};

static void handle(void *ctx, struct req *r)
{
	struct fake *f = ctx;
	const char *path = req_path(r);

	if (page_handle(f, r))
		return;
	if (!strncmp(path, "/fake/", 6)) {
		control_handle(f, r);
	} else {
		enum api api = wechat_api(path);

		req_set_route(r, api_name(api));
		fault_serve(f, r, api);
	}
}

static bool read_duration(const char *text, int64_t max_ms, int64_t *ms)
{
	char *end;

	*ms = strtol(text, &end, 10);
	if (end == text || *ms < 0 || *ms > max_ms)
		return false;
	if (!strcmp(end, "s"))
		*ms *= 1000;
	return *ms <= max_ms && (!strcmp(end, "ms") || !strcmp(end, "s"));
}

static bool add_app(struct fake *f, char *arg)
{
	char *colon = strchr(arg, ':');

	if (!colon || colon == arg || !colon[1])
		return false;
	*colon = '\0';
	return state_add_app(f, arg, colon + 1);
}

static bool add_watched(struct options *o, const char *url)
{
	if (o->watched_count == WATCHED_MAX)
		return false;
	o->watched[o->watched_count++] = url;
	return true;
}

static bool watch_all(const struct options *o, char *err, size_t err_len)
{
	for (int i = 0; i < o->watched_count; i++)
		if (!monitor_start(o->fake, o->watched[i], err, err_len))
			return false;
	return true;
}

/* -1: go on; else the exit status */
static int read_args(struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *next = i + 1 < argc ? argv[i + 1] : NULL;
		bool ok = true, flag = false;

		if (!strcmp(argv[i], "--help")) {
			fputs(usage, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--version")) {
			puts("wxfake " VERSION);
			return 0;
		}
		if (!strcmp(argv[i], "--any-code"))
			flag = o->fake->any_code = true;
		else if (!strcmp(argv[i], "--rotate"))
			flag = o->fake->rotate = true;
		else if (!strcmp(argv[i], "--kill-redis"))
			flag = o->fake->kill_redis = true;
		else if (!next)
			ok = false;
		else if (!strcmp(argv[i], "--listen"))
			o->listen = next;
		else if (!strcmp(argv[i], "--tls-cert"))
			o->cert = next;
		else if (!strcmp(argv[i], "--tls-key"))
			o->key = next;
		else if (!strcmp(argv[i], "--watch-redis"))
			ok = add_watched(o, next);
		else if (!strcmp(argv[i], "--wxlogind"))
			ok = page_server_ok(o->fake->wxlogind = next);
		else if (!strcmp(argv[i], "--internal"))
			ok = backend_at(o->fake, next);
		else if (!strcmp(argv[i], "--push-token"))
			o->fake->push_token = next;
		else if (!strcmp(argv[i], "--push-aes-key"))
			o->fake->push_aes_key = next;
		else if (!strcmp(argv[i], "--push-to"))
			ok = page_server_ok(o->fake->push_to = next);
		else if (!strcmp(argv[i], "--app-key"))
			o->fake->app_key = next;
		else if (!strcmp(argv[i], "--internal-token"))
			o->fake->internal_token = next;
		else if (!strcmp(argv[i], "--latency"))
			ok = read_duration(next, LATENCY_MAX_MS, &o->fake->latency_ms);
		else if (!strcmp(argv[i], "--keepalive"))
			ok = read_duration(next, KEEPALIVE_MAX_MS, &o->keepalive_ms) &&
			     o->keepalive_ms > 0;
		else if (!strcmp(argv[i], "--app"))
			ok = add_app(o->fake, next);
		else
			ok = false;
		if (!ok) {
			fprintf(stderr,
				"wxfake: %s: not known, or its value is wrong or missing\n%s",
				argv[i], usage);
			return 2;
		}
		i += !flag;
	}
	return -1;
}

/* What must come with what was given; NULL = nothing. */
static const char *missing(const struct options *o)
{
	if (!o->cert != !o->key)
		return "--tls-cert and --tls-key go together";
	return o->fake->kill_redis && !o->watched_count ? "--kill-redis needs --watch-redis" : NULL;
}

static void on_signal(void *ctx, int signo)
{
	(void)signo;
	loop_stop(ctx);
}

static int serve(struct options *o)
{
	struct fake *f = o->fake;
	struct http_options ho = {
		.name = "wxfake",
		.max_connections = 20000,
		.client_timeout_ms = (int)o->keepalive_ms,
		.max_body = 1024 * 1024,
		.backstop_ms = 120000,
	};
	struct http *h = http_new(f->loop, &ho, handle, f);
	char err[256];
	struct tls_front *tls = o->cert ? tls_front_new(f->loop, o->cert, o->key) : NULL;
	int status = 3;

	if (o->cert && !tls) {
		fprintf(stderr, "wxfake: cannot use the certificate %s and key %s for TLS\n",
			o->cert, o->key);
		http_free(h);
		return 1;
	}
	if (!watch_all(o, err, sizeof(err))) {
		fprintf(stderr, "wxfake: %s\n", err);
		status = 2;
	} else if (tls ? !tls_front_listen(tls, h, o->listen, err, sizeof(err))
		       : !http_listen(h, o->listen, err, sizeof(err)))
		fprintf(stderr, "wxfake: cannot listen: %s\n", err);
	else {
		loop_on_signal(f->loop, SIGTERM, on_signal, f->loop);
		loop_on_signal(f->loop, SIGINT, on_signal, f->loop);
		loop_run(f->loop);
		status = 0;
	}
	events_free(f);
	monitor_free(f);
	group_free(f);
	tls_front_free(tls);
	http_free(h);
	fault_end(f);
	backend_end(f);
	pushes_end(f);
	loop_settle(f->loop);
	return status;
}

int main(int argc, char **argv)
{
	struct fake *f = mem_alloc(sizeof(*f));
	struct options o = {.listen = "127.0.0.1:9090", .keepalive_ms = KEEPALIVE_MS, .fake = f};
	int status;

	log_init(LOG_INFO, LOG_LOGFMT);
	state_init(f);
	f->push_token = DEFAULT_PUSH_TOKEN;
	f->push_aes_key = DEFAULT_PUSH_AES_KEY;
	status = read_args(&o, argc, argv);
	if (status < 0) {
		if (f->app_count == 0)
			state_add_app(f, DEFAULT_APPID, DEFAULT_SECRET);
		if (missing(&o)) {
			fprintf(stderr, "wxfake: %s\n", missing(&o));
			status = 2;
		} else {
			f->loop = loop_new();
			status = serve(&o);
			loop_free(f->loop);
		}
	}
	fault_clear(f, NULL);
	state_free(f);
	free(f);
	return status;
}
