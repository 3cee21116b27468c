/* One errand: look in Redis; if there is no token, renew it when the lock is ours, or look again
 * until somebody has. */
#include "api/keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"

enum { LOOK_FIRST_MS = 20, LOOK_MAX_MS = 250, SLACK_MS = 2000 };

struct keeper {
	struct loop   *loop;
	struct tokens *tokens;
	struct wechat *wechat;
	int64_t        timeout_ms; /* of one call to WeChat */
	bool           closed;     /* nobody is given a token any more */
	struct errand *errands;
};

struct waiter {
	struct waiter *next;
	keeper_cb cb;
	void *ctx;
};

struct errand {
	struct errand *prev, *next;
	struct keeper *k;
	struct arena  *arena;
	struct wechat_app app;
	struct token_report report;
	char           holder[18];   /* what we sign the lock with */
	struct waiter *waiters;
	bool           forced;       /* the renewal under way is */
	int64_t        deadline_ms;
	struct timer  *again;
	int            look_ms;
	const char    *token;        /* WeChat's */
	int64_t        expires_in_s;
};

static int64_t lock_ms(const struct keeper *k)
{
	return 2 * k->timeout_ms + SLACK_MS; /* a normal renewal, and a forced one after it */
}

/* ---- what /metrics tells of an app's token: how it goes, never what it is ---- */

static void note_end(const char *appid, int64_t left_s)
{
	metric_set(metric_series(METRIC_TOKEN_END, appid, NULL, NULL),
		left_s > 0 ? clock_wall_s() + left_s : 0);
}

void keeper_show(const char *appid)
{
	metric_series(METRIC_TOKEN_END, appid, NULL, NULL);
	metric_series(METRIC_TOKEN_RENEWALS, appid, outcome_code(OC_OK), NULL);
}

/* Tells all who wait; more may come of the errand, but nobody joins it. */
static void answer(struct errand *e, const struct keeper_answer *ans)
{
	static const struct keeper_answer too_late = {.oc = OC_WECHAT_UNAVAILABLE};
	struct waiter *w = e->waiters;

	e->waiters = NULL;
	for (; w; w = w->next)
		w->cb(w->ctx, e->k->closed && ans->oc == OC_OK ? &too_late : ans);
}

static void finish(struct errand *e, const struct keeper_answer *ans)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): e is on the list */
	DL_DELETE(e->k->errands, e);
	answer(e, ans);
	timer_free(e->again);
	arena_free(e->arena);
}

static void give_up(struct errand *e, enum outcome oc, int errcode)
{
	finish(e, &(struct keeper_answer){.oc = oc,
			  .errcode = errcode,
			  .retry_after_s = wechat_retry_after_s(errcode)});
}

/* The renewal that was ours came to nothing: those of other processes are told so, too. */
static void fail(struct errand *e, const struct keeper_answer *why)
{
	metric_inc2(TOKEN_RENEWALS, e->app.appid, outcome_code(why->oc));
	token_fail(e->k->tokens, e->app.appid, e->holder, why->oc, why->errcode);
	finish(e, why);
}

/* ---- renewing ---- */

static void renew(struct errand *e);

static void on_may_force(void *ctx, enum outcome oc, int64_t wait_ms)
{
	struct errand *e = ctx;

	if (oc == OC_OK && wait_ms == 0) {
		log_warn("an access_token was reported stale: forcing a new one",
			LOG_STR("appid", e->app.appid));
		e->forced = true;
		renew(e);
		return;
	}
	if (oc == OC_OK)
		log_warn("an access_token was reported stale, but WeChat's limits do not allow "
			 "forcing a new one yet",
			LOG_STR("appid", e->app.appid), LOG_INT("wait_ms", wait_ms));
	fail(e, &(struct keeper_answer){.oc = oc == OC_OK ? OC_WECHAT_UNAVAILABLE : oc,
			.retry_after_s = (int)((wait_ms + 999) / 1000)});
}

static void on_saved(void *ctx, enum outcome oc, bool dead)
{
	struct errand *e = ctx;

	if (oc == OC_OK && dead && !e->forced) {
		token_force(e->k->tokens, e->app.appid, on_may_force, e);
	} else if (oc == OC_OK && dead) {
		/* forced elsewhere just now */
		fail(e, &(struct keeper_answer){.oc = OC_WECHAT_UNAVAILABLE,
				.retry_after_s = TOKEN_FORCE_PAUSE_MS / 1000});
	} else { /* Redis may not have it: it is good all the same */
		metric_inc2(TOKEN_RENEWALS, e->app.appid, outcome_code(OC_OK));
		note_end(e->app.appid, e->expires_in_s);
		finish(e, &(struct keeper_answer){
				  .token = e->token, .expires_in_s = e->expires_in_s});
	}
}

static void on_token(
	void *ctx, enum outcome oc, const char *access_token, int64_t expires_in_s, int errcode)
{
	struct errand *e = ctx;

	if (oc != OC_OK) {
		fail(e, &(struct keeper_answer){.oc = oc,
				.errcode = errcode,
				.retry_after_s = wechat_retry_after_s(errcode)});
		return;
	}
	e->token = arena_strdup(e->arena, access_token);
	e->expires_in_s = expires_in_s;
	token_save(e->k->tokens, e->app.appid, e->holder, e->token, expires_in_s, on_saved, e);
}

static void renew(struct errand *e)
{
	wechat_stable_token(e->k->wechat, &e->app, e->forced, on_token, e);
}

/* ---- looking ---- */

static void look(void *ctx);

static void on_look(void *ctx, enum outcome oc, const struct token_look *l)
{
	struct errand *e = ctx;

	if (oc != OC_OK) {
		give_up(e, oc, 0);
		return;
	}
	note_end(e->app.appid, l->token ? l->left_ms / 1000 : 0);
	if (l->token)
		answer(e, &(struct keeper_answer){
				  .token = l->token, .expires_in_s = l->left_ms / 1000});
	if (l->ours) {
		renew(e);
	} else if (l->token) {
		finish(e, &(struct keeper_answer){.oc = OC_OK}); /* nobody waits any more */
	} else if (l->failed != OC_OK) {
		give_up(e, l->failed, l->errcode);
	} else if (clock_ms() + e->look_ms >= e->deadline_ms) {
		give_up(e, OC_WECHAT_UNAVAILABLE, 0);
	} else {
		timer_start(e->again, e->look_ms);
		e->look_ms = e->look_ms * 2 < LOOK_MAX_MS ? e->look_ms * 2 : LOOK_MAX_MS;
	}
}

static void look(void *ctx)
{
	struct errand *e = ctx;

	token_look(e->k->tokens, e->app.appid, &e->report, e->holder, lock_ms(e->k), on_look, e);
}

static bool same(const struct token_report *a, const struct token_report *b)
{
	return a->drop == b->drop &&
	       (a->token == b->token || (a->token && b->token && !strcmp(a->token, b->token)));
}

static struct errand *errand_new(
	struct keeper *k, const struct wechat_app *app, const struct token_report *report)
{
	struct arena *a = arena_new();
	struct errand *e = arena_alloc(a, sizeof(*e));
	uint8_t random[8];

	e->k = k;
	e->arena = a;
	e->app.appid = arena_strdup(a, app->appid);
	for (size_t i = 0; i < NELEM(app->secrets); i++)
		e->app.secrets[i] = app->secrets[i] ? arena_strdup(a, app->secrets[i]) : NULL;
	e->report = *report;
	if (report->token)
		e->report.token = arena_strdup(a, report->token);
	crypt_random(random, sizeof(random));
	hex_encode(e->holder, random, sizeof(random));
	e->look_ms = LOOK_FIRST_MS;
	e->deadline_ms = clock_ms() + lock_ms(k) + k->timeout_ms;
	e->again = timer_new(k->loop, look, e);
	DL_APPEND(k->errands, e);
	return e;
}

static void get(struct keeper *k, const struct wechat_app *app, const struct token_report *report,
	keeper_cb cb, void *ctx)
{
	struct errand *e;
	struct waiter *w;

	/* one without waiters was answered: its token may be another by now */
	DL_FOREACH(k->errands, e)
		if (e->waiters && !strcmp(e->app.appid, app->appid) && same(&e->report, report))
			break;
	if (!e) {
		e = errand_new(k, app, report);
		look(e);
	}
	w = arena_alloc(e->arena, sizeof(*w));
	*w = (struct waiter){e->waiters, cb, ctx};
	e->waiters = w;
}

void keeper_get(struct keeper *k, const struct wechat_app *app, keeper_cb cb, void *ctx)
{
	get(k, app, &(struct token_report){.token = NULL}, cb, ctx);
}

void keeper_drop(
	struct keeper *k, const struct wechat_app *app, const char *bad, keeper_cb cb, void *ctx)
{
	get(k, app, &(struct token_report){.token = bad, .drop = true}, cb, ctx);
}

/* ---- a call that needs it ---- */

static void on_use_token(void *ctx, const struct keeper_answer *ans)
{
	struct keeper_use *u = ctx;

	if (ans->oc != OC_OK) {
		u->fail(u->ctx, ans);
		return;
	}
	u->token = arena_strdup(u->arena, ans->token);
	u->call(u->ctx, u->token);
}

void keeper_use(struct keeper_use *u)
{
	keeper_get(u->keeper, u->app, on_use_token, u);
}

bool keeper_use_again(struct keeper_use *u, int errcode)
{
	if (u->again || !wechat_token_is_stale(errcode))
		return false;
	u->again = true;
	get(u->keeper, u->app, &(struct token_report){.token = u->token}, on_use_token, u);
	return true;
}

/* ---- the object ---- */

struct keeper *keeper_new(
	struct loop *l, struct tokens *t, struct wechat *wx, int64_t wechat_timeout_ms)
{
	struct keeper *k = mem_alloc(sizeof(*k));

	*k = (struct keeper){.loop = l, .tokens = t, .wechat = wx, .timeout_ms = wechat_timeout_ms};
	return k;
}

void keeper_close(struct keeper *k)
{
	k->closed = true;
}

void keeper_free(struct keeper *k)
{
	struct errand *e, *next;

	if (!k)
		return;
	DL_FOREACH_SAFE(k->errands, e, next) /* in a pause between two looks */
		give_up(e, OC_WECHAT_UNAVAILABLE, 0);
	free(k);
}
