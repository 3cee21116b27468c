/* TLS before the plain server: what comes over TLS goes on to it over loopback, and back. It ends
 * connections as real servers do, with close_notify and then FIN; a reset stays a reset. */
#ifndef WXFAKE_TLS_H
#define WXFAKE_TLS_H

#include "http/http.h"

struct tls_front;

/* PEM files; NULL: they cannot be used */
struct tls_front *tls_front_new(struct loop *l, const char *cert, const char *key);
/* at addr, for h */
bool tls_front_listen(
	struct tls_front *t, struct http *h, const char *addr, char *err, size_t err_len);
void tls_front_free(struct tls_front *t); /* closes everything; before h; NULL is fine */

#endif
