/* WeChat's published vectors for signed and encrypted open data, and what must not open; sealing
 * for Redis. */
#include "unit.h"

#include "common/json.h"
#include "store/seal.h"
#include "wechat/sealed.h"

#define APP       "wx4f4bc4dec97d474b"
#define V1_KEY    "tiihtNczf5v6AKRyjwEUhQ=="
#define V1_IV     "r7BXXKkLb8qrSNn05n0qiA=="
#define OTHER_KEY "HyVFkGl5F5OQWJZZaNzBBg=="
#define OTHER_IV  "AAECAwQFBgcICQoLDA0ODw=="
#define V1 \
	"CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC" \
	"+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142d" \
	"NCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/" \
	"lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn" \
	"/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/" \
	"r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns" \
	"/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7" \
	"JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuy" \
	"Db/XcxxmK01EpqOyuxINew=="
#define V5 \
	"A9tSD1UlZPDo99Jgs8ev5ckAzt0m4Vu087o89x1K+AbcTp8BFMvHPI6c+cqln+OrMEcpfCrpdVB+z+Q4QKNH/" \
	"8GpUYh9kngeQi1IyoDq/+KC6Yh2jZydVDhHiYs4" \
	"iYJ6egpiCC8VLkgLpY75JX6otQpayoUhfmEkxIKPvaVcq2D/9mNlvXQ/" \
	"6EnBlqWVtCVHWBxbpWt62wMOA4G5ggR1Hg=="
#define V6 \
	"jSNmTyMf6uVO6H1K1x1R4lmSsFNifZE+QMdENlAFNIvRPZs/" \
	"80OYFLtNK80x1sblRujfzHYUv9fopR+YqLDOEbw2eh9Y55PXktAXzaa+ByrSGLi3VpogYvA1TLZrqaDj" \
	"2YYUl7Hp2YoJZNQ7NQutrKap8/OuL8uQcAA+PWcJXRJUASqAVt74TVL4N4HghPXV"
#define V7 \
	"ntxbJ342ENErI48OuOK8l9HYBNnE3t/" \
	"ypgGqoD7dflMyGVLYSP4nSF7TgT4IiXzS4viN7MEz3l8wC2a8vSNMOsCjV5pcewWDVPK+69xy+" \
	"6VzHwSKTksvWqrCQkIWcFSn" \
	"conVDFuAT/oY3t0SW9lpcg=="

static void test_published(void **state)
{
	static const struct { const char *key, *data, *iv, *member, *value; } rows[] = {
		{V1_KEY, V1, V1_IV, "nickName", "Band"}, {V1_KEY, V1, V1_IV, "openId", "oGZUI0egBJY1zhBYw2KhdUfwVJJE"},
		{OTHER_KEY, V5, OTHER_IV, "purePhoneNumber", "13580006666"}, {OTHER_KEY, V6, OTHER_IV, "nickName", "小明🐼"},
		{OTHER_KEY, V7, OTHER_IV, "pad", "xxx"}, /* a whole block of padding */
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		struct arena *a = arena_new();
		cJSON *o = sealed_open(a, rows[i].key, rows[i].data, rows[i].iv, APP);

		assert_non_null(o);
		assert_string_equal(
			cJSON_GetObjectItem(o, rows[i].member)->valuestring, rows[i].value);
		json_free(o);
		arena_free(a);
	}
}

static void test_what_does_not_open(void **state)
{
	static const struct { const char *key, *data, *iv, *appid; } rows[] = {
		{OTHER_KEY, V1, V1_IV, APP}, {V1_KEY, V1, OTHER_IV, APP}, {V1_KEY, V1, V1_IV, "wx0000000000000000"}, {V1_KEY, V1, V1_IV, ""},
		{"", V1, V1_IV, APP}, {V1_KEY, "", V1_IV, APP}, {V1_KEY, V1, "", APP}, {"AAAA", V1, V1_IV, APP}, {V1_KEY, V1, "AAAA", APP},
		{V1_KEY "AAAA", V1, V1_IV, APP}, {V1_KEY, "AAAA", V1_IV, APP}, {V1_KEY, "AAECAwQFBgcICQoLDA0ODw==", V1_IV, APP}, {V1_KEY, "%%%%", V1_IV, APP},
	};
	char data[] = V1;

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		struct arena *a = arena_new();

		assert_null(sealed_open(a, rows[i].key, rows[i].data, rows[i].iv, rows[i].appid));
		arena_free(a);
	}
	for (size_t i = 0; i < sizeof(data) - 1;
		i += 11) { /* one changed character never passes for another's data */
		struct arena *a = arena_new();
		char was = data[i];
		cJSON *o;

		data[i] = was == 'A' ? 'B' : 'A';
		o = sealed_open(a, V1_KEY, data, V1_IV, APP);
		assert_true(!o || cJSON_IsObject(o));
		json_free(o);
		data[i] = was;
		arena_free(a);
	}
}

static void test_blanks_for_plus(void **state)
{
	char data[] = V1;
	struct arena *a = arena_new();
	cJSON *o;

	(void)state;
	for (char *p = data; *p; p++)
		*p = *p == '+' ? ' ' : *p;
	o = sealed_open(a, V1_KEY, data, V1_IV, APP);
	assert_non_null(o);
	json_free(o);
	arena_free(a);
}

static void test_signatures(void **state)
{
	static const char v2[] =
		"{\"nickName\":\"Band\",\"gender\":1,\"language\":\"zh_CN\",\"city\":\"Guangzhou\","
		"\"province\":\"Guangdong\",\"country\":\"CN\","
		"\"avatarUrl\":\"http://wx.qlogo.cn/mmopen/vi_32/"
		"1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqI"
		"M5ibXQ/0\"}";
	static const char v8[] =
		"{\"nickName\":\"小明🐼\",\"gender\":0,\"language\":\"zh_CN\",\"city\":\"\","
		"\"province\":\"\",\"country\":\"\",\"avatarUrl\":\"\"}";

	(void)state;
	assert_true(sealed_signature_ok(OTHER_KEY, v2, "75e81ceda165f4ffa64f4068af58c64b8f54b88c"));
	assert_true(sealed_signature_ok(OTHER_KEY, v8, "95a652c9e116c1f84a7a2f1370e6277b077ac23b"));
	assert_false(sealed_signature_ok(V1_KEY, v2, "75e81ceda165f4ffa64f4068af58c64b8f54b88c"));
	assert_false(
		sealed_signature_ok(OTHER_KEY, v8, "75e81ceda165f4ffa64f4068af58c64b8f54b88c"));
	assert_false(
		sealed_signature_ok(OTHER_KEY, v2, "75E81CEDA165F4FFA64F4068AF58C64B8F54B88C"));
	assert_false(sealed_signature_ok(OTHER_KEY, v2, "75e81ceda165f4ffa64f4068af58c64b8f54b88"));
	assert_false(sealed_signature_ok(OTHER_KEY, v2, ""));
}

static void test_seal(void **state)
{
	static const uint8_t keys[2][SEAL_KEY_LEN] = {{1}, {2}};
	static const char *const texts[] = {"", "~", "=", ":", "=AAAA", "AAAA",
		"AA==", "AB==", "not base64", "57_an_access_token-with-all-it-may-have"};
	struct seal *one = seal_new(keys, 1), *two = seal_new(keys + 1, 1),
		    *none = seal_new(NULL, 0);
	uint8_t both_keys[2][SEAL_KEY_LEN] = {{2}, {1}};
	struct seal *both = seal_new((const uint8_t(*)[SEAL_KEY_LEN])both_keys, 2);
	struct arena *a = arena_new();
	struct sealed s = seal_text(one, a, "place", V1_KEY),
		      again = seal_text(one, a, "place", V1_KEY),
		      other = seal_text(one, a, "place", OTHER_KEY), plain;

	(void)state;
	assert_memory_equal(s.bytes, again.bytes, s.same);
	assert_memory_not_equal(s.bytes, again.bytes, s.len);
	assert_memory_not_equal(s.bytes, other.bytes, s.same);
	assert_string_equal(unseal_text(one, a, "place", s.bytes, s.len), V1_KEY);
	/* written by the key before */
	assert_string_equal(unseal_text(both, a, "place", s.bytes, s.len), V1_KEY);
	assert_null(unseal_text(two, a, "place", s.bytes, s.len));
	assert_null(unseal_text(one, a, "elsewhere", s.bytes, s.len));
	assert_null(unseal_text(none, a, "place", s.bytes, s.len));
	for (size_t n = 1; n < s.len; n++)
		assert_null(unseal_text(one, a, "place", s.bytes, n));
	plain = seal_text(none, a, "place", V1_KEY);
	assert_int_equal(plain.len, 1 + 16); /* the bytes that it is the base64 of */
	assert_int_equal(plain.same, plain.len);
	/* from before there was a key */
	assert_string_equal(unseal_text(one, a, "place", plain.bytes, plain.len), V1_KEY);
	for (size_t i = 0; i < NELEM(texts); i++) {
		plain = seal_text(none, a, "place", texts[i]);
		s = seal_text(one, a, "place", texts[i]);
		assert_string_equal(
			unseal_text(none, a, "place", plain.bytes, plain.len), texts[i]);
		assert_string_equal(unseal_text(one, a, "place", s.bytes, s.len), texts[i]);
	}
	assert_null(unseal_text(none, a, "place", "", 0));
	assert_null(unseal_text(none, a, "place", "neither", 7));
	arena_free(a);
	seal_free(one);
	seal_free(two);
	seal_free(none);
	seal_free(both);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_published),
		cmocka_unit_test(test_what_does_not_open),
		cmocka_unit_test(test_blanks_for_plus),
		cmocka_unit_test(test_signatures),
		cmocka_unit_test(test_seal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
