/* clang-format off */
/* Writes what the documents say of each configuration key and each metric, from the one table of
 * each (make docs). Not part of the server.
 *
 *   confdoc md PAGE       writes the tables of PAGE anew: each is between
 *                         <!-- keys: SECTION --> and <!-- end -->
 *   confdoc example       writes the example configuration
 *   confdoc man PAGE      as md, for a man page: between .\" keys: SECTION and .\" end
 *   confdoc metrics PAGE  as md, between <!-- metrics: all --> and <!-- end --> */
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "config/private.h"

enum { WIDTH = 100 };

static const char *title(const char *section)
{
	return strcmp(section, "app") ? section : "app wx0123456789abcdef";
}

/* What may be given: bounds, words, or the type's name. */
static void print_values(struct buf *b, const struct key *k)
{
	static const char *const types[] = {
		[T_TEXT] = "text",
		[T_PATH] = "file",
		[T_SECRET] = "text",
		[T_SECRETS] = "list",
		[T_KEYS] = "list",
		[T_LIST] = "list",
		[T_MODE] = "octal mode",
		[T_RATE] = "count/duration",
		[T_BOOL] = "yes, no",
	};

	if (k->type == T_WORD) {
		for (const char *w = k->words; *w; w++)
			buf_printf(b, *w == ' ' ? ", " : "%c", *w);
	} else if (k->type < NELEM(types) && types[k->type]) {
		buf_str(b, types[k->type]);
	} else {
		value_print(b, k, k->min);
		buf_str(b, " to ");
		value_print(b, k, k->max);
	}
}

static void md_row(const struct key *k)
{
	struct buf values = {0};

	print_values(&values, k);
	printf("| `%s`%s | %s%s%s | %s | ", k->name, key_is_secret(k) ? " (`_file`)" : "",
		*k->fallback ? "`" : "", k->fallback, *k->fallback ? "`" : "", values.data);
	for (const char *p = k->help; *p; p++)
		printf(*p == '|' ? "\\|" : "%c", *p);
	printf(" | %s |\n", k->reload ? "reload" : "restart");
	buf_free(&values);
}

static void md_table(const char *section)
{
	puts("| key | default | values | meaning | a change needs |\n| --- | --- | --- | --- | --- "
	     "|");
	for (size_t i = 0; i < key_count; i++)
		if (!strcmp(key_table[i].section, section))
			md_row(&key_table[i]);
}

static void roff(const char *text)
{
	if (*text == '.' || *text == '\'')
		printf("\\&"); /* else it would be a request */
	for (; *text; text++)
		if (*text == '-' || *text == '\\')
			printf(*text == '-' ? "\\-" : "\\e");
		else
			putchar(*text);
}

static void man_table(const char *section)
{
	for (size_t i = 0; i < key_count; i++) {
		const struct key *k = &key_table[i];
		struct buf values = {0};

		if (strcmp(k->section, section))
			continue;
		print_values(&values, k);
		printf(".TP\n.B %s", k->name);
		printf("\n");
		roff(k->help);
		printf("\nValues: ");
		roff(values.data);
		printf(". Default: ");
		roff(*k->fallback ? k->fallback : "empty");
		printf(". A change needs a %s.\n", k->reload ? "reload" : "restart");
		if (key_is_secret(k))
			printf("Can be read from a file: %s_file.\n", k->name);
		buf_free(&values);
	}
}

static void metric_row(const char *kind, const char *name, const char *labels, const char *help)
{
	bool is_counter = !strcmp(kind, "COUNTER") || !strcmp(kind, "SECONDS");

	printf("| `%s%s` | %s | ", strncmp(name, "process_", 8) ? "wxlogind_" : "", name,
		is_counter ? "counter" : !strcmp(kind, "HISTOGRAM") ? "histogram" : "gauge");
	for (const char *p = labels; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
		printf("%s`%.*s`", p == labels ? "" : ", ", (int)strcspn(p, ","), p);
	printf(" | %s |\n", help);
}

static void metric_table(const char *which)
{
	(void)which;
	puts("| metric | type | labels | what it counts |\n| --- | --- | --- | --- |");
#define X(id, type, name, labels, help) metric_row(#type, name, labels, help);
	METRICS(X)
#undef X
}

/* Between the line that begins with open and names a section, and the line that is close, the table
 * of that section. */
static int page(
	const char *path, const char *open, const char *close, void (*table)(const char *section))
{
	FILE *f = fopen(path, "r");
	char line[4096], section[32];
	bool skip = false;
	size_t n = strlen(open);

	if (!f) {
		perror(path);
		return 1;
	}
	while (fgets(line, sizeof(line), f)) {
		bool ends = !strncmp(line, close, strlen(close));

		if (!skip || ends)
			fputs(line, stdout);
		skip = skip && !ends;
		if (!skip && !strncmp(line, open, n) &&
			sscanf(line + n, "%31[a-z]", section) == 1) {
			table(section);
			skip = true;
		}
	}
	fclose(f);
	return 0;
}

/* "; " before each line of a sentence. */
static void comment(const char *text)
{
	while (*text) {
		size_t n = strlen(text), cut = n;

		if (n > WIDTH - 2)
			for (cut = WIDTH - 2; cut > 0 && text[cut] != ' '; cut--)
				;
		printf("; %.*s\n", (int)cut, text);
		text += cut + strspn(text + cut, " ");
	}
}

static void example(void)
{
	const char *section = "";

	puts("; wxlogind: every key with its default. Uncomment what you change. wxlogind.ini(5) "
	     "says more.\n"
	     "; Any key can also come from the environment: [section] key is "
	     "WXLOGIND_SECTION_KEY.\n"
	     "; After a change: wxlogind --check");
	for (size_t i = 0; i < key_count; i++) {
		const struct key *k = &key_table[i];

		if (strcmp(section, k->section))
			printf("\n%s[%s]\n", k->app ? "; one section for each mini program\n" : "",
				title(k->section));
		section = k->section;
		puts("");
		comment(k->help);
		if (key_is_secret(k))
			printf("; From a file: %s_file = /path\n", k->name);
		if (!strcmp(k->full, "app.secret"))
			puts("secret_file = /etc/wxlogind/appsecret");
		else
			printf(";%s =%s%s\n", k->name, *k->fallback ? " " : "", k->fallback);
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "md"))
		return page(argv[2], "<!-- keys: ", "<!-- end -->", md_table);
	if (argc == 3 && !strcmp(argv[1], "man"))
		return page(argv[2], ".\\\" keys: ", ".\\\" end", man_table);
	if (argc == 3 && !strcmp(argv[1], "metrics"))
		return page(argv[2], "<!-- metrics: ", "<!-- end -->", metric_table);
	if (argc == 2 && !strcmp(argv[1], "example")) {
		example();
		return 0;
	}
	fputs("usage: confdoc md PAGE | man PAGE | metrics PAGE | example\n", stderr);
	return 2;
}
