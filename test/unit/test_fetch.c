/* Who goes first, who waits, and how each request ends: against a server in the same loop. */
#include "unit.h"

#include <arpa/inet.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "common/clock.h"
#include "io/fetch.h"

enum { ASKED_MAX = 32, ASKED_LEN = 32 };

/* ---- a server that answers each request after a while ---- */

struct server {
	struct loop *loop;
	struct evconnlistener *listener;
	struct bufferevent *all[ASKED_MAX];
	int connections, asked;
	char targets[ASKED_MAX][ASKED_LEN]; /* in the order in which they came */
	int64_t delay_ms;                   /* -1: no answer */
	char url[64];
};

struct reply_later {
	struct bufferevent *bev;
	struct timer *timer;
};

static void reply(void *ctx)
{
	struct reply_later *r = ctx;

	evbuffer_add_printf(
		bufferevent_get_output(r->bev), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	timer_free(r->timer);
	free(r);
}

static void on_request(struct bufferevent *bev, void *ctx)
{
	struct server *s = ctx;
	char line[256] = "";
	struct reply_later *r;

	evbuffer_remove(bufferevent_get_input(bev), line, sizeof(line) - 1);
	assert_true(s->asked < ASKED_MAX);
	assert_int_equal(sscanf(line, "GET %31s", s->targets[s->asked++]), 1);
	if (s->delay_ms < 0)
		return;
	r = mem_alloc(sizeof(*r));
	r->bev = bev;
	r->timer = timer_new(s->loop, reply, r);
	timer_start(r->timer, s->delay_ms);
}

static void on_accept(
	struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int len, void *ctx)
{
	struct server *s = ctx;
	struct bufferevent *bev =
		bufferevent_socket_new(loop_base(s->loop), fd, BEV_OPT_CLOSE_ON_FREE);

	(void)l;
	(void)a;
	(void)len;
	assert_true(s->connections < ASKED_MAX);
	s->all[s->connections++] = bev;
	bufferevent_setcb(bev, on_request, NULL, NULL, s);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void server_start(struct server *s, int64_t delay_ms)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	*s = (struct server){.loop = loop_new(), .delay_ms = delay_ms};
	s->listener = evconnlistener_new_bind(loop_base(s->loop), on_accept, s,
		LEV_OPT_CLOSE_ON_FREE, 16, (struct sockaddr *)&a, sizeof(a));
	assert_non_null(s->listener);
	getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&a, &len);
	snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d", ntohs(a.sin_port));
}

static void server_stop(struct server *s)
{
	for (int i = 0; i < s->connections; i++)
		bufferevent_free(s->all[i]);
	evconnlistener_free(s->listener);
	loop_free(s->loop);
}

/* ---- requests ---- */

struct told {
	struct loop *loop;
	int *left;
	int calls;
	enum fetch_result result;
	bool not_sent;
};

static void on_told(void *ctx, const struct fetch_reply *rp)
{
	struct told *t = ctx;

	t->calls++;
	t->result = rp->result;
	t->not_sent = rp->not_sent;
	if (--*t->left == 0)
		loop_stop(t->loop);
}

static struct fetch *fetch_make(struct server *s, int connections, int queue)
{
	return fetch_new(s->loop, &(struct fetch_options){.max_connections = connections,
					  .max_queue = queue,
					  .connect_timeout_ms = 1000,
					  .max_reply = 1000});
}

static void start(struct fetch *f, struct server *s, const char *target, int64_t timeout_ms,
	int64_t since_us, struct told *t, int *left)
{
	char url[128];

	*t = (struct told){.loop = s->loop, .left = left};
	++*left;
	snprintf(url, sizeof(url), "%s%s", s->url, target);
	fetch_start(f,
		&(struct fetch_request){.method = "GET",
			.url = url,
			.timeout_ms = timeout_ms,
			.since_us = since_us},
		on_told, t);
	assert_int_equal(t->calls, 0); /* never before the starter returns */
}

static void test_no_time_is_left(void **state)
{
	static const int64_t times[] = {0, -1, -1000000};
	struct server s;
	struct told t[NELEM(times)];
	struct fetch *f;
	int left = 0;

	(void)state;
	server_start(&s, 0);
	f = fetch_make(&s, 4, 4);
	for (size_t i = 0; i < NELEM(times); i++)
		start(f, &s, "/", times[i], 0, &t[i], &left);
	loop_run(s.loop);
	for (size_t i = 0; i < NELEM(times); i++)
		assert_true(t[i].calls == 1 && t[i].result == FETCH_REFUSED && t[i].not_sent);
	assert_int_equal(s.connections, 0);
	fetch_free(f);
	server_stop(&s);
}

static void test_who_asked_first_goes_first(void **state)
{
	struct server s;
	struct told t[4];
	struct fetch *f;
	int left = 0;

	(void)state;
	server_start(&s, 20);
	f = fetch_make(&s, 1, 8);
	start(f, &s, "/a", 3000, 0, &t[0], &left);
	start(f, &s, "/b", 3000, 0, &t[1], &left);
	start(f, &s, "/c", 3000, 0, &t[2], &left);
	/* came back from another host */
	start(f, &s, "/first", 3000, clock_us() - 1000000, &t[3], &left);
	loop_run(s.loop);
	for (size_t i = 0; i < NELEM(t); i++)
		assert_int_equal(t[i].result, FETCH_DONE);
	assert_string_equal(s.targets[0], "/a");
	assert_string_equal(s.targets[1], "/first");
	assert_string_equal(s.targets[2], "/b");
	assert_string_equal(s.targets[3], "/c");
	assert_int_equal(s.connections, 1);
	fetch_free(f);
	server_stop(&s);
}

/* It keeps a third of its time for WeChat: one begun later would only use up its code. */
static void test_who_waits_too_long_is_not_begun(void **state)
{
	struct server s;
	struct told t[3];
	struct fetch *f;
	int left = 0;
	int64_t began = clock_ms();

	(void)state;
	server_start(&s, -1);
	f = fetch_make(&s, 1, 1);
	start(f, &s, "/a", 5000, 0, &t[0], &left);
	start(f, &s, "/b", 300, 0, &t[1], &left);
	start(f, &s, "/c", 300, 0, &t[2], &left); /* one more than may wait */
	left = 2;
	loop_run(s.loop);
	assert_true(clock_ms() - began >= 190);
	for (size_t i = 1; i < NELEM(t); i++)
		assert_true(t[i].calls == 1 && t[i].result == FETCH_REFUSED && t[i].not_sent);
	left = 2;
	fetch_free(f);
	assert_true(t[0].calls == 1 && t[0].result == FETCH_CLOSED && !t[0].not_sent);
	assert_int_equal(s.asked, 1);
	server_stop(&s);
}

static void test_a_host_is_given_up(void **state)
{
	struct server s;
	struct told t[3];
	struct fetch *f;
	int left = 0;

	(void)state;
	server_start(&s, -1);
	f = fetch_make(&s, 1, 8);
	for (size_t i = 0; i < NELEM(t); i++)
		start(f, &s, "/", 5000, 0, &t[i], &left);
	fetch_give_up(f, "http://127.0.0.1:1"); /* another */
	fetch_give_up(f, s.url);
	assert_int_equal(t[1].calls, 0); /* on a later turn */
	left = 2;
	loop_run(s.loop);
	for (size_t i = 1; i < NELEM(t); i++)
		assert_true(t[i].calls == 1 && t[i].result == FETCH_NOT_SENT && t[i].not_sent);
	assert_int_equal(t[0].calls, 0); /* it is under way */
	left = 2;
	fetch_free(f);
	server_stop(&s);
}

static void test_all_are_told_at_the_end(void **state)
{
	struct server s;
	struct told t[5];
	struct fetch *f;
	int left = 0;

	(void)state;
	server_start(&s, -1);
	f = fetch_make(&s, 1, 1);
	start(f, &s, "/", 5000, 0, &t[0], &left); /* under way */
	start(f, &s, "/", 5000, 0, &t[1], &left); /* waits */
	start(f, &s, "/", 5000, 0, &t[2], &left); /* refused */
	start(f, &s, "/", 0, 0, &t[3], &left);
	fetch_free(f);
	for (int i = 0; i < 4; i++)
		assert_int_equal(t[i].calls, 1);
	assert_true(t[0].result == FETCH_CLOSED && t[1].result == FETCH_CLOSED &&
		    t[2].result == FETCH_REFUSED && t[3].result == FETCH_REFUSED);
	server_stop(&s);
}

/* A probe waits for nobody, and takes nobody's connection. */
static void test_a_probe_is_beside_the_bounds(void **state)
{
	struct server s;
	struct told busy, waits, probe = {0};
	struct fetch *f;
	int left = 0, probing = 1;

	(void)state;
	server_start(&s, 0);
	f = fetch_make(&s, 1, 8);
	start(f, &s, "/kept", 3000, 0, &busy, &left);
	loop_run(s.loop);
	s.delay_ms = -1;
	start(f, &s, "/busy", 3000, 0, &busy, &left);
	start(f, &s, "/waits", 3000, 0, &waits, &left);
	probe = (struct told){.loop = s.loop, .left = &probing};
	fetch_start(f,
		&(struct fetch_request){
			.method = "GET", .url = s.url, .timeout_ms = 200, .probe = true},
		on_told, &probe);
	loop_run(s.loop);
	assert_int_equal(probe.result, FETCH_TIMED_OUT);
	assert_false(probe.not_sent);
	assert_int_equal(s.connections, 2);
	assert_int_equal(waits.calls, 0);
	fetch_free(f);
	server_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_time_is_left),
		cmocka_unit_test(test_who_asked_first_goes_first),
		cmocka_unit_test(test_who_waits_too_long_is_not_begun),
		cmocka_unit_test(test_a_host_is_given_up),
		cmocka_unit_test(test_all_are_told_at_the_end),
		cmocka_unit_test(test_a_probe_is_beside_the_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
