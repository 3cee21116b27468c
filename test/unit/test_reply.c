/* Redis' answers: their words, what of them may be told, and reading the rest. */
#include "io/reply.h"

#include <hiredis/hiredis.h>

#include "io/redis.h"
#include "unit.h"

#define T(f) cmocka_unit_test(f)

static void assert_word(const char *error, const char *expected)
{
	char word[REPLY_WORD_MAX];

	reply_word(error, word);
	assert_string_equal(word, expected);
}

static void test_words(void **state)
{
	char sentence[REPLY_SENTENCE_MAX], longest[400];

	(void)state;
	assert_word("READONLY You can't write against a read only replica.", "READONLY");
	assert_word("ERR unknown command", "ERR");
	assert_word("", "?");
	assert_word("nothing", "?");
	assert_word("ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM "
		    "command not allowed",
		"OOM");
	assert_word("ERR Error running script (call to f_0): @user_script:1: @user_script: 1: "
		    "-NOREPLICAS Not enough",
		"NOREPLICAS");
	assert_word(
		"ERR Error running script (call to f_0): @user_script:1: x: -1 is no word", "ERR");
	assert_word("ERR Script attempted to access a non local key in a cluster node script: f_1",
		"TRYAGAIN");
	assert_word("ERR Unable to execute command 'del' in script because undeclared keys were "
		    "accessed during rehashing of the slot",
		"TRYAGAIN");
	assert_word(
		"ERR The user executing the script can't run this command or subcommand", "NOPERM");
	reply_sentence(
		"ERR unknown command 'AUTH', with args beginning with: 'hunter2' ", NULL, sentence);
	assert_string_equal(sentence, "ERR unknown command 'AUTH'");
	reply_sentence("WRONGPASS hunter2 is wrong", "hunter2", sentence);
	assert_string_equal(sentence, "WRONGPASS");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	reply_sentence(longest, "", sentence);
	assert_int_equal(strlen(sentence), REPLY_SENTENCE_MAX - 1);
}

static void test_reading_replies(void **state)
{
	redisReply one = {.type = REDIS_REPLY_INTEGER, .integer = 42},
		   text = {.type = REDIS_REPLY_STRING, .str = (char[]){"ab"}, .len = 2},
		   nil = {.type = REDIS_REPLY_NIL};
	redisReply *both[] = {&one, &text};
	redisReply list = {.type = REDIS_REPLY_ARRAY, .elements = 2, .element = both};
	int64_t n = 7;
	size_t len = 9;

	(void)state;
	assert_true(redis_reply_is_nil(&nil));
	assert_false(redis_reply_is_nil(NULL));
	assert_false(redis_reply_is_nil(&one));
	assert_string_equal(redis_reply_str(&text, &len), "ab");
	assert_int_equal(len, 2);
	assert_null(redis_reply_str(&one, &len));
	assert_int_equal(len, 0);
	assert_null(redis_reply_str(NULL, NULL));
	assert_false(redis_reply_int(&text, &n));
	assert_false(redis_reply_int(NULL, &n));
	assert_int_equal(n, 7);
	assert_true(redis_reply_int(&one, &n));
	assert_int_equal(n, 42);
	assert_int_equal(redis_reply_count(&list), 2);
	assert_int_equal(redis_reply_count(&text), 0);
	assert_int_equal(redis_reply_count(NULL), 0);
	assert_ptr_equal(redis_reply_at(&list, 1), &text);
	assert_null(redis_reply_at(&list, 2));
	assert_null(redis_reply_at(&one, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_words),
		T(test_reading_replies),
	};

	return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
