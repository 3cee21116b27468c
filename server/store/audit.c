/* Every line is a job of the helper thread's. A job without text asks it to open the file anew. */
#include "store/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/encode.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "io/jobs.h"

enum {
	FILE_MODE = 0640,
	JOB_LIMIT_MS = 60000,
	GRACE_MS = 2000,
	SAY_EVERY_MS = 1000,
	USER_LEN = 16
};

/* What the thread works on. It outlives the audit when the thread hangs. */
struct file {
	char *path;
	int fd;
	bool torn; /* the last write left part of a line */
};

struct audit {
	struct jobs *jobs;
	bool hash;
	uint8_t key[SHA256_LEN];
	int64_t said_ms, lost; /* when loss was logged last, and how many lines since */
};

struct line_job {
	struct job job;
	struct audit *audit;
	size_t len; /* 0: open the file anew */
	char text[];
};

/* ---- the thread ---- */

/* Mode 0640 whatever the umask is; a file that is there keeps its own. */
static int open_file(const char *path)
{
	const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd = open(path, flags);

	if (fd < 0 && errno == ENOENT) {
		fd = open(path, flags | O_CREAT | O_EXCL, FILE_MODE);
		if (fd >= 0)
			(void)fchmod(fd, FILE_MODE);
		else if (errno == EEXIST) /* another process was faster */
			fd = open(path, flags);
	}
	return fd;
}

static void reopen(struct file *f)
{
	int fd = open_file(f->path);

	if (fd < 0) {
		log_error("the audit log cannot be reopened: writing goes on in the old file",
			LOG_STR("file", f->path), LOG_STR("cause", strerror(errno)));
		return;
	}
	close(f->fd);
	f->fd = fd;
	f->torn = false;
}

/* A line that was cut short is ended before the next one, so that only itself is lost. */
static enum outcome write_line(struct file *f, const char *text, size_t len)
{
	ssize_t n;

	if (f->torn && write(f->fd, "\n", 1) != 1)
		return OC_STORE_UNAVAILABLE;
	f->torn = false;
	n = write(f->fd, text, len);
	f->torn = n > 0 && (size_t)n < len;
	return n == (ssize_t)len ? OC_OK : OC_STORE_UNAVAILABLE;
}

static void run(void *ctx, struct job *const *batch, size_t n)
{
	struct file *f = ctx;

	for (size_t i = 0; i < n; i++) {
		struct line_job *line = (struct line_job *)batch[i];

		line->job.oc = OC_OK;
		if (line->len)
			line->job.oc = write_line(f, line->text, line->len);
		else
			reopen(f);
	}
}

static void end(void *ctx)
{
	struct file *f = ctx;

	close(f->fd);
	free(f->path);
	free(f);
}

static void drop(struct job *job)
{
	free(job);
}

/* ---- the loop ---- */

struct audit *audit_new(struct loop *l, const struct audit_options *o, char *why, size_t why_len)
{
	struct file *f;
	struct audit *a;
	int fd = open_file(o->file);

	if (fd < 0) {
		snprintf(why, why_len, "%s", strerror(errno));
		return NULL;
	}
	f = mem_alloc(sizeof(*f));
	*f = (struct file){.path = mem_strdup(o->file), .fd = fd};
	a = mem_alloc(sizeof(*a));
	a->hash = o->key != NULL;
	if (o->key)
		crypt_hmac_sha256(a->key, o->key, SEAL_KEY_LEN, "audit", strlen("audit"));
	a->jobs = jobs_new(l, &(struct jobs_options){
		.ctx = f, .queue_max = o->queue_max, .run = run, .end = end, .drop = drop});
	if (!a->jobs) {
		snprintf(why, why_len, "no thread can be started");
		end(f);
		free(a);
		return NULL;
	}
	metric_series(METRIC_AUDIT_LOST, NULL, NULL, NULL); /* there from the start, at 0 */
	return a;
}

void audit_free(struct audit *a)
{
	if (!a)
		return;
	jobs_free(a->jobs, GRACE_MS);
	mem_wipe(a->key, sizeof(a->key));
	free(a);
}

static void say_loss(struct audit *a, enum outcome oc)
{
	int64_t now = clock_ms();

	a->lost++;
	metric_add(metric_series(METRIC_AUDIT_LOST, NULL, NULL, NULL), 1);
	if (a->said_ms && now - a->said_ms < SAY_EVERY_MS)
		return;
	log_error("audit lines were lost: check the disk of [audit] file",
		LOG_INT("lines", a->lost),
		LOG_STR("cause",
			oc == OC_OVERLOADED ? "the queue is full" : "it could not be written"));
	a->said_ms = now;
	a->lost = 0;
}

static void on_written(struct job *job, enum outcome oc)
{
	if (oc != OC_OK)
		say_loss(((struct line_job *)job)->audit, oc);
}

static void add_job(struct audit *a, const char *text, size_t len)
{
	struct line_job *line = mem_alloc(sizeof(*line) + len);

	line->audit = a;
	line->len = len;
	if (len)
		memcpy(line->text, text, len);
	jobs_add(a->jobs, &line->job, JOB_LIMIT_MS, true, on_written);
}

void audit_reopen(struct audit *a)
{
	if (a)
		add_job(a, NULL, 0);
}

/* ---- a line ---- */

void audit_user(const struct audit *a, char out[AUDIT_USER_SIZE], const char *appid,
	const char *openid)
{
	struct buf name = {0};
	uint8_t hash[SHA256_LEN];

	*out = '\0';
	if (!a || !*openid)
		return;
	if (!a->hash) {
		snprintf(out, AUDIT_USER_SIZE, "%s", openid);
		return;
	}
	buf_str(&name, appid);
	buf_str(&name, " ");
	buf_str(&name, openid);
	crypt_hmac_sha256(hash, a->key, sizeof(a->key), name.data, name.len);
	hex_encode(out, hash, USER_LEN);
	buf_free(&name);
}

static void add_time(struct buf *b)
{
	int64_t ms = clock_wall_ms();
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;
	char day[24], text[32];

	gmtime_r(&seconds, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03dZ", day, (int)(ms % 1000));
	json_add_str(b, "time", text);
}

static void add_text(struct buf *b, const char *key, const char *value)
{
	if (value && *value)
		json_add_str(b, key, value);
}

void audit_add(struct audit *a, const struct audit_line *line)
{
	static const char *const events[] = {
#define X(id, name, help) name,
		AUDIT_EVENTS(X)
#undef X
	};
	static const char *const by[] = {"user", "backend", "wechat"};
	char user[AUDIT_USER_SIZE];
	struct buf b = {0};

	if (!a)
		return;
	audit_user(a, user, line->appid ? line->appid : "", line->openid ? line->openid : "");
	json_open(&b, NULL, '{');
	add_time(&b);
	add_text(&b, "event", events[line->event]);
	add_text(&b, "appid", line->appid);
	add_text(&b, "user", user);
	add_text(&b, "by", by[line->by]);
	add_text(&b, "actor", line->actor);
	add_text(&b, "ip", line->ip);
	add_text(&b, "request_id", line->request_id);
	add_text(&b, "result", line->result);
	add_text(&b, "detail", line->detail);
	json_close(&b, '}');
	buf_str(&b, "\n");
	add_job(a, b.data, b.len);
	buf_free(&b);
}
