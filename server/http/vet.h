/* Reading HTTP/1 messages strictly (RFC 9112): pure functions over bytes, no sockets. What the RFC
 * calls an error is an error here; nothing is guessed, since a proxy before us may have guessed
 * otherwise. */
#ifndef HTTP_VET_H
#define HTTP_VET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/outcome.h"
#include "http/req.h"

enum { VET_LINE_MAX = 8191, VET_HEAD_MAX = 32 * 1024, VET_FIELDS_MAX = 100 };

struct vet_field { /* offsets into the head */
	uint32_t name, name_len, value, value_len; /* value trimmed */
};

struct vet_head {
	/* of the whole head, the empty line included; of the lines that are whole, where it is not
	 * OK */
	size_t   len;
	enum method method;
	uint32_t method_len;       /* the method is at offset 0 */
	uint32_t path, path_len, query, query_len; /* query without its '?' */
	/* host[:port] of the target, or else of the Host field; empty when there is none */
	uint32_t host, host_len;
	int      minor;            /* HTTP/1.minor */
	bool     keep_alive, chunked, expect;
	uint64_t content_length;
	size_t   field_count;
	struct vet_field fields[VET_FIELDS_MAX];
};

/* Whether p is a uri-host with or without a port (RFC 9112 section 3.2, RFC 3986 section 3.2.2), or
 * empty. */
bool vet_host(const char *p, size_t n);

/* Looks at the n bytes that have come: OC_PENDING, more must come; OC_OK, h is whole; anything else
 * is the answer, as early as it is sure. max_body bounds Content-Length. */
enum outcome vet_head(const char *p, size_t n, uint64_t max_body, struct vet_head *h);

/* A chunked body, piece by piece; zero it to begin. Extensions are passed over, trailers dropped.
 */
struct vet_chunks {
	int      state;
	uint64_t left;      /* of the chunk */
	size_t   line;      /* bytes of the line being read */
	size_t   trailers;  /* bytes of trailers */
	bool     digit, line_empty;
};

/* Takes up to n bytes, says in *used how many, adds what they carry to out: OC_PENDING, OC_OK (the
 * body is whole), or the error. */
enum outcome vet_chunks(struct vet_chunks *c, const char *p, size_t n, size_t max_body,
	struct buf *out, size_t *used);

#endif
