#include "wechat/peer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

struct peer {
	struct peers *p;
	char   *url;
	char   *path;         /* the probe's; NULL until one is needed */
	int     unconnected;  /* in a row */
	int     unanswered;   /* in a row */
	bool    skipped, probing;
	bool    suspected;    /* no answer has come since the probe was sent */
	int64_t probed_ms;
	struct timer *again;
	struct metric_series *up;
};

struct peers {
	struct peers_options o;
	struct peer *all;
};

static void probe(void *ctx);

const char *peers_url(const struct peers *p, size_t peer)
{
	return p->all[peer].url;
}

size_t peers_pick(const struct peers *p, size_t from)
{
	while (from < p->o.count && p->all[from].skipped)
		from++;
	return from < p->o.count ? from : PEERS_NONE;
}

static bool another_is_healthy(const struct peer *pr)
{
	const struct peers *p = pr->p;

	for (size_t i = 0; i < p->o.count; i++)
		if (&p->all[i] != pr && !p->all[i].skipped)
			return true;
	return false;
}

static void skip(struct peer *pr, const char *cause)
{
	bool is_last = !another_is_healthy(pr);

	log_at(is_last ? LOG_ERROR : LOG_WARN,
		is_last ? "wechat does not answer: asking once a second until it does"
			: "a wechat host does not answer: it is skipped, and asked once a second "
			  "until it "
			  "does",
		LOG_STR("host", pr->url), LOG_STR("cause", cause));
	pr->skipped = true;
	metric_set(pr->up, 0);
	pr->p->o.on_skipped(pr->p->o.ctx, pr->url);
	if (!pr->probing)
		timer_start(pr->again, 0);
}

static void answered(struct peer *pr)
{
	if (pr->skipped)
		log_info("wechat answers again", LOG_STR("host", pr->url));
	pr->skipped = pr->suspected = false;
	metric_set(pr->up, 1);
	pr->unconnected = pr->unanswered = 0;
	timer_stop(pr->again);
}

static bool is_answer(const struct fetch_reply *rp)
{
	return rp->result == FETCH_DONE || rp->result == FETCH_TOO_LARGE;
}

/* ---- the probe ---- */

static void on_probed(void *ctx, const struct fetch_reply *rp)
{
	struct peer *pr = ctx;

	pr->probing = false;
	if (is_answer(rp))
		answered(pr);
	else if (pr->suspected)
		skip(pr, rp->error);
	pr->suspected = false;
	if (pr->skipped && rp->result != FETCH_CLOSED)
		timer_start(pr->again, pr->probed_ms + PEERS_PROBE_MS - clock_ms());
}

static void probe(void *ctx)
{
	struct peer *pr = ctx;
	struct buf url = {0};

	buf_printf(&url, "%s%s", pr->url, pr->path);
	pr->probing = true;
	pr->probed_ms = clock_ms();
	fetch_start(pr->p->o.fetch,
		&(struct fetch_request){.method = "GET",
			.url = url.data,
			.timeout_ms = pr->p->o.timeout_ms,
			.probe = true},
		on_probed, pr);
	buf_free(&url);
}

/* ---- evidence ---- */

static void keep_path(struct peer *pr, const char *path)
{
	mem_free_secret(pr->path);
	pr->path = mem_strdup(path);
}

static void not_connected(struct peer *pr, const struct fetch_reply *rp)
{
	if (++pr->unconnected >= (another_is_healthy(pr) ? PEERS_UNCONNECTED : PEERS_UNANSWERED))
		skip(pr, rp->error);
}

static void not_answered(struct peer *pr)
{
	pr->unconnected = 0;
	if (++pr->unanswered < PEERS_UNANSWERED || pr->probing ||
		clock_ms() < pr->probed_ms + PEERS_PROBE_MS)
		return;
	pr->suspected = true;
	probe(pr);
}

void peers_note(struct peers *p, size_t peer, const struct fetch_reply *rp, const char *path)
{
	struct peer *pr = &p->all[peer];

	/* our own doing: says nothing about WeChat */
	if (rp->result == FETCH_REFUSED || rp->result == FETCH_CLOSED)
		return;
	if (is_answer(rp)) {
		answered(pr);
		return;
	}
	if (pr->skipped)
		return; /* sent before that */
	keep_path(pr, path);
	if (rp->not_sent)
		not_connected(pr, rp);
	else
		not_answered(pr);
}

/* ---- the object ---- */

struct peers *peers_new(struct loop *l, const struct peers_options *o)
{
	struct peers *p = mem_alloc(sizeof(*p));

	p->o = *o;
	p->all = mem_alloc(o->count * sizeof(*p->all));
	for (size_t i = 0; i < o->count; i++) {
		struct peer *pr = &p->all[i];

		*pr = (struct peer){.p = p, .url = mem_strdup(o->urls[i])};
		pr->again = timer_new(l, probe, pr);
		pr->up = metric_series(METRIC_WECHAT_HOST_UP, pr->url, NULL, NULL);
		metric_set(pr->up, 1);
	}
	return p;
}

void peers_free(struct peers *p)
{
	for (size_t i = 0; i < p->o.count; i++) {
		timer_free(p->all[i].again);
		free(p->all[i].url);
		mem_free_secret(p->all[i].path);
	}
	free(p->all);
	free(p);
}
