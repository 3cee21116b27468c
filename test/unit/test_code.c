/* A code becomes one session, whoever brings it and however often. */
#include "store/code.h"

#include "real_store.h"

static struct {
	enum claim_state state;
	enum outcome refused;
	int errcode;
} answer;

static void on_claim(void *ctx, enum outcome oc, const struct claim_answer *ans)
{
	(void)ctx;
	got.oc = oc;
	if (ans) {
		answer.state = ans->state;
		answer.refused = ans->refused;
		answer.errcode = ans->errcode;
		snprintf(got.token, sizeof(got.token), "%s", ans->token ? ans->token : "");
	}
	loop_stop(loop);
}

static struct code_claim claim(struct codes *cs, const char *code, const char *nonce)
{
	struct code_claim c;

	code_claim_init(cs, &c, "wx1", code, nonce);
	code_claim_try(cs, &c, 5000, on_claim, NULL);
	loop_run(loop);
	assert_int_equal(got.oc, OC_OK);
	return c;
}

static const char some_token[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

static void settle(struct codes *cs, const struct code_claim *c)
{
	code_settle_session(cs, c, some_token);
	command("GET", c->key, NULL, NULL); /* answered behind it */
	assert_int_equal(got.text[0], 's');
}

static void test_code_becomes_one_session(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 60000});
	struct code_claim first = claim(cs, "code-1", "n1");

	(void)state;
	assert_int_equal(answer.state, CLAIM_MINE);
	claim(cs, "code-1", "n1");
	assert_int_equal(answer.state, CLAIM_BUSY);
	claim(cs, "code-2", "n1");
	assert_int_equal(answer.state, CLAIM_MINE);
	settle(cs, &first);
	claim(cs, "code-1", "n1");
	assert_int_equal(answer.state, CLAIM_SESSION);
	assert_string_equal(got.token, some_token);
	claim(cs, "code-1", "n2");
	assert_int_equal(answer.state, CLAIM_SPENT);
	assert_string_equal(got.token, "");
	claim(cs, "code-1", NULL);
	assert_int_equal(answer.state, CLAIM_SPENT);
	command("GET", first.key, NULL, NULL);
	assert_null(strstr(got.text, some_token));
	codes_free(cs);
}

static void test_refusals_are_shared_and_drops_are_not(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 60000});
	struct code_claim c = claim(cs, "code-3", NULL);

	(void)state;
	code_settle_refusal(cs, &c, OC_INVALID_CODE, 40163);
	claim(cs, "code-3", "any");
	assert_int_equal(answer.state, CLAIM_REFUSED);
	assert_int_equal(answer.refused, OC_INVALID_CODE);
	assert_int_equal(answer.errcode, 40163);
	c = claim(cs, "code-4", NULL);
	code_drop(cs, &c);
	claim(cs, "code-4", NULL);
	assert_int_equal(answer.state, CLAIM_MINE);
	code_drop(cs, &c); /* no longer ours: leaves the other's claim alone */
	code_settle_refusal(cs, &c, OC_INVALID_CODE, 40029);
	claim(cs, "code-4", NULL);
	assert_int_equal(answer.state, CLAIM_BUSY);
	codes_free(cs);
}

static void test_a_session_outweighs_a_late_refusal(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 60000});
	struct code_claim slow, next;

	(void)state;
	code_claim_init(cs, &slow, "wx1", "code-5", NULL);
	/* a claim that ends before its holder is back */
	code_claim_try(cs, &slow, 1, on_claim, NULL);
	loop_run(loop);
	wait_ms(10);
	next = claim(cs, "code-5", NULL);
	assert_int_equal(answer.state, CLAIM_MINE);
	settle(cs, &slow);
	code_settle_refusal(cs, &next, OC_INVALID_CODE, 40163);
	claim(cs, "code-5", NULL);
	assert_int_equal(answer.state, CLAIM_SESSION);
	codes_free(cs);
}

static void test_window_of_zero(void **state)
{
	struct codes *cs = codes_new(
		redis, &(struct codes_options){.key_prefix = "t:", .replay_window_ms = 0});
	struct code_claim first = claim(cs, "code-6", NULL), waiting = claim(cs, "code-6", NULL);

	(void)state;
	assert_int_equal(answer.state, CLAIM_BUSY);
	settle(cs, &first);
	code_claim_try(cs, &waiting, 5000, on_claim, NULL);
	loop_run(loop);
	assert_int_equal(answer.state, CLAIM_SESSION); /* it asked while the first was asking */
	claim(cs, "code-6", NULL);
	assert_int_equal(answer.state, CLAIM_SPENT);
	codes_free(cs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_code_becomes_one_session),
		T(test_refusals_are_shared_and_drops_are_not),
		T(test_a_session_outweighs_a_late_refusal),
		T(test_window_of_zero),
	};

	return RUN(tests);
}
