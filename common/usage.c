/* From getrusage(2) and /proc/self. What cannot be read stays as it was. */
#include "common/usage.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/metrics.h"

static void set_metric(enum metric_id id, int64_t value)
{
	metric_set(metric_series(id, NULL, NULL, NULL), value);
}

static int64_t micros(const struct timeval *tv)
{
	return (int64_t)tv->tv_sec * 1000000 + tv->tv_usec;
}

/* What was added since the last time: a worker goes on counting where the one before it ended. */
static void measure_cpu(void)
{
	static int64_t counted_us;
	struct rusage u;
	int64_t us;

	if (getrusage(RUSAGE_SELF, &u))
		return;
	us = micros(&u.ru_utime) + micros(&u.ru_stime);
	metric_add(metric_series(METRIC_PROCESS_CPU, NULL, NULL, NULL), us - counted_us);
	counted_us = us;
}

static void measure_memory(void)
{
	long long pages, resident, page = sysconf(_SC_PAGESIZE);
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return;
	if (fscanf(f, "%lld %lld", &pages, &resident) == 2) {
		set_metric(METRIC_PROCESS_VIRTUAL, pages * page);
		set_metric(METRIC_PROCESS_RESIDENT, resident * page);
	}
	fclose(f);
}

static void measure_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct rlimit limit;
	int n = -3; /* ., .. and its own */

	if (d) {
		while (readdir(d)) /* cppcheck-suppress readdirCalled ; the stream is this thread's alone */
			n++;
		closedir(d);
		set_metric(METRIC_PROCESS_FDS, n);
	}
	if (!getrlimit(RLIMIT_NOFILE, &limit))
		set_metric(METRIC_PROCESS_MAX_FDS, (int64_t)limit.rlim_cur);
}

void usage_measure(void)
{
	static time_t started;

	if (!started)
		started = time(NULL);
	set_metric(METRIC_PROCESS_START, started);
	measure_cpu();
	measure_memory();
	measure_descriptors();
}
