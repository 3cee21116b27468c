/* The known name nearest to an unknown one. Further away than three letters it would be a guess,
 * and none is made. */
#include "config/private.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { NEAR = 3, ROW = 64 };

/* Edit distance (Levenshtein), letters of either case alike. */
static size_t distance(const char *a, const char *b)
{
	size_t row[ROW], n = strlen(b);

	if (n >= ROW)
		return n;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t corner = row[0]++;

		for (size_t j = 1; j <= n; j++) {
			size_t best = corner + (tolower((unsigned char)a[i - 1]) !=
						       tolower((unsigned char)b[j - 1]));

			corner = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
		}
	}
	return row[n];
}

struct nearest {
	const char *name;
	char best[ROW];
	size_t least;
};

static void look_at(struct nearest *s, const char *candidate)
{
	size_t d = distance(s->name, candidate);

	if (d >= s->least || d >= strlen(candidate))
		return;
	s->least = d;
	snprintf(s->best, sizeof(s->best), "%s", candidate);
}

static void add(struct buf *out, const char *before, const struct nearest *s, const char *after)
{
	if (*s->best)
		buf_printf(out, "%s%s%s", before, s->best, after);
}

void suggest_section(struct buf *out, const char *name)
{
	struct nearest s = {.name = name, .least = NEAR + 1};

	for (size_t i = 0; i < key_count; i++)
		if (!key_table[i].app)
			look_at(&s, key_table[i].section);
	if (!strncmp(name, "app", 3) || !strncmp(name, "wx", 2))
		buf_str(out, ": did you mean [app wx...], with the appid?");
	else
		add(out, ": did you mean [", &s, "]?");
}

void suggest_key(struct buf *out, const char *section, const char *name)
{
	struct nearest s = {.name = name, .least = NEAR + 1};
	char twin[ROW];

	for (size_t i = 0; i < key_count; i++) {
		if (strcmp(key_table[i].section, section))
			continue;
		look_at(&s, key_table[i].name);
		snprintf(twin, sizeof(twin), "%s_file", key_table[i].name);
		if (key_is_secret(&key_table[i]))
			look_at(&s, twin);
	}
	add(out, ": did you mean ", &s, "?");
}

void suggest_variable(struct buf *out, const char *name)
{
	struct nearest s = {.name = name, .least = NEAR + 1};
	char want[ENV_NAME_MAX];

	for (size_t i = 0; i < key_count; i++) {
		key_variable(want, &key_table[i]);
		look_at(&s, want);
		snprintf(want + strlen(want), sizeof(want) - strlen(want), "_FILE");
		if (key_is_secret(&key_table[i]))
			look_at(&s, want);
	}
	look_at(&s, "WXLOGIND_APPID");
	add(out, ": did you mean ", &s, "?");
}
