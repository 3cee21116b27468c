/* A configuration file of anybody's making: it is refused with a word of why, or taken without one;
 * read twice it is the same; what is taken is within bounds. Files are memory here: the
 * configuration, and one secret under any other name but "away". */
#include "fuzz.h"

static const uint8_t *the_file;
static size_t the_file_len;

static FILE *open_memory(const char *path, const char *mode)
{
	static char secret[] = "c2VjcmV0\n";

	(void)mode;
	if (!strcmp(path, "the file"))
		return the_file_len ? fmemopen((void *)(uintptr_t)the_file, the_file_len, "r")
				    : fmemopen(secret, 0, "r");
	return strcmp(path, "away") ? fmemopen(secret, sizeof(secret) - 1, "r") : NULL;
}

#define fopen open_memory
#include "server/config/read.c"
#undef fopen

static int errors;

static void on_said(void *ctx, bool is_error, const char *text)
{
	(void)ctx;
	MUST(*text);
	errors += is_error;
}

static void within_bounds(const struct config *c)
{
	MUST(c->listen.n > 0 && c->internal_listen.n > 0);
	for (size_t i = 0; i < key_count; i++) {
		const struct key *k = &key_table[i];

		if (k->type >= T_INT && k->type <= T_DURATION && !k->app) {
			int64_t v = *(const int64_t *)((const char *)c + k->offset);

			MUST(v >= k->min && v <= k->max);
		}
	}
	MUST((c->redis_path && *c->redis_path) || c->redis_host_count > 0);
	MUST(c->redis_db >= 0);
	for (size_t i = 0; i < c->redis_host_count; i++)
		MUST(*c->redis_hosts[i].host && c->redis_hosts[i].port > 0 &&
			c->redis_hosts[i].port <= 65535);
	MUST(c->app_count > 0);
	for (size_t i = 0; i < c->app_count; i++)
		MUST(*c->apps[i].appid && c->apps[i].secrets.n > 0 && *c->apps[i].secrets.items[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *names[4];
	struct config *one, *two;
	int first;

	the_file = data;
	the_file_len = size;
	errors = 0;
	one = config_load("the file", on_said, NULL);
	first = errors;
	MUST((one != NULL) == (errors == 0));
	two = config_load("the file", on_said, NULL);
	MUST((two != NULL) == (one != NULL) && errors == 2 * first);
	if (one) {
		within_bounds(one);
		MUST(config_changed(one, two, names, NELEM(names)) == 0);
	}
	config_free(one);
	config_free(two);
	return 0;
}
