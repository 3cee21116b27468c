/* What a Redis Cluster says of itself. */
#include "io/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "common/encode.h"
#include "common/mem.h"
#include "real_redis.h"

/* By CLUSTER KEYSLOT of Redis 7.0. */
static void test_slots_of_keys(void **state)
{
	static const struct { const char *key; unsigned slot; } known[] = {
		{"", 0}, {"123456789", 12739}, {"foo", 12182}, {"{foo}bar", 12182}, {"bar{foo}", 12182}, {"foo{}", 5542}, {"foo{}{bar}", 8363},
		{"foo{{bar}}zap", 4015}, {"foo{bar}{zap}", 5061}, {"{a", 10276}, {"a{}b{c}", 7353},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(known); i++)
		assert_int_equal(slot_of(known[i].key, strlen(known[i].key)), known[i].slot);
	/* what is behind its end is none of the key */
	assert_int_equal(slot_of("foo{bar", 3), slot_of("foo", 3));
}

/* Nobody listens there just now. */
static int free_port(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	getsockname(fd, (struct sockaddr *)&in, &len);
	close(fd);
	return ntohs(in.sin_port);
}

static redisContext *a_node(struct real_redis *rr)
{
	redisContext *c;
	char port[8];

	for (int tries = 0; tries < 5; tries++) { /* somebody else may take the port first */
		snprintf(port, sizeof(port), "%d", free_port());
		real_redis_start_as(rr, port);
		for (int i = 0; i < 500 && waitpid(rr->pid, NULL, WNOHANG) == 0;
			i++, usleep(10000)) {
			c = redisConnectUnix(rr->socket);
			if (c && !c->err)
				return c;
			redisFree(c);
		}
	}
	fail_msg("no redis");
	return NULL;
}

/* All 65,536 tags that a session may have, against a real server. */
static void test_slots_of_all_tags(void **state)
{
	struct real_redis rr;
	redisContext *c = a_node(&rr);
	char keys[256][32], tag[8];

	(void)state;
	for (unsigned i = 0; i < 65536; i++) {
		const uint8_t bytes[2] = {(uint8_t)(i >> 8), (uint8_t)i};

		base64url_encode(tag, bytes, sizeof(bytes));
		snprintf(keys[i % 256], sizeof(keys[0]), "wxlogin:s:{%s}:%u", tag, i);
		redisAppendCommand(c, "CLUSTER KEYSLOT %s", keys[i % 256]);
		for (unsigned k = 0; i % 256 == 255 && k < 256; k++) {
			redisReply *v = NULL;

			assert_int_equal(redisGetReply(c, (void **)&v), REDIS_OK);
			assert_int_equal(v->type, REDIS_REPLY_INTEGER);
			assert_int_equal(v->integer, slot_of(keys[k], strlen(keys[k])));
			freeReplyObject(v);
		}
	}
	redisFree(c);
	real_redis_stop(&rr);
}

static redisReply *reply_of(const char *bytes)
{
	redisReader *reader = reply_reader_new();
	void *v = NULL;

	redisReaderFeed(reader, bytes, strlen(bytes));
	assert_int_equal(redisReaderGetReply(reader, &v), REDIS_OK);
	assert_non_null(v);
	redisReaderFree(reader);
	return v;
}

#define NODE(host, port, id) "*3\r\n" host "\r\n:" port "\r\n$1\r\n" id "\r\n"

static struct slot_map map;

static bool read_map(const char *bytes)
{
	redisReply *v = reply_of(bytes);
	bool ok = slot_map_read(&map, v, "asked");

	reply_free(v);
	return ok;
}

static void test_a_map(void **state)
{
	(void)state;
	assert_true(
		read_map("*3\r\n"
			 "*4\r\n:0\r\n:5460\r\n" NODE("$3\r\nh-1", "6379", "a") NODE("$3\r\nh-9",
				 "6379", "z") "*3\r\n:5461\r\n:10922\r\n" NODE("$-1", "6380",
				 "b") "*3\r\n:10923\r\n:16383\r\n" NODE("$3\r\nh-1", "6379", "a")));
	assert_int_equal(map.count, 2);
	assert_int_equal(map.covered, SLOTS);
	assert_string_equal(map.nodes[0].host, "h-1");
	assert_string_equal(map.nodes[1].host, "asked"); /* it does not know its own address */
	assert_int_equal(map.nodes[1].port, 6380);
	assert_true(map.owner[0] == 0 && map.owner[5461] == 1 && map.owner[16383] == 0);
}

static void test_maps_that_lack_something(void **state)
{
	(void)state;
	assert_true(read_map("*1\r\n*3\r\n:0\r\n:99\r\n" NODE("$1\r\nh", "1", "a")));
	assert_int_equal(map.covered, 100);
	assert_int_equal(map.owner[100], SLOT_NOBODY);
	/* overlap */
	assert_true(read_map("*2\r\n*3\r\n:0\r\n:9\r\n" NODE(
		"$1\r\nh", "1", "a") "*3\r\n:5\r\n:14\r\n" NODE("$1\r\nh", "2", "b")));
	assert_int_equal(map.covered, 15);
	/* an address that nobody knows */
	assert_true(read_map("*1\r\n*3\r\n:0\r\n:99\r\n" NODE("$1\r\n?", "1", "a")));
	assert_int_equal(map.covered, 0);
	assert_true(read_map("*1\r\n*3\r\n:0\r\n:99\r\n*4\r\n$1\r\n?\r\n:1\r\n$1\r\na\r\n*2\r\n$"
			     "2\r\nip\r\n$7\r\n9.8.7.6\r\n"));
	assert_string_equal(map.nodes[0].host, "9.8.7.6");
	assert_true(read_map("*0\r\n"));
	assert_int_equal(map.count, 0);
}

static void test_what_is_no_map(void **state)
{
	static const char *const none[] = {
		"-ERR This instance has cluster support disabled\r\n",
		"+OK\r\n",
		"$-1\r\n",
		"*1\r\n:1\r\n",
		"*1\r\n*3\r\n:-1\r\n:5\r\n:0\r\n",
		"*1\r\n*3\r\n:0\r\n:16384\r\n:0\r\n",
		"*1\r\n*3\r\n:9\r\n:5\r\n:0\r\n",
		"*1\r\n*1\r\n:0\r\n",
	};

	(void)state;
	for (size_t i = 0; i < NELEM(none); i++)
		assert_false(read_map(none[i]));
}

static void test_redirections(void **state)
{
	static const struct {
		const char *error;
		bool ok, is_ask;
		unsigned slot;
		const char *host;
		int port;
	} rows[] = {
		{"MOVED 3421 127.0.0.2:26000", true, false, 3421, "127.0.0.2", 26000},
		{"ASK 0 127.0.0.3:26001", true, true, 0, "127.0.0.3", 26001},
		{"MOVED 16383 node1.example:1", true, false, 16383, "node1.example", 1},
		{"MOVED 9842 :26000", true, false, 9842, "asked", 26000},
		{"MOVED 9842 2001:db8::1:26000", true, false, 9842, "2001:db8::1", 26000},
		{"MOVED 9842 ?:26000", false, false, 0, NULL, 0},
		{"MOVED -1 h:1", false, false, 0, NULL, 0},
		{"MOVED 16384 h:1", false, false, 0, NULL, 0},
		{"MOVED 99999999999999999999 h:1", false, false, 0, NULL, 0},
		{"MOVED 1 h", false, false, 0, NULL, 0},
		{"MOVED 1 h:", false, false, 0, NULL, 0},
		{"MOVED 1 h:0", false, false, 0, NULL, 0},
		{"MOVED 1 h:65536", false, false, 0, NULL, 0},
		{"MOVED 1 h:1x", false, false, 0, NULL, 0},
		{"MOVED", false, false, 0, NULL, 0},
		{"MOVED ", false, false, 0, NULL, 0},
		{"ERR MOVED 1 h:1", false, false, 0, NULL, 0},
	};
	struct slot_redirect r;

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		if (slot_redirect_read(&r, rows[i].error, "asked") != rows[i].ok)
			fail_msg("%s", rows[i].error);
		if (!rows[i].ok)
			continue;
		assert_true(r.is_ask == rows[i].is_ask && r.slot == rows[i].slot &&
			    r.port == rows[i].port);
		assert_string_equal(r.host, rows[i].host);
	}
}

static void test_info(void **state)
{
	int64_t epoch;
	bool ok;

	(void)state;
	assert_true(slot_info_read("cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_"
				   "current_epoch:7\r\ncluster_my_epoch:2\r\n",
		&ok, &epoch));
	assert_true(ok && epoch == 7);
	assert_true(
		slot_info_read("cluster_state:fail\r\ncluster_current_epoch:0\r\n", &ok, &epoch));
	assert_true(!ok && epoch == 0);
	assert_false(slot_info_read("# Server\r\n", &ok, &epoch));
	assert_false(
		slot_info_read("cluster_state:ok\r\ncluster_current_epoch:-3\r\n", &ok, &epoch));
}

/* Whatever slots a node has, a session's tag leads to it; but for the two that no tag reaches. */
static void test_tags(void **state)
{
	static uint8_t owner[SLOTS];
	char tag[8];
	unsigned without = 0;

	(void)state;
	for (unsigned slot = 0; slot < SLOTS; slot += 97) {
		memset(owner, 0, sizeof(owner));
		owner[slot] = 1;
		without += !slot_tag(owner, 1, tag);
		assert_true(slot_tag(owner, 0, tag) && slot_of(tag, 3) != slot);
	}
	assert_true(without <= 2);
	assert_false(slot_tag(owner, 9, tag));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots_of_keys),
		cmocka_unit_test(test_slots_of_all_tags),
		cmocka_unit_test(test_a_map),
		cmocka_unit_test(test_maps_that_lack_something),
		cmocka_unit_test(test_what_is_no_map),
		cmocka_unit_test(test_redirections),
		cmocka_unit_test(test_info),
		cmocka_unit_test(test_tags),
	};

	return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
