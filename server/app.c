#include "app.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "api/api.h"
#include "api/blocks.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/usage.h"
#include "http/http.h"
#include "http/listen.h"
#include "io/fetch.h"
#include "options.h"
#include "store/audit.h"
#include "store/cache.h"
#include "store/seal.h"
#include "store/token.h"
#include "store/user.h"

enum { READY_LOOK_MS = 50, FIRST_LOOK_MS = 5 };
enum {
	LOGIN_REPLY_MAX = 64 * 1024,
	LOGIN_QUEUE = 4096,
	DESCRIPTORS_KEPT = 64,
	IP_BUCKETS = 65536,
	APP_BUCKETS = 1024,
	USER_BUCKETS = 65536
};
enum { BACKSTOP_SLACK_MS = 25000 }; /* a call that a backend passes through may take 10 s, twice */
enum { AUDIT_QUEUE = 65536, CHORES_EVERY_MS = 5000 };
enum {
	TOKEN_CONNECTIONS = 4,
	TOKEN_QUEUE = 64,
	SERVICE_CONNECTIONS = 16,
	SERVICE_QUEUE = 1024,
	PASS_CONNECTIONS = 32,
	PASS_QUEUE = 256,
	PASS_REPLY_MAX = 1024 * 1024
};
enum { PUSH_CONNECTIONS = 16, PUSH_QUEUE = 256, PUSH_REPLY_MAX = 64 * 1024 };

struct app_shared {
	struct buckets *ip_buckets, *app_buckets, *user_buckets;
};

struct app {
	const struct app_options *o;
	struct config   *config;
	struct config   *started; /* the first: what waits for a restart is in force as it says */
	struct loop     *loop;
	struct fetch    *login_fetch, *token_fetch, *service_fetch, *pass_fetch, *push_fetch;
	struct tls      *redis_tls;
	struct redis    *redis;
	struct cache    *cache;
	struct seal     *seal;
	struct sessions *sessions;
	struct tokens   *tokens;
	struct keeper   *keeper;
	struct codes    *codes;
	struct keycache *keycache;
	struct marks    *marks;
	struct user_db  *users;
	struct wechat   *wechat;
	struct audit    *audit;    /* NULL: no audit log */
	struct blocks   *blocks;
	struct http     *sides[2]; /* public, internal */
	struct api       api;
	struct wechat_app *apps;   /* views of config's */
	struct api_push *pushes;   /* the same */
	struct ip_net   *trusted;
	struct timer    *ready_look, *drain_delay, *drain_limit;
	bool             accepts;
	int              status;   /* EXIT_ */
	int64_t          drain_began_ms;
	struct timer    *chores;
	int              undrained;
};

/* ---- what workers share ---- */

struct app_shared *app_share(int workers)
{
	struct app_shared *s = mem_alloc(sizeof(*s));

	metrics_share(workers);
	s->ip_buckets = buckets_new(IP_BUCKETS);
	s->app_buckets = buckets_new(APP_BUCKETS);
	s->user_buckets = buckets_new(USER_BUCKETS);
	return s;
}

void app_worker_gone(struct app_shared *s, int worker)
{
	(void)s;
	metrics_leave(worker);
}

void app_unshare(struct app_shared *s)
{
	if (!s)
		return;
	buckets_free(s->ip_buckets);
	buckets_free(s->app_buckets);
	buckets_free(s->user_buckets);
	free(s);
}

/* ---- settings that a reload may change ---- */

/* Descriptors that the connections of one side may use: half of what is left after Redis, WeChat
 * and the rest have theirs. */
static int bearable(const struct config *c)
{
	struct rlimit lim;
	int64_t left, want = c->max_connections;

	if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur == RLIM_INFINITY)
		return (int)want;
	left = ((int64_t)lim.rlim_cur - DESCRIPTORS_KEPT - c->wechat_max_connections -
		       TOKEN_CONNECTIONS - SERVICE_CONNECTIONS - PASS_CONNECTIONS -
		       PUSH_CONNECTIONS) /
	       2;
	if (left < 8)
		left = 8;
	if (want <= left)
		return (int)want;
	log_warn("max_connections is lowered to fit the descriptor limit", LOG_INT("wanted", want),
		LOG_INT("is", left), LOG_INT("descriptors", (int64_t)lim.rlim_cur));
	return (int)left;
}

static struct bucket_limit limit_of(struct config_rate rate)
{
	return (struct bucket_limit){rate.count, rate.period_ms};
}

static void apply_limits(struct app *a)
{
	struct config *c = a->config;

	free(a->trusted);
	a->trusted = mem_alloc(sizeof(*a->trusted) * (c->trusted_proxies.n + 1));
	a->api.trusted_proxies = a->trusted;
	a->api.trusted_proxy_count = 0;
	a->api.unix_is_trusted = false;
	for (size_t i = 0; i < c->trusted_proxies.n; i++) {
		struct ip_net *next = &a->trusted[a->api.trusted_proxy_count];

		if (ip_net_parse(next, c->trusted_proxies.items[i]))
			a->api.trusted_proxy_count++;
		else /* "unix:": the configuration would have been refused otherwise */
			a->api.unix_is_trusted = true;
	}
	a->api.login_per_ip = limit_of(c->login_per_ip);
	a->api.login_per_48 = limit_of(c->login_per_48);
	a->api.login_per_app = limit_of(c->login_per_app);
	a->api.phone_per_user = limit_of(c->phone_per_user);
	a->api.check_per_user = limit_of(c->check_per_user);
	a->api.open_data_per_user = limit_of(c->open_data_per_user);
}

static void apply(struct app *a)
{
	struct config *c = a->config;
	int max = bearable(c);

	log_set_level(c->log_level);
	redis_set_replicas(a->redis, (int)c->redis_replicas);
	free(a->apps);
	a->apps = mem_alloc(sizeof(*a->apps) * (c->app_count + 1));
	for (size_t i = 0; i < c->app_count; i++)
		a->apps[i] = (struct wechat_app){.appid = c->apps[i].appid,
			.secrets = {c->apps[i].secrets.items[0], c->apps[i].secrets.items[1]}};
	for (size_t i = 0; i < c->app_count; i++)
		keeper_show(c->apps[i].appid);
	free(a->pushes);
	a->pushes = mem_alloc(sizeof(*a->pushes) * (c->app_count + 1));
	for (size_t i = 0; i < c->app_count; i++)
		a->pushes[i] = (struct api_push){.token = c->apps[i].push_token,
			.aes_key = c->apps[i].push_aes_key, .forward = c->apps[i].push_forward,
			.forward_token = c->apps[i].push_forward_token};
	a->api.apps = a->apps;
	a->api.pushes = a->pushes;
	a->api.app_count = c->app_count;
	a->api.internal_token = c->internal_token;
	apply_limits(a);
	a->api.cors_origins = (const char *const *)c->cors_origins.items;
	a->api.cors_origin_count = c->cors_origins.n;
	for (size_t i = 0; i < NELEM(a->sides); i++) {
		http_set_limits(a->sides[i], max, (int)c->client_timeout_ms, (size_t)c->max_body);
		http_set_log(a->sides[i], c->log_requests);
	}
}

/* One line for the service, not one for each worker. */
static void record_reload(struct app *a, const char *result)
{
	if (a->o->worker == 0)
		audit_add(a->audit, &(struct audit_line){
			.event = AUDIT_CONFIG_RELOADED, .by = AUDIT_BY_BACKEND, .result = result});
}

static void on_hangup(void *ctx, int signo)
{
	struct app *a = ctx;
	bool refused = false;
	struct config *old = a->config, *new = a->o->crew->reload(a->o->crew->ctx, &refused);

	(void)signo;
	audit_reopen(a->audit);
	if (refused)
		record_reload(a, "refused");
	if (!new)
		return;
	a->config = new;
	apply(a);
	if (old != a->started)
		config_free(old); /* what waits copied what it keeps; rooms copied their options */
	log_info("reloaded");
	record_reload(a, "ok");
}

/* ---- the end ---- */

static void on_drain_late(void *ctx)
{
	struct app *a = ctx;

	log_warn("drain_timeout is over: ending what is still in flight",
		LOG_INT("connections",
			http_connections(a->sides[0]) + http_connections(a->sides[1])));
	loop_stop(a->loop);
}

static void on_drained(void *ctx)
{
	struct app *a = ctx;

	if (--a->undrained == 0)
		loop_stop(a->loop);
}

static void stop_accepting(void *ctx)
{
	struct app *a = ctx;

	if (a->drain_limit)
		return;
	a->drain_limit = timer_new(a->loop, on_drain_late, a);
	timer_start(a->drain_limit, a->config->drain_timeout_ms);
	a->undrained = NELEM(a->sides);
	for (size_t i = 0; i < NELEM(a->sides); i++)
		http_drain(a->sides[i], on_drained, a);
	a->o->crew->stop_listening(a->o->crew->ctx);
}

static void begin_drain(struct app *a, int signo, int64_t delay_ms)
{
	log_info("draining", LOG_INT("signal", signo), LOG_INT("delay_ms", delay_ms));
	a->api.draining = true;
	a->drain_began_ms = clock_ms();
	a->drain_delay = timer_new(a->loop, stop_accepting, a);
	if (delay_ms > 0)
		timer_start(a->drain_delay, delay_ms);
	else
		stop_accepting(a);
}

static void end_at_once(void *ctx, int signo)
{
	struct app *a = ctx;

	log_warn("ending at once", LOG_INT("signal", signo));
	loop_stop(a->loop);
}

/* A supervised worker leaves it to its supervisor to tell one signal from two. */
static void on_terminate(void *ctx, int signo)
{
	struct app *a = ctx;

	if (!a->api.draining)
		begin_drain(a, signo, a->config->drain_delay_ms);
	else if (!a->o->supervised && clock_ms() - a->drain_began_ms >= APP_SAME_SIGNAL_MS)
		end_at_once(a, signo);
}

static void on_drain_now(void *ctx, int signo)
{
	struct app *a = ctx;

	if (a->api.draining)
		stop_accepting(a);
	else
		begin_drain(a, signo, 0);
}

/* ---- the rooms ---- */

static struct fetch *build_fetch(struct app *a, int connections, int queue, size_t max_reply)
{
	const struct fetch_options o = options_fetch(a->started, connections, queue, max_reply);

	return fetch_new(a->loop, &o);
}

/* To a backend's own address: not through the proxy that leads to WeChat. */
static struct fetch *build_push_fetch(struct app *a)
{
	struct fetch_options o =
		options_fetch(a->started, PUSH_CONNECTIONS, PUSH_QUEUE, PUSH_REPLY_MAX);

	o.proxy = NULL;
	return fetch_new(a->loop, &o);
}

static void build_gates(struct app *a)
{
	struct config *c = a->started;
	const char **urls = mem_alloc(sizeof(*urls) * (c->wechat_fallback_urls.n + 1));
	char session_keys[128];
	struct redis_host hosts[CONFIG_REDIS_HOSTS_MAX];
	struct redis_options redis = options_redis(c, hosts);

	redis.tls = a->redis_tls;
	a->loop = loop_new();
	loop_buffer_log(a->loop);
	a->login_fetch =
		build_fetch(a, (int)c->wechat_max_connections, LOGIN_QUEUE, LOGIN_REPLY_MAX);
	a->token_fetch = build_fetch(a, TOKEN_CONNECTIONS, TOKEN_QUEUE, LOGIN_REPLY_MAX);
	a->service_fetch = build_fetch(a, SERVICE_CONNECTIONS, SERVICE_QUEUE, LOGIN_REPLY_MAX);
	a->pass_fetch = build_fetch(a, PASS_CONNECTIONS, PASS_QUEUE, PASS_REPLY_MAX);
	a->push_fetch = build_push_fetch(a);
	a->redis = redis_new(a->loop, &redis);
	session_key_prefix(session_keys, c->redis_key_prefix);
	a->cache = cache_new(
		a->redis, session_keys, (size_t)c->cache_entries, (int)c->redis_timeout_ms);
	a->seal = seal_new(
		(const uint8_t(*)[SEAL_KEY_LEN])c->encryption_keys, c->encryption_key_count);
	a->tokens = tokens_new(a->redis, c->redis_key_prefix, a->seal);
	a->sessions = sessions_new(a->redis, &(struct sessions_options){
		.key_prefix = c->redis_key_prefix,
		.cache = a->cache,
		.ttl_ms = c->ttl_ms,
		.max_age_ms = c->max_age_ms,
		.timeout_ms = c->redis_timeout_ms,
		.max_per_user = (int)c->max_per_user,
		.seal = a->seal,
	});
	a->marks = marks_new(a->redis, c->redis_key_prefix);
	a->keycache = keycache_new(a->redis, a->sessions, a->seal);
	a->codes = codes_new(a->redis, &(struct codes_options){.key_prefix = c->redis_key_prefix,
					       .replay_window_ms = c->replay_window_ms});
	urls[0] = c->wechat_base_url;
	for (size_t i = 0; i < c->wechat_fallback_urls.n; i++)
		urls[i + 1] = c->wechat_fallback_urls.items[i];
	a->wechat = wechat_new(a->loop, &(struct wechat_options){
		.login = a->login_fetch,
		.token = a->token_fetch,
		.service = a->service_fetch,
		.pass = a->pass_fetch,
		.base_urls = urls,
		.base_url_count = c->wechat_fallback_urls.n + 1,
		.timeout_ms = c->wechat_timeout_ms,
	});
	free(urls);
	a->keeper = keeper_new(a->loop, a->tokens, a->wechat, c->wechat_timeout_ms);
}

static bool build_users(struct app *a)
{
	const struct config *c = a->started;
	struct user_db_options o = options_users(c);
	char why[256];

	o.seal = a->seal;
	a->users = a->api.users = user_db_new(a->loop, &o, why, sizeof(why));
	if (!a->users)
		log_error("cannot open the user database: see users.url",
			LOG_STR("scheme", c->users_scheme), LOG_STR("path", c->users_path),
			LOG_STR("host", c->users_host), LOG_STR("database", c->users_database),
			LOG_STR("cause", why));
	return a->users != NULL;
}

static bool build_audit(struct app *a)
{
	const struct config *c = a->started;
	const struct audit_options o = {
		.file = c->audit_file,
		.key = c->audit_openid == OPENID_HASH ? c->encryption_keys[0] : NULL,
		.queue_max = AUDIT_QUEUE,
	};
	char why[256];

	if (!*c->audit_file)
		return true;
	a->audit = a->api.audit = audit_new(a->loop, &o, why, sizeof(why));
	if (!a->audit)
		log_error("cannot open the audit log: see [audit] file", LOG_STR("file", o.file),
			LOG_STR("cause", why));
	return a->audit != NULL;
}

static bool accept_all(struct app *a)
{
	const struct app_options *o = a->o;
	const struct listen_socket *s;

	for (size_t side = 0; side < NELEM(a->sides); side++)
		for (s = o->sockets[side]; s < o->sockets[side] + o->socket_count[side]; s++)
			if (!http_adopt(a->sides[side], fcntl(s->fd, F_DUPFD_CLOEXEC, 0))) {
				log_error("cannot listen", LOG_STR("cause", strerror(errno)));
				return false;
			}
	return true;
}

static void build_sides(struct app *a)
{
	struct config *c = a->started;
	struct http_options o = {
		.max_connections = 1,
		.client_timeout_ms = (int)c->client_timeout_ms,
		.max_body = (size_t)c->max_body,
		.backstop_ms = (int)(6 * c->wechat_timeout_ms + 10 * c->redis_timeout_ms +
				     BACKSTOP_SLACK_MS),
		.shared = a->o->workers > 1,
	};

	a->api.ip_buckets = a->o->shared->ip_buckets;
	a->api.app_buckets = a->o->shared->app_buckets;
	a->api.user_buckets = a->o->shared->user_buckets;
	a->api.loop = a->loop;
	a->api.redis = a->redis;
	a->api.sessions = a->sessions;
	a->api.codes = a->codes;
	a->api.keycache = a->keycache;
	a->api.marks = a->marks;
	a->api.push_fetch = a->push_fetch;
	a->api.wechat = a->wechat;
	a->api.keeper = a->keeper;
	a->api.logins_max = (int)c->wechat_max_connections + LOGIN_QUEUE;
	a->api.login_timeout_ms = c->wechat_timeout_ms;
	a->api.redis_timeout_ms = c->redis_timeout_ms;
	o.name = "public";
	o.name_client = api_name_client;
	o.before_refusal = api_public_refused;
	a->sides[0] = http_new(a->loop, &o, api_public, &a->api);
	o.name = "internal";
	o.before_refusal = NULL;
	a->sides[1] = http_new(a->loop, &o, api_internal, &a->api);
	apply(a);
	a->blocks = blocks_new(&a->api);
}

/* Callers first, so that nobody asks; then what answers them, each room ending its own waits by
 * callback. */
static void tear_down(struct app *a)
{
	for (size_t i = 0; i < NELEM(a->sides); i++)
		http_free(a->sides[i]);
	loop_settle(a->loop);
	api_close(&a->api);
	blocks_close(a->blocks);
	keeper_close(a->keeper);
	fetch_free(a->login_fetch);
	fetch_free(a->token_fetch);
	fetch_free(a->service_fetch);
	fetch_free(a->pass_fetch);
	fetch_free(a->push_fetch);
	wechat_free(a->wechat);
	user_db_free(a->users); /* before Redis: what it finishes at the end may still ask there */
	redis_free(a->redis);
	tls_free(a->redis_tls);
	audit_free(a->audit);
	blocks_free(a->blocks);
	codes_free(a->codes);
	keycache_free(a->keycache);
	marks_free(a->marks);
	sessions_free(a->sessions);
	keeper_free(a->keeper);
	tokens_free(a->tokens);
	cache_free(a->cache);
	seal_free(a->seal);
	timer_free(a->ready_look);
	timer_free(a->drain_delay);
	timer_free(a->drain_limit);
	timer_free(a->chores);
	loop_free(a->loop);
	free(a->trusted);
	free(a->apps);
	free(a->pushes);
	if (a->config != a->started)
		config_free(a->config);
	config_free(a->started);
}

void app_hold_signals(void)
{
	const int held[] = {
		SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR2, APP_SIGNAL_END, APP_SIGNAL_DRAIN};
	sigset_t signals;

	sigemptyset(&signals);
	for (size_t i = 0; i < NELEM(held); i++)
		sigaddset(&signals, held[i]);
	sigprocmask(SIG_BLOCK, &signals, NULL);
}

/* Who comes in the first milliseconds waits in the sockets' queues. Served at once, they would be
 * told 503 by a server that has not asked Redis yet. */
static bool may_accept(const struct app *a)
{
	return redis_is_ready(a->redis) ||
	       (!a->o->accept_when_ready && !redis_is_starting(a->redis));
}

static void look_whether_ready(void *ctx)
{
	struct app *a = ctx;

	if (!a->accepts && !a->api.draining && may_accept(a)) {
		a->accepts = true;
		if (!accept_all(a)) {
			a->status = EXIT_LISTEN;
			loop_stop(a->loop);
			return;
		}
	}
	if (redis_is_ready(a->redis))
		a->o->crew->ready(a->o->crew->ctx);
	else
		timer_start(a->ready_look, a->accepts ? READY_LOOK_MS : FIRST_LOOK_MS);
}

static void take_signals(struct app *a)
{
	static const int ends[] = {SIGTERM, SIGINT, SIGQUIT};
	sigset_t all;

	for (size_t i = 0; i < NELEM(ends); i++)
		loop_on_signal(a->loop, ends[i], on_terminate, a);
	loop_on_signal(a->loop, APP_SIGNAL_END, end_at_once, a);
	loop_on_signal(a->loop, APP_SIGNAL_DRAIN, on_drain_now, a);
	loop_on_signal(a->loop, SIGHUP, on_hangup, a);
	sigfillset(&all);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
}

static void on_chores(void *ctx)
{
	struct app *a = ctx;

	mem_trim();
	usage_measure(); /* whichever worker is asked for /metrics tells what all of them cost */
	timer_start(a->chores, CHORES_EVERY_MS);
}

int app_run(const struct app_options *o)
{
	struct app a = {.o = o, .config = o->config, .started = o->started};

	metrics_join(o->worker);
	metric_set(metric_series(METRIC_BUILD_INFO, VERSION, NULL, NULL), 1);
	if (!options_redis_tls(a.config, &a.redis_tls)) {
		config_free(a.config);
		return EXIT_CONFIG;
	}
	build_gates(&a);
	if (!build_users(&a) || !build_audit(&a)) {
		a.status = EXIT_CONFIG;
	} else {
		build_sides(&a);
		take_signals(&a);
		log_info("wxlogind is up", LOG_STR("version", VERSION),
			LOG_INT("apps", (int64_t)a.config->app_count));
		o->crew->up(o->crew->ctx, a.loop);
		a.chores = timer_new(a.loop, on_chores, &a);
		on_chores(&a);
		a.ready_look = timer_new(a.loop, look_whether_ready, &a);
		timer_start(a.ready_look, 0);
		loop_run(a.loop);
		if (o->crew->down)
			o->crew->down(o->crew->ctx);
		app_hold_signals(); /* one more would find nobody, and kill us */
		log_info("wxlogind is down");
	}
	tear_down(&a);
	return a.status;
}
