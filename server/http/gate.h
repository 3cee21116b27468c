/* One client connection, between the socket and the handler: collects a whole vetted message,
 * gives it to the handler, holds what follows until the answer is flushed, and ends connections
 * that take too long. Only this room includes it.
 *
 * evhtp listens, accepts, and owns the connection and its output. Its parser is shown nothing: it
 * corrupts URIs where a message comes in pieces, large forms overrun its stack, and it lets
 * requests be smuggled. */
#ifndef HTTP_GATE_H
#define HTTP_GATE_H

#include <event2/bufferevent.h>
#include <event2/event_struct.h>
#include <netinet/in.h>
#include <stdbool.h>

#include <evhtp/evhtp.h>

#include "http/http.h"
#include "http/vet.h"
#include "http/waits.h"

struct gate {
	struct wait wait;          /* first: its kind is the connection's state */
	struct http *http;
	evhtp_connection_t *conn;
	/* we read, not the bufferevent: it would ask first how much there is */
	struct event readable;
	bool        reading;
	/* bytes that came and are not taken yet; no memory while there are none */
	struct buf  ahead;
	size_t      ahead_taken;   /* of them from the front */
	/* output at the last look, to tell a slow reader from one that stopped */
	size_t      unsent;
	size_t      lingered;      /* bytes thrown away */
	bool        eof, rejected, continued;
	bool        closing;       /* after the answer that is on its way */
	struct vet_chunks chunks;  /* how far a chunked body has come */
	struct req *req;           /* the message: while its body comes, and until it is answered */
	char        peer[INET6_ADDRSTRLEN];
};

/* Wraps a connection evhtp has just accepted. rejected: it is one too many, and counted apart.
 * NULL: out of hooks. */
struct gate *gate_open(struct http *h, evhtp_connection_t *c, bool rejected);
void gate_refuse(struct gate *g, enum outcome oc); /* an error of HTTP itself, and the end */
void gate_overdue(struct gate *g); /* it has waited for as long as its kind of wait may take */
void gate_close(struct gate *g); /* at once */

/* The answer to the current request: bytes out, then the next request or, with close, the end. */
void gate_answer(struct gate *g, const void *p, size_t n, bool close);
void gate_last_word(struct gate *g, const void *p, size_t n); /* to what was no request */

/* Pieces of gate_answer. */
void   gate_write(struct gate *g, const void *p, size_t n);
size_t gate_unsent(const struct gate *g);
void   gate_answered(struct gate *g, bool close);

#endif
