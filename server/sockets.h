/* The sockets that this process listens on: opened as configured, or handed over. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "config/config.h"
#include "handover.h"

struct sockets {
	struct listen_socket *side[2]; /* public, internal */
	size_t         count[2];
	struct handed  handed;
	bool           internal_is_local;
};

/* false: it is logged what cannot be listened on, or that the configuration forbids it. */
bool sockets_open(struct sockets *s, const struct config *c);
void sockets_close(struct sockets *s); /* accepts no more: may be called again */
/* Removes the files of unix sockets, unless another process has them now. Frees what was opened. */
void sockets_end(struct sockets *s, bool handed_over);

#endif
