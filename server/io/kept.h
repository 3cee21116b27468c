/* Scripts whose answer counts only once enough replicas have what they did: the ends of sessions.
 *
 * They have a connection of their own, since WAIT holds up whatever is behind it. What was asked
 * meanwhile goes out together, with one write of our own and one WAIT behind it, and one such batch
 * is on its way at a time. The write is there because WAIT is documented to look at what its own
 * connection wrote: an end that is repeated finds the session ended and writes nothing. (Redis 7.0
 * counts every command of the connection, so there the write changes nothing.) */
#ifndef IO_KEPT_H
#define IO_KEPT_H

#include "io/conn.h"
#include "io/following.h"

struct kept;
struct kept_options {
	struct conn_options conn; /* its purpose and callbacks are ours */
	const char *key;          /* what the write of our own is to; read each time, not copied */
	const int  *replicas;
	struct following *following; /* its replicas, as ROLE lists them */
	/* its answer comes to kept_answered, or not at all */
	void (*send)(void *ctx, struct command *c, struct conn *to);
	void (*again)(void *ctx, struct command *c);                 /* it was not sent */
	/* The batch is over: reply is what kept_answered took. confirmed: enough replicas have it.
	 */
	void (*on_end)(
		void *ctx, struct command *c, bool confirmed, const struct redisReply *reply);
	void (*on_gone)(void *ctx);
	void *ctx;
};

struct kept *kept_new(struct loop *l, const struct kept_options *o);
void kept_free(struct kept *k);
void kept_drop(struct kept *k, const char *why); /* its connection; a new one is made */
/* true: c is ours until send or again; false: not connected, or full */
bool kept_take(struct kept *k, struct command *c);
/* The script did what it should: c is ours until on_end, and so is the reply, which came on our
 * connection just now. */
void kept_answered(struct kept *k, struct command *c, const struct redisReply *reply);

#endif
