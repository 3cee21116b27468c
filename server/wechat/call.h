/* One call to WeChat: pick a host, ask, read, and ask again where that is safe. Only this room
 * includes it; wechat.c holds the kinds. */
#ifndef WECHAT_CALL_H
#define WECHAT_CALL_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "wechat/errcode.h"
#include "wechat/wechat.h"

/* Connections that nobody else can fill. */
enum call_pool { POOL_LOGIN, POOL_TOKEN, POOL_SERVICE, POOL_PASS, POOL_COUNT };

struct call;

struct call_kind {
	enum call_api  api;
	const char    *name;      /* the metric's label */
	enum call_pool pool;
	/* may be sent again when no answer came: it changes nothing, or the same twice */
	bool           repeatable;
	/* not asked again when WeChat says -1: it may have counted it all the same */
	bool           once;
	/* read sees those too, and returns PENDING for what it leaves to the table */
	bool           refusals;
	/* the answer is the caller's business: read is given it as it came, errcode or not */
	bool           raw;
	/* Makes path and body of the next try, in the arena. */
	void (*build)(struct call *c, struct fetch_request *rq, const char *host);
	/* Takes what it needs out of an answer; what it borrows lives until end returns. tree is an
	 * object, but may be NULL for a raw kind; c->errcode is WeChat's. */
	enum outcome (*read)(struct call *c, const cJSON *tree, const struct fetch_reply *rp);
	void (*end)(struct call *c, enum outcome oc); /* tells the caller */
};

struct call {
	struct call *prev, *next;
	struct wechat *wx;
	const struct call_kind *kind;
	struct arena *arena;      /* holds the call itself */
	const char *appid, *secrets[2];
	/* more that WeChat's errmsg must not carry into the log: a code, an access_token; or NULL
	 */
	const char *hide[2];
	size_t  host;             /* index into the peers, or PEERS_NONE */
	int     secret;           /* index into secrets */
	int     busy;             /* how often WeChat said -1 */
	bool    resent;
	int64_t deadline_ms, started_us;
	struct timer *pause;      /* before the next try */
	int     errcode;
};

/* A call of size bytes (a struct that begins with struct call), zeroed, in an arena of its own. */
void *call_new(
	struct wechat *wx, const struct call_kind *kind, size_t size, const struct wechat_app *app);
void  call_start(struct call *c, int64_t timeout_ms);

/* For read: logs what is wrong with an answer, and gives WECHAT_ERROR. */
enum outcome call_wrong(const struct call *c, const char *what, const struct fetch_reply *rp);

#endif
