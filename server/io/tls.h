/* TLS on a connected, non-blocking socket, for whoever reads and writes it by himself. The peer's
 * certificate is always verified: chain, dates, and the name or address that was connected to.
 * TLS 1.2 or later, no renegotiation. */
#ifndef IO_TLS_H
#define IO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct tls;
struct tls_link;

struct tls_options {
	const char *ca_file;   /* "" = the system's */
	/* verified instead of the host that was connected to; "" = that host */
	const char *name;
	const char *cert_file; /* our own certificate, where the peer asks for one; "" = none */
	const char *key_file;
};

enum { TLS_DONE = 1, TLS_END = 0, TLS_READ = -1, TLS_WRITE = -2, TLS_BAD = -3 };

/* NULL: a file cannot be read, and err says which. The files are read again when one of them has
 * changed, for the connections to come. */
struct tls *tls_new(const struct tls_options *o, char *err, size_t err_size);
void tls_free(struct tls *t); /* NULL is fine */

struct tls_link *tls_open(struct tls *t, int fd, const char *host); /* fd stays its owner's */
void tls_close(struct tls_link *l); /* NULL is fine */

/* Each says how many bytes, TLS_END, or what to wait for: again when the socket can be read
 * (TLS_READ) or written (TLS_WRITE). */
int     tls_handshake(struct tls_link *l); /* TLS_DONE, TLS_READ, TLS_WRITE or TLS_BAD */
ssize_t tls_read(struct tls_link *l, void *p, size_t n);
ssize_t tls_write(struct tls_link *l, const void *p, size_t n);
/* bytes that were received and not read: the socket will not say so */
bool    tls_has_more(const struct tls_link *l);
const char *tls_why(struct tls_link *l);   /* after TLS_BAD */

#endif
