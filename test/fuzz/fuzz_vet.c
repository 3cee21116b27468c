/* The strict HTTP reader: the same bytes in one piece and in arbitrary pieces give the same
 * outcome, fields and body; an outcome once given is never taken back; and what it lets pass holds
 * what RFC 9112 asks of it.
 *
 * Input: a seed for the pieces; how many KiB of a letter are put in, and where (the bounds are far
 * for a fuzzer); then a message. */
#include "fuzz.h"

#include "common/mem.h"
#include "http/vet.h"

enum { BODY_MAX = 3000 };

static unsigned seed;

static size_t piece(size_t left)
{
	size_t n;

	seed = seed * 1103515245u + 12345u;
	n = 1 + (seed >> 16) % (seed & 0x8000 ? 7 : 500);
	return n < left ? n : left;
}

static enum outcome look(const char *p, size_t n, struct vet_head *h)
{
	char *copy = exactly(p, n);
	enum outcome oc;

	memset(h, 0xee, sizeof(*h));
	oc = vet_head(copy, n, BODY_MAX, h);
	free(copy);
	return oc;
}

static void same_head(const struct vet_head *a, const struct vet_head *b)
{
	MUST(a->len == b->len && a->method == b->method && a->method_len == b->method_len &&
		a->minor == b->minor);
	MUST(a->path == b->path && a->path_len == b->path_len && a->query == b->query &&
		a->query_len == b->query_len);
	MUST(a->keep_alive == b->keep_alive && a->chunked == b->chunked && a->expect == b->expect);
	MUST(a->content_length == b->content_length && a->field_count == b->field_count);
	MUST(!memcmp(a->fields, b->fields, a->field_count * sizeof(a->fields[0])));
}

static void good_head(const char *p, size_t n, const struct vet_head *h)
{
	MUST(h->len <= n && h->len >= 4 && !memcmp(p + h->len - 4, "\r\n\r\n", 4));
	MUST(!memchr(p, '\0', h->len));
	MUST((size_t)h->path + h->path_len <= h->len && (size_t)h->query + h->query_len <= h->len);
	MUST(h->path_len > 0 && (p[h->path] == '/' || p[h->path] == '*'));
	MUST(h->content_length <= BODY_MAX && !(h->chunked && h->content_length));
	MUST(h->field_count <= VET_FIELDS_MAX);
	for (size_t i = 0; i < h->field_count; i++) {
		const struct vet_field *f = &h->fields[i];

		MUST(f->name_len > 0 && f->name + f->name_len < h->len &&
			f->value + f->value_len < h->len);
		MUST(p[f->name + f->name_len] == ':');
		MUST(!memchr(p + f->name, ' ', f->name_len) &&
			!memchr(p + f->name, '\t', f->name_len));
		MUST(!memchr(p + f->value, '\r', f->value_len) &&
			!memchr(p + f->value, '\n', f->value_len));
		MUST(f->value_len == 0 ||
			(p[f->value] != ' ' && p[f->value + f->value_len - 1] != ' '));
	}
}

/* true, and how long it is, when there is a head. */
static bool read_head(const char *p, size_t n, struct vet_head *whole)
{
	struct vet_head h;
	enum outcome oc = look(p, n, whole), now = OC_PENDING;

	for (size_t have = 0; have < n && now == OC_PENDING;) {
		have += piece(n - have);
		now = look(p, have, &h);
	}
	if (n == 0)
		return false;
	MUST(now == oc);
	if (oc != OC_OK)
		return false;
	good_head(p, n, whole);
	same_head(whole, &h);
	return true;
}

static enum outcome chunks(const char *p, size_t n, bool in_pieces, struct buf *body, size_t *used)
{
	struct vet_chunks c = {0};
	enum outcome oc = OC_PENDING;

	*used = 0;
	while (oc == OC_PENDING && *used < n) {
		size_t take = in_pieces ? piece(n - *used) : n - *used, did;
		char *copy = exactly(p + *used, take);

		oc = vet_chunks(&c, copy, take, BODY_MAX, body, &did);
		free(copy);
		MUST(did <= take && (did == take || oc != OC_PENDING));
		*used += did;
		MUST(body->len <= BODY_MAX);
	}
	return oc;
}

/* What was read comes out again when it is sent as other chunks. */
static void again(const struct buf *body)
{
	struct buf wire = {0}, out = {0};
	size_t used;

	for (size_t at = 0; at < body->len;) {
		size_t n = piece(body->len - at);

		buf_printf(&wire, "%zX;x=y\r\n", n);
		buf_add(&wire, body->data + at, n);
		buf_str(&wire, "\r\n");
		at += n;
	}
	buf_str(&wire, "000\r\nTrailer: x\r\n\r\n");
	MUST(chunks(wire.data, wire.len, true, &out, &used) == OC_OK && used == wire.len);
	MUST(out.len == body->len && (out.len == 0 || !memcmp(out.data, body->data, out.len)));
	buf_free(&wire);
	buf_free(&out);
}

static void read_chunks(const char *p, size_t n)
{
	struct buf one = {0}, many = {0};
	size_t used_one, used_many;
	enum outcome oc = chunks(p, n, false, &one, &used_one);

	MUST(chunks(p, n, true, &many, &used_many) == oc);
	MUST(used_one == used_many);
	MUST(one.len == many.len && (one.len == 0 || !memcmp(one.data, many.data, one.len)));
	if (oc == OC_OK)
		again(&one);
	buf_free(&one);
	buf_free(&many);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct vet_head h;
	struct buf b = {0};
	char *pad;
	size_t more, at;

	seed = take_byte(&in) | take_byte(&in) << 8;
	more = take_byte(&in) % 40 * 1024;
	at = take_byte(&in) | take_byte(&in) << 8;
	at = in.n ? at % in.n : 0;
	pad = mem_alloc(more + 1);
	memset(pad, 'a', more);
	buf_add(&b, in.p, at);
	buf_add(&b, pad, more);
	buf_add(&b, in.p + at, in.n - at);
	free(pad);
	if (read_head(b.data, b.len, &h))
		read_chunks(b.data + h.len, b.len - h.len);
	else
		read_chunks(b.data, b.len);
	buf_free(&b);
	return 0;
}
