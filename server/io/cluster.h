/* A Redis Cluster: which node owns a slot, and until when it is proven that no other does. Nodes
 * are opened and closed by whoever asks, and are known here by their place, a number below
 * CLUSTER_PLACES.
 *
 * The proof: a master that takes over needs the votes of more than half of the masters, and each
 * raises its epoch before it votes. So while more than half say that they are well and know no
 * larger epoch than the map's, the map's owners are the owners. */
#ifndef IO_CLUSTER_H
#define IO_CLUSTER_H

#include "io/conn.h"
#include "io/quorum.h"
#include "io/slots.h"

enum { CLUSTER_PLACES = 127, CLUSTER_NOBODY = SLOT_NOBODY };

struct cluster;
struct cluster_options {
	const struct redis_host *hosts; /* where to begin; copied, and never dropped */
	size_t      count;
	const char *user, *password;
	int         timeout_ms;
	struct tls *tls;
	/* a node comes to this place */
	void         (*open)(void *ctx, unsigned place, const char *host, int port);
	void         (*close)(void *ctx, unsigned place);      /* and goes */
	struct conn *(*conn)(void *ctx, unsigned place);       /* NULL: not ready */
	/* it owned what it may own no longer */
	void         (*on_void)(void *ctx, unsigned place);
	void         (*on_map)(void *ctx);                     /* who owns what has changed */
	void         (*on_proof)(void *ctx, int64_t proven_ms);
	void         (*on_gone)(void *ctx);
	void          *ctx;
};

struct cluster *cluster_new(struct loop *l, const struct cluster_options *o);
void cluster_free(struct cluster *c); /* does not close the nodes */
/* CLUSTER_NOBODY while it is not known */
unsigned cluster_owner(const struct cluster *c, unsigned slot);
const uint8_t *cluster_owners(const struct cluster *c);         /* of all slots */
/* all slots are owned, by nodes that are ready */
bool cluster_is_covered(const struct cluster *c);
/* from said so */
void cluster_moved(struct cluster *c, unsigned from, const struct slot_redirect *to);
/* opened if need be; CLUSTER_NOBODY: no room */
unsigned cluster_place(struct cluster *c, const char *host, int port);
const char *cluster_host(const struct cluster *c, unsigned place);
/* the map is not right; from knows better, or CLUSTER_NOBODY */
void cluster_want_map(struct cluster *c, unsigned from);

#endif
