#include "io/slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/encode.h"

/* CRC16-CCITT (XMODEM), four bits at a time. */
static unsigned crc16(const char *p, size_t n)
{
	static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6,
		0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
	unsigned crc = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned byte = (unsigned char)p[i];

		crc = (crc << 4 & 0xffff) ^ table[(crc >> 12) ^ (byte >> 4)];
		crc = (crc << 4 & 0xffff) ^ table[(crc >> 12) ^ (byte & 15)];
	}
	return crc;
}

unsigned slot_of(const char *key, size_t len)
{
	const char *open = memchr(key, '{', len), *close = NULL;

	if (open)
		close = memchr(open + 1, '}', len - (size_t)(open + 1 - key));
	if (close && close > open + 1)
		return crc16(open + 1, (size_t)(close - open - 1)) % SLOTS;
	return crc16(key, len) % SLOTS;
}

static bool copy(char *out, size_t max, const char *s, size_t len)
{
	if (len == 0 || len >= max || memchr(s, '\0', len))
		return false;
	memcpy(out, s, len);
	out[len] = '\0';
	return true;
}

/* "ip" among the pairs that follow a node's id. */
static const char *ip_of(const struct redisReply *node)
{
	const struct redisReply *more = redis_reply_at(node, 3);

	for (size_t i = 0; i + 1 < redis_reply_count(more); i += 2) {
		const char *name = redis_reply_str(redis_reply_at(more, i), NULL);

		if (name && !strcmp(name, "ip"))
			return redis_reply_str(redis_reply_at(more, i + 1), NULL);
	}
	return NULL;
}

static bool read_node(struct slot_node *n, const struct redisReply *v, const char *asked)
{
	size_t host_len, id_len;
	const char *host = redis_reply_str(redis_reply_at(v, 0), &host_len),
		   *id = redis_reply_str(redis_reply_at(v, 2), &id_len);
	int64_t port;

	if (!redis_reply_int(redis_reply_at(v, 1), &port) || port < 1 || port > 65535 || !id ||
		!copy(n->id, sizeof(n->id), id, id_len))
		return false;
	n->port = (int)port;
	if (!host || !*host)
		host = asked;
	else if (!strcmp(host, "?"))
		host = ip_of(v);
	return host && copy(n->host, sizeof(n->host), host, strlen(host));
}

/* Which of the map's nodes it is; SLOT_NOBODY when there is no room for one more. */
static uint8_t enter_node(struct slot_map *m, const struct slot_node *n)
{
	for (size_t i = 0; i < m->count; i++)
		if (!strcmp(m->nodes[i].id, n->id))
			return (uint8_t)i;
	if (m->count == SLOT_NODES_MAX)
		return SLOT_NOBODY;
	m->nodes[m->count] = *n;
	return (uint8_t)m->count++;
}

bool slot_map_read(struct slot_map *m, const struct redisReply *v, const char *asked)
{
	if (reply_error(v) || !redis_reply_is_array(v))
		return false;
	m->count = m->covered = 0;
	memset(m->owner, SLOT_NOBODY, sizeof(m->owner));
	for (size_t i = 0; i < redis_reply_count(v); i++) {
		const struct redisReply *range = redis_reply_at(v, i);
		struct slot_node node;
		int64_t from, to;
		uint8_t who;

		if (!redis_reply_int(redis_reply_at(range, 0), &from) ||
			!redis_reply_int(redis_reply_at(range, 1), &to) || from < 0 || from > to ||
			to >= SLOTS)
			return false;
		if (!read_node(&node, redis_reply_at(range, 2), asked))
			/* a node that nobody knows the address of: its slots are nobody's */
			continue;
		who = enter_node(m, &node);
		for (; who != SLOT_NOBODY && from <= to; from++) {
			m->covered += m->owner[from] == SLOT_NOBODY;
			m->owner[from] = who;
		}
	}
	return true;
}

bool slot_redirect_read(struct slot_redirect *r, const char *error, const char *asked)
{
	const char *p, *colon;
	char *end;
	unsigned long n;

	r->is_ask = !strncmp(error, "ASK ", 4);
	if (!r->is_ask && strncmp(error, "MOVED ", 6) != 0)
		return false;
	p = error + (r->is_ask ? 4 : 6);
	n = strtoul(p, &end, 10);
	if (end == p || *end != ' ' || n >= SLOTS || *p == '-')
		return false;
	r->slot = (unsigned)n;
	p = end + 1;
	colon = strrchr(p, ':');
	if (!colon)
		return false;
	n = strtoul(colon + 1, &end, 10);
	if (end == colon + 1 || *end || n < 1 || n > 65535)
		return false;
	r->port = (int)n;
	if (colon == p)
		return copy(r->host, sizeof(r->host), asked, strlen(asked));
	return *p != '?' && copy(r->host, sizeof(r->host), p, (size_t)(colon - p));
}

bool slot_info_read(const char *text, bool *state_ok, int64_t *epoch)
{
	const char *state = strstr(text, "cluster_state:"),
		   *at = strstr(text, "cluster_current_epoch:");

	if (!state || !at)
		return false;
	*state_ok = !strncmp(state + 14, "ok", 2);
	*epoch = strtoll(at + 22, NULL, 10);
	return *epoch >= 0;
}

bool slot_tag(const uint8_t owner[SLOTS], uint8_t who, char tag[8])
{
	for (unsigned i = 0; i < 65536; i++) {
		const uint8_t bytes[2] = {(uint8_t)(i >> 8), (uint8_t)i};

		base64url_encode(tag, bytes, sizeof(bytes));
		if (owner[slot_of(tag, strlen(tag))] == who)
			return true;
	}
	return false;
}
