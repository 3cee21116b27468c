#include "store/names.h"

#include <stdio.h>
#include <string.h>

#include "common/encode.h"
#include "common/mem.h"
#include "common/text.h"

enum { TAG_LEN = BASE64URL_LEN(2) };

static void names_make(const char *prefix, const char *tag, struct names *n)
{
	text_join(n->session_base, sizeof(n->session_base), prefix, "s:{", tag, "}:");
	text_join(n->index, sizeof(n->index), prefix, "u:{", tag, "}");
}

void session_key_prefix(char out[128], const char *key_prefix)
{
	snprintf(out, 128, "%ss:", key_prefix);
}

bool session_token_ok(const char *token)
{
	uint8_t raw[32];
	bool ok = strnlen(token, TOKEN_LEN + 1) == TOKEN_LEN &&
		  base64url_decode(raw, sizeof(raw), token, TOKEN_LEN) == sizeof(raw);

	mem_wipe(raw, sizeof(raw));
	return ok;
}

bool session_id_ok(const char *id)
{
	uint8_t raw[CACHE_ID_LEN];

	return strnlen(id, SESSION_ID_LEN + 1) == SESSION_ID_LEN &&
	       base64url_decode(raw, sizeof(raw), id, SESSION_ID_LEN) == sizeof(raw);
}

void token_id(const char *token, uint8_t id[CACHE_ID_LEN])
{
	uint8_t hash[SHA256_LEN];

	crypt_sha256(hash, token, TOKEN_LEN);
	memcpy(id, hash, CACHE_ID_LEN);
}

void token_names_make(
	const char *prefix, const char *token, const uint8_t *id, struct token_names *t)
{
	char tag[TAG_LEN + 1];
	uint8_t raw[3]; /* of four characters: the tag is two bytes */

	base64url_decode(raw, sizeof(raw), token, 4);
	base64url_encode(tag, raw, 2);
	names_make(prefix, tag, &t->n);
	if (id)
		memcpy(t->id_raw, id, sizeof(t->id_raw));
	else
		token_id(token, t->id_raw);
	base64url_encode(t->id, t->id_raw, sizeof(t->id_raw));
	text_join(t->session, sizeof(t->session), t->n.session_base, t->id);
	text_join(t->mark, sizeof(t->mark), t->n.session_base, "!", t->id);
}

void user_names_make(const char *prefix, const char *appid, const char *openid,
	struct user_names *u)
{
	uint8_t hash[SHA256_LEN];
	char user[512], tag[TAG_LEN + 1];

	text_join(user, sizeof(user), appid, ":", openid);
	crypt_sha256(hash, user, strlen(user));
	memcpy(u->tag, hash, sizeof(u->tag));
	base64url_encode(tag, hash, 2);
	names_make(prefix, tag, &u->n);
	crypt_sha1(hash, user, strlen(user));
	hex_encode(u->name, hash, SHA1_LEN);
	u->name[USER_NAME_LEN] = '\0';
	text_join(u->place, sizeof(u->place), u->n.index, ":", u->name);
	text_join(u->erasing, sizeof(u->erasing), prefix, "m:{", tag, "}:", u->name);
	text_join(u->block, sizeof(u->block), prefix, "b:{", tag, "}:", u->name);
	text_join(u->keycache, sizeof(u->keycache), prefix, "e:{", tag, "}:", u->name);
}
