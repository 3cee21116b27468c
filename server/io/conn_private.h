/* What the files of a connection share: conn.c, the queue of who asked what; dial.c, its socket,
 * and how it is got again. */
#ifndef IO_CONN_PRIVATE_H
#define IO_CONN_PRIVATE_H

#include <sys/socket.h>
#include <sys/types.h>

#include <event2/event_struct.h>
#include <hiredis/hiredis.h>

#include "common/buf.h"
#include "io/conn.h"
#include "io/tls.h"

enum {
	ADDRESSES_MAX = 8,
	BACKOFF_MIN_MS = 50,
	BACKOFF_MAX_MS = 1000,
	WHY_MAX = REPLY_SENTENCE_MAX + 40,
};

enum state { ST_DOWN, ST_RESOLVING, ST_CONNECTING, ST_TLS, ST_HANDSHAKE, ST_UP };
enum kind { OWNERS, HANDSHAKE, OPTIONAL, LAST_OF_HANDSHAKE };

struct pending {
	struct asked a;
	int64_t      deadline_ms;
	enum kind    kind;          /* all but OWNERS are our own: a.fn is NULL */
};

struct conn {
	struct loop *loop;
	struct conn_options o;      /* its strings are ours */
	char address[128];          /* for the log */

	/* the connection */
	enum state   state;
	int          fd;            /* -1 = none */
	struct tls_link *link;      /* NULL = plain */
	bool         write_waits;   /* for the socket to be readable, as TLS may ask */
	struct event readable, writable;
	struct event flush;         /* at the end of the turn */
	redisReader *reader;
	bool         reply_kept;    /* by whoever was told it */
	size_t       reply_bytes;   /* fed since the last complete reply */
	struct buf   out;
	size_t       out_sent;
	unsigned     generation;    /* tells a callback's return that the connection is another */
	uint64_t     scripts;       /* that the peer knows, a bit each */
	/* the last error during the handshake, in case it hangs up then */
	char         said[WHY_MAX];

	/* who asked: a ring */
	struct pending *ring;
	size_t ring_size, head, count;
	size_t owners;              /* of them, not our own */
	struct timer *late;         /* connecting, or the head of the ring */
	bool   late_set;

	/* coming back */
	struct resolve *resolve;
	struct sockaddr_storage addrs[ADDRESSES_MAX];
	socklen_t addr_len[ADDRESSES_MAX];
	size_t addr_count, addr_next;
	struct timer *retry;
	int      backoff_ms;
	int64_t  up_ms;             /* since when it is up */
	unsigned seed;
	char     trouble[WHY_MAX];  /* logged last, so that a long outage is one line */

	int  depth;                 /* callbacks in progress: memory must outlive them */
	bool freed;
};

/* ---- conn.c ---- */

void conn_enter(struct conn *c); /* around callbacks, which may free c: memory must outlive them */
void conn_leave(struct conn *c);
/* the same again is no news */
void conn_log_trouble(struct conn *c, enum log_level level, const char *msg, const char *why);
/* the socket and all that belongs to it; nobody in the ring is told */
void conn_close(struct conn *c);
void conn_greet(struct conn *c); /* the socket stands: the handshake begins */
void conn_write_some(struct conn *c);
void conn_on_readable(evutil_socket_t fd, short what, void *arg);

/* ---- dial.c ---- */

void conn_start(void *ctx); /* ctx is the connection: looks up its name, and tries each address */
/* the next address of this round, or the end of the round */
void conn_try_next(struct conn *c, const char *why);
void conn_retry_later(struct conn *c);
void conn_tls_step(struct conn *c);
ssize_t conn_read(struct conn *c, void *p, size_t n); /* as read() and write(), over TLS or not */
ssize_t conn_write(struct conn *c, const void *p, size_t n);
const char *conn_error(struct conn *c); /* of the last one */

#endif
