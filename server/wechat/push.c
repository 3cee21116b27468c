#include "wechat/push.h"

#include <expat.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/mem.h"

enum { AES_BLOCK = 16, PAD_MAX = 32, LENGTH_SIZE = 4, FIELD_MAX = 1024 * 1024, DEPTH_MAX = 16 };

/* ---- signatures ---- */

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void push_sign(char out[PUSH_SIGNATURE_SIZE], const char *token, const char *timestamp,
	const char *nonce, const char *encrypt)
{
	const char *parts[] = {token, timestamp, nonce, encrypt};
	size_t n = encrypt ? 4 : 3;
	uint8_t hash[SHA1_LEN];
	struct buf joined = {0};

	qsort(parts, n, sizeof(parts[0]), by_bytes);
	for (size_t i = 0; i < n; i++)
		buf_str(&joined, parts[i]);
	crypt_sha1(hash, joined.data ? joined.data : "", joined.len);
	hex_encode(out, hash, sizeof(hash));
	buf_free(&joined);
}

bool push_signature_ok(const char *signature, const char *token, const char *timestamp,
	const char *nonce, const char *encrypt)
{
	char right[PUSH_SIGNATURE_SIZE];

	push_sign(right, token, timestamp, nonce, encrypt);
	return crypt_str_equal(right, signature);
}

/* ---- the envelope: base64 of AES-256-CBC over random, length, message, appid, padding ---- */

bool push_key_read(struct push_key *out, const char *text)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char whole[PUSH_AES_KEY_LEN + 2];
	const char *last;
	bool ok;

	if (strlen(text) != PUSH_AES_KEY_LEN)
		return false;
	memcpy(whole, text, PUSH_AES_KEY_LEN);
	last = strchr(letters, text[PUSH_AES_KEY_LEN - 1]);
	if (!last)
		return false;
	/* the decoder wants these bits zero */
	whole[PUSH_AES_KEY_LEN - 1] = letters[(last - letters) & ~3];
	whole[PUSH_AES_KEY_LEN] = '=';
	ok = base64_decode(out->bytes, sizeof(out->bytes), whole, PUSH_AES_KEY_LEN + 1) ==
	     sizeof(out->bytes);
	mem_wipe(whole, sizeof(whole));
	return ok;
}

/* Bytes without their padding (PKCS#7 to 32), or -1. */
static ssize_t unpad(const uint8_t *p, size_t n)
{
	unsigned pad = p[n - 1];

	if (pad == 0 || pad > PAD_MAX || pad > n)
		return -1;
	for (size_t i = n - pad; i < n; i++)
		if (p[i] != pad)
			return -1;
	return (ssize_t)(n - pad);
}

char *push_open(struct arena *a, const struct push_key *key, const char *appid, const char *encrypt,
	size_t *len)
{
	size_t cap = strlen(encrypt) / 4 * 3 + 3, appid_len = strlen(appid), size;
	uint8_t *sealed = arena_alloc(a, cap), *plain = arena_alloc(a, cap + 1);
	ssize_t n = base64_decode(sealed, cap, encrypt, strlen(encrypt));

	if (n <= 0 || n % AES_BLOCK)
		return NULL;
	crypt_aes256_cbc_decrypt(plain, key->bytes, key->bytes, sealed, (size_t)n);
	n = unpad(plain, (size_t)n);
	if (n < PUSH_RANDOM_LEN + LENGTH_SIZE)
		return NULL;
	plain += PUSH_RANDOM_LEN;
	n -= PUSH_RANDOM_LEN + LENGTH_SIZE;
	size = (size_t)plain[0] << 24 | (size_t)plain[1] << 16 | (size_t)plain[2] << 8 | plain[3];
	plain += LENGTH_SIZE;
	if (size > (size_t)n || (size_t)n - size != appid_len ||
		memcmp(plain + size, appid, appid_len) != 0)
		return NULL;
	plain[size] = '\0';
	*len = size;
	return (char *)plain;
}

char *push_seal(struct arena *a, const struct push_key *key, const char *appid,
	const uint8_t random[PUSH_RANDOM_LEN], const void *message, size_t len)
{
	size_t appid_len = strlen(appid), n = PUSH_RANDOM_LEN + LENGTH_SIZE + len + appid_len;
	size_t pad = PAD_MAX - n % PAD_MAX;
	uint8_t *plain = arena_alloc(a, n + pad), *sealed = arena_alloc(a, n + pad), *p = plain;
	const uint8_t size[LENGTH_SIZE] = {
		(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
	char *text = arena_alloc(a, BASE64_LEN(n + pad) + 1);

	memcpy(p, random, PUSH_RANDOM_LEN);
	p += PUSH_RANDOM_LEN;
	memcpy(p, size, sizeof(size));
	p += sizeof(size);
	if (len)
		memcpy(p, message, len);
	memcpy(p + len, appid, appid_len);
	memset(plain + n, (int)pad, pad);
	crypt_aes256_cbc_encrypt(sealed, key->bytes, key->bytes, plain, n + pad);
	base64_encode(text, sealed, n + pad);
	return text;
}

/* ---- what a message says ---- */

/* Where the field of this name is kept; NULL: one that we do not read. */
static const char **field(struct push_message *m, const char *name)
{
	const struct { const char *name; const char **at; } fields[] = {
		{"Encrypt", &m->encrypt}, {"MsgType", &m->msg_type}, {"Event", &m->event},
		{"OpenID", &m->openid}, {"FromUserName", &m->from}, {"AppID", &m->appid}, {"RevokeInfo", &m->revoke_info},
		{"CreateTime", &m->create_time},
	};

	for (size_t i = 0; i < NELEM(fields); i++)
		if (!strcmp(fields[i].name, name))
			return fields[i].at;
	return NULL;
}

static bool read_json(struct arena *a, const char *body, size_t len, struct push_message *m)
{
	cJSON *tree = json_parse(body, len);
	bool ok = cJSON_IsObject(tree);

	for (const cJSON *item = ok ? tree->child : NULL; item; item = item->next) {
		const char **at = field(m, item->string);
		int64_t number;

		if (!at)
			continue;
		if (cJSON_IsString(item))
			*at = arena_strdup(a, item->valuestring);
		else if (json_int(tree, item->string, INT64_MIN, INT64_MAX, &number) == JSON_GOT)
			*at = arena_printf(a, "%" PRId64, number);
		else
			ok = false;
	}
	json_free(tree);
	return ok;
}

/* The document's one level: <xml><Name>text</Name>...</xml>. Deeper elements are passed over. */
struct xml {
	XML_Parser parser;
	struct arena *arena;
	struct push_message *message;
	const char **at; /* the field that is being read, or NULL */
	struct buf text;
	int depth;
	bool bad;
};

static void xml_refuse(struct xml *x)
{
	x->bad = true;
	XML_StopParser(x->parser, XML_FALSE);
}

static void on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
	struct xml *x = ctx;

	(void)attributes;
	if (++x->depth > DEPTH_MAX)
		xml_refuse(x);
	if (x->depth != 2)
		return;
	x->at = field(x->message, name);
	buf_clear(&x->text);
	if (x->at && *x->at) /* twice: which one counts would be a guess */
		xml_refuse(x);
}

static void on_end(void *ctx, const XML_Char *name)
{
	struct xml *x = ctx;

	(void)name;
	if (x->depth-- == 2 && x->at) {
		*x->at = arena_strndup(x->arena, x->text.data ? x->text.data : "", x->text.len);
		x->at = NULL;
	}
}

static void on_text(void *ctx, const XML_Char *text, int len)
{
	struct xml *x = ctx;

	if (x->at && x->depth == 2)
		buf_add(&x->text, text, (size_t)len);
}

static void on_doctype(void *ctx, const XML_Char *name, const XML_Char *system_id,
	const XML_Char *public_id, int has_internal_subset)
{
	(void)name;
	(void)system_id;
	(void)public_id;
	(void)has_internal_subset;
	xml_refuse(ctx);
}

static bool read_xml(struct arena *a, const char *body, size_t len, struct push_message *m)
{
	struct xml x = {.parser = XML_ParserCreate("UTF-8"), .arena = a, .message = m};
	bool ok;

	if (!x.parser)
		return false;
	XML_SetUserData(x.parser, &x);
	XML_SetElementHandler(x.parser, on_start, on_end);
	XML_SetCharacterDataHandler(x.parser, on_text);
	XML_SetStartDoctypeDeclHandler(x.parser, on_doctype);
	ok = XML_Parse(x.parser, body, (int)len, XML_TRUE) == XML_STATUS_OK && !x.bad;
	XML_ParserFree(x.parser);
	buf_free(&x.text);
	return ok;
}

bool push_read(struct arena *a, const char *body, size_t len, struct push_message *out)
{
	bool ok;

	*out = (struct push_message){.format = len && *body == '{' ? PUSH_JSON : PUSH_XML};
	ok = len <= FIELD_MAX && (out->format == PUSH_JSON ? read_json(a, body, len, out)
							   : read_xml(a, body, len, out));
	if (!ok)
		*out = (struct push_message){.format = out->format};
	return ok;
}
