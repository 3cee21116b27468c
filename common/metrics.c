#include "common/metrics.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum type { COUNTER, GAUGE, HISTOGRAM };
enum { LABELS_MAX = 3 };

static const struct metric {
	enum type type;
	const char *name, *labels, *help;
} metrics[] = {
#define X(id, type, name, labels, help) {type, name, labels, help},
	METRICS(X)
#undef X
};

static const struct { int64_t us; const char *le; } buckets[] = {
	{500, "0.0005"}, {1000, "0.001"}, {2500, "0.0025"}, {5000, "0.005"}, {10000, "0.01"}, {25000, "0.025"}, {50000, "0.05"},
	{100000, "0.1"}, {250000, "0.25"}, {500000, "0.5"}, {1000000, "1"}, {2500000, "2.5"}, {5000000, "5"}, {10000000, "10"},
};

struct metric_series {
	struct metric_series *next;
	char   *labels; /* as printed: a="b",c="d" */
	char   *values[LABELS_MAX];
	int64_t value;                    /* counters and gauges */
	int64_t bucket[NELEM(buckets)];   /* not yet summed up */
	int64_t count, sum_us;
};

static struct metric_series *heads[METRIC_COUNT];
static int sizes[METRIC_COUNT];

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static struct metric_series *find(enum metric_id id, const char *const v[LABELS_MAX])
{
	struct metric_series *s = heads[id];

	while (s && !(same(s->values[0], v[0]) && same(s->values[1], v[1]) && same(s->values[2], v[2])))
		s = s->next;
	return s;
}

static void add_label(struct buf *b, const char *name, size_t n, const char *value)
{
	buf_printf(b, "%s%.*s=\"", b->len ? "," : "", (int)n, name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			buf_printf(b, "\\%c", *value);
		else if (*value == '\n')
			buf_str(b, "\\n");
		else
			buf_add(b, value, 1);
	}
	buf_str(b, "\"");
}

static struct metric_series *make(enum metric_id id, const char *const v[LABELS_MAX])
{
	struct metric_series *s = mem_alloc(sizeof(*s)), **at = &heads[id];
	const char *name = metrics[id].labels;
	struct buf b = {0};

	buf_str(&b, "");
	for (int i = 0; i < LABELS_MAX && *name; i++) {
		size_t n = strcspn(name, ",");

		add_label(&b, name, n, v[i] ? v[i] : "");
		name += n + (name[n] == ',');
	}
	s->labels = mem_strdup(b.data);
	buf_free(&b);
	for (int i = 0; i < LABELS_MAX; i++)
		s->values[i] = mem_strdup(v[i]);
	while (*at)
		at = &(*at)->next; /* in the order of their first use */
	*at = s;
	sizes[id]++;
	return s;
}

struct metric_series *metric_series(enum metric_id id, const char *v1, const char *v2, const char *v3)
{
	const char *const v[LABELS_MAX] = {v1, v2, v3};
	const char *const other[LABELS_MAX] = {v1 ? "other" : NULL, v2 ? "other" : NULL, v3 ? "other" : NULL};
	struct metric_series *s = find(id, v);

	if (s)
		return s;
	if (sizes[id] < METRIC_SERIES_MAX)
		return make(id, v);
	s = find(id, other);
	return s ? s : make(id, other);
}

void metric_add(struct metric_series *s, int64_t n)
{
	s->value += n;
}

void metric_set(struct metric_series *s, int64_t value)
{
	s->value = value;
}

void metric_observe_us(struct metric_series *s, int64_t us)
{
	s->count++;
	s->sum_us += us;
	for (size_t i = 0; i < NELEM(buckets); i++)
		if (us <= buckets[i].us) {
			s->bucket[i]++;
			return;
		}
}

static void print_histogram(struct buf *out, const char *name, const struct metric_series *s)
{
	const char *comma = *s->labels ? "," : "", *open = *s->labels ? "{" : "", *close = *s->labels ? "}" : "";
	int64_t sum = 0;

	for (size_t i = 0; i < NELEM(buckets); i++) {
		sum += s->bucket[i];
		buf_printf(out, "wxlogind_%s_bucket{%s%sle=\"%s\"} %" PRId64 "\n", name, s->labels, comma, buckets[i].le, sum);
	}
	buf_printf(out, "wxlogind_%s_bucket{%s%sle=\"+Inf\"} %" PRId64 "\n", name, s->labels, comma, s->count);
	buf_printf(out, "wxlogind_%s_sum%s%s%s %.6f\n", name, open, s->labels, close, (double)s->sum_us / 1e6);
	buf_printf(out, "wxlogind_%s_count%s%s%s %" PRId64 "\n", name, open, s->labels, close, s->count);
}

void metrics_print(struct buf *out)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};

	for (int id = 0; id < METRIC_COUNT; id++) {
		const struct metric *m = &metrics[id];

		buf_printf(out, "# HELP wxlogind_%s %s\n# TYPE wxlogind_%s %s\n", m->name, m->help, m->name, types[m->type]);
		for (const struct metric_series *s = heads[id]; s; s = s->next) {
			if (m->type == HISTOGRAM)
				print_histogram(out, m->name, s);
			else
				buf_printf(out, "wxlogind_%s%s%s%s %" PRId64 "\n", m->name, *s->labels ? "{" : "", s->labels,
					*s->labels ? "}" : "", s->value);
		}
	}
}
