/* Open data: the outsider's texts open nothing but what WeChat sealed. Encrypted here under the
 * key, the input opens exactly when it is a JSON object with the watermark of this app; changed by
 * a bit or under another key or iv, it opens as nothing that was not there.
 *
 * Input: one byte, then encryptedData, iv, session_key and signature by newlines, as a phone could
 * send them; all of it is also taken as the plain text. */
#include "fuzz.h"

#include "common/crypt.h"
#include "test/wxfake/cbc.h"
#include "common/encode.h"
#include "common/json.h"
#include "wechat/sealed.h"

static const char key_text[] = "AAECAwQFBgcICQoLDA0ODw==", iv_text[] = "EBESExQVFhcYGRobHB0eHw==",
		  app[] = "wx1";

static void as_sent(struct input in)
{
	char *data = take_text(&in, '\n'), *iv = take_text(&in, '\n'), *key = take_text(&in, '\n'),
	     *signature = take_text(&in, '\n');
	struct arena *a = arena_new();
	uint8_t hash[SHA1_LEN];
	char hex[2 * SHA1_LEN + 1], *both = malloc(strlen(data) + strlen(key) + 1);

	json_free(sealed_open(a, key_text, data, iv_text, app));
	json_free(sealed_open(a, key, data, iv, app));
	sprintf(both, "%s%s", data, key);
	crypt_sha1(hash, both, strlen(both));
	hex_encode(hex, hash, sizeof(hash));
	MUST(sealed_signature_ok(key, data, hex));
	MUST(sealed_signature_ok(key, data, signature) == !strcmp(hex, signature));
	hex[7] ^= 1;
	MUST(!sealed_signature_ok(key, data, hex));
	free(both);
	arena_free(a);
	free(data);
	free(iv);
	free(key);
	free(signature);
}

static bool meant(const char *plain, size_t n)
{
	cJSON *tree = json_parse(plain, n);
	const cJSON *mark = tree ? cJSON_GetObjectItemCaseSensitive(tree, "watermark") : NULL;
	const cJSON *id = mark ? cJSON_GetObjectItemCaseSensitive(mark, "appid") : NULL;
	bool yes = tree && cJSON_IsObject(tree) && id && cJSON_IsString(id) &&
		   !strcmp(id->valuestring, app);

	json_free(tree);
	return yes;
}

static void as_sealed(const char *plain, size_t n, unsigned flip)
{
	struct arena *a = arena_new();
	uint8_t key[16], iv[16], *bytes = arena_alloc(a, n + 16);
	char *text = arena_alloc(a, BASE64_LEN(n + 16) + 1);
	size_t len;
	cJSON *tree;

	base64_decode(key, sizeof(key), key_text, strlen(key_text));
	base64_decode(iv, sizeof(iv), iv_text, strlen(iv_text));
	len = cbc_encrypt(bytes, key, iv, plain, n);
	base64_encode(text, bytes, len);
	tree = sealed_open(a, key_text, text, iv_text, app);
	MUST((tree != NULL) == meant(plain, n));
	json_free(tree);
	for (char *p = text; *p; p++)
		if (*p == '+')
			*p = ' '; /* as a form makes of it */
	tree = sealed_open(a, key_text, text, iv_text, app);
	MUST((tree != NULL) == meant(plain, n));
	json_free(tree);
	MUST(!sealed_open(a, iv_text, text, iv_text, app)); /* another key */
	bytes[len - 1 - flip % 16] ^= (uint8_t)(1 + flip / 16);
	base64_encode(text, bytes, len);
	json_free(sealed_open(a, key_text, text, iv_text, app));
	arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned flip = take_byte(&in);

	as_sent(in);
	as_sealed((const char *)in.p, in.n, flip);
	return 0;
}
