/* Counters, gauges and histograms, declared once in the list below, printed in Prometheus' text
 * format. A metric has at most three labels; every label set is made on first use, up to
 * METRIC_SERIES_MAX per metric (the rest is counted under "other"), so nothing a caller sends can
 * grow the table.
 *
 * Several processes count as one, whichever of them is asked: each has a table of its own in memory
 * that all share, and printing adds them up. What a process counted outlives it, so that a restart
 * is no step back; its gauges and flags do not. */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include <stdint.h>

#include "common/buf.h"

#define METRIC_SERIES_MAX 256
#define METRIC_LABEL_MAX  64

/* A GAUGE is added up over the processes; a FLAG is 1 when it is 1 in all of them, those that do
 * not live (yet, or again) included; an INFO is 1 when any says so, an EARLIEST is the smallest of
 * them that is not 0, a LATEST the largest. These are printed as gauges. A SECONDS is a counter
 * that is kept in microseconds. id, type, name without wxlogind_ (process_... has none), labels
 * (comma separated), help. make docs writes docs/metrics.md from it. */
#define METRICS(X) \
	X(HTTP_REQUESTS,     COUNTER,   "http_requests_total",     "listener,route,status", "Finished requests.") \
	X(HTTP_SECONDS,      HISTOGRAM, "http_request_seconds",    "route",                 "From the whole request to the answer.") \
	X(WECHAT_REQUESTS,   COUNTER,   "wechat_requests_total",   "api,outcome",           "Calls to WeChat.") \
	X(WECHAT_SECONDS,    HISTOGRAM, "wechat_request_seconds",  "api",                   "Time of a call to WeChat.") \
	X(WECHAT_HOST_UP,    FLAG,      "wechat_host_up",          "host",                  "1 while a host of WeChat is asked; 0 while it is away and skipped (every worker).") \
	X(TOKEN_RENEWALS,    COUNTER,   "access_token_renewals_total", "appid,outcome",     "Renewals of access_tokens.") \
	X(TOKEN_END,         LATEST,    "access_token_end_timestamp_seconds", "appid",      "When the app's access_token ends, in seconds since 1970; 0 before it was needed.") \
	X(REDIS_COMMANDS,    COUNTER,   "redis_commands_total",    "outcome",               "Redis commands.") \
	X(REDIS_CONNECTED,   FLAG,      "redis_connected",         "",                      "1 while Redis answers (every worker).") \
	X(REDIS_WAITING,     GAUGE,     "redis_waiting_commands",  "",                      "Redis commands that wait for a master.") \
	X(REDIS_UNCONFIRMED, COUNTER,   "redis_unconfirmed_ends_total", "",                 "Ends of sessions that too few replicas had in time.") \
	X(REDIS_EPOCHS,      COUNTER,   "redis_epoch_changes_total", "",                    "Times that a Redis Cluster voted for another master.") \
	X(REDIS_NODES,       GAUGE,     "redis_nodes",              "state",                "Redis servers that are asked, by state (ready, away).") \
	X(REDIS_REDIRECTIONS, COUNTER,  "redis_redirections_total", "kind",                 "Commands that a Redis Cluster sent elsewhere (moved, ask).") \
	X(SESSION_CACHE,     COUNTER,   "session_cache_total",     "result",                "Questions to the session cache.") \
	X(LOGINS,            COUNTER,   "logins_total",            "outcome",               "Logins by outcome.") \
	X(USER_REQUESTS,     COUNTER,   "user_requests_total",     "call,outcome",          "Questions to the user database.") \
	X(USERS_UP,          FLAG,      "users_up",                "",                      "1 while the user database answers (every worker).") \
	X(AUDIT_LOST,        COUNTER,   "audit_lost_total",        "",                      "Lines that the audit log lost.") \
	X(PROCESS_CPU,       SECONDS,   "process_cpu_seconds_total",     "",                "CPU time, user and system, of all workers.") \
	X(PROCESS_RESIDENT,  GAUGE,     "process_resident_memory_bytes", "",                "Memory in RAM, of all workers.") \
	X(PROCESS_VIRTUAL,   GAUGE,     "process_virtual_memory_bytes",  "",                "Address space, of all workers.") \
	X(PROCESS_FDS,       GAUGE,     "process_open_fds",              "",                "Open descriptors, of all workers.") \
	X(PROCESS_MAX_FDS,   GAUGE,     "process_max_fds",               "",                "Descriptors that all workers may open.") \
	X(PROCESS_START,     EARLIEST,  "process_start_time_seconds",    "",                "When the oldest worker started, in seconds since 1970.") \
	X(CONNECTIONS,       GAUGE,     "connections",             "listener",              "Open client connections.") \
	X(BUILD_INFO,        INFO,      "build_info",              "version",               "Always 1.")

enum metric_id {
#define X(id, type, name, labels, help) METRIC_##id,
	METRICS(X)
#undef X
	METRIC_COUNT
};

/* one label set; stays valid for the life of the process: keep it for hot paths */
struct metric_series;

/* Label values in the order of the list, as many as the metric has labels; only their first
 * METRIC_LABEL_MAX - 1 bytes count. */
struct metric_series *metric_series(
	enum metric_id id, const char *v1, const char *v2, const char *v3);
void metric_add(struct metric_series *s, int64_t n);      /* counters, gauges */
void metric_set(struct metric_series *s, int64_t value);  /* gauges */
/* histograms, microseconds in, seconds out */
void metric_observe_us(struct metric_series *s, int64_t us);

#define metric_inc1(id, a)    metric_add(metric_series(METRIC_##id, a, NULL, NULL), 1)
#define metric_inc2(id, a, b) metric_add(metric_series(METRIC_##id, a, b, NULL), 1)

/* before they fork, and before anything is counted; not called: one process */
void metrics_share(int processes);
/* in each, first of all: its table is number process from now on */
void metrics_join(int process);
void metrics_leave(int process);   /* by whoever saw it end */

void metrics_print(struct buf *out);

#endif
