/* What a Redis Cluster says of itself, read: no sockets here. */
#ifndef IO_SLOTS_H
#define IO_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/reply.h"

enum {
	SLOTS = 16384,
	SLOT_NODES_MAX = 128,
	SLOT_NOBODY = 255,
	SLOT_HOST_MAX = 256,
	SLOT_ID_MAX = 48
};

/* CRC16 of the key, or of what stands between its first { and the next } when that is not empty. */
unsigned slot_of(const char *key, size_t len);

struct slot_node {
	char id[SLOT_ID_MAX];
	char host[SLOT_HOST_MAX];
	int  port;
};

struct slot_map {
	struct slot_node nodes[SLOT_NODES_MAX]; /* masters that own a slot */
	size_t  count;
	size_t  covered;        /* slots that somebody owns */
	uint8_t owner[SLOTS];   /* which of nodes, or SLOT_NOBODY */
};

/* The answer to CLUSTER SLOTS. asked: the host that gave it, which an empty host stands for. false:
 * that is no answer to it. */
bool slot_map_read(struct slot_map *m, const struct redisReply *v, const char *asked);

/* "MOVED 3421 127.0.0.2:6379" or "ASK ...": false when it is neither, or names nobody ("?"). */
struct slot_redirect {
	bool     is_ask;
	unsigned slot;
	char     host[SLOT_HOST_MAX];
	int      port;
};
bool slot_redirect_read(struct slot_redirect *r, const char *error, const char *asked);

/* The answer to CLUSTER INFO. */
bool slot_info_read(const char *text, bool *state_ok, int64_t *epoch);

/* A hash tag, of a session's kind, whose slot fits: owner[slot] == who. */
bool slot_tag(const uint8_t owner[SLOTS], uint8_t who, char tag[8]);

#endif
