/* How many replicas are asked for: the clock and what ROLE and WAIT said are the test's. */
#include "io/following.h"

#include <hiredis/hiredis.h>

#include "unit.h"

enum { LOOK_MS = 50 };

static struct following f;
static int64_t now_ms, master;
static struct { const char *name; int64_t offset; } followers[20];
static size_t followed;

static void *role_of(const char *text)
{
	redisReader *reader = redisReaderCreate();
	void *role = NULL;

	redisReaderFeed(reader, text, strlen(text));
	assert_int_equal(redisReaderGetReply(reader, &role), REDIS_OK);
	redisReaderFree(reader);
	return role;
}

/* The next look, at a master with these followers. */
static void look(void)
{
	char text[4096], offset[24];
	size_t len = (size_t)snprintf(text, sizeof(text), "*3\r\n$6\r\nmaster\r\n:%lld\r\n*%zu\r\n",
		(long long)master, followed);
	void *role;

	for (size_t i = 0; i < followed; i++) {
		snprintf(offset, sizeof(offset), "%lld", (long long)followers[i].offset);
		len += (size_t)snprintf(text + len, sizeof(text) - len,
			"*3\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n",
			strlen(followers[i].name), followers[i].name, strlen(offset), offset);
	}
	role = role_of(text);
	now_ms += LOOK_MS;
	following_look(&f, role, now_ms);
	freeReplyObject(role);
}

/* So long, in which the master writes, and those who are well have it all after a second at most.
 */
static void go_on(int64_t ms, size_t well)
{
	for (int64_t end = now_ms + ms; now_ms < end;) {
		master += 10;
		if (master % 200 == 0)
			for (size_t i = 0; i < well; i++)
				followers[i].offset = master - 3;
		look();
	}
}

static int needed(int replicas)
{
	return following_wants(&f, replicas, now_ms).needed;
}

/* One end, which so many confirm; true: they are enough. */
static bool end_confirmed_by(int have)
{
	struct following_wants w = following_wants(&f, 1, now_ms);

	following_got(&f, &w, have, now_ms);
	return have >= w.needed;
}

static int setup(void **state)
{
	(void)state;
	following_init(&f);
	now_ms = 1000000;
	master = 5000;
	followed = 2;
	followers[0].name = "26001";
	followers[1].name = "26002";
	followers[0].offset = followers[1].offset = 5000;
	return 0;
}

static void test_nothing_is_known(void **state)
{
	(void)state;
	assert_int_equal(needed(1), 1);
	assert_int_equal(needed(3), 3);
	assert_int_equal(needed(0), 0);
}

static void test_all_that_follow(void **state)
{
	(void)state;
	look();
	assert_int_equal(needed(1), 2);
	assert_int_equal(needed(3), 3); /* what is set is the least */
	assert_int_equal(needed(0), 0);
	for (int i = 0; i < 20; i++) { /* under load, when what they have is up to a second old */
		go_on(1000, 2);
		assert_int_equal(needed(1), 2);
	}
}

/* For three seconds it may have become the master. */
static void test_one_that_leaves(void **state)
{
	(void)state;
	go_on(3000, 2);
	followed = 1;
	look();
	assert_int_equal(needed(1), 2);
	go_on(FOLLOWING_GRACE_MS - 2 * LOOK_MS - LOOK_MS, 1);
	assert_int_equal(needed(1), 2);
	go_on(2 * LOOK_MS, 1);
	assert_int_equal(needed(1), 1);
	followed = 2; /* it is back, and has far to go */
	go_on(5000, 1);
	assert_int_equal(needed(1), 1);
	go_on(3000, 2);
	assert_int_equal(needed(1), 2);
}

/* It is connected and confirms nothing: after a while it is not asked for, and it is not asked for
 * again before it follows. */
static void test_one_that_stands_still(void **state)
{
	(void)state;
	go_on(3000, 2);
	go_on(2000 + FOLLOWING_GRACE_MS + LOOK_MS, 1);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(needed(1), 1);
		go_on(1000, 1);
	}
	go_on(2000, 2);
	assert_int_equal(needed(1), 2);
}

/* It follows, and says so too late for WAIT: for three seconds it holds up ends. Then it is asked
 * for every ten seconds, and that holds up nobody. */
static void test_one_that_is_slow(void **state)
{
	int tried = 0;

	(void)state;
	go_on(3000, 2);
	for (int64_t end = now_ms + FOLLOWING_GRACE_MS; now_ms < end; go_on(500, 2))
		assert_false(end_confirmed_by(1));
	assert_false(end_confirmed_by(1)); /* which shows that it lasted */
	for (int64_t end = now_ms + 60000; now_ms < end; go_on(500, 2)) {
		struct following_wants w = following_wants(&f, 1, now_ms);

		assert_int_equal(w.needed, 1);
		tried += w.asked == 2;
		following_got(&f, &w, 1, now_ms);
	}
	assert_in_range(tried, 5, 6);
	go_on(11000, 2);
	assert_true(end_confirmed_by(2)); /* slow no more */
	assert_int_equal(needed(1), 2);
}

/* Short once, and once again much later: that did not last. */
static void test_short_now_and_then(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		go_on(FOLLOWING_GRACE_MS + 1000, 2);
		assert_false(end_confirmed_by(1));
		assert_false(end_confirmed_by(0));
	}
	for (int i = 0; i < 20; i++) { /* nor did it where one between was confirmed */
		go_on(1000, 2);
		assert_false(end_confirmed_by(1));
		assert_true(end_confirmed_by(2));
	}
	assert_int_equal(needed(1), 2);
}

/* What is set is the least, however slow all are. */
static void test_never_fewer_than_are_set(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
		go_on(1000, 2);
		assert_false(end_confirmed_by(0));
		assert_in_range(needed(1), 1, 2);
	}
	go_on(11000, 2);
	assert_true(end_confirmed_by(2));
	assert_int_equal(needed(1), 2);
}

static void test_many(void **state)
{
	static const char *const names[] = {"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11",
		"12", "13", "14", "15", "16", "17", "18", "19", "20"};

	(void)state;
	followed = NELEM(followers);
	for (size_t i = 0; i < followed; i++) {
		followers[i].name = names[i];
		followers[i].offset = master;
	}
	look();
	assert_int_equal(needed(1), FOLLOWING_MAX);
	followed = 2; /* others take the places of those that are gone */
	followers[0].name = "21";
	followers[1].name = "22";
	for (int i = 0; i < 100; i++)
		look();
	assert_int_equal(needed(1), 2);
}

static void test_what_is_no_list(void **state)
{
	static const char *const roles[] = {"+PONG\r\n", "*0\r\n", "*1\r\n$6\r\nmaster\r\n",
		"*3\r\n$6\r\nmaster\r\n$1\r\nx\r\n*1\r\n:1\r\n",
		"*3\r\n$6\r\nmaster\r\n:1\r\n*2\r\n:1\r\n*3\r\n:1\r\n:2\r\n:3\r\n",
		"*3\r\n$6\r\nmaster\r\n:1\r\n$1\r\nx\r\n",
		"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.2\r\n:6379\r\n$9\r\nconnected\r\n:14\r\n"};

	(void)state;
	for (size_t i = 0; i < NELEM(roles); i++) {
		void *role = role_of(roles[i]);

		following_look(&f, role, now_ms);
		freeReplyObject(role);
		assert_int_equal(needed(1), 1);
	}
	following_look(&f, NULL, now_ms);
	assert_int_equal(needed(1), 1);
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_nothing_is_known),
		T(test_all_that_follow),
		T(test_one_that_leaves),
		T(test_one_that_stands_still),
		T(test_one_that_is_slow),
		T(test_short_now_and_then),
		T(test_never_fewer_than_are_set),
		T(test_many),
		T(test_what_is_no_list),
	};

	return cmocka_run_group_tests_name("following", tests, NULL, NULL);
}
