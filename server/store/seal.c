#include "store/seal.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct seal *seal_new(const uint8_t (*keys)[SEAL_KEY_LEN], size_t key_count)
{
	struct seal *s = mem_alloc(sizeof(*s));

	s->key_count = key_count;
	s->keys = mem_alloc(SEAL_KEY_LEN * (key_count + 1));
	if (key_count)
		memcpy(s->keys, keys, SEAL_KEY_LEN * key_count);
	return s;
}

void seal_free(struct seal *s)
{
	if (!s)
		return;
	mem_wipe(s->keys, SEAL_KEY_LEN * s->key_count);
	free(s->keys);
	free(s);
}

/* '~', which begins no base64 text and no access_token; a mark; then nonce, ciphertext and tag. */
struct sealed seal_text(const struct seal *s, struct arena *a, const char *stored_under, const char *text)
{
	size_t n = strlen(text), head = 1 + SEAL_MARK_LEN;
	uint8_t hash[SHA256_LEN], *out;

	if (s->key_count == 0)
		return (struct sealed){arena_strndup(a, text, n), n, n};
	out = arena_alloc(a, head + n + SEAL_EXTRA);
	out[0] = '~';
	crypt_hmac_sha256(hash, s->keys[0], SEAL_KEY_LEN, text, n);
	memcpy(out + 1, hash, SEAL_MARK_LEN);
	n = crypt_seal(out + head, s->keys[0], stored_under, strlen(stored_under), text, n);
	return (struct sealed){(const char *)out, head + n, head};
}

const char *unseal_text(const struct seal *s, struct arena *a, const char *stored_under, const char *bytes, size_t len)
{
	size_t head = 1 + SEAL_MARK_LEN;
	char *out;

	if (len == 0 || bytes[0] != '~')
		return arena_strndup(a, bytes, len); /* from before there was a key */
	if (len < head + SEAL_EXTRA)
		return NULL;
	out = arena_alloc(a, len);
	for (size_t i = 0; i < s->key_count; i++) {
		ssize_t n = crypt_open(out, s->keys[i], stored_under, strlen(stored_under), bytes + head, len - head);

		if (n < 0)
			continue;
		out[n] = '\0';
		return out;
	}
	return NULL;
}
