#include "io/sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum { ASK_MS = 100, PENDING = 4, NAME_LEN_MAX = 256, TROUBLE_MAX = 200 };

struct sentinel {
	struct sentinels *all;
	struct conn *conn;
	bool     asked;              /* a question is on its way */
	int64_t  asked_ms, sent_ms;  /* when; and when the last answered one was */
	char     host[NAME_LEN_MAX]; /* of the master that it names; "" = none */
	int      port;
	bool     unknown;            /* it knows no master of that name */
};

struct sentinels {
	struct sentinels_options o;
	char *master_name;
	struct timer *timer;
	char host[NAME_LEN_MAX];     /* the master */
	int  port;
	int  conns;                  /* not gone yet */
	bool warned;                 /* of a name that nobody knows */
	struct sentinel each[SENTINELS_MAX];
};

static bool names(const struct sentinel *one, const char *host, int port)
{
	return one->host[0] && one->port == port && !strcmp(one->host, host);
}

static int64_t proven_ms(const struct sentinels *s)
{
	struct vote votes[SENTINELS_MAX];

	for (size_t i = 0; i < s->o.count; i++)
		votes[i] = (struct vote){names(&s->each[i], s->host, s->port), s->each[i].sent_ms};
	return quorum_ms(votes, s->o.count);
}

/* Whom this one names, if more than half did so lately. */
static bool majority_names(const struct sentinels *s, const struct sentinel *one)
{
	int64_t lately = clock_ms() - 2 * s->o.timeout_ms;
	size_t n = 0;

	for (size_t i = 0; i < s->o.count; i++)
		n += names(&s->each[i], one->host, one->port) && s->each[i].sent_ms >= lately;
	return 2 * n > s->o.count;
}

static void adopt(struct sentinels *s, const struct sentinel *one)
{
	log_info("the sentinels name a master", LOG_STR("name", s->master_name),
		LOG_STR("host", one->host), LOG_INT("port", one->port));
	snprintf(s->host, sizeof(s->host), "%s", one->host);
	s->port = one->port;
	s->o.on_master(s->o.ctx, s->host, s->port);
}

static void warn_of_unknown_name(struct sentinels *s)
{
	if (!s->warned)
		log_error("a sentinel knows no master of that name: see redis.url",
			LOG_STR("name", s->master_name));
	s->warned = true;
}

static void read_answer(struct sentinel *one, const struct redisReply *v)
{
	const char *host = redis_reply_str(redis_reply_at(v, 0), NULL),
		   *port = redis_reply_str(redis_reply_at(v, 1), NULL);
	char *end = NULL;
	long n = port ? strtol(port, &end, 10) : 0;

	one->host[0] = '\0';
	one->unknown = redis_reply_is_nil(v);
	if (one->unknown)
		warn_of_unknown_name(one->all);
	if (!host || strlen(host) >= NAME_LEN_MAX || n < 1 || n > 65535 || *end)
		return;
	snprintf(one->host, sizeof(one->host), "%s", host);
	one->port = (int)n;
}

static void on_answer(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct sentinel *one = a->owner;
	struct sentinels *s = one->all;

	one->asked = false;
	if (fate != CONN_ANSWERED)
		return;
	one->sent_ms = one->asked_ms;
	read_answer(one, v);
	if (one->host[0] && !names(one, s->host, s->port) && majority_names(s, one))
		adopt(s, one);
	if (s->host[0])
		s->o.on_proof(s->o.ctx, proven_ms(s));
}

static void ask(struct sentinel *one)
{
	struct asked a = {.fn = on_answer, .owner = one};

	if (one->asked || !conn_is_up(one->conn))
		return;
	one->asked_ms = clock_ms();
	one->asked = CONN_SEND(
		one->conn, &a, "SENTINEL", "get-master-addr-by-name", one->all->master_name);
}

static void on_timer(void *ctx)
{
	struct sentinels *s = ctx;

	timer_start(s->timer, ASK_MS);
	for (size_t i = 0; i < s->o.count; i++)
		ask(&s->each[i]);
}

static void on_state(void *ctx, bool up)
{
	struct sentinel *one = ctx;

	one->asked = false;
	if (!up)
		return;
	conn_is_right(one->conn);
	ask(one);
}

static void on_conn_gone(void *ctx)
{
	struct sentinel *one = ctx;
	struct sentinels *s = one->all;

	if (--s->conns > 0)
		return;
	s->o.on_gone(s->o.ctx);
	free(s->master_name);
	free(s);
}

struct sentinels *sentinels_new(struct loop *l, const struct sentinels_options *o)
{
	struct sentinels *s = mem_alloc(sizeof(*s));

	s->o = *o;
	s->master_name = mem_strdup(o->master_name);
	s->conns = (int)o->count;
	for (size_t i = 0; i < o->count; i++) {
		s->each[i] = (struct sentinel){.all = s, .sent_ms = PROOF_NEVER};
		s->each[i].conn = conn_new(l, &(struct conn_options){.host = o->hosts[i].host,
						      .port = o->hosts[i].port,
						      .user = o->user,
						      .password = o->password,
						      .timeout_ms = o->timeout_ms,
						      .max_pending = PENDING,
						      .tls = o->tls,
						      .purpose = "sentinel",
						      .on_state = on_state,
						      .on_gone = on_conn_gone,
						      .ctx = &s->each[i]});
	}
	s->timer = timer_new(l, on_timer, s);
	timer_start(s->timer, ASK_MS);
	return s;
}

void sentinels_free(struct sentinels *s)
{
	size_t count;

	if (!s)
		return;
	timer_free(s->timer);
	count = s->o.count;
	for (size_t i = 0; i < count; i++)
		conn_free(s->each[i].conn); /* with the last one s goes */
}

const char *sentinels_trouble(const struct sentinels *s)
{
	static char text[TROUBLE_MAX];
	size_t up = 0, unknown = 0;

	for (size_t i = 0; i < s->o.count; i++) {
		up += conn_is_up(s->each[i].conn);
		unknown += s->each[i].unknown;
	}
	if (proven_ms(s) >= clock_ms() - s->o.timeout_ms)
		return "";
	if (unknown)
		snprintf(text, sizeof(text),
			"%zu of %zu sentinels know no master of the name %.64s", unknown,
			s->o.count, s->master_name);
	else
		snprintf(text, sizeof(text),
			"%zu of %zu sentinels answer, and fewer than a majority agree on one "
			"master",
			up, s->o.count);
	return text;
}
