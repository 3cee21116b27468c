/* AES-128-CBC with PKCS#7, encrypting: what WeChat does to user data. wxlogind only decrypts. */
#ifndef WXFAKE_CBC_H
#define WXFAKE_CBC_H

#include <stdint.h>
#include <stdlib.h>

#include <openssl/evp.h>

/* Returns the length; out has room for n + 16. */
static inline size_t cbc_encrypt(
	void *out, const uint8_t key[16], const uint8_t iv[16], const void *p, size_t n)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int len, last;

	if (!c || EVP_EncryptInit_ex(c, EVP_aes_128_cbc(), NULL, key, iv) != 1 ||
		EVP_EncryptUpdate(c, out, &len, p, (int)n) != 1 ||
		EVP_EncryptFinal_ex(c, (uint8_t *)out + len, &last) != 1)
		abort();
	EVP_CIPHER_CTX_free(c);
	return (size_t)len + (size_t)last;
}

#endif
