/* The hash functions of OpenSSL 1.1's interface: the newer one allocates for each hash, and every
 * request hashes its token. */
#define OPENSSL_API_COMPAT 0x10100000L

#include "common/crypt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/sha.h>

#include "common/mem.h"

enum { NONCE = 12, TAG = 16, POOL_BYTES = 2048, POOL_TAKE_MAX = 256 };

/* Fails only when the library is broken or out of memory: then nothing we could answer would be
 * true. */
static void must(int ok)
{
	if (ok != 1)
		abort();
}

static void from_kernel(uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t got = getrandom(p, n, 0);

		must(got > 0 || (got < 0 && errno == EINTR));
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
}

/* The kernel's bytes, fetched many at a time, each handed out once and then wiped. They lie in a
 * page that fork empties, so that no two processes share any. */
struct pool {
	size_t  left;
	uint8_t bytes[POOL_BYTES];
};

/* What a thread keeps for its life: see crypt_thread_end. */
static _Thread_local struct kept {
	struct pool    *pool;  /* NULL where the kernel cannot empty a page */
	bool            tried; /* to make the pool */
	/* made once: to look AES-GCM up costs ten times what it takes to seal a token */
	EVP_CIPHER_CTX *gcm;
} kept;

static struct pool *pool(void)
{
	struct pool *p;

	if (kept.tried)
		return kept.pool;
	kept.tried = true;
	/* cppcheck-suppress invalidFunctionArg ; no file: -1, as mmap(2) says */
	p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(p != MAP_FAILED);
	if (madvise(p, sizeof(*p), MADV_WIPEONFORK) == 0)
		kept.pool = p;
	else
		munmap(p, sizeof(*p));
	return kept.pool;
}

void crypt_thread_end(void)
{
	if (kept.pool) {
		OPENSSL_cleanse(kept.pool, sizeof(*kept.pool));
		munmap(kept.pool, sizeof(*kept.pool));
	}
	EVP_CIPHER_CTX_free(kept.gcm);
	kept = (struct kept){0};
}

void crypt_random(void *out, size_t n)
{
	struct pool *p = n <= POOL_TAKE_MAX ? pool() : NULL;

	if (!p) {
		from_kernel(out, n);
		return;
	}
	if (p->left < n) {
		from_kernel(p->bytes, sizeof(p->bytes));
		p->left = sizeof(p->bytes);
	}
	p->left -= n;
	memcpy(out, p->bytes + p->left, n);
	explicit_bzero(p->bytes + p->left, n);
}

void crypt_sha256(uint8_t out[SHA256_LEN], const void *p, size_t n)
{
	SHA256_CTX c;

	must(SHA256_Init(&c));
	must(SHA256_Update(&c, p, n));
	must(SHA256_Final(out, &c));
}

void crypt_sha1(uint8_t out[SHA1_LEN], const void *p, size_t n)
{
	SHA_CTX c;

	must(SHA1_Init(&c));
	must(SHA1_Update(&c, p, n));
	must(SHA1_Final(out, &c));
}

/* RFC 2104, on the hash above. OpenSSL's own HMAC asks for its parameters by name each time, which
 * costs several times what a short message does. */
struct hmac_key {
	SHA256_CTX inner, outer; /* each has taken its block of the key */
};

static void hmac_key_init(struct hmac_key *k, const void *key, size_t key_len)
{
	uint8_t pad[SHA256_CBLOCK] = {0};

	if (key_len > sizeof(pad))
		crypt_sha256(pad, key, key_len);
	else
		memcpy(pad, key, key_len);
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36;
	must(SHA256_Init(&k->inner) && SHA256_Update(&k->inner, pad, sizeof(pad)));
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36 ^ 0x5c;
	must(SHA256_Init(&k->outer) && SHA256_Update(&k->outer, pad, sizeof(pad)));
	OPENSSL_cleanse(pad, sizeof(pad));
}

struct hmac_key *crypt_hmac_key_new(const void *key, size_t key_len)
{
	struct hmac_key *k = mem_alloc(sizeof(*k));

	hmac_key_init(k, key, key_len);
	return k;
}

void crypt_hmac_key_free(struct hmac_key *k)
{
	if (k)
		OPENSSL_cleanse(k, sizeof(*k));
	free(k);
}

void crypt_hmac_keyed(
	uint8_t out[SHA256_LEN], const struct hmac_key *k, const void *p, size_t n)
{
	uint8_t inner[SHA256_LEN];
	SHA256_CTX c = k->inner;

	must(SHA256_Update(&c, p, n) && SHA256_Final(inner, &c));
	c = k->outer;
	must(SHA256_Update(&c, inner, sizeof(inner)) && SHA256_Final(out, &c));
	OPENSSL_cleanse(&c, sizeof(c));
}

void crypt_hmac_sha256(
	uint8_t out[SHA256_LEN], const void *key, size_t key_len, const void *p, size_t n)
{
	struct hmac_key k;

	hmac_key_init(&k, key, key_len);
	crypt_hmac_keyed(out, &k, p, n);
	OPENSSL_cleanse(&k, sizeof(k));
}

bool crypt_equal(const void *a, const void *b, size_t n)
{
	return CRYPTO_memcmp(a, b, n) == 0;
}

bool crypt_str_equal(const char *a, const char *b)
{
	uint8_t ha[SHA256_LEN], hb[SHA256_LEN];

	crypt_sha256(ha, a, strlen(a));
	crypt_sha256(hb, b, strlen(b));
	return crypt_equal(ha, hb, sizeof(ha));
}

static EVP_CIPHER_CTX *gcm(void)
{
	if (!kept.gcm) {
		kept.gcm = EVP_CIPHER_CTX_new();
		must(kept.gcm != NULL);
		must(EVP_CipherInit_ex(kept.gcm, EVP_aes_256_gcm(), NULL, NULL, NULL, 1));
	}
	return kept.gcm;
}

size_t crypt_seal(void *out, const uint8_t key[SEAL_KEY_LEN], const void *aad, size_t aad_len,
	const void *p, size_t n)
{
	EVP_CIPHER_CTX *c = gcm();
	uint8_t *o = out;
	int len;

	crypt_random(o, NONCE);
	must(EVP_EncryptInit_ex(c, NULL, NULL, key, o));
	must(EVP_EncryptUpdate(c, NULL, &len, aad, (int)aad_len));
	must(EVP_EncryptUpdate(c, o + NONCE, &len, p, (int)n));
	must(EVP_EncryptFinal_ex(c, o + NONCE + len, &len));
	must(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, o + NONCE + n));
	return n + SEAL_EXTRA;
}

ssize_t crypt_open(void *out, const uint8_t key[SEAL_KEY_LEN], const void *aad, size_t aad_len,
	const void *p, size_t n)
{
	EVP_CIPHER_CTX *c = gcm();
	const uint8_t *i = p;
	uint8_t tag[TAG];
	size_t body;
	int len;

	if (n < SEAL_EXTRA)
		return -1;
	body = n - SEAL_EXTRA;
	memcpy(tag, i + NONCE + body, TAG);
	must(EVP_DecryptInit_ex(c, NULL, NULL, key, i));
	must(EVP_DecryptUpdate(c, NULL, &len, aad, (int)aad_len));
	must(EVP_DecryptUpdate(c, out, &len, i + NONCE, (int)body));
	must(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, tag));
	if (EVP_DecryptFinal_ex(c, (uint8_t *)out + len, &len) == 1)
		return (ssize_t)body;
	OPENSSL_cleanse(out, body);
	return -1;
}

ssize_t crypt_aes128_cbc_decrypt(
	void *out, const uint8_t key[16], const uint8_t iv[16], const void *p, size_t n)
{
	EVP_CIPHER_CTX *c;
	uint8_t *o = out;
	unsigned bad = 0, pad;
	int len;

	if (n == 0 || n % 16)
		return -1;
	c = EVP_CIPHER_CTX_new();
	must(c != NULL);
	must(EVP_DecryptInit_ex(c, EVP_aes_128_cbc(), NULL, key, iv));
	EVP_CIPHER_CTX_set_padding(c, 0);
	must(EVP_DecryptUpdate(c, o, &len, p, (int)n));
	EVP_CIPHER_CTX_free(c);
	/* PKCS#7 by hand, in time that does not depend on where it is wrong */
	pad = o[n - 1];
	bad = (pad == 0) | (pad > 16);
	for (unsigned k = 1; k <= 16; k++)
		bad |= (k <= pad) & (o[n - k] != pad);
	if (!bad)
		return (ssize_t)(n - pad);
	OPENSSL_cleanse(out, n);
	return -1;
}

static void aes256_cbc(int encrypt, void *out, const uint8_t key[32], const uint8_t iv[16],
	const void *p, size_t n)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int len;

	must(c != NULL);
	must(EVP_CipherInit_ex(c, EVP_aes_256_cbc(), NULL, key, iv, encrypt));
	EVP_CIPHER_CTX_set_padding(c, 0);
	must(EVP_CipherUpdate(c, out, &len, p, (int)n));
	EVP_CIPHER_CTX_free(c);
}

void crypt_aes256_cbc_decrypt(void *out, const uint8_t key[32], const uint8_t iv[16], const void *p,
	size_t n)
{
	aes256_cbc(0, out, key, iv, p, n);
}

void crypt_aes256_cbc_encrypt(void *out, const uint8_t key[32], const uint8_t iv[16], const void *p,
	size_t n)
{
	aes256_cbc(1, out, key, iv, p, n);
}
