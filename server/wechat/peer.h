/* WeChat's hosts, in the order in which they are preferred, and which of them are healthy.
 *
 * A host to which a few connections in a row could not be made is skipped at once. One that takes
 * requests and gives no answer to some in a row is only suspected: what one caller sends must not
 * keep the others out. Then a request of our own, the probe, decides. While a host is skipped the
 * probe goes out once a second; any HTTP answer brings the host back. A probe has a connection of
 * its own, and no login waits for it. Only call.c includes this. */
#ifndef WECHAT_PEER_H
#define WECHAT_PEER_H

#include <stddef.h>
#include <stdint.h>

#include "io/fetch.h"

enum {
	/* connections in a row that could not be made: the host is skipped, if another is healthy;
	 */
	PEERS_UNCONNECTED = 3,
	PEERS_UNANSWERED = 10,  /* else, or without an answer though connected: this many */
	PEERS_PROBE_MS = 1000,
};

struct peers;

struct peers_options {
	const char *const *urls; /* copied */
	size_t  count;
	int64_t timeout_ms;      /* of a probe */
	struct fetch *fetch;     /* for probes */
	void  (*on_skipped)(void *ctx, const char *url);
	void   *ctx;
};

struct peers *peers_new(struct loop *l, const struct peers_options *o);
void peers_free(struct peers *p); /* after fetch_free */

#define PEERS_NONE SIZE_MAX
/* the first healthy one from there on, or PEERS_NONE */
size_t      peers_pick(const struct peers *p, size_t from);
const char *peers_url(const struct peers *p, size_t peer);

/* What became of a request. path: of a probe that asks the same app, should one be needed; copied,
 * secret. */
void peers_note(struct peers *p, size_t peer, const struct fetch_reply *rp, const char *path);

#endif
