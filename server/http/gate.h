/* One client connection, between the socket and evhtp: collects a whole vetted message, gives evhtp a head of our own making for it,
 * holds what follows until the answer is flushed, and ends connections that take too long. Only this room includes it.
 *
 * evhtp's parser is never shown a byte that came from outside: split reads corrupt its URIs, large forms overrun its stack, and it
 * lets requests be smuggled. It keeps what it is good at: accepting, the connection, and its turn from one request to the next. */
#ifndef HTTP_GATE_H
#define HTTP_GATE_H

#include <event2/bufferevent.h>
#include <event2/buffer.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <evhtp/evhtp.h>

#include "http/http.h"
#include "http/vet.h"

enum gate_state {
	GATE_IDLE,     /* nothing of a request has come */
	GATE_ARRIVING, /* part of one has */
	GATE_BUSY,     /* evhtp has one: it waits for its answer */
	GATE_FLUSHING, /* the answer is on its way out */
	GATE_LINGER,   /* our last word is said: reading on so that the client can read it */
};

struct gate {
	struct gate *prev, *next;  /* http's list by deadline: the first ends first. BUSY ones are not on it */
	struct gate *all_prev, *all_next; /* http's list of every connection */
	bool        listed;
	struct http *http;
	evhtp_connection_t *conn;
	bufferevent_data_cb evhtp_read, evhtp_write;
	struct evbuffer *stash;    /* what came behind a message, out of evhtp's sight; NULL until there was some */
	enum gate_state state;
	int64_t     deadline_ms;
	size_t      unsent;        /* output at the last look, to tell a slow reader from one that stopped */
	size_t      lingered;      /* bytes thrown away */
	bool        eof, rejected, continued;
	struct vet_chunks chunks;  /* how far a chunked body has come */
	struct req *req;           /* the message: while its body comes, and until it is answered */
	char        peer[INET6_ADDRSTRLEN];
	bool       *dead;          /* set when the connection ends while its own code is on the stack */
};

/* Wraps a connection evhtp has just accepted. reject: it is one too many. */
bool gate_open(struct http *h, evhtp_connection_t *c, bool reject);
/* The answer to the current request: bytes out, then the next request or, with close, the end. */
void gate_answer(struct gate *g, const void *p, size_t n, bool close);
void gate_tick(struct gate *g); /* its deadline has come */
void gate_close(struct gate *g); /* at once */

/* Pieces of the answer, for streams. */
void gate_write(struct gate *g, const void *p, size_t n);
size_t gate_unsent(const struct gate *g);
void gate_finish(struct gate *g); /* flush, then close */
void gate_reset(struct gate *g);

#endif
