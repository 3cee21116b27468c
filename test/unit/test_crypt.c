/* Cryptography against published vectors: FIPS 180, RFC 4231, WeChat's pages; and what was tampered
 * with does not open. */
#include "unit.h"

#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/crypt.h"
#include "test/wxfake/cbc.h"
#include "common/encode.h"

static void hex_is(const uint8_t *p, size_t n, const char *want)
{
	char hex[129];

	hex_encode(hex, p, n);
	assert_string_equal(hex, want);
}

static void test_hashes(void **state)
{
	uint8_t h[32];
	char *million = malloc(1000000);

	(void)state;
	crypt_sha256(h, "", 0);
	hex_is(h, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	crypt_sha256(h, "abc", 3);
	hex_is(h, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	memset(million, 'a', 1000000);
	crypt_sha256(h, million, 1000000);
	hex_is(h, 32, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	free(million);
	crypt_sha1(h, "abc", 3);
	hex_is(h, 20, "a9993e364706816aba3e25717850c26c9cd0d89d");
	crypt_sha1(h, "", 0);
	hex_is(h, 20, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
}

static void test_hmac(void **state)
{
	static const struct { const char *key, *text, *mac; } rows[] = {
		{"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", "Hi There",
		 "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		/* WeChat's: the key is the base64 text, not what it decodes to */
		{"o0q0otL8aEzpcZL/FT9WsQ==", "{\"foo\":\"bar\"}", "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"},
		{"o0q0otL8aEzpcZL/FT9WsQ==", "", "46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128"},
		{"tiihtNczf5v6AKRyjwEUhQ==", "", "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"},
		/* virtual payment: signature, and pay_sig under the AppKey */
		{"9hAb/NEYUlkaMBEsmFgzig==", "{\"openid\":\"xxx\",\"env\":0,\"user_ip\":\"127.0.0.1\"}",
		 "e690cc22b6378ca9d70fe61727fabf65f0273d436813447816951989867a134c"},
		{"12345", "/xpay/query_user_balance&{\"openid\":\"xxx\",\"env\":0,\"user_ip\":\"127.0.0.1\"}",
		 "fb4703e6b7da545a7f43428f02f2a9fa42e895704c6319d01a0aa859cf63253c"},
		{"HyVFkGl5F5OQWJZZaNzBBg==", "", "252b75c92698025afe925b29cca5517fdf9ee67aae072cf3225ebf3a53783058"},
	};
	uint8_t mac[32];

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		crypt_hmac_sha256(
			mac, rows[i].key, strlen(rows[i].key), rows[i].text, strlen(rows[i].text));
		hex_is(mac, 32, rows[i].mac);
	}
}

/* RFC 4231, test cases 3 and 6: keys shorter and longer than a block. And lengths around a block,
 * against OpenSSL's own. */
static void test_hmac_key_lengths(void **state)
{
	uint8_t key[200], data[50], mac[32], want[32];
	struct hmac_key *kept;

	(void)state;
	memset(key, 0xaa, sizeof(key));
	memset(data, 0xdd, sizeof(data));
	crypt_hmac_sha256(mac, key, 20, data, sizeof(data));
	hex_is(mac, 32, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	crypt_hmac_sha256(
		mac, key, 131, "Test Using Larger Than Block-Size Key - Hash Key First", 54);
	hex_is(mac, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	for (size_t n = 0; n <= sizeof(key); n++) {
		assert_non_null(
			HMAC(EVP_sha256(), key, (int)n, data, n % sizeof(data), want, NULL));
		crypt_hmac_sha256(mac, key, n, data, n % sizeof(data));
		assert_memory_equal(mac, want, sizeof(want));
		kept = crypt_hmac_key_new(key, n);
		for (int twice = 0; twice < 2; twice++) { /* using it leaves it as it was */
			memset(mac, 0, sizeof(mac));
			crypt_hmac_keyed(mac, kept, data, n % sizeof(data));
			assert_memory_equal(mac, want, sizeof(want));
		}
		crypt_hmac_key_free(kept);
	}
}

static void test_equal(void **state)
{
	(void)state;
	assert_true(crypt_equal("abc", "abd", 2));
	assert_false(crypt_equal("abc", "abd", 3));
	assert_true(crypt_str_equal("", ""));
	assert_true(crypt_str_equal("token", "token"));
	assert_false(crypt_str_equal("token", "tokens"));
	assert_false(crypt_str_equal("token", ""));
}

static void test_seal(void **state)
{
	static const uint8_t key[32] = {1, 2, 3}, other[32] = {1, 2, 4};
	uint8_t sealed[64 + SEAL_EXTRA], again[64 + SEAL_EXTRA], back[64];

	(void)state;
	for (size_t n = 0; n <= 64; n += 8) {
		uint8_t text[64] = {0};

		memset(text, (int)n + 1, n);
		assert_int_equal(crypt_seal(sealed, key, "place", 5, text, n), n + SEAL_EXTRA);
		crypt_seal(again, key, "place", 5, text, n);
		/* another nonce each time */
		assert_memory_not_equal(sealed, again, n + SEAL_EXTRA);
		assert_int_equal(crypt_open(back, key, "place", 5, sealed, n + SEAL_EXTRA), n);
		assert_memory_equal(back, text, n);
		assert_int_equal(crypt_open(back, other, "place", 5, sealed, n + SEAL_EXTRA), -1);
		assert_int_equal(crypt_open(back, key, "plack", 5, sealed, n + SEAL_EXTRA), -1);
		assert_int_equal(crypt_open(back, key, "place", 4, sealed, n + SEAL_EXTRA), -1);
		for (size_t cut = 0; cut < n + SEAL_EXTRA; cut++)
			assert_int_equal(crypt_open(back, key, "place", 5, sealed, cut), -1);
		for (size_t bit = 0; bit < 8 * (n + SEAL_EXTRA); bit += 3) {
			memcpy(again, sealed, sizeof(again));
			again[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(
				crypt_open(back, key, "place", 5, again, n + SEAL_EXTRA), -1);
		}
	}
}

static void test_aes_cbc(void **state)
{
	static const uint8_t key[16] = "0123456789abcde", iv[16] = "fedcba987654321";
	uint8_t text[80], out[96], back[96];

	(void)state;
	for (size_t n = 0; n <= sizeof(text); n++) {
		size_t len;

		memset(text, 'x', sizeof(text));
		len = cbc_encrypt(out, key, iv, text, n);
		/* a whole block of padding where n fits */
		assert_int_equal(len, (n / 16 + 1) * 16);
		assert_int_equal(crypt_aes128_cbc_decrypt(back, key, iv, out, len), n);
		assert_memory_equal(back, text, n);
		assert_int_equal(crypt_aes128_cbc_decrypt(back, key, iv, out, len - 1), -1);
	}
	assert_int_equal(crypt_aes128_cbc_decrypt(back, key, iv, out, 0), -1);
	memset(out, 0, sizeof(out));
	/* decrypts to no padding */
	assert_int_equal(crypt_aes128_cbc_decrypt(back, key, iv, out, 32), -1);
}

static void test_random(void **state)
{
	uint8_t a[32] = {0}, b[32] = {0};

	(void)state;
	crypt_random(a, sizeof(a));
	crypt_random(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
}

static int compare_pieces(const void *a, const void *b)
{
	return memcmp(a, b, 8);
}

/* Small pieces come from a pool: none comes twice, whatever the sizes between. */
static void test_random_pieces_differ(void **state)
{
	enum { PIECES = 4000 };
	static uint8_t all[PIECES][8];
	uint8_t other[1000];

	(void)state;
	for (size_t i = 0; i < PIECES; i++) {
		crypt_random(all[i], sizeof(all[i]));
		crypt_random(other, i % sizeof(other));
	}
	qsort(all, PIECES, sizeof(all[0]), compare_pieces);
	for (size_t i = 1; i < PIECES; i++)
		assert_memory_not_equal(all[i - 1], all[i], sizeof(all[0]));
}

/* What the pool holds when a process forks goes to neither twice. */
static void test_random_after_fork(void **state)
{
	uint8_t first[16], ours[16], theirs[16];
	int fds[2], status;
	pid_t child;

	(void)state;
	crypt_random(first, sizeof(first)); /* the pool is filled */
	assert_int_equal(pipe(fds), 0);
	child = fork();
	if (child == 0) {
		crypt_random(theirs, sizeof(theirs));
		_exit(write(fds[1], theirs, sizeof(theirs)) == sizeof(theirs) ? 0 : 1);
	}
	crypt_random(ours, sizeof(ours));
	assert_int_equal(read(fds[0], theirs, sizeof(theirs)), sizeof(theirs));
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_memory_not_equal(ours, theirs, sizeof(ours));
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hashes),
		cmocka_unit_test(test_hmac),
		cmocka_unit_test(test_hmac_key_lengths),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_seal),
		cmocka_unit_test(test_aes_cbc),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_random_pieces_differ),
		cmocka_unit_test(test_random_after_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
