#include "wechat/sealed.h"

#include <stdint.h>
#include <string.h>

#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/mem.h"

enum { AES_BLOCK = 16 };

bool sealed_signature_ok(const char *session_key, const char *raw_data, const char *signature)
{
	struct arena *a = arena_new();
	char *text = arena_printf(a, "%s%s", raw_data, session_key);
	uint8_t hash[SHA1_LEN];
	char hex[2 * SHA1_LEN + 1];
	bool ok;

	crypt_sha1(hash, text, strlen(text));
	hex_encode(hex, hash, sizeof(hash));
	ok = strlen(signature) == strlen(hex) && crypt_equal(hex, signature, strlen(hex));
	arena_free(a);
	return ok;
}

/* -1 unless it is base64 of at most cap bytes. */
static ssize_t decode(struct arena *a, uint8_t *out, size_t cap, const char *text)
{
	char *mended = arena_strdup(a, text);

	for (char *p = mended; *p; p++)
		if (*p == ' ')
			*p = '+';
	return base64_decode(out, cap, mended, strlen(mended));
}

static bool meant_for(const cJSON *tree, const char *appid)
{
	const char *theirs;

	return json_str(cJSON_GetObjectItemCaseSensitive(tree, "watermark"), "appid", 1, 128,
		       &theirs) == JSON_GOT &&
	       !strcmp(theirs, appid);
}

cJSON *sealed_open(struct arena *a, const char *session_key, const char *encrypted_data,
	const char *iv, const char *appid)
{
	uint8_t key[AES_BLOCK], start[AES_BLOCK];
	size_t cap = strlen(encrypted_data) / 4 * 3 + 3;
	uint8_t *data = arena_alloc(a, cap), *plain = arena_alloc(a, cap);
	ssize_t n = decode(a, data, cap, encrypted_data);
	cJSON *tree = NULL;

	if (decode(a, key, sizeof(key), session_key) == sizeof(key) &&
		decode(a, start, sizeof(start), iv) == sizeof(start) && n > 0 && n % AES_BLOCK == 0)
		n = crypt_aes128_cbc_decrypt(plain, key, start, data, (size_t)n);
	else
		n = -1;
	if (n > 0)
		tree = json_parse((const char *)plain, (size_t)n);
	if (tree && (!cJSON_IsObject(tree) || !meant_for(tree, appid))) {
		json_free(tree);
		tree = NULL;
	}
	mem_wipe(key, sizeof(key));
	return tree;
}
