/* The strict HTTP reader: what RFC 9112 allows, what it calls an error, the bounds, and the same
 * answer however the bytes come. */
#include "unit.h"

#include "http/vet.h"

enum { BODY_MAX = 1000 };

static struct vet_head h;

static enum outcome head(const char *text)
{
	memset(&h, 0xee, sizeof(h)); /* nothing may be left over from the one before */
	return vet_head(text, strlen(text), BODY_MAX, &h);
}

static const char *piece(const char *text, uint32_t at, uint32_t n)
{
	static char out[256];

	snprintf(out, sizeof(out), "%.*s", (int)n, text + at);
	return out;
}

static void test_good_heads(void **state)
{
	static const char text[] = "POST /v1/login?a=b&c HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  7 "
				   "\r\nX-Empty:\r\nX-Long: a b\t c\r\n\r\n{\"a\":1}";

	(void)state;
	assert_int_equal(head(text), OC_OK);
	assert_int_equal(h.len, sizeof(text) - 1 - 7);
	assert_int_equal(h.method, METHOD_POST);
	assert_string_equal(piece(text, h.path, h.path_len), "/v1/login");
	assert_string_equal(piece(text, h.query, h.query_len), "a=b&c");
	assert_int_equal(h.content_length, 7);
	assert_int_equal(h.field_count, 4);
	assert_string_equal(piece(text, h.fields[1].value, h.fields[1].value_len), "7");
	assert_int_equal(h.fields[2].value_len, 0);
	assert_string_equal(piece(text, h.fields[3].value, h.fields[3].value_len), "a b\t c");
	assert_true(h.keep_alive && !h.chunked && !h.expect && h.minor == 1);
}

static void test_flags(void **state)
{
	static const struct { const char *text; bool keep_alive, chunked, expect; } rows[] = {
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true, false, false},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, false, false},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n", false, false, false},
		{"GET / HTTP/1.0\r\n\r\n", false, false, false},
		{"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, false, false},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", true, true, false},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\nExpect: 100-continue\r\n\r\n", true, true, true},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		assert_int_equal(head(rows[i].text), OC_OK);
		assert_true(h.keep_alive == rows[i].keep_alive && h.chunked == rows[i].chunked &&
			    h.expect == rows[i].expect);
	}
}

static void test_targets(void **state)
{
	static const struct { const char *target, *path, *query; } rows[] = {
		{"/", "/", ""}, {"/a?b", "/a", "b"}, {"/a?", "/a", ""}, {"/a?b?c", "/a", "b?c"}, {"http://x/a?b", "/a", "b"}, {"HTTPS://x:1/", "/", ""},
		{"//x/a", "//x/a", ""}, {"/%zz", "/%zz", ""}, {"x", NULL, NULL}, {"http://x", NULL, NULL}, {"http:///a", NULL, NULL}, {"/a#b", NULL, NULL},
		{"/\x7f", NULL, NULL}, {"/\x80", NULL, NULL}, {"/a\tb", NULL, NULL}, {"*", NULL, NULL}, {"?x", NULL, NULL},
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", rows[i].target);
		assert_int_equal(head(text), rows[i].path ? OC_OK : OC_INVALID_REQUEST);
		if (!rows[i].path)
			continue;
		assert_string_equal(piece(text, h.path, h.path_len), rows[i].path);
		assert_string_equal(piece(text, h.query, h.query_len), rows[i].query);
	}
	assert_int_equal(head("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"), OC_OK);
}

#define POST "POST / HTTP/1.1\r\nHost: x\r\n"

static void test_what_is_refused(void **state)
{
	static const struct { const char *text; enum outcome oc;
	} rows[] = {
		/* smuggling: two ways to say how long, or one that another server may read
		   otherwise */
		{POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
			OC_INVALID_REQUEST},
		{POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length: 5, 6\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length: +5\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length: -5\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length: 0x5\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length: 5 5\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length:\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length : 5\r\n\r\n", OC_INVALID_REQUEST},
		{POST " Content-Length: 5\r\n\r\n", OC_INVALID_REQUEST},
		{POST "X: y\r\n folded\r\n\r\n", OC_INVALID_REQUEST},
		{POST "X: y\n\r\n", OC_INVALID_REQUEST},
		{POST "X: y\rz\r\n\r\n", OC_INVALID_REQUEST},
		{POST "X\r\n\r\n", OC_INVALID_REQUEST},
		{POST ": y\r\n\r\n", OC_INVALID_REQUEST},
		{POST "X(: y\r\n\r\n", OC_INVALID_REQUEST},
		{POST "X: \x01\r\n\r\n", OC_INVALID_REQUEST},
		{POST "X: \x7f\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Host: y\r\n\r\n", OC_INVALID_REQUEST},
		{"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Transfer-Encoding: gzip, chunked\r\n\r\n", OC_NOT_IMPLEMENTED},
		{"GET / HTTP/1.1\r\n\r\n", OC_INVALID_REQUEST}, /* no Host */
		{"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", OC_INVALID_REQUEST},
		{"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", OC_INVALID_REQUEST},
		{"GET /\r\n\r\n", OC_INVALID_REQUEST},
		{"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", OC_INVALID_REQUEST},
		{"GET / HTTP/2.0\r\nHost: x\r\n\r\n", OC_BAD_VERSION},
		{"GET / HTTX/1.1\r\nHost: x\r\n\r\n", OC_INVALID_REQUEST},
		{POST "Content-Length: 1001\r\n\r\n", OC_TOO_LARGE},
		{POST "Content-Length: 99999999999999999999999999\r\n\r\n", OC_TOO_LARGE},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++)
		if (head(rows[i].text) != rows[i].oc)
			fail_msg("%s: %s, not %s", rows[i].text, outcome_code(head(rows[i].text)),
				outcome_code(rows[i].oc));
	assert_int_not_equal(head(POST "Transfer-Encoding: xchunked\r\n\r\n"), OC_OK);
	assert_int_not_equal(head(POST "Transfer-Encoding: chunked, chunked\r\n\r\n"), OC_OK);
	assert_int_not_equal(
		head(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
		OC_OK);
	assert_int_equal(vet_head("GET / HTTP/1.1\r\nHost: x\0\r\n\r\n", 28, BODY_MAX, &h),
		OC_INVALID_REQUEST);
	assert_int_equal(vet_head("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 28, BODY_MAX, &h),
		OC_INVALID_REQUEST);
	assert_int_equal(head(POST "Content-Length: 1000\r\n\r\n"), OC_OK);
}

/* More must come for every prefix of a good head; and one without its end is not read past (no NUL
 * stands behind it). */
static void test_every_prefix(void **state)
{
	static const char text[] = "PUT /v1/user?x=1 HTTP/1.1\r\nHost: example\r\nContent-Type: "
				   "application/json\r\nContent-Length: 2\r\n\r\n";

	(void)state;
	for (size_t n = 0; n < sizeof(text); n++) {
		char *copy = malloc(n ? n : 1);

		memcpy(copy, text, n);
		assert_int_equal(vet_head(copy, n, BODY_MAX, &h),
			n == sizeof(text) - 1 ? OC_OK : OC_PENDING);
		free(copy);
	}
}

static void test_bounds(void **state)
{
	char *text = malloc(200000), *p;

	(void)state;
	for (int over = 0; over <= 1; over++) {
		p = text; /* the request line */
		p += sprintf(p, "GET /");
		memset(p, 'a', 8191);
		p += 8191 - 5 - 9 + over;
		strcpy(p, " HTTP/1.1\r\nHost: x\r\n\r\n");
		assert_int_equal(head(text), over ? OC_URI_TOO_LONG : OC_OK);
		p = text; /* a header line */
		p += sprintf(p, "GET / HTTP/1.1\r\nHost: x\r\nX: ");
		memset(p, 'a', 8191);
		p += 8191 - 3 + over;
		strcpy(p, "\r\n\r\n");
		assert_int_equal(head(text), over ? OC_HEADERS_TOO_LARGE : OC_OK);
		p = text; /* how many */
		p += sprintf(p, "GET / HTTP/1.1\r\nHost: x\r\n");
		for (int i = 0; i < 99 + over; i++)
			p += sprintf(p, "X-%d: y\r\n", i);
		strcpy(p, "\r\n");
		assert_int_equal(head(text), over ? OC_HEADERS_TOO_LARGE : OC_OK);
	}
	p = text; /* all of them, told before the end has come */
	p += sprintf(p, "GET / HTTP/1.1\r\nHost: x\r\n");
	for (int i = 0; i < 40; i++)
		p += sprintf(p, "X-%02d: %01000d\r\n", i, 0);
	assert_int_equal(head(text), OC_HEADERS_TOO_LARGE);
	memset(text, 'a', 100000); /* a line that does not end is not waited for */
	assert_int_not_equal(vet_head(text, 100000, BODY_MAX, &h), OC_PENDING);
	free(text);
}

static enum outcome chunks(const char *text, size_t n, size_t step, struct buf *out, size_t *used)
{
	struct vet_chunks c = {0};
	enum outcome oc = OC_PENDING;
	size_t at = 0, took;

	while (at < n && oc == OC_PENDING) {
		oc = vet_chunks(&c, text + at, n - at < step ? n - at : step, BODY_MAX, out, &took);
		at += took;
	}
	*used = at;
	return oc;
}

static void test_chunks(void **state)
{
	static const struct { const char *text; enum outcome oc; const char *body; } rows[] = {
		{"0\r\n\r\n", OC_OK, ""}, {"5\r\nhello\r\n0\r\n\r\n", OC_OK, "hello"}, {"5;x=y\r\nhello\r\n00\r\n\r\n", OC_OK, "hello"},
		{"A\r\n0123456789\r\n1\r\nx\r\n0\r\nTrailer: y\r\nMore: z\r\n\r\n", OC_OK, "0123456789x"}, {"0005\r\nhello\r\n0\r\n\r\nNEXT", OC_OK, "hello"},
		{"5\r\nhello\r\n", OC_PENDING, "hello"}, {"5\r\nhel", OC_PENDING, "hel"}, {"5", OC_PENDING, ""},
		{"g\r\n", OC_INVALID_REQUEST, ""}, {"\r\n", OC_INVALID_REQUEST, ""}, {"5\nhello\r\n", OC_INVALID_REQUEST, ""}, {"5\r\nhelloX\r\n", OC_INVALID_REQUEST, "hello"},
		{"5\r\nhello\n0\r\n\r\n", OC_INVALID_REQUEST, "hello"}, {"-5\r\n", OC_INVALID_REQUEST, ""}, {"0x5\r\n", OC_INVALID_REQUEST, ""}, {" 5\r\n", OC_INVALID_REQUEST, ""},
		{"5\rX", OC_INVALID_REQUEST, ""}, {"0\r\n\rX", OC_INVALID_REQUEST, ""}, {"0\r\n\x01: y\r\n", OC_INVALID_REQUEST, ""},
		{"3e9\r\n", OC_TOO_LARGE, ""}, {"ffffffffffffffffffff\r\n", OC_TOO_LARGE, ""}, {"8000000000000000\r\n", OC_TOO_LARGE, ""},
	};

	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		size_t n = strlen(rows[i].text), whole, used;

		for (size_t step = n; step >= 1;
			step--) { /* cut in any way, the answer is the same */
			struct buf b = {0};

			buf_str(&b, "");
			if (chunks(rows[i].text, n, step, &b, step == n ? &whole : &used) !=
					rows[i].oc ||
				strcmp(b.data, rows[i].body) != 0)
				fail_msg("%s in steps of %zu", rows[i].text, step);
			if (step < n)
				assert_int_equal(used, whole);
			buf_free(&b);
		}
	}
}

static void test_chunk_bounds(void **state)
{
	struct buf b = {0};
	char *text = malloc(20000), *p = text;
	size_t used;

	(void)state;
	for (int i = 0; i < 1000; i++) /* a byte each, up to the bound */
		p += sprintf(p, "1\r\nx\r\n");
	strcpy(p, "0\r\n\r\n");
	assert_int_equal(chunks(text, strlen(text), 7, &b, &used), OC_OK);
	assert_int_equal(b.len, 1000);
	buf_free(&b);
	strcpy(p, "1\r\nx\r\n0\r\n\r\n");
	assert_int_equal(chunks(text, strlen(text), 7, &b, &used), OC_TOO_LARGE);
	buf_free(&b);
	strcpy(text, "1;");
	memset(text + 2, 'e', 10000); /* extensions do not go on for ever */
	assert_int_equal(chunks(text, 10000, 100, &b, &used), OC_INVALID_REQUEST);
	strcpy(text, "0\r\n");
	for (p = text + 3; p < text + 8000;)
		p += sprintf(p, "T: y\r\n"); /* nor do trailers */
	assert_int_equal(chunks(text, (size_t)(p - text), 100, &b, &used), OC_HEADERS_TOO_LARGE);
	buf_free(&b);
	free(text);
}

/* What is too long stays that when more of it comes, whatever the rest is: a fuzzer found the two
 * answers. */
static void test_too_long_is_final(void **state)
{
	static const char get[] = "GET / HTTP/1.1\r\n";
	static char text[VET_HEAD_MAX + 20000];
	size_t n;

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text, get, sizeof(get) - 2); /* a request line that does not end */
	text[VET_LINE_MAX + 1] = '\0';
	assert_int_equal(vet_head(text, VET_LINE_MAX + 2, BODY_MAX, &h), OC_URI_TOO_LONG);
	assert_int_equal(vet_head(text, sizeof(text), BODY_MAX, &h), OC_URI_TOO_LONG);
	text[VET_LINE_MAX] = '\0';
	assert_int_equal(vet_head(text, sizeof(text), BODY_MAX, &h), OC_INVALID_REQUEST);

	memset(text, 'a', sizeof(text));
	memcpy(text, get, sizeof(get) - 1);
	for (size_t i = 0; i < VET_HEAD_MAX; i += 4096)
		memcpy(text + sizeof(get) - 1 + i, "A:", 2),
			memcpy(text + sizeof(get) - 1 + i + 4094, "\r\n", 2);
	n = sizeof(get) - 1 + VET_HEAD_MAX;
	text[n + 1] = '\0';
	assert_int_equal(vet_head(text, n + 1, BODY_MAX, &h), OC_PENDING);
	assert_int_equal(vet_head(text, n + 2, BODY_MAX, &h), OC_HEADERS_TOO_LARGE);
	assert_int_equal(vet_head(text, sizeof(text), BODY_MAX, &h), OC_HEADERS_TOO_LARGE);
}

/* All header lines together, their ends included, may be VET_HEAD_MAX bytes, and not one more. */
static void test_all_fields_up_to_the_bound(void **state)
{
	static const char get[] = "GET / HTTP/1.1\r\n";
	static char text[VET_HEAD_MAX + 100];

	(void)state;
	for (size_t over = 0; over <= 1; over++) {
		size_t n = sizeof(get) - 1 + VET_HEAD_MAX + over;

		memset(text, 'a', sizeof(text));
		memcpy(text, get, sizeof(get) - 1);
		for (size_t i = sizeof(get) - 1; i < n; i += 4096)
			memcpy(text + i, i < 4096 ? "Host:" : "A:", i < 4096 ? 5 : 2),
				memcpy(text + (i + 4096 + over < n ? i + 4096 : n) - 2, "\r\n", 2);
		memcpy(text + n, "\r\n", 2);
		assert_int_equal(vet_head(text, n + 2, BODY_MAX, &h),
			over ? OC_HEADERS_TOO_LARGE : OC_OK);
	}
}

/* Every byte, in a name, in a value and in a host, against the rules as the RFCs write them. */
static void test_every_byte(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		bool alnum =
			(c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
		bool name = alnum || (c && strchr("!#$%&'*+-.^_`|~", c)),
		     value = c == '\t' || (c >= ' ' && c != 0x7f);
		char text[80], host = (char)c;

		int n = snprintf(text, sizeof(text),
			"GET / HTTP/1.1\r\nHost: x\r\nX%cY: a%cb\r\n\r\n", 'x', 'x');
		char *at = strchr(text, 'X');

		at[1] = (char)c;
		if (c != ':') /* ends the name */
			assert_int_equal(vet_head(text, (size_t)n, 0, &h) == OC_OK, name);
		at[1] = 'x';
		at[6] = (char)c;
		if (c != '\r')
			assert_int_equal(vet_head(text, (size_t)n, 0, &h) == OC_OK, value);
		assert_int_equal(vet_host(&host, 1),
			alnum || c == ':' || (c && strchr("-._~!$&'()*+,;=", c)));
	}
}

static void test_how_much_of_a_refused_head_is_whole(void **state)
{
	static const struct { const char *text; size_t len, fields; } rows[] = {
		{"no request line\r\n\r\n", 0, 0}, {"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 0, 0},
		{"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 25, 1}, {"GET / HTTP/1.1\r\nHost: x\r\nX: y", 25, 1},
		{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 29, 1},
	};


	(void)state;
	for (size_t i = 0; i < NELEM(rows); i++) {
		memset(&h, 0xff, sizeof(h)); /* what the head before left */
		assert_int_not_equal(vet_head(rows[i].text, strlen(rows[i].text), 0, &h), OC_OK);
		assert_int_equal(h.len, rows[i].len);
		assert_int_equal(h.field_count, rows[i].fields);
		assert_true(h.method_len + h.path + h.path_len + h.query + h.query_len + h.host +
				    h.host_len <=
			    6 * h.len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_how_much_of_a_refused_head_is_whole),
		cmocka_unit_test(test_good_heads),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_every_prefix),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_chunk_bounds),
		cmocka_unit_test(test_too_long_is_final),
		cmocka_unit_test(test_all_fields_up_to_the_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
