/* The sentinels of a URL: who is the master, and until when that is proven. A master is believed
 * when more than half of all that the URL names say so; two such majorities have a sentinel in
 * common, and a sentinel never goes back by itself. Each is asked ten times a second: what they
 * publish of themselves comes seconds late. */
#ifndef IO_SENTINEL_H
#define IO_SENTINEL_H

#include "io/conn.h"
#include "io/quorum.h"

struct sentinels;

struct sentinels_options {
	const struct redis_host *hosts; /* borrowed for the call */
	size_t      count;              /* at most SENTINELS_MAX */
	const char *master_name;
	const char *user, *password;    /* at the sentinels; "" = none */
	int         timeout_ms;
	struct tls *tls;
	/* a majority names this one, and did not before */
	void      (*on_master)(void *ctx, const char *host, int port);
	/* the majority still named it when it was asked then */
	void      (*on_proof)(void *ctx, int64_t proven_ms);
	void      (*on_gone)(void *ctx);                               /* as a connection's */
	void       *ctx;
};

enum { SENTINELS_MAX = 32 };

struct sentinels *sentinels_new(struct loop *l, const struct sentinels_options *o);
void sentinels_free(struct sentinels *s);
/* why no master is named; "" when one is */
const char *sentinels_trouble(const struct sentinels *s);

#endif
