#include "store/user_phone.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void phone_ring_init(struct phone_ring *r, const struct seal *seal)
{
	static const char id[] = "wxlogind phone: which key", tag[] = "wxlogind phone: search";
	uint8_t hash[SHA256_LEN];

	r->seal = seal_new((const uint8_t(*)[SEAL_KEY_LEN])(seal ? seal->keys : NULL),
		seal ? seal->key_count : 0);
	r->keys = mem_alloc((r->seal->key_count + 1) * sizeof(*r->keys));
	for (size_t i = 0; i < r->seal->key_count; i++) {
		crypt_hmac_sha256(hash, r->seal->keys[i], SEAL_KEY_LEN, id, strlen(id));
		memcpy(r->keys[i].id, hash, PHONE_KEY_LEN);
		crypt_hmac_sha256(
			r->keys[i].tag_key, r->seal->keys[i], SEAL_KEY_LEN, tag, strlen(tag));
	}
}

void phone_ring_fini(struct phone_ring *r)
{
	mem_wipe(r->keys, r->seal->key_count * sizeof(*r->keys));
	free(r->keys);
	seal_free(r->seal);
}

/* What a sealed number is bound to. */
static const char *place_of(struct arena *a, const struct user_row *row)
{
	return arena_join(a, row->u.appid, "\n", row->u.openid, "\nphone");
}

/* The number, and behind it the one without a country code. */
static bool open_sealed(const struct phone_ring *r, struct arena *a, struct user_row *row)
{
	const struct user_bytes *sealed = &row->phone[PHONE_SEALED];
	const char *text = unseal_text(r->seal, a, place_of(a, row), sealed->p, sealed->len), *end;

	if (!text)
		return false;
	end = strchr(text, '\n');
	row->u.text[USER_phone] = end ? arena_strndup(a, text, (size_t)(end - text)) : text;
	row->u.phone_pure = end ? end + 1 : NULL;
	return true;
}

bool phone_open(const struct phone_ring *r, struct arena *a, struct user_row *row)
{
	const struct user_bytes *pure = &row->phone[PHONE_PURE_TAG];

	if (row->u.text[USER_phone]) {
		/* the newest, also where a program before this one wrote it beside a sealed one */
		row->phone_dirty = r->seal->key_count > 0;
		if (pure->p && !row->phone[PHONE_SEALED].p)
			row->u.phone_pure = arena_strndup(a, pure->p, pure->len);
		return true;
	}
	return !row->phone[PHONE_SEALED].p || open_sealed(r, a, row);
}

struct user_bytes phone_tag(const struct phone_ring *r, struct arena *a, size_t i,
	const char *appid, const char *number)
{
	const char *text;
	uint8_t *tag;

	if (i >= r->seal->key_count)
		return (struct user_bytes){arena_strdup(a, number), strlen(number)};
	tag = arena_alloc(a, PHONE_TAG_LEN);
	text = arena_join(a, appid, "\n", number);
	crypt_hmac_sha256(tag, r->keys[i].tag_key, SHA256_LEN, text, strlen(text));
	return (struct user_bytes){(const char *)tag, PHONE_TAG_LEN};
}

void phone_close(const struct phone_ring *r, struct arena *a, struct user_row *row)
{
	const char *number = row->u.text[USER_phone], *pure = row->u.phone_pure;
	struct sealed s;

	memset(row->phone, 0, sizeof(row->phone));
	row->phone_column = r->seal->key_count ? NULL : number;
	if (!number)
		return;
	if (pure)
		row->phone[PHONE_PURE_TAG] = phone_tag(r, a, 0, row->u.appid, pure);
	if (!r->seal->key_count)
		return;
	s = seal_text(r->seal, a, place_of(a, row),
		pure ? arena_join(a, number, "\n", pure) : number);
	row->phone[PHONE_SEALED] = (struct user_bytes){s.bytes, s.len};
	row->phone[PHONE_TAG] = phone_tag(r, a, 0, row->u.appid, number);
	row->phone[PHONE_KEY] = (struct user_bytes){(const char *)r->keys[0].id, PHONE_KEY_LEN};
}
