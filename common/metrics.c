/* A table per process, in memory that all of them share. Only its own process writes a table, so a
 * plain load and store count; the others read it while it grows, so a series is linked in only when
 * it is whole. */
#include "common/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/mem.h"

enum type { COUNTER, SECONDS, GAUGE, FLAG, INFO, EARLIEST, LATEST, HISTOGRAM };
enum { LABELS_MAX = 3, SERIES_MAX = METRIC_COUNT * (METRIC_SERIES_MAX + 1), NONE = 0 };

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

typedef _Atomic(int64_t) number;
typedef _Atomic(uint32_t) place; /* in a table's series: index + 1, or NONE */

struct metric_series {
	char   values[LABELS_MAX][METRIC_LABEL_MAX];
	place  next;                      /* of the same metric, in the order of first use */
	number value;                     /* counters, gauges and flags */
	number bucket[NELEM(buckets)];    /* not yet summed up */
	number count, sum_us;
};

struct table {
	uint32_t used, sizes[METRIC_COUNT];
	place    first[METRIC_COUNT];
	struct metric_series series[SERIES_MAX];
};

static struct table *tables, *mine;
static int table_count;

void metrics_share(int processes)
{
	/* what no series fills is never touched, and costs nothing */
	tables = mem_shared(sizeof(*tables) * (size_t)processes);
	table_count = processes;
}

static int64_t get(const number *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

static void set(number *n, int64_t value)
{
	atomic_store_explicit(n, value, memory_order_relaxed);
}

static struct metric_series *at(struct table *t, const place *p)
{
	uint32_t i = atomic_load_explicit(p, memory_order_acquire);

	return i == NONE ? NULL : &t->series[i - 1];
}

/* NOLINTBEGIN(bugprone-macro-parentheses): s is declared here */
#define FOR_EACH_SERIES(s, t, id) \
	for (struct metric_series *s = at(t, &(t)->first[id]); s; s = at(t, &s->next))
/* NOLINTEND(bugprone-macro-parentheses) */

static bool is_of_now(enum type type)
{
	return type >= GAUGE && type <= LATEST;
}

void metrics_join(int process)
{
	mine = &tables[process];
}

void metrics_leave(int process)
{
	for (int id = 0; id < METRIC_COUNT; id++)
		FOR_EACH_SERIES(s, &tables[process], id)
			if (is_of_now(metrics[id].type))
				set(&s->value, 0);
}

/* ---- series ---- */

static struct metric_series *find(
	struct table *t, enum metric_id id, const char *const v[LABELS_MAX])
{
	FOR_EACH_SERIES(s, t, id) {
		int i = 0;

		while (i < LABELS_MAX &&
			!strncmp(s->values[i], v[i] ? v[i] : "", METRIC_LABEL_MAX - 1))
			i++;
		if (i == LABELS_MAX)
			return s;
	}
	return NULL;
}

static struct metric_series *make(
	struct table *t, enum metric_id id, const char *const v[LABELS_MAX])
{
	struct metric_series *s = &t->series[t->used++];
	place *last = &t->first[id];

	for (int i = 0; i < LABELS_MAX; i++)
		snprintf(s->values[i], METRIC_LABEL_MAX, "%s", v[i] ? v[i] : "");
	FOR_EACH_SERIES(before, t, id)
		last = &before->next;
	t->sizes[id]++;
	atomic_store_explicit(last, t->used, memory_order_release);
	return s;
}

struct metric_series *metric_series(
	enum metric_id id, const char *v1, const char *v2, const char *v3)
{
	const char *const v[LABELS_MAX] = {v1, v2, v3};
	const char *const other[LABELS_MAX] = {
		v1 ? "other" : NULL, v2 ? "other" : NULL, v3 ? "other" : NULL};
	struct metric_series *s;

	if (!tables)
		metrics_share(1);
	if (!mine)
		metrics_join(0);
	s = find(mine, id, v);
	if (s)
		return s;
	if (mine->sizes[id] < METRIC_SERIES_MAX)
		return make(mine, id, v);
	s = find(mine, id, other);
	return s ? s : make(mine, id, other);
}

static void add(number *n, int64_t more)
{
	set(n, get(n) + more);
}

void metric_add(struct metric_series *s, int64_t n)
{
	add(&s->value, n);
}

void metric_set(struct metric_series *s, int64_t value)
{
	set(&s->value, value);
}

void metric_observe_us(struct metric_series *s, int64_t us)
{
	add(&s->count, 1);
	add(&s->sum_us, us);
	for (size_t i = 0; i < NELEM(buckets); i++)
		if (us <= buckets[i].us) {
			add(&s->bucket[i], 1);
			return;
		}
}

/* ---- printing ---- */

/* One series over all processes. */
struct sum {
	int64_t value, earliest, latest, bucket[NELEM(buckets)], count, sum_us;
};

static void sum_up(struct sum *sum, const struct metric_series *s)
{
	int64_t value = get(&s->value);

	sum->value += value;
	if (value && (!sum->earliest || value < sum->earliest))
		sum->earliest = value;
	if (value > sum->latest)
		sum->latest = value;
	for (size_t i = 0; i < NELEM(buckets); i++)
		sum->bucket[i] += get(&s->bucket[i]);
	sum->count += get(&s->count);
	sum->sum_us += get(&s->sum_us);
}

/* false: an earlier process has it too, and it was printed there. */
static bool collect(enum metric_id id, int process, const struct metric_series *s, struct sum *sum)
{
	const char *const v[LABELS_MAX] = {s->values[0], s->values[1], s->values[2]};

	*sum = (struct sum){0};
	for (int i = 0; i < table_count; i++) {
		const struct metric_series *same = i == process ? s : find(&tables[i], id, v);

		if (same && i < process)
			return false;
		if (same)
			sum_up(sum, same);
	}
	if (metrics[id].type == FLAG)
		sum->value = sum->value == table_count;
	else if (metrics[id].type == INFO)
		sum->value = sum->value > 0;
	else if (metrics[id].type == EARLIEST)
		sum->value = sum->earliest;
	else if (metrics[id].type == LATEST)
		sum->value = sum->latest;
	return true;
}

static void print_label(struct buf *b, const char *name, size_t n, const char *value)
{
	buf_printf(b, "%.*s=\"", (int)n, name);
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

/* {a="b",c="d"}, with le as one more unless it is NULL; nothing where there is no label. */
static void print_labels(
	struct buf *out, const struct metric *m, const struct metric_series *s, const char *le)
{
	const char *name = m->labels, *open = "{";

	for (int i = 0; i < LABELS_MAX && *name; i++) {
		size_t n = strcspn(name, ",");

		buf_str(out, open);
		print_label(out, name, n, s->values[i]);
		open = ",";
		name += n + (name[n] == ',');
	}
	if (le) {
		buf_str(out, open);
		print_label(out, "le", 2, le);
	}
	if (le || *m->labels)
		buf_str(out, "}");
}

/* process_... are the names that every Prometheus client uses. */
static const char *prefix(const struct metric *m)
{
	return strncmp(m->name, "process_", 8) ? "wxlogind_" : "";
}

static void print_sample(struct buf *out, const struct metric *m, const char *suffix,
	const struct metric_series *s, const char *le, int64_t v)
{
	buf_printf(out, "%s%s%s", prefix(m), m->name, suffix);
	print_labels(out, m, s, le);
	if (m->type == SECONDS)
		buf_printf(out, " %.6f\n", (double)v / 1e6);
	else
		buf_printf(out, " %" PRId64 "\n", v);
}

static void print_histogram(struct buf *out, const struct metric *m, const struct metric_series *s,
	const struct sum *sum)
{
	int64_t below = 0;

	for (size_t i = 0; i < NELEM(buckets); i++) {
		below += sum->bucket[i];
		print_sample(out, m, "_bucket", s, buckets[i].le, below);
	}
	/* counted before its bucket, by a process that may be at it just now */
	print_sample(out, m, "_bucket", s, "+Inf", sum->count > below ? sum->count : below);
	buf_printf(out, "wxlogind_%s_sum", m->name);
	print_labels(out, m, s, NULL);
	buf_printf(out, " %.6f\n", (double)sum->sum_us / 1e6);
	print_sample(out, m, "_count", s, NULL, sum->count > below ? sum->count : below);
}

void metrics_print(struct buf *out)
{
	static const char *const types[] = {
		[COUNTER] = "counter", [SECONDS] = "counter", [GAUGE] = "gauge", [FLAG] = "gauge", [INFO] = "gauge", [EARLIEST] = "gauge",
		[LATEST] = "gauge", [HISTOGRAM] = "histogram",
	};
	struct sum sum;

	for (int id = 0; id < METRIC_COUNT; id++) {
		const struct metric *m = &metrics[id];

		buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix(m), m->name, m->help,
			prefix(m), m->name, types[m->type]);
		for (int i = 0; i < table_count; i++)
			FOR_EACH_SERIES(s, &tables[i], id) {
				if (!collect(id, i, s, &sum))
					continue;
				if (m->type == HISTOGRAM)
					print_histogram(out, m, s, &sum);
				else
					print_sample(out, m, "", s, NULL, sum.value);
			}
	}
}
