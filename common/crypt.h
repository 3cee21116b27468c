/* The few primitives we use, over OpenSSL. All of them abort on a failure that only a broken
 * library gives. */
#ifndef COMMON_CRYPT_H
#define COMMON_CRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SHA256_LEN   32
#define SHA1_LEN     20
#define SEAL_KEY_LEN 32
#define SEAL_EXTRA   28 /* a 12-byte nonce before the ciphertext, a 16-byte tag behind it */

/* Frees what this thread keeps for the calls below. The last call of a thread that used them. */
void crypt_thread_end(void);

void crypt_random(void *out, size_t n); /* the system's generator */
void crypt_sha256(uint8_t out[SHA256_LEN], const void *p, size_t n);
void crypt_sha1(uint8_t out[SHA1_LEN], const void *p, size_t n);
void crypt_hmac_sha256(
	uint8_t out[SHA256_LEN], const void *key, size_t key_len, const void *p, size_t n);

/* The same with a key that is used often: what depends on the key alone is computed once. Free it,
 * which wipes it. */
struct hmac_key *crypt_hmac_key_new(const void *key, size_t key_len);
void crypt_hmac_key_free(struct hmac_key *k);
void crypt_hmac_keyed(
	uint8_t out[SHA256_LEN], const struct hmac_key *k, const void *p, size_t n);
bool crypt_equal(const void *a, const void *b, size_t n); /* constant time */
/* constant time in the bytes; lengths may differ */
bool crypt_str_equal(const char *a, const char *b);

/* AES-256-GCM (NIST SP 800-38D) with a random nonce. out has room for n + SEAL_EXTRA; returns that
 * length. */
size_t crypt_seal(void *out, const uint8_t key[SEAL_KEY_LEN], const void *aad, size_t aad_len,
	const void *p, size_t n);
/* out has room for n. The plaintext's length, or -1 when it was not sealed with this key and aad.
 */
ssize_t crypt_open(void *out, const uint8_t key[SEAL_KEY_LEN], const void *aad, size_t aad_len,
	const void *p, size_t n);

/* AES-128-CBC with PKCS#7 padding, as WeChat encrypts open data. -1 for a bad length or bad
 * padding. out has room for n. */
ssize_t crypt_aes128_cbc_decrypt(
	void *out, const uint8_t key[16], const uint8_t iv[16], const void *p, size_t n);

/* AES-256-CBC on whole blocks, without padding. n is a multiple of 16. out has room for n. */
void crypt_aes256_cbc_decrypt(
	void *out, const uint8_t key[32], const uint8_t iv[16], const void *p, size_t n);
void crypt_aes256_cbc_encrypt(
	void *out, const uint8_t key[32], const uint8_t iv[16], const void *p, size_t n);

#endif
