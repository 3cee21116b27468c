/* JSON in and out: what json_parse takes is UTF-8 without NUL, at most 32 deep, without twins at
 * the top, and comes out again as it went in; cut short it is refused. Whatever bytes buf_json_str
 * is given, json_parse reads, but for NUL. */
#include "fuzz.h"

#include <float.h>
#include <math.h>

#include "common/buf.h"
#include "common/encode.h"
#include "common/json.h"

enum { DEPTH_MAX = 32 };

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

/* cJSON prints 15 digits where it thinks that they suffice. */
static bool same_number(double a, double b)
{
	double most = fabs(a) > fabs(b) ? fabs(a) : fabs(b);

	return a == b || fabs(a - b) <= most * 2 * DBL_EPSILON;
}

static int type_of(const cJSON *v)
{
	/* Infinity is printed as null, and cJSON rounds what is nearly that up to it. */
	return cJSON_IsNumber(v) && fabs(v->valuedouble) > 1.7976931348623e308 ? cJSON_NULL
									       : v->type & 0xff;
}

static void same(const cJSON *a, const cJSON *b, int depth)
{
	MUST(depth <= DEPTH_MAX + 1);
	for (; a && b; a = a->next, b = b->next) {
		MUST(type_of(a) == type_of(b));
		MUST(same_text(a->string, b->string) && same_text(a->valuestring, b->valuestring));
		MUST(!a->valuestring || utf8_valid(a->valuestring, strlen(a->valuestring)));
		if (type_of(a) == cJSON_Number)
			MUST(same_number(a->valuedouble, b->valuedouble));
		same(a->child, b->child, depth + 1);
	}
	MUST(!a && !b);
}

static void no_twins(const cJSON *tree)
{
	const cJSON *m;

	if (cJSON_IsObject(tree))
		for (m = tree->child; m; m = m->next)
			MUST(cJSON_GetObjectItemCaseSensitive(tree, m->string) == m);
}

static void get_all(const cJSON *tree)
{
	const cJSON *m;
	const char *text;
	int64_t n;

	cJSON_ArrayForEach(m, tree)
	{
		if (!m->string)
			return;
		if (json_str(tree, m->string, 1, 10, &text) == JSON_GOT)
			MUST(cJSON_IsString(m) && text == m->valuestring && strlen(text) >= 1 &&
				strlen(text) <= 10);
		if (json_int(tree, m->string, -1000, 1 << 30, &n) == JSON_GOT)
			MUST(cJSON_IsNumber(m) && (double)n == m->valuedouble && n >= -1000 &&
				n <= 1 << 30);
	}
}

static void accepted(const char *text, size_t n, cJSON *tree)
{
	struct arena *a = arena_new();
	const char *first = json_print(a, tree), *second;
	cJSON *back = json_parse(first, strlen(first)), *cut;

	MUST(utf8_valid(text, n));
	MUST(back);
	same(tree, back, 0);
	second = json_print(a, back);
	MUST(!strcmp(first, second) || strstr(first, "e+308"));
	no_twins(tree);
	get_all(tree);
	json_free(back);
	if (!cJSON_IsNumber(tree) && !strchr(" \t\r\n", text[n - 1])) {
		cut = json_parse(text, n - 1);
		MUST(!cut);
	}
	arena_free(a);
}

static void any_bytes(const char *p, size_t n)
{
	struct buf b = {0};
	cJSON *tree;

	buf_json_str(&b, p, n);
	tree = json_parse(b.data, b.len);
	MUST(n > 0 && memchr(p, '\0', n) ? !tree : tree && cJSON_IsString(tree));
	if (utf8_valid(p, n))
		MUST(strlen(tree->valuestring) == n && !memcmp(tree->valuestring, p, n));
	json_free(tree);
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = exactly(data, size);
	cJSON *tree = json_parse(text, size);

	if (tree)
		accepted(text, size, tree);
	json_free(tree);
	any_bytes(text, size);
	free(text);
	return 0;
}
