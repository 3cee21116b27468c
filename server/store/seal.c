#include "store/seal.h"

#include <stdlib.h>
#include <string.h>

#include "common/encode.h"
#include "common/mem.h"

struct seal *seal_new(const uint8_t (*keys)[SEAL_KEY_LEN], size_t key_count)
{
	struct seal *s = mem_alloc(sizeof(*s));

	s->key_count = key_count;
	s->keys = mem_alloc(SEAL_KEY_LEN * (key_count + 1));
	if (key_count)
		memcpy(s->keys, keys, SEAL_KEY_LEN * key_count);
	s->mark = key_count ? crypt_hmac_key_new(s->keys[0], SEAL_KEY_LEN) : NULL;
	return s;
}

void seal_free(struct seal *s)
{
	if (!s)
		return;
	crypt_hmac_key_free(s->mark);
	mem_wipe(s->keys, SEAL_KEY_LEN * s->key_count);
	free(s->keys);
	free(s);
}

/* ':' and the text, or '=' and the bytes that it is the base64 of, as a session_key is: a million
 * of them lie in Redis. */
static struct sealed pack(struct arena *a, const char *text)
{
	size_t n = strlen(text);
	char *out = arena_alloc(a, 1 + n);
	ssize_t raw = base64_decode(out + 1, n, text, n);

	out[0] = raw > 0 ? '=' : ':';
	if (raw > 0)
		n = (size_t)raw;
	else
		memcpy(out + 1, text, n);
	return (struct sealed){out, 1 + n, 1 + n};
}

static const char *unpack(struct arena *a, const char *bytes, size_t len)
{
	char *out;

	if (len == 0 || (bytes[0] != '=' && bytes[0] != ':'))
		return NULL;
	if (bytes[0] == ':')
		return arena_strndup(a, bytes + 1, len - 1);
	out = arena_alloc(a, BASE64_LEN(len - 1) + 1);
	base64_encode(out, bytes + 1, len - 1);
	return out;
}

/* '~', a mark; then nonce, ciphertext and tag. */
struct sealed seal_text(
	const struct seal *s, struct arena *a, const char *stored_under, const char *text)
{
	struct sealed plain = pack(a, text);
	uint8_t hash[SHA256_LEN], *out;
	size_t head = 1 + SEAL_MARK_LEN, n;

	if (s->key_count == 0)
		return plain;
	out = arena_alloc(a, head + plain.len + SEAL_EXTRA);
	out[0] = '~';
	crypt_hmac_keyed(hash, s->mark, text, strlen(text));
	memcpy(out + 1, hash, SEAL_MARK_LEN);
	n = crypt_seal(
		out + head, s->keys[0], stored_under, strlen(stored_under), plain.bytes, plain.len);
	return (struct sealed){(const char *)out, head + n, head};
}

const char *unseal_text(const struct seal *s, struct arena *a, const char *stored_under,
	const char *bytes, size_t len)
{
	size_t head = 1 + SEAL_MARK_LEN;
	char *out;

	if (len == 0 || bytes[0] != '~')
		return unpack(a, bytes, len); /* from before there was a key */
	if (len < head + SEAL_EXTRA)
		return NULL;
	out = arena_alloc(a, len);
	for (size_t i = 0; i < s->key_count; i++) {
		ssize_t n = crypt_open(out, s->keys[i], stored_under, strlen(stored_under),
			bytes + head, len - head);

		if (n >= 0)
			return unpack(a, out, (size_t)n);
	}
	return NULL;
}
