/* Message push: bytes of an outsider as an envelope and as a message. What is sealed here opens
 * again to the same bytes, for this app only; changed by a bit it opens to nothing that was not
 * there, or fails. A message that is read has bounded texts, and reads the same twice.
 *
 * Input: one byte, then Encrypt and a signature, each ended by a newline, then the message. */
#include "fuzz.h"

#include "common/arena.h"
#include "common/encode.h"
#include "wechat/push.h"

static const struct push_key key = {"0123456789abcdef0123456789abcdef"};
static const char app[] = "wx1";

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static void as_message(struct arena *a, const char *text, size_t n)
{
	char *copy = exactly(text, n);
	struct push_message m, again;
	bool ok = push_read(a, copy, n, &m);

	MUST(ok == push_read(a, copy, n, &again));
	MUST(same(m.event, again.event) && same(m.openid, again.openid) &&
		same(m.encrypt, again.encrypt));
	MUST(ok || (!m.event && !m.openid && !m.encrypt && !m.revoke_info));
	MUST(!m.event || strlen(m.event) <= n);
	MUST(!m.openid || utf8_valid(m.openid, strlen(m.openid)));
	free(copy);
}

static void as_sealed(struct arena *a, const char *text, size_t n, unsigned flip)
{
	char *sealed = push_seal(a, &key, app, (const uint8_t *)"0123456789abcdef", text, n);
	size_t len;
	char *opened = push_open(a, &key, app, sealed, &len);

	MUST(opened && len == n && !memcmp(opened, text, n));
	MUST(!push_open(a, &key, "wx2", sealed, &len));
	sealed[flip % strlen(sealed)] ^= 1;
	opened = push_open(a, &key, app, sealed, &len);
	MUST(!opened || strlen(opened) <= n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned flip = take_byte(&in);
	char *encrypt = take_text(&in, '\n'), *signature = take_text(&in, '\n');
	char right[PUSH_SIGNATURE_SIZE];
	struct arena *a = arena_new();
	struct push_key k;
	size_t len;

	push_open(a, &key, app, encrypt, &len);
	push_key_read(&k, encrypt);
	push_sign(right, "token", "1", encrypt, signature);
	MUST(push_signature_ok(right, "token", "1", encrypt, signature));
	MUST(push_signature_ok(signature, "token", "1", "2", encrypt) ==
	     (push_sign(right, "token", "1", "2", encrypt), !strcmp(right, signature)));
	as_message(a, (const char *)in.p, in.n);
	as_sealed(a, (const char *)in.p, in.n, flip);
	arena_free(a);
	free(encrypt);
	free(signature);
	return 0;
}
