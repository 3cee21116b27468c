#include "http/vet.h"

#include <string.h>
#include <strings.h>

enum { CHUNK_LINE_MAX = 256, TRAILERS_MAX = 4096 };

/* What a byte may be part of: tchar (RFC 9110 section 5.6.2), a host's name beside %xx (unreserved
 * and sub-delims of RFC 3986), the value of a field. */
enum {
	TCHAR = 1, HOST_CHAR = 2, VALUE_CHAR = 4,
	V = VALUE_CHAR, T = TCHAR | V, H = HOST_CHAR | V, B = T | H,
};

static const uint8_t classes[256] = {
	['0' ... '9'] = B, ['A' ... 'Z'] = B, ['a' ... 'z'] = B,
	['!'] = B, ['$'] = B, ['&'] = B, ['\''] = B, ['*'] = B, ['+'] = B, ['-'] = B, ['.'] = B, ['_'] = B, ['~'] = B,
	['#'] = T, ['%'] = T, ['^'] = T, ['`'] = T, ['|'] = T,
	['('] = H, [')'] = H, [','] = H, [';'] = H, ['='] = H,
	['\t'] = V, [' '] = V, ['"'] = V, ['/'] = V, [':'] = V, ['<'] = V, ['>'] = V, ['?'] = V, ['@'] = V, ['['] = V, ['\\'] = V,
	[']'] = V, ['{'] = V, ['}'] = V, [0x80 ... 0xff] = V,
};

static bool all(const char *p, size_t n, uint8_t class)
{
	size_t i = 0;

	while (i < n && (classes[(unsigned char)p[i]] & class))
		i++;
	return i == n;
}

static bool is_token(const char *p, size_t n)
{
	return n > 0 && all(p, n, TCHAR);
}

static bool is(const char *p, size_t n, const char *word)
{
	return strlen(word) == n && !strncasecmp(p, word, n);
}

static enum method method_of(const char *p, size_t n)
{
	static const struct { const char *name; enum method m; } known[] = {
		{"GET", METHOD_GET}, {"HEAD", METHOD_HEAD}, {"POST", METHOD_POST}, {"PUT", METHOD_PUT}, {"DELETE", METHOD_DELETE},
		{"PATCH", METHOD_PATCH}, {"OPTIONS", METHOD_OPTIONS},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strlen(known[i].name) == n && !memcmp(known[i].name, p, n))
			return known[i].m;
	return METHOD_OTHER;
}

static bool is_port(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] < '0' || p[i] > '9')
			return false;
	return n <= 5;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool vet_host(const char *p, size_t n)
{
	const char *close = n && *p == '[' ? memchr(p, ']', n) : NULL;
	size_t i = 0;

	if (close) {
		for (i = 1; p + i < close; i++)
			if (!all(p + i, 1, HOST_CHAR) && p[i] != ':')
				return false;
		if (i++ == 1)
			return false;
	}
	for (; i < n && !close && p[i] != ':'; i++) {
		if (p[i] == '%' && n - i > 2 && hex(p[i + 1]) >= 0 && hex(p[i + 2]) >= 0)
			i += 2;
		else if (!all(p + i, 1, HOST_CHAR))
			return false;
	}
	return i == n || (p[i] == ':' && is_port(p + i + 1, n - i - 1));
}

/* origin-form, absolute-form (its path counts), or "*" */
static bool read_target(struct vet_head *h, const char *base, const char *p, size_t n)
{
	const char *q;

	for (size_t i = 0; i < n; i++)
		if (p[i] <= ' ' || p[i] >= 0x7f || p[i] == '#')
			return false;
	if (n == 1 && *p == '*' && h->method == METHOD_OPTIONS) {
		h->path = (uint32_t)(p - base);
		h->path_len = 1;
		h->query = h->path + 1;
		return true;
	}
	if (n > 7 && (!strncasecmp(p, "http://", 7) || (n > 8 && !strncasecmp(p, "https://", 8)))) {
		size_t skip = p[4] == ':' ? 7 : 8;
		const char *slash = memchr(p + skip, '/', n - skip);

		if (!slash || slash == p + skip || !vet_host(p + skip, (size_t)(slash - p) - skip))
			return false;
		h->host = (uint32_t)(p + skip - base);
		h->host_len = (uint32_t)((size_t)(slash - p) - skip);
		n -= (size_t)(slash - p);
		p = slash;
	}
	if (n == 0 || *p != '/')
		return false;
	q = memchr(p, '?', n);
	h->path = (uint32_t)(p - base);
	h->path_len = (uint32_t)(q ? (size_t)(q - p) : n);
	h->query = h->path + h->path_len + (q ? 1 : 0);
	h->query_len = (uint32_t)(q ? n - h->path_len - 1 : 0);
	return true;
}

static enum outcome read_request_line(struct vet_head *h, const char *base, const char *p, size_t n)
{
	const char *sp1 = memchr(p, ' ', n), *sp2, *end = p + n;

	if (!sp1 || !is_token(p, (size_t)(sp1 - p)))
		return OC_INVALID_REQUEST;
	h->method_len = (uint32_t)(sp1 - p);
	h->method = method_of(p, h->method_len);
	sp2 = memchr(sp1 + 1, ' ', (size_t)(end - sp1 - 1));
	if (!sp2 || end - sp2 != 9 || memcmp(sp2 + 1, "HTTP/", 5) || sp2[7] != '.' ||
		sp2[6] < '0' || sp2[6] > '9' || sp2[8] < '0' || sp2[8] > '9')
		return OC_INVALID_REQUEST;
	if (sp2[6] != '1' || sp2[8] > '1')
		return OC_BAD_VERSION;
	h->minor = sp2[8] - '0';
	return read_target(h, base, sp1 + 1, (size_t)(sp2 - sp1 - 1)) ? OC_OK : OC_INVALID_REQUEST;
}

static enum outcome read_field(struct vet_head *h, const char *base, const char *p, size_t n)
{
	const char *colon = memchr(p, ':', n), *v, *end = p + n;
	struct vet_field *f;

	if (!colon ||
		!is_token(
			p, (size_t)(colon -
				    p))) /* a folded line begins with a blank, which is no token */
		return OC_INVALID_REQUEST;
	if (!all(colon + 1, (size_t)(end - colon - 1), VALUE_CHAR))
		return OC_INVALID_REQUEST;
	if (h->field_count == VET_FIELDS_MAX)
		return OC_HEADERS_TOO_LARGE;
	for (v = colon + 1; v < end && (*v == ' ' || *v == '\t'); v++)
		;
	while (end > v && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	f = &h->fields[h->field_count++];
	f->name = (uint32_t)(p - base);
	f->name_len = (uint32_t)(colon - p);
	f->value = (uint32_t)(v - base);
	f->value_len = (uint32_t)(end - v);
	return OC_OK;
}

static bool list_has(const char *v, size_t n, const char *word)
{
	const char *end = v + n;

	while (v < end) {
		const char *comma = memchr(v, ',', (size_t)(end - v)), *stop = comma ? comma : end,
			   *last = stop;

		while (v < last && (*v == ' ' || *v == '\t'))
			v++;
		while (last > v && (last[-1] == ' ' || last[-1] == '\t'))
			last--;
		if (is(v, (size_t)(last - v), word))
			return true;
		v = stop + 1;
	}
	return false;
}

static enum outcome read_content_length(
	struct vet_head *h, const char *v, size_t n, uint64_t max_body)
{
	uint64_t x = 0;

	if (n == 0)
		return OC_INVALID_REQUEST;
	for (size_t i = 0; i < n; i++) {
		if (v[i] < '0' || v[i] > '9')
			return OC_INVALID_REQUEST;
		if (x < UINT64_MAX / 20) /* past that it is too large whatever follows */
			x = x * 10 + (uint64_t)(v[i] - '0');
	}
	h->content_length = x;
	return x > max_body ? OC_TOO_LARGE : OC_OK;
}

/* The fields that say where the message ends, and what becomes of the connection (RFC 9112
 * sections 3.2, 6, 9). */
static enum outcome read_framing(struct vet_head *h, const char *base, uint64_t max_body)
{
	int hosts = 0, lengths = 0, codings = 0;
	enum outcome oc = OC_OK, too_large = OC_OK;
	bool close = false, keep = false;

	for (size_t i = 0; i < h->field_count && oc == OC_OK; i++) {
		const char *name = base + h->fields[i].name, *v = base + h->fields[i].value;
		size_t len = h->fields[i].name_len, n = h->fields[i].value_len;

		if (is(name, len, "host")) {
			hosts++;
			if (!vet_host(v, n))
				oc = OC_INVALID_REQUEST;
			if (h->host_len == 0) { /* a target's own counts: RFC 9112 section 3.2.2 */
				h->host = h->fields[i].value;
				h->host_len = (uint32_t)n;
			}
		} else if (is(name, len, "content-length")) {
			lengths++;
			oc = read_content_length(h, v, n, max_body);
			if (oc == OC_TOO_LARGE) {
				too_large = oc;
				oc = OC_OK;
			}
		} else if (is(name, len, "transfer-encoding")) {
			codings++;
			if (!is(v, n, "chunked"))
				oc = OC_NOT_IMPLEMENTED;
		} else if (is(name, len, "connection")) {
			close |= list_has(v, n, "close");
			keep |= list_has(v, n, "keep-alive");
		} else if (is(name, len, "expect")) {
			h->expect = h->minor == 1 && is(v, n, "100-continue");
		}
	}
	if (oc != OC_OK)
		return oc;
	if (lengths > 1 || codings > 1 || (lengths && codings) || (codings && h->minor == 0) ||
		hosts > 1 || (hosts == 0 && h->minor == 1))
		return OC_INVALID_REQUEST;
	h->chunked = codings == 1;
	h->keep_alive = !close && (h->minor == 1 || keep);
	return too_large;
}

static void forget(struct vet_head *h)
{
	h->len = h->field_count = 0;
	h->method = METHOD_OTHER;
	h->method_len = h->path = h->path_len = h->query = h->query_len = h->host = h->host_len = 0;
	h->content_length = 0;
	h->minor = 1;
	h->keep_alive = h->chunked = h->expect = false;
}

enum outcome vet_head(const char *p, size_t n, uint64_t max_body, struct vet_head *h)
{
	const char *l = p, *end = p + n, *nl, *fields = p; /* behind the request line */
	enum outcome oc;

	forget(h);
	for (bool first = true;; first = false, l = nl + 1) {
		ptrdiff_t len, room = VET_LINE_MAX + 1;

		h->len = (size_t)(l - p);
		nl = memchr(l, '\n', (size_t)(end - l));
		len = (nl ? nl : end) - l;
		/* One more, for the '\r' of the empty line: it is no field's. */
		if (!first && room > VET_HEAD_MAX + 1 - (l - fields))
			room = VET_HEAD_MAX + 1 - (l - fields);
		/* No look past the bound: what stands there may not have come yet, and must not
		 * change the answer. */
		if (room > 0 && memchr(l, '\0', (size_t)(len < room ? len : room)))
			return OC_INVALID_REQUEST;
		if (len > room)
			return first ? OC_URI_TOO_LONG : OC_HEADERS_TOO_LARGE;
		if (!nl)
			return OC_PENDING;
		if (len == 0 || nl[-1] != '\r' || memchr(l, '\r', (size_t)len - 1))
			return OC_INVALID_REQUEST;
		if (len == 1)
			break;
		if (first)
			fields = nl + 1;
		oc = first ? read_request_line(h, p, l, (size_t)len - 1)
			   : read_field(h, p, l, (size_t)len - 1);
		if (oc != OC_OK && first)
			forget(h);
		if (oc != OC_OK)
			return oc;
	}
	if (l == p)
		return OC_INVALID_REQUEST;
	h->len = (size_t)(nl + 1 - p);
	return read_framing(h, p, max_body);
}

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LF };

/* One byte outside of a chunk's data. */
static enum outcome chunk_byte(struct vet_chunks *c, char b)
{
	int d;

	switch (c->state) {
	case SIZE:
		if ((d = hex(b)) >= 0) {
			if (c->left >> 40)
				return OC_TOO_LARGE;
			c->left = c->left << 4 | (uint64_t)d;
			c->digit = true;
		} else if (!c->digit) {
			return OC_INVALID_REQUEST;
		} else {
			c->state = b == '\r' ? SIZE_LF : EXTENSION;
			if (b != '\r' && b != ';' && b != ' ' && b != '\t')
				return OC_INVALID_REQUEST;
		}
		break;
	case EXTENSION:
		if (b == '\r')
			c->state = SIZE_LF;
		else if (((unsigned char)b < ' ' && b != '\t') || b == 0x7f)
			return OC_INVALID_REQUEST;
		break;
	case SIZE_LF:
		if (b != '\n')
			return OC_INVALID_REQUEST;
		c->line = 0;
		c->line_empty = true;
		c->state = c->left ? DATA : TRAILER;
		return OC_PENDING;
	case DATA_CR:
		if (b != '\r')
			return OC_INVALID_REQUEST;
		c->state = DATA_LF;
		break;
	case DATA_LF:
		if (b != '\n')
			return OC_INVALID_REQUEST;
		c->digit = false;
		c->line = 0;
		c->state = SIZE;
		return OC_PENDING;
	case TRAILER:
		if (++c->trailers > TRAILERS_MAX)
			return OC_HEADERS_TOO_LARGE;
		if (b == '\r')
			c->state = TRAILER_LF;
		else if (((unsigned char)b < ' ' && b != '\t') || b == 0x7f)
			return OC_INVALID_REQUEST;
		else
			c->line_empty = false;
		return OC_PENDING;
	case TRAILER_LF:
		if (b != '\n')
			return OC_INVALID_REQUEST;
		if (c->line_empty)
			return OC_OK;
		c->line_empty = true;
		c->state = TRAILER;
		return OC_PENDING;
	}
	return ++c->line > CHUNK_LINE_MAX ? OC_INVALID_REQUEST : OC_PENDING;
}

enum outcome vet_chunks(struct vet_chunks *c, const char *p, size_t n, size_t max_body,
	struct buf *out, size_t *used)
{
	enum outcome oc = OC_PENDING;
	size_t i = 0;

	while (i < n && oc == OC_PENDING) {
		if (c->state != DATA) {
			oc = chunk_byte(c, p[i++]);
			if (c->state == DATA && oc == OC_PENDING && out->len + c->left > max_body)
				oc = OC_TOO_LARGE;
			continue;
		}
		size_t take = n - i < c->left ? n - i : (size_t)c->left;
		buf_add(out, p + i, take);
		i += take;
		c->left -= take;
		if (c->left == 0)
			c->state = DATA_CR;
	}
	*used = i;
	return oc;
}
