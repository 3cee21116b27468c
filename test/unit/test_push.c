/* WeChat's message push: the vectors of WeChat's own pages and demo code, and what must be refused.
 */
#include "unit.h"

#include "common/arena.h"
#include "common/encode.h"
#include "wechat/push.h"

#define A43 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define APP "wxba5fad812f8e6fb9"
#define SEALED \
	"+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/" \
	"ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsXUnnR8XGT740XgX" \
	"ZUXQ7vJVnAG+tE8NUd4yFyjPy7GgiaviNrlCTj+" \
	"l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajAsjLY2km32IIjdf8YL/P50F7mStwn" \
	"trA2cPDrM1kb6mOcfBgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04="
#define SEALED_XML \
	"RypEvHKD8QQKFhvQ6QleEB4J58tiPdvo+rtK1I9qca6aM/wvqnLSV5zEPeusUiX5L5X/" \
	"0lWfrf0QADHHhGd3QczcdCUpj911L3vg3W/sYYvuJTs3TUUkSUXxaccA" \
	"S0qhxchrRYt66wiSpGLYL42aM6A8dTT+6k4aSknmPj48kzJs8qLjvd4Xgpue06DOdnLxAUHzM6+kDZ+HMZfJYuR+" \
	"LtwGc2hgf5gsijff0ekUNXZiqATP7PF5mZxZ" \
	"3Izoun1s4zG4LUMnvw2r+KqCKIw+3IQH03v+" \
	"BCA9nMELNqbSf6tiWSrXJB3LAVGUcallcrw8V2t9EL4EhzJWrQUax5wLVMNS0+rUPA3k22Ncx4XXZS9o0MBH27Bo" \
	"6BpNelZpS+/uh9KsNlY6bHCmJU9p8g7m3fVKn28H3KDYA5Pl/" \
	"T8Z1ptDAVe0lXdQ2YoyyH2uyPIGHBZZIs2pDBS8R07+qN+E7Q=="

static struct push_key key_of(const char *text)
{
	struct push_key key;

	assert_true(push_key_read(&key, text));
	return key;
}

static void test_signatures(void **state)
{
	static const struct {
		const char *token, *timestamp, *nonce, *encrypt, *signature;
	} rows[] = {
		{"AAAAA", "1714036504", "1514711492", NULL,
			"f464b24fc39322e44b38aa78f5edd27bd1441696"},
		{"AAAAA", "1714037059", "486452656", NULL,
			"899cf89e464efb63f54ddac96b0a0a235f53aa78"},
		{"AAAAA", "1714112445", "415670741", NULL,
			"6c5c811b55cc85e0e1b54100749188c20beb3f5d"},
		{"AAAAA", "1714112445", "415670741", SEALED,
			"046e02f8204d34f8ba5fa3b1db94908f3df2e9b3"},
		{"QDG6eK", "1409659813", "1372623149", SEALED_XML,
			"477715d11cdb4164915debcba66cb864d751f3e6"},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		char wrong[PUSH_SIGNATURE_SIZE];

		assert_true(push_signature_ok(rows[i].signature, rows[i].token, rows[i].timestamp,
			rows[i].nonce, rows[i].encrypt));
		strcpy(wrong, rows[i].signature);
		wrong[39] ^= 1;
		assert_false(push_signature_ok(
			wrong, rows[i].token, rows[i].timestamp, rows[i].nonce, rows[i].encrypt));
		assert_false(push_signature_ok(
			"", rows[i].token, rows[i].timestamp, rows[i].nonce, rows[i].encrypt));
		assert_false(push_signature_ok(rows[i].signature, "BBBBB", rows[i].timestamp,
			rows[i].nonce, rows[i].encrypt));
	}
}

static void test_opens(void **state)
{
	static const struct {
		const char *key, *appid, *encrypt, *begins, *ends;
		size_t len;
	} rows[] = {
		{A43, APP, SEALED, "{\"ToUserName\":\"gh_97417a04a28d\"",
			"\"debug_str\":\"hello world\"}", 167},
		{A43, APP,
			"ELGduP2YcVatjqIS+eZbp80MNLoAUWvzzyJxgGzxZO/"
			"5sAvd070Bs6qrLARC9nVHm48Y4hyRbtzve1L32tmxSQ==",
			"{\"demo_resp\":\"good luck\"}", "}", 25},
		{"jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C", "wx5823bf96d3bd56c7", SEALED_XML,
			"<xml>", "</xml>", 0},
		{"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", "wxb11529c136998cb6",
			"jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+"
			"3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg==",
			"我是中文", "abcd123", 19},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		struct arena *a = arena_new();
		struct push_key key = key_of(rows[i].key), other = key;
		size_t len = 0;
		char *text = push_open(a, &key, rows[i].appid, rows[i].encrypt, &len);

		assert_non_null(text);
		assert_int_equal(strlen(text), len);
		assert_memory_equal(text, rows[i].begins, strlen(rows[i].begins));
		assert_string_equal(text + len - strlen(rows[i].ends), rows[i].ends);
		if (rows[i].len)
			assert_int_equal(len, rows[i].len);
		other.bytes[31] ^= 1;
		assert_null(push_open(a, &other, rows[i].appid, rows[i].encrypt, &len));
		assert_null(push_open(a, &key, "wx0000000000000000", rows[i].encrypt, &len));
		assert_null(push_open(a, &key, "", rows[i].encrypt, &len));
		assert_null(push_open(a, &key, rows[i].appid, rows[i].encrypt + 4, &len));
		arena_free(a);
	}
}

static void test_seals_as_wechat_does(void **state)
{
	struct arena *a = arena_new();
	struct push_key key = key_of(A43);
	size_t len;

	(void)state;
	assert_string_equal(push_seal(a, &key, APP, (const uint8_t *)"707722b803182950",
				    "{\"demo_resp\":\"good luck\"}", 25),
		"ELGduP2YcVatjqIS+eZbp80MNLoAUWvzzyJxgGzxZO/"
		"5sAvd070Bs6qrLARC9nVHm48Y4hyRbtzve1L32tmxSQ==");
	key = key_of("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG");
	assert_string_equal(push_seal(a, &key, "wxb11529c136998cb6",
				    (const uint8_t *)"aaaabbbbccccdddd", "我是中文abcd123", 19),
		"jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+"
		"3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg==");
	for (size_t n = 0; n < 70; n++) { /* every length of padding, 1 to 32 */
		char message[70], *text;

		memset(message, 'x', n);
		text = push_open(a, &key, APP,
			push_seal(a, &key, APP, (const uint8_t *)"0123456789abcdef", message, n),
			&len);
		assert_non_null(text);
		assert_int_equal(len, n);
		assert_memory_equal(text, message, n);
	}
	arena_free(a);
}

static void test_keys(void **state)
{
	struct push_key a, b;
	static const char *const bad[] = {"", "AAAA", A43 "A", A43 "=",
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"AAAAAAAAAAAAAAAAAAAAA!AAAAAAAAAAAAAAAAAAAAA",
		"AAAAAAAAAAAAAAAAAAAAA AAAAAAAAAAAAAAAAAAAAA"};

	(void)state;
	a = key_of(A43);
	/* two bits more than 32 bytes hold */
	b = key_of("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD");
	assert_memory_equal(a.bytes, b.bytes, sizeof(a.bytes));
	b = key_of("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE");
	assert_memory_not_equal(a.bytes, b.bytes, sizeof(a.bytes));
	for (size_t i = 0; i < NELEM(bad); i++)
		assert_false(push_key_read(&a, bad[i]));
}

static void test_envelope_that_lies(void **state)
{
	struct arena *a = arena_new();
	struct push_key key = key_of(A43);
	static const char *const bad[] = {
		"", "AAAA", "%%%%", "AAAAAAAAAAAAAAAAAAAAAA==", "not base64 at all"};
	size_t len;

	(void)state;
	for (size_t i = 0; i < NELEM(bad); i++)
		assert_null(push_open(a, &key, APP, bad[i], &len));
	arena_free(a);
}

static bool reads(const char *body, struct push_message *m, struct arena *a)
{
	return push_read(a, body, strlen(body), m);
}

static void test_reads_both_formats(void **state)
{
	static const char *const bodies[] = {
		"{\"ToUserName\":\"gh_1\",\"CreateTime\":1789446945,\"MsgType\":\"event\","
		"\"Event\":\"user_authorization_revoke\","
		"\"OpenID\":\"oA\",\"AppID\":\"wx1\",\"RevokeInfo\":\"6,8\",\"Unknown\":{\"Event\":"
		"\"no\"}}",
		"<xml><ToUserName><![CDATA[gh_1]]></ToUserName><CreateTime>1789446945</"
		"CreateTime><MsgType><![CDATA[event]]></MsgType>"
		"<Event><![CDATA[user_authorization_revoke]]></Event><OpenID><![CDATA[oA]]></"
		"OpenID><AppID>wx1</AppID>"
		"<RevokeInfo><![CDATA[6,8]]></RevokeInfo><Unknown><Event>no</Event></Unknown></"
		"xml>\n",
	};

	(void)state;
	for (size_t i = 0; i < NELEM(bodies); i++) {
		struct arena *a = arena_new();
		struct push_message m;

		assert_true(reads(bodies[i], &m, a));
		assert_int_equal(m.format, i ? PUSH_XML : PUSH_JSON);
		assert_string_equal(m.event, "user_authorization_revoke");
		assert_string_equal(m.openid, "oA");
		assert_string_equal(m.appid, "wx1");
		assert_string_equal(m.revoke_info, "6,8");
		assert_string_equal(m.create_time, "1789446945");
		assert_string_equal(m.msg_type, "event");
		assert_null(m.encrypt);
		arena_free(a);
	}
}

static void test_reads_a_number_and_escapes(void **state)
{
	struct arena *a = arena_new();
	struct push_message m;

	(void)state;
	assert_true(reads("{\"RevokeInfo\":301}", &m, a));
	assert_string_equal(m.revoke_info, "301");
	assert_true(reads("<xml><OpenID>a&amp;b&#x41;</OpenID><Event></Event></xml>", &m, a));
	assert_string_equal(m.openid, "a&bA");
	assert_string_equal(m.event, "");
	assert_true(reads("<xml/>", &m, a));
	assert_null(m.event);
	arena_free(a);
}

static void test_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"hello",
		"[]",
		"{",
		"{\"Event\":true}",
		"{\"Event\":{}}",
		"{\"Event\":1.5}",
		"{\"Event\":\"a\",\"Event\":\"b\"}",
		"<xml>",
		"<xml></xml><xml></xml>",
		"<xml><Event>a</Event><Event>b</Event></xml>",
		"<xml>&lol;</xml>",
		"<!DOCTYPE xml [<!ENTITY a \"b\">]><xml><Event>&a;</Event></xml>",
		"<!DOCTYPE xml SYSTEM \"file:///etc/passwd\"><xml/>",
		"<xml><Event>\xff</Event></xml>",
		("<xml><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>"
		 "</a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></xml>"),
	};

	(void)state;
	for (size_t i = 0; i < NELEM(bad); i++) {
		struct arena *a = arena_new();
		struct push_message m;

		assert_false(reads(bad[i], &m, a));
		assert_null(m.event);
		arena_free(a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signatures),
		cmocka_unit_test(test_opens),
		cmocka_unit_test(test_seals_as_wechat_does),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_envelope_that_lies),
		cmocka_unit_test(test_reads_both_formats),
		cmocka_unit_test(test_reads_a_number_and_escapes),
		cmocka_unit_test(test_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
